"""A Trainable that costs nothing, in place of RLlib's Algorithm: same results, same files.

`StandIn` reports what `rayprune.search.trials.trial.PruningTrial` reports, rows of the record
included, and writes checkpoints with as many files as one of PPO has. `PlainStandIn` is the same
for Tune without rayprune: each result is its last row, as RLlib's would be.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from ray import tune

from rayprune.rllib.checkpoints.files import META_FILE
from rayprune.search.trials.trial import CHECKPOINT, without_rows

INTERVAL = 10_000
"""Env steps of a result."""
ROWS = 5
"""Rows of the record in each: iterations of 2,000 env steps."""
LAYERS = tuple(
    f"encoder.{side}_encoder.net.mlp.{n}" for side in ("actor", "critic") for n in (0, 2)
)
FILES = 26
"""In a checkpoint of PPO with one EnvRunner."""


class StandIn(tune.Trainable):
    """Gains skill with each step; sparsity costs return."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin dense and unskilled."""
        self._values = {
            "pruning.sparsity": config["pruning"]["sparsity"],
            "rllib.training.lr": config["rllib"]["training"]["lr"],
        }
        self._skill, self._clock, self._before = 0.0, 0, 0
        self._since: list[str] | None = None
        self._state = [str(self.trial_id), ""]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Pretend to train one interval."""
        self._skill += 0.3 * (1 - self._skill)
        rows = []
        for _ in range(ROWS):
            self._clock += INTERVAL // ROWS
            rows.append(self._row())
        rows[-1].update(self._measured())
        self._state = [str(self.trial_id), uuid.uuid4().hex]
        result = {**self._result(), "before": self._before, "rows": rows}
        self._before += ROWS
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write its state, and files that hold nothing."""
        home = Path(checkpoint_dir, CHECKPOINT)
        home.mkdir()
        owner, token = self._state
        meta = {"owner": owner, "token": token, "env_steps": self._clock, "skill": self._skill}
        (home / META_FILE).write_text(json.dumps(meta))
        for number in range(1, FILES):
            place = home / f"part{number % 8}"
            place.mkdir(exist_ok=True)
            (place / f"{number}.pkl").write_bytes(b"nothing was trained")
        without_rows(self._last_result)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from its own state, or a donor's."""
        meta = json.loads(Path(checkpoint_dir, CHECKPOINT, META_FILE).read_text())
        self._skill, self._clock, self._before = meta["skill"], meta["env_steps"], 0
        self._since = self._state = [meta["owner"], meta["token"]]

    def _result(self) -> dict[str, Any]:
        sparsity = self._values["pruning.sparsity"]
        return {
            "return": self._skill * (1 - sparsity**4),
            "sparsity": sparsity,
            "flops": round(134_144 * (1 - sparsity)),
            "parameters": round(134_915 * (1 - sparsity)),
            "env_steps": self._clock,
            "values": dict(self._values),
            "token": self._state[1],
            "since": self._since,
        }

    def _row(self) -> dict[str, Any]:
        """Return a row as long as one of PPO on CartPole is."""
        sparsity, number = self._values["pruning.sparsity"], 0.123456789012345 + self._skill
        return {
            "iteration": self._clock * ROWS // INTERVAL,
            "env_steps": self._clock,
            "updates": self._clock // 12,
            "time_s": 1.096,
            "return_mean": number,
            "episode_len_mean": number,
            "episodes": 90.0,
            "sparsity": sparsity,
            "target_sparsity": sparsity,
            "groups": {"policy": sparsity, "value": sparsity},
            "layers": dict.fromkeys((*LAYERS, "pi.net.mlp.0", "vf.net.mlp.0"), sparsity),
            "parameters": {"total": 134_915, "held": 134_915, "nonzero": 34_915},
            "mask_churn": 0.0,
            "itop": None,
            "pruning_finished": False,
            "learner": {f"a_metric_of_the_learner_{n}": number * n for n in range(14)},
            "plasticity": {
                kind: dict.fromkeys(LAYERS, number) for kind in ("dormant", "srank", "gradient_snr")
            },
        }

    def _measured(self) -> dict[str, Any]:
        """Return what the last row of an interval holds besides."""
        value = self._result()["return"]
        ci95 = [value * 0.9, value * 1.1]
        edges = [n * 0.02841131143690743 for n in range(33)]
        counts = [float(n) for n in range(32)]
        return {
            "validation": {
                "episodes": 20,
                "mean": value,
                "iqm": value,
                "ci95": ci95,
                "ci95_over": "episodes",
            },
            "scores": {f"{name}.weight": {"counts": counts, "edges": edges} for name in LAYERS},
            "dead_units": dict.fromkeys(LAYERS, 192),
            "flops": {"dense": 134_144, "sparse": self._result()["flops"]},
        }


class PlainStandIn(StandIn):
    """For Tune without rayprune, which keeps no rows."""

    def step(self) -> dict[str, Any]:
        """Report the last row's numbers."""
        result = super().step()
        return {**result.pop("rows")[-1], **result}
