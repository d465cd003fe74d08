"""Tune as a journal sees it, made up: trials, rounds, exploits, deaths, and a state that lags.

It knows what each trial's record has to hold, for each trial carries its own rows from checkpoint
to checkpoint. A driver that is killed goes on from one of the last states, not always the newest.
"""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from rayprune.search.trials.trial import CHECKPOINT

INTERVAL = 2
"""Rows of a result."""
ENDS = 12
"""Rows that a trial trains for."""


@dataclass
class Saved:
    """A checkpoint: whose, of which state, at which step."""

    owner: str
    token: str
    clock: int


@dataclass
class Member:
    """A trial, its place in the population, and what its record has to hold."""

    name: str
    sparsity: float
    running: bool = False
    clock: int = 0
    since: list[str] | None = None
    before: int = 0
    saved: Saved | None = None
    rows: list[Any] = field(default_factory=list)
    at_saved: list[Any] = field(default_factory=list)
    mark: dict[str, Any] | None = None
    judged: str | None = None

    def start(self) -> None:
        """Go on from its checkpoint, in a new process."""
        self.running, self.before, self.clock, self.since = True, 0, 0, None
        self.rows = list(self.at_saved)
        if self.saved is not None:
            self.clock, self.since = self.saved.clock, [self.saved.owner, self.saved.token]


class MadeUpTune:
    """A population and what Tune has on disk of it.

    Args:
        draw: a ``random.Random``.
        synch: whether the trials decide in rounds.
        home: where checkpoints are written.
    """

    def __init__(self, draw: Any, synch: bool, home: Any) -> None:
        self.draw, self.synch, self.home = draw, synch, home
        self.members = {name: Member(name, draw.random()) for name in "abc"}
        self.ids = itertools.count()
        self.states = [copy.deepcopy(self.members)]
        self.journal: Any = None

    def restore(self, journal: Any, lag: int) -> None:
        """Begin with what was on disk some states ago."""
        self.journal = journal
        self.states = self.states[: max(1, len(self.states) - lag)]
        self.members = copy.deepcopy(self.states[-1])
        for member in self.members.values():
            member.running = False

    @property
    def done(self) -> bool:
        return all(m.saved and m.saved.clock >= ENDS and not m.running for m in self._all())

    def step(self) -> None:
        """Let something happen, and write the state after it."""
        ready = [m for m in self._all() if m.running or self._may_start(m)]
        if not ready:
            self._round()
        else:
            member = self.draw.choice(ready)
            if not member.running:
                member.start()
            elif self.draw.random() < 0.1:
                member.start()  # its actor has died
            else:
                self._result(member)
        self.states.append(copy.deepcopy(self.members))

    def _all(self) -> list[Member]:
        return list(self.members.values())

    def _may_start(self, member: Member) -> bool:
        if not self.synch:
            return member.saved is None or member.saved.clock < ENDS
        slowest = min(m.saved.clock if m.saved else 0 for m in self._all())
        clock = member.saved.clock if member.saved else 0
        # Those that were copied or have decided in this round have no result to be judged by.
        return clock < ENDS and (clock == slowest) and member.judged is None

    def _result(self, member: Member) -> None:
        token = f"{member.name}{next(self.ids)}"
        rows = []
        for _ in range(INTERVAL):
            member.clock += 1
            rows.append({"env_steps": member.clock, "id": next(self.ids), "updates": 1})
        rows[-1]["validation"] = {}
        member.rows += [[row["id"], None] for row in rows]
        if member.before == 0 and member.mark is not None and member.since[0] != member.name:
            member.rows[-INTERVAL][1] = member.mark
        result = {
            "return": self.draw.random(),
            "sparsity": member.sparsity,
            "flops": 1,
            "parameters": 1,
            "env_steps": member.clock,
            "values": {"pruning.sparsity": member.sparsity},
            "token": token,
            "since": member.since,
            "before": member.before,
            "rows": [{**row, "time_s": 0.0} for row in rows],
            "training_iteration": 1,
        }
        member.before += INTERVAL
        member.judged = token
        others = [m for m in self._all() if m is not member and self._may_give(m)]
        copies = not self.synch and others and member.clock < ENDS and self.draw.random() < 0.4
        if copies:  # an asynchronous scheduler tells of it before Tune's callbacks hear of the rows
            self._exploit(member, self.draw.choice(others))
        self.journal.result(member.name, result)
        if not copies and (self.synch or member.clock >= ENDS or self.draw.random() < 0.8):
            self._save(member, token)
        if not copies and (self.synch or member.clock >= ENDS):
            member.running = False
        if not self.synch:
            member.judged = None

    def _may_give(self, donor: Member) -> bool:
        saved = donor.saved
        return saved is not None and saved.owner == donor.name and saved.clock < ENDS

    def _save(self, member: Member, token: str) -> None:
        member.saved = Saved(member.name, token, member.clock)
        member.at_saved, member.mark = list(member.rows), None
        directory = self.home / token
        (directory / CHECKPOINT).mkdir(parents=True, exist_ok=True)
        meta = json.dumps({"token": token, "clock": member.clock})
        (directory / CHECKPOINT / "rayprune.json").write_text(meta)
        self.journal.checkpoint(member.name, directory)

    def _round(self) -> None:
        """All have come to it; those that aren't copied themselves may be donors."""
        members = self._all()
        self.draw.shuffle(members)
        worst, best = members[:2]
        if self._may_give(best) and self.draw.random() < 0.7:
            self._exploit(worst, best)
        for member in members:
            member.judged = None

    def _exploit(self, member: Member, donor: Member) -> None:
        old, new = member.sparsity, self.draw.choice([donor.sparsity, self.draw.random()])
        changed = {} if new == old else {"pruning.sparsity": [old, new]}
        member.sparsity, member.running = new, False
        member.saved = copy.copy(donor.saved)
        member.at_saved = list(member.rows)
        clock, time = member.saved.clock, float(next(self.ids))
        member.mark = {"donor": donor.name, "changed": changed, "env_steps": clock, "time": time}
        told = {"trial": member.name, "donor": donor.name, "clock": clock, "changed": changed}
        self.journal.exploit({**told, "time": time, "result": {"token": member.judged}})
