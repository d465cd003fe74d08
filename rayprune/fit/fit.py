"""`run_fit`: from budgets to a file that keeps to them, or why there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rayprune import yaml12
from rayprune.errors import ConfigError, InputError
from rayprune.fit.artifact import hand_over
from rayprune.fit.candidates import FLOAT, HIDDENS, Candidate
from rayprune.fit.choice import FitReporter, Judge, best_of, nearest_of, told_uses
from rayprune.fit.feasibility import Assessment, Feasibility, assess, take_measurement
from rayprune.fit.fit_spec import Fit, hiddens_of
from rayprune.fit.record import DENSE, JUDGED, MEASURED, WAVE, FitRecord, measured_before
from rayprune.fit.untrained import Networks, measure_untrained
from rayprune.fit.waves import WAVES, Trained, reference, train_wave
from rayprune.rllib.checkpoints.files import fetch
from rayprune.rllib.cluster.connect import on_ray
from rayprune.rllib.cluster.resources import learner_gpus, resolve_gpus
from rayprune.rllib.experiment.algorithm_config import build_config
from rayprune.rllib.training.interruption import Interruption
from rayprune.rllib.training.same_settings import require_same
from rayprune.rllib.training.twins import DENSE_DIRECTORY, dense_reference
from rayprune.search.config import SearchConfig
from rayprune.search.objectives import Objectives
from rayprune.search.planning.placement import place
from rayprune.storage.occupancy import occupied
from rayprune.storage.urls import url_of
from rayprune.tracking.record import check_out, prepare_out, to_json, write_atomic
from rayprune.tracking.report.fit_page import write_fit_page
from rayprune.tracking.report.read import flatten
from rayprune.tracking.versions import versions

FIT_FILE: Final = "fit.yaml"
RESULT_FILE: Final = "fit.json"
PAGE_FILE: Final = "report.html"
SCHEMA: Final = 1
NEAREST: Final = 3
"""Candidates that are named where none is good."""

Measured = Mapping[str, Mapping[str, float | None]]


def plan_fit(fit: Fit, reporter: FitReporter, known: Measured | None = None) -> Feasibility:
    """Tell which candidates may keep to the budgets; nothing is trained, and no Ray started.

    Args:
        fit: what is asked for.
        reporter: told of each candidate that is measured.
        known: figures of untrained candidates that were measured before, by name.
    """
    for name, fault in fit.dropped.items():
        reporter.message(f"{name} can't be trained: {fault}")
    if all(one.hiddens is None for one in fit.candidates):
        reporter.message(f"The file gives no `{HIDDENS}`: its own network is tried alone.")
    networks = Networks()
    counted = [(one, networks.left(fit.experiment_of(one))) for one in fit.candidates]
    held = dict(known or {})
    refused: list[InputError] = []

    def measure(candidate: Candidate) -> Mapping[str, float | None]:
        if candidate.name not in held:
            try:
                held[candidate.name] = _measured(fit, candidate, reporter)
            except InputError as error:
                # Others may do: a layer may be had in floats that can't be in whole numbers.
                reporter.message(f"{candidate.name} can't be had: {error}")
                refused.append(error)
                held[candidate.name] = {}
        return held[candidate.name]

    found = assess(counted, fit.config.budgets, measure)
    if refused and not any(one.figures for one in found.assessments):
        raise refused[0]
    return found


def _measured(fit: Fit, candidate: Candidate, reporter: FitReporter) -> dict[str, float | None]:
    """Measure an untrained candidate, and tell."""
    budgets, target = fit.config.budgets, fit.target
    experiment, int8 = fit.experiment_of(candidate), candidate.precision != FLOAT
    figures = measure_untrained(experiment, target, budgets, int8=int8)
    reporter.message(
        f"{candidate.name}, untrained, on {target.name}: {told_uses(budgets, figures)}."
    )
    return figures


def planned(fit: Fit, found: Feasibility) -> dict[str, Any]:
    """Return what `--plan`, or a refusal, tells."""
    feasible = found.feasible
    nearest = found.nearest
    return {
        "name": fit.experiment.name,
        "target": fit.target.name,
        "budgets": dict(fit.config.budgets.limits),
        "return": fit.config.return_,
        "feasible": bool(feasible),
        "reason": f"{len(feasible)} of {len(found.assessments)} candidates may keep to the budgets."
        if feasible
        else found.refusal(),
        "nearest": None if nearest is None else nearest.candidate.name,
        "candidates": [one.to_dict() for one in found.assessments],
        "exit_code": 0 if feasible else 1,
    }


def run_fit(
    fit: Fit, out: Path, *, resume: bool, address: str | None, reporter: FitReporter
) -> dict[str, Any]:
    """Search for a policy that keeps to the budgets; write the fit's directory; return its result.

    Args:
        fit: what `load_fit` returned.
        out: the fit's directory.
        resume: go on with the fit in ``out``.
        address: a Ray cluster, None for ``RAY_ADDRESS`` or an own Ray.
        reporter: told of the progress.

    Returns:
        The content of fit.json; where nothing is feasible what `planned` tells, and nothing is
        written.

    Raises:
        InputError: something asked for can't be done; nothing has been trained.
        RunError: training failed; what is there is intact.
        Interrupted: Ctrl-C; ``resume`` goes on.
    """
    out, began = out.absolute(), time.monotonic()
    check_out(out, resume, marker=FIT_FILE)
    if resume:
        prepare_out(out, resume=True, marker=FIT_FILE)
        _check_same(fit, out)
        if (out / RESULT_FILE).is_file():
            reporter.message(f"{fit.experiment.name} is finished already: {out}")
            return _read(out / RESULT_FILE)
    found = plan_fit(fit, reporter, measured_before(out) if resume else None)
    if not found.feasible:
        return planned(fit, found)
    if not resume:
        prepare_out(out, resume=False, marker=FIT_FILE)
    with occupied(out):
        if not (out / FIT_FILE).is_file():
            # The first of its files: without it there is nothing that could be resumed.
            write_atomic(out / FIT_FILE, yaml12.dump(yaml12.plain(dict(fit.raw))))
        with FitRecord(out, began) as record:
            return _FitRun(fit, out, record, found, reporter).run(address)


class _FitRun:
    def __init__(
        self,
        fit: Fit,
        out: Path,
        record: FitRecord,
        found: Feasibility,
        reporter: FitReporter,
    ) -> None:
        self._fit, self._out, self._record = fit, out, record
        self._found, self._reporter = found, reporter
        before = {row["candidate"] for row in record.rows(MEASURED)}
        for one in found.assessments:
            if one.figures is not None and one.candidate.name not in before:
                self._note(one)

    def run(self, address: str | None) -> dict[str, Any]:
        """Train, judge, and write what has come of it."""
        with ExitStack() as stack:
            config = build_config(self._fit.experiment)
            stack.enter_context(on_ray(address, config))
            dense = self._dense()
            floor = self._floor(dense)
            judge = Judge(
                fit=self._fit,
                out=self._out,
                dense=reference_place(self._out, dense["checkpoint"]),
                floor=floor,
                reporter=self._reporter,
            )
            self._try_reference(judge, dense)
            self._search(judge, dense, address)
        self._reporter.close()
        return self._finish(dense, floor)

    def _note(self, one: Assessment) -> None:
        self._record.append(MEASURED, {"candidate": one.candidate.name, "figures": one.figures})

    def _dense(self) -> dict[str, Any]:
        """Return the dense reference's returns, trained or measured once."""
        held = self._record.rows(DENSE)
        if held:
            return held[0]
        experiment, reporter = self._fit.experiment, self._reporter
        if experiment.evaluation.dense is None:
            evaluation = experiment.evaluation.model_copy(update={"dense": "train"})
            experiment = experiment.model_copy(update={"evaluation": evaluation})
        with Interruption(reporter.message) as interruption:
            returns = dense_reference(experiment, self._out, reporter, interruption)
        assert returns is not None
        checkpoint = Path(returns["checkpoint"])
        if checkpoint.is_relative_to(self._out):
            # So that the directory may be moved between two waves, and resumed where it is then.
            returns = {**returns, "checkpoint": checkpoint.relative_to(self._out).as_posix()}
        return self._record.append(DENSE, returns)

    def _floor(self, dense: Mapping[str, Any]) -> float:
        asked = Objectives(
            directions={"parameters": "min"},
            return_at_least=self._fit.config.return_,
            dense_return=dense["validation"]["iqm"],
        )
        assert asked.floor is not None
        return asked.floor

    def _try_reference(self, judge: Judge, dense: Mapping[str, Any]) -> None:
        """Judge the dense reference as the candidate that it is, before it is trained again."""
        one = next((one for one in self._found.feasible if self._is_reference(one)), None)
        trained_here = (self._out / DENSE_DIRECTORY) in (self._out / dense["checkpoint"]).parents
        if one is None or not trained_here or self._done() or not self._really_fits(one):
            return
        if all(row["candidate"] != one.candidate.name for row in self._record.rows(JUDGED)):
            self._judge(judge, reference(one.candidate, self._out), wave=0)

    def _is_reference(self, one: Assessment) -> bool:
        hiddens = hiddens_of(self._fit.experiment)
        own = None if hiddens is None else tuple(hiddens)
        trained_alike = not one.candidate.sparsity and one.candidate.precision == FLOAT
        return trained_alike and one.candidate.hiddens == own

    def _judge(self, judge: Judge, one: Trained, wave: int) -> None:
        tested = sum("pairs" in row for row in self._record.rows(JUDGED))
        row = judge.judge(one, tested)
        self._record.append(JUDGED, {"wave": wave, **row})
        self._reporter.message(f"{one.candidate.name}: {row['reason']}")

    def _search(self, judge: Judge, dense: Mapping[str, Any], address: str | None) -> None:
        """Train wave after wave until one candidate is good, or all that may be were tried."""
        judged = {row["candidate"] for row in self._record.rows(JUDGED)}
        waves = {row["wave"]: self._named(row["candidates"]) for row in self._record.rows(WAVE)}
        number = 0
        while not self._done():
            number += 1
            wave = waves.get(number) or self._next_wave(waves)
            if not wave:
                return
            if number not in waves:
                waves[number] = wave
                names = [candidate.name for candidate in wave]
                self._record.append(WAVE, {"wave": number, "candidates": names})
            if all(candidate.name in judged for candidate in wave):
                continue
            self._reporter.message(
                f"Wave {number}: {', '.join(candidate.name for candidate in wave)}."
            )
            trained = train_wave(
                self._fit,
                self._out,
                number,
                wave,
                dense,
                address=address,
                reporter=self._reporter,
            )
            self._reporter.close()
            for one in trained:
                if one.candidate.name not in judged and not self._done():
                    self._judge(judge, one, number)
                    judged.add(one.candidate.name)

    def _done(self) -> bool:
        """Whether a good one is there, and no better one is asked for."""
        return not self._fit.config.best and best_of(self._record.rows(JUDGED)) is not None

    def _named(self, names: list[str]) -> list[Candidate]:
        by_name = {candidate.name: candidate for candidate in self._fit.candidates}
        return [by_name[name] for name in names]

    def _next_wave(self, waves: Mapping[int, list[Candidate]]) -> list[Candidate]:
        """Return the next candidates, measured themselves by now, as many as train at once."""
        taken = {candidate.name for wave in waves.values() for candidate in wave}
        left = self._fit.config.trials - len(taken)
        taken |= {row["candidate"] for row in self._record.rows(JUDGED)}
        chosen: list[Candidate] = []
        while left > 0 and not chosen:
            # Where one takes too much, the same network in another precision may do.
            offered = [one for one in self._found.feasible if one.candidate.name not in taken]
            if not offered:
                break
            chosen = self._chosen(offered, left)
        return chosen

    def _chosen(self, offered: Sequence[Assessment], left: int) -> list[Candidate]:
        """Return those that really fit and train together, as many as have room."""
        chosen: list[Candidate] = []
        size = 0
        for one in offered:
            if chosen and not _trains_with(one.candidate, chosen[0]):
                continue
            size = size or min(left, self._fit.config.population or self._at_once(one.candidate))
            if len(chosen) >= size:
                break
            if self._really_fits(one):
                chosen.append(one.candidate)
        return chosen

    def _really_fits(self, one: Assessment) -> bool:
        if one.figures is None:
            try:
                figures = _measured(self._fit, one.candidate, self._reporter)
            except InputError as error:
                self._reporter.message(f"{one.candidate.name} can't be had: {error}")
                figures = {}
            take_measurement(one, self._fit.config.budgets, figures)
            self._note(one)
        return one.feasible

    def _at_once(self, candidate: Candidate) -> int:
        """Return how many trials have room."""
        experiment = self._fit.experiment_of(candidate)
        config = resolve_gpus(build_config(experiment), learner_gpus(experiment.rllib))
        trials = len(self._found.feasible)
        search = SearchConfig(space={"pruning.sparsity": {"choice": [0.0]}}, method="random")
        return place(config, search, trials).at_once

    def _finish(self, dense: Mapping[str, Any], floor: float) -> dict[str, Any]:
        judged = self._record.rows(JUDGED)
        best = best_of(judged)
        nearest = [] if best is not None else nearest_of(judged, floor)[:NEAREST]
        result: dict[str, Any] = {
            "schema": SCHEMA,
            "name": self._fit.experiment.name,
            "algorithm": self._fit.experiment.algorithm,
            "env": self._fit.experiment.env,
            "seed": self._fit.experiment.seed,
            "target": self._fit.target.name,
            "return": self._fit.config.return_,
            "budgets": dict(self._fit.config.budgets.limits),
            "met": best is not None,
            "exit_code": 0 if best is not None else 1,
            "reason": _reason(best, nearest, len(judged)),
            "dense": {**dense, "floor": floor},
            "chosen": best,
            "nearest": [row["candidate"] for row in nearest],
            "judged": judged,
            "trained": [name for row in self._record.rows(WAVE) for name in row["candidates"]],
            "plan": planned(self._fit, self._found)["candidates"],
            "versions": versions(),
            "wall_time_s": round(self._record.seconds, 3),
        }
        if best is not None:
            result["artifact"] = hand_over(self._fit, self._out, result)
        write_fit_page(self._out, result, self._runs(), self._out / PAGE_FILE)
        # Last, for it says that all the rest is there.
        write_atomic(self._out / RESULT_FILE, to_json(result, indent=2) + "\n")
        return result

    def _runs(self) -> list[Path]:
        """Return the runs behind it, the dense reference first."""
        dense = self._out / DENSE_DIRECTORY
        waves = sorted(path for path in (self._out / WAVES).glob("*/") if path.is_dir())
        return [*([dense] if dense.is_dir() else []), *waves]


