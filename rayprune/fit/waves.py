"""The search: populations of candidates on Ray Tune, one wave after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rayprune import yaml12
from rayprune.errors import InputError, RunError
from rayprune.fit.candidates import Candidate
from rayprune.fit.fit_spec import Fit, rounded, space_of
from rayprune.rllib.training.run import SUMMARY_FILE as RUN_SUMMARY
from rayprune.rllib.training.twins import DENSE_DIRECTORY
from rayprune.search.archive import read_entries
from rayprune.search.outcome import SUMMARY_FILE
from rayprune.search.reporter import SweepReporter
from rayprune.search.sweep import SWEEP_FILE, run_sweep

WAVES: Final = "waves"
_EPSILON: Final = 1e-9
_NEARLY: Final = 0.01
"""How far from its last sparsity a policy is pruned as far as the candidate shall be."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a candidate's training has come to."""

    candidate: Candidate
    trial: Path
    """The trial's directory."""
    points: tuple[dict[str, Any], ...]
    """What it kept: each a ``return``, ``parameters``, ``sparsity`` and ``checkpoint``."""
    error: str | None
    """Why it failed for good; None if it didn't."""

    def above(self, floor: float) -> list[dict[str, Any]]:
        """Return the points that earn as much on the validation seeds, the likeliest to do first.

        Those whose pruning is over, the best first: they are of the size that was found feasible.
        Then the others, the smallest first.
        """
        over = max((point["sparsity"] for point in self.points), default=0.0) - _NEARLY
        good = [point for point in self.points if point["return"] >= floor - _EPSILON]

        def key(point: dict[str, Any]) -> tuple[bool, float, float]:
            earned, size = -float(point["return"]), float(point["parameters"])
            finished = point["sparsity"] >= over
            return (False, earned, size) if finished else (True, size, earned)

        return sorted(good, key=key)

    @property
    def best(self) -> dict[str, Any] | None:
        """The point that earns most; None where none was kept."""
        return max(self.points, key=lambda point: float(point["return"]), default=None)


def reference(candidate: Candidate, out: Path) -> Trained:
    """Return the dense reference, trained in ``out/dense``, as the candidate that it is."""
    home = out / DENSE_DIRECTORY
    summary = json.loads((home / RUN_SUMMARY).read_text(encoding="utf-8"))
    point = {
        "return": summary["returns"]["validation"]["iqm"],
        "parameters": summary["parameters"]["nonzero"],
        "sparsity": 0.0,
        "env_steps": summary["env_steps"],
        "checkpoint": summary["checkpoint"],
    }
    return Trained(candidate, home, (point,), None)


def train_wave(
    fit: Fit,
    out: Path,
    number: int,
    candidates: Sequence[Candidate],
    dense: Mapping[str, Any],
    *,
    address: str | None,
    reporter: SweepReporter,
) -> list[Trained]:
    """Train candidates side by side, or go on with what has been begun of them.

    Args:
        fit: whose they are.
        out: its directory.
        number: of the wave.
        candidates: what is trained, in this order; of one precision and one beginning.
        dense: the dense reference: its ``checkpoint`` in ``out``, its ``validation`` return.
        address: as `run_sweep` takes it.
        reporter: told of the progress.

    Raises:
        InputError: the fit was moved in the middle of this wave.
        RunError: training failed.
    """
    place = wave_place(out, number)
    if not (place / SUMMARY_FILE).is_file():
        raw = wave_raw(fit, number, candidates, dense["validation"]["iqm"])
        if candidates[0].from_dense:
            raw["start_from"] = str(out / dense["checkpoint"])
        resume = (place / SWEEP_FILE).is_file()
        if resume:
            _require_place(out, number, raw)
        try:
            run_sweep(raw, place, resume=resume, address=address, reporter=reporter)
        except RunError as error:
            if not (place / SUMMARY_FILE).is_file():
                raise
            # Those that failed count as what has no return; the others go on.
            reporter.message(str(error))
    return _trained(place, candidates)


def _require_place(out: Path, number: int, raw: Mapping[str, Any]) -> None:
    """Refuse to go on with a wave elsewhere: its trials know where they began, and Tune where."""
    began = yaml12.read_mapping(wave_place(out, number) / SWEEP_FILE).get("start_from")
    if began != raw.get("start_from"):
        raise InputError(
            f"{str(out)!r} was moved while its wave {number} was trained, whose trials begin with "
            f"{str(began)!r}. Move it back, resume it there, and move it once it is finished."
        )


def wave_place(out: Path, number: int) -> Path:
    """Return where a wave lies."""
    return out / WAVES / f"{number:02d}"


def wave_raw(
    fit: Fit, number: int, candidates: Sequence[Candidate], dense_return: float
) -> dict[str, Any]:
    """Return the sweep that trains candidates: the fewest weights that keep the return."""
    # A population is rounded, or it isn't: there is no key that says so of one trial.
    raw = rounded(fit.raw, candidates[0].precision)
    experiment = fit.experiment
    return {
        **raw,
        "name": f"{experiment.name}-wave{number}",
        "stop": {"env_steps": experiment.stop.env_steps},
        # The reference is trained already.
        "evaluation": {**(raw.get("evaluation") or {}), "dense": None},
        "search": {
            "method": "listed",
            "population": len(candidates),
            "space": space_of(candidates),
            "points": [candidate.values for candidate in candidates],
            "interval": fit.interval,
            "objectives": {
                "parameters": "min",
                "subject_to": {
                    "return_at_least": fit.config.return_,
                    "dense_return": dense_return,
                },
            },
        },
    }


def _trained(place: Path, candidates: Sequence[Candidate]) -> list[Trained]:
    outcome = json.loads((place / SUMMARY_FILE).read_text(encoding="utf-8"))
    trials = outcome["trials"]
    # A trial that failed before its first result doesn't say which it was.
    lost = [told["error"] for told in trials if told["config"] is None]
    found = []
    for candidate in candidates:
        told = next((t for t in trials if t["config"] == candidate.values), None)
        if told is None:
            error = lost[0] if lost else "It came to no result."
            found.append(Trained(candidate, place, (), error))
        else:
            home = place / "trials" / told["trial"]
            # A return that was no number is null there.
            points = tuple(entry for entry in read_entries(home) if entry["return"] is not None)
            found.append(Trained(candidate, home, points, told["error"]))
    return found
