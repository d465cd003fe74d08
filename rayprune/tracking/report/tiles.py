"""The few numbers that a report begins with."""

from __future__ import annotations

from collections.abc import Sequence

from rayprune.tracking.report.entries import Data


def first_numbers(runs: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
    """Return the few numbers that come first: what, its value, and what it is of."""
    done = [run for run in runs if run["status"] == "done"]
    failed = [run for run in runs if run["status"] == "failed"]
    steps = sum(run["env_steps"] for run in runs if run["sweep"] is None)
    steps += sum(sweep["env_steps"] for sweep in sweeps)
    tiles = [_tile("Runs", len(runs), _of_runs(len(runs) - len(done) - len(failed), len(failed)))]
    tiles.append(_tile("Env steps", steps, "sampled in all"))
    measured = [run for run in done if None not in (run["return"], run["sparsity"])]
    if measured and len({run["env"] for run in runs}) == 1:
        best = max(measured, key=lambda run: (run["return"], run["sparsity"]))
        tiles.append(_tile("Best validation return", best["return"], best["label"], "return"))
        tiles += _sparsest(measured, sweeps)
    tiles += [
        _tile("Hypervolume", sweep["hypervolume"], sweep["name"], "return")
        for sweep in sweeps
        if sweep["hypervolume"] is not None
    ]
    exploits = sum(len(sweep["lineage"]) for sweep in sweeps)
    return [*tiles, _tile("Exploits", exploits, "copies of a better trial")] if exploits else tiles


def _sparsest(measured: Sequence[Data], sweeps: Sequence[Data]) -> list[Data]:
    """The question that every user has: how small before it breaks?"""
    known = [run["dense_test"]["iqm"] for run in measured if run["dense_test"]]
    known += [sweep["dense_return"] for sweep in sweeps if sweep["dense_return"] is not None]
    if not known:
        most = max(measured, key=lambda run: run["sparsity"])
        return [_tile("Sparsest at its end", most["sparsity"], most["label"], "percent")]
    dense = max(known)
    # "95 % of" means 5 % of its size below it, also where returns are negative.
    good = [run for run in measured if run["return"] >= dense - 0.05 * abs(dense)]
    what = "Sparsest with 95 % of the dense return"
    if not good:
        return [_tile(what, None, f"none; the dense return is {dense:.1f}")]
    most = max(good, key=lambda run: run["sparsity"])
    return [_tile(what, most["sparsity"], most["label"], "percent")]


def _of_runs(unfinished: int, failed: int) -> str:
    parts = [f"{n} {what}" for n, what in ((failed, "failed"), (unfinished, "unfinished")) if n]
    return ", ".join(parts) or "all finished"


def _tile(name: str, value: float | None, note: str, form: str = "count") -> Data:
    return {"name": name, "value": value, "note": note, "form": form}