def reference_place(out: Path, checkpoint: str) -> Path:
    """Return where the dense reference's checkpoint lies on this machine.

    Args:
        out: the fit's directory.
        checkpoint: relative to it where it was trained there; else a path or a URL.
    """
    return out / checkpoint if url_of(checkpoint) is None else fetch(checkpoint)


def _trains_with(candidate: Candidate, first: Candidate) -> bool:
    """Whether two are trained by one sweep: what isn't a key of its space is the same."""
    return (candidate.precision, candidate.from_dense) == (first.precision, first.from_dense)


def _reason(best: Mapping[str, Any] | None, nearest: list[Mapping[str, Any]], tried: int) -> str:
    if best is not None:
        return (
            f"{best['candidate']} keeps to every budget, and its return is certified: "
            f"{best['reason']}"
        )
    if not nearest:
        return "No candidate was trained: measured by themselves, all take too much."
    told = "; ".join(f"{row['candidate']}: {row['reason'].rstrip('.')}" for row in nearest)
    return f"None of {tried} trained candidates is good. The nearest: {told}."


def _check_same(fit: Fit, out: Path) -> None:
    """Refuse to resume another fit; only `tracking` may differ."""
    place = out / FIT_FILE
    try:
        held = yaml12.read_mapping(place)
    except ConfigError as error:
        raise ConfigError(
            [
                *error.faults,
                f"{str(place)!r} holds the config that this fit was begun with, its options in the "
                "`fit` block. Put it back, or begin anew in another directory with --out.",
            ]
        ) from error
    now = yaml12.plain(dict(fit.raw))
    for side in (held, now):
        side.pop("tracking", None)
    if held != now:
        require_same(flatten(held), flatten(now), str(place), "the fit's own config and options")


def _read(path: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{str(path)!r}, the fit's result, is not JSON: {error}. Delete it, and `--resume` "
            "writes it anew from the fit's record."
        ) from error
    return held
