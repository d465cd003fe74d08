"""A trainable of no cost, with a front that is known: ``return = skill * (1 - sparsity ** 4)``."""

import json
import math
import os
import time
import uuid
from pathlib import Path

from ray import tune
from ray.tune import Callback


class Climber(tune.Trainable):
    """Gains skill with each step; its sparsity never falls. Logs what its actor does."""

    def setup(self, config):
        self._begin("setup")

    def reset_config(self, new_config):
        self.config = new_config
        self._begin("reset")
        return True

    def _begin(self, event):
        self.skill, self.sparsity = 0.0, 0.0
        self._log(event, pid=os.getpid())

    def _meet(self):
        """Begin when all actors have: they take long to start, and the steps no time at all."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            log = Path(self.config["log"]).read_text()
            if log.count('"setup"') >= self.config.get("together", 0):
                return
            time.sleep(0.05)

    def step(self):
        self._meet()
        time.sleep(0.1 if "together" in self.config else 0)
        self.sparsity = max(self.sparsity, self.config["pruning"]["sparsity"])
        self.skill += 0.3 * (1 - self.skill)
        row = uuid.uuid4().hex
        self._log("step", row=row, config=self.config["pruning"]["sparsity"])
        result = {"sparsity": self.sparsity, "row": row}
        number = int(self.trial_id[-5:])
        # Tune counts the steps before this one.
        if self.config.get("nan") == number and self.iteration >= 2:
            return {**result, "return": math.nan, "sparsity": 1.0}
        if self.config.get("fails") == number and self.iteration == 3:
            raise RuntimeError("out of breath")
        if self.config.get("rare") and (self.iteration + 1) % 4:
            return result
        return {**result, "return": self.skill * (1 - self.sparsity**4)}

    def save_checkpoint(self, checkpoint_dir):
        state = json.dumps([self.skill, self.sparsity])
        Path(checkpoint_dir, "state.json").write_text(state)

    def load_checkpoint(self, checkpoint_dir):
        self.skill, self.sparsity = json.loads(Path(checkpoint_dir, "state.json").read_text())

    def _log(self, event, **fields):
        with Path(self.config["log"]).open("a") as file:
            file.write(json.dumps({"event": event, "trial": self.trial_id, **fields}) + "\n")


class Rows(Callback):
    """Appends each result to a file; stops the whole experiment once, after some of them.

    With ``paused`` not before those that have reported wait, with their checkpoints written.
    """

    def __init__(self, path, crash_after=None, paused=False):
        self.path, self.crash_after, self.paused = Path(path), crash_after, paused

    def on_trial_result(self, iteration, trials, trial, result, **info):
        keys = ("training_iteration", "return", "sparsity", "row")
        row = {"trial": trial.trial_id, **{key: result.get(key) for key in keys}}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def on_step_end(self, iteration, trials, **info):
        crashed = self.path.with_suffix(".crashed")
        if self.crash_after is None or crashed.exists() or not self.path.exists():
            return
        reported = [t for t in trials if t.last_result.get("training_iteration")]
        if self.paused and not all(t.status == "PAUSED" and t.checkpoint for t in reported):
            return
        if len(self.path.read_text().splitlines()) >= self.crash_after:
            crashed.touch()
            raise RuntimeError("the driver is gone")


class ToFile:
    """Appends each event to a file; works as well from a pickled copy."""

    def __init__(self, path):
        self.path = Path(path)

    def __call__(self, event):
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
