"""Trained candidates judged: exported, measured against every budget, certified against dense."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from rayprune.deploy.export.export import ExportRequest
from rayprune.deploy.formats import format_named
from rayprune.errors import RaypruneError
from rayprune.fit.budgets import Budgets, Figures
from rayprune.fit.candidates import FLOAT
from rayprune.fit.fit_spec import Fit
from rayprune.fit.measurement import measure
from rayprune.fit.untrained import parameters_in
from rayprune.fit.waves import Trained
from rayprune.rllib.commands.certify import CertifyOptions, CertifyReporter, certify
from rayprune.rllib.commands.export import export_checkpoint
from rayprune.search.reporter import SweepReporter

CANDIDATES: Final = "candidates"
CERTIFICATE: Final = "certificate"
STEM: Final = "policy"
_TRIED: Final = 3
"""Checkpoints of one candidate that are exported and measured at most."""


class FitReporter(SweepReporter, Protocol):
    """Told of a fit's progress: of its trainings, and of its certificates."""

    def certificate(self) -> AbstractContextManager[CertifyReporter]:
        """Return what is told of one certificate's episodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What candidates are held against."""

    fit: Fit
    out: Path
    """The fit's directory."""
    dense: Path
    """The dense reference's checkpoint."""
    floor: float
    """The validation return below which nothing is exported."""
    reporter: FitReporter

    def judge(self, trained: Trained, tested: int) -> dict[str, Any]:
        """Return what has become of a candidate, as the record holds it.

        ``met`` says that one of its checkpoints keeps to every budget, and ``certified`` that it
        keeps the return; ``reason`` is a sentence.

        Args:
            trained: the candidate.
            tested: how many certificates were played before.
        """
        told: dict[str, Any] = {
            "candidate": trained.candidate.name,
            "config": trained.candidate.values,
            "precision": trained.candidate.precision,
            "from_dense": trained.candidate.from_dense,
            "met": False,
            "certified": False,
        }
        good = trained.above(self.floor)
        if not good:
            return {**told, **self._too_low(trained)}
        told.update(self._nearest_file(trained, _distinct(good)[:_TRIED]))
        return {**told, **self._certified(trained, tested)} if told["met"] else told

    def _nearest_file(
        self, trained: Trained, points: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Export and measure checkpoints until one keeps to the budgets; keep the nearest file."""
        home = self.place(trained)
        beside = home.with_name(f".{home.name}")
        nearest: dict[str, Any] = {}
        for point in points:
            found = self._measured(trained, point, beside)
            if not nearest or _excess(found) < _excess(nearest):
                shutil.rmtree(home, ignore_errors=True)
                beside.rename(home)
                nearest = found
            if nearest["met"]:
                break
        shutil.rmtree(beside, ignore_errors=True)
        return nearest

    def _too_low(self, trained: Trained) -> dict[str, Any]:
        point = trained.best
        if point is None:
            return {"return": None, "reason": trained.error or "It kept no checkpoint."}
        reason = (
            f"It earns {point['return']:.1f} at most on the validation seeds, and "
            f"{self.floor:.1f} are {100 * self.fit.config.return_:g} % of the dense return."
        )
        return {**_facts(point), "reason": reason}

    def _measured(self, trained: Trained, point: Mapping[str, Any], beside: Path) -> dict[str, Any]:
        """Export a checkpoint and measure the file.

        Args:
            trained: the candidate.
            point: the checkpoint.
            beside: the folder that is made for the file; it is told as if it lay in its place.
        """
        target, budgets = self.fit.target, self.fit.config.budgets
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        file = beside / f"{STEM}{format_named(target.format).suffix}"
        try:
            whole = trained.candidate.precision != FLOAT
            told = export_checkpoint(
                trained.trial / point["checkpoint"],
                ExportRequest(file, target.format, quantised=whole),
            )
            found = measure(target, file, budgets, parameters_in(told))
        except RaypruneError as error:
            # Another candidate may do; what went wrong with this one is told at the end.
            self.reporter.message(f"{trained.candidate.name}: {error}")
            return {**_facts(point), "met": False, "reason": str(error)}
        figures, self_test = found.figures, found.measurement.self_test
        self.reporter.message(f"{trained.candidate.name}: {told_uses(budgets, figures)}.")
        return {
            **_facts(point),
            "artifact": (self.place(trained) / file.name).relative_to(self.out).as_posix(),
            "sha256": told["sha256"],
            "weights_sha256": told["about"]["weights_sha256"],
            "checkpoint": (trained.trial / point["checkpoint"]).relative_to(self.out).as_posix(),
            "interface": told["interface"],
            "figures": figures,
            "measurement": found.to_dict(),
            "uses": [use.to_dict() for use in budgets.uses(figures)],
            "worst_share": budgets.worst_share(figures),
            "met": budgets.met(figures) and self_test is not False,
            "reason": _kept(budgets, figures, self_test),
        }

    def _certified(self, trained: Trained, tested: int) -> dict[str, Any]:
        """Let the exported file play against the dense reference."""
        config = self.fit.config
        home = self.place(trained)
        margin = round(1 - config.return_, 12)
        # Twice the margin, as is usual, but never the whole return.
        usual = min(2 * margin, (1 + margin) / 2)
        options = CertifyOptions(
            margin=margin,
            tail_margin=usual if config.tail_margin is None else config.tail_margin,
            confidence=confidence_of(tested + 1, config.confidence),
            episodes=config.episodes,
            seed=self.fit.experiment.evaluation.test_seed,
        )
        file = next(home.glob(f"{STEM}{format_named(self.fit.target.format).suffix}"))
        with self.reporter.certificate() as told:
            found = certify(self.dense, file, options, home / CERTIFICATE, told)
        return {
            "certified": bool(found["certified"]),
            "verdict": found["verdict"],
            "pairs": found["pairs"],
            "confidence": options.confidence,
            "mean": found["mean"],
            "tail": found["tail"],
            "certificate": (home / CERTIFICATE).relative_to(self.out).as_posix(),
            "reason": str(found["reason"]),
        }

    def place(self, trained: Trained) -> Path:
        """Return where a candidate's file and certificate lie."""
        return self.out / CANDIDATES / trained.candidate.name


def confidence_of(number: int, confidence: float) -> float:
    """Return the confidence that a certificate is played at, so that all of them keep to one.

    Candidates are tested until one passes. The n-th may err with 1 / (n (n + 1)) of the allowed
    chance; these sum up to all of it, however many are tested.

    >>> [round(confidence_of(number, 0.95), 4) for number in (1, 2, 3)]
    [0.975, 0.9917, 0.9958]
    """
    return 1 - (1 - confidence) / (number * (number + 1))


def told_uses(budgets: Budgets, figures: Figures) -> str:
    """Return how much is used of each budget, in a line."""
    return ", ".join(use.text for use in budgets.uses(figures))


def best_of(judged: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the good candidate that uses the least of its tightest budget; None without one."""
    good = [row for row in judged if row["met"] and row["certified"]]
    return min(good, key=lambda row: float(row["worst_share"]), default=None)


def nearest_of(judged: Sequence[Mapping[str, Any]], floor: float) -> list[Mapping[str, Any]]:
    """Return the candidates by how little they miss, the nearest first.

    Args:
        judged: rows of the record.
        floor: the return that was asked for, on the validation seeds.
    """

    def miss(row: Mapping[str, Any]) -> tuple[int, float]:
        if row["met"]:
            # In return alone, and by so little that episodes had to tell.
            return 0, 0.0
        if row.get("figures"):
            return 1, float(row["worst_share"])
        earned = row.get("return")
        return 2, float("inf") if earned is None else (floor - earned) / (abs(floor) or 1.0)

    return sorted(judged, key=miss)


def _excess(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Return by how much a file misses the budgets, the least first; of no file infinity."""
    return not row["met"], float(row.get("worst_share", "inf"))


def _distinct(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the best point of each size."""
    seen: dict[int, dict[str, Any]] = {}
    for point in points:
        seen.setdefault(int(point["parameters"]), point)
    return list(seen.values())


def _facts(point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "return": point["return"],
        "sparsity": point["sparsity"],
        "env_steps": point["env_steps"],
    }


def _kept(budgets: Budgets, figures: Figures, self_test: bool | None) -> str:
    if self_test is False:
        return "The file's own test fails on the target."
    over = [use.text for use in budgets.uses(figures) if not use.met]
    return f"It takes too much: {', '.join(over)}." if over else "It keeps to every budget."
