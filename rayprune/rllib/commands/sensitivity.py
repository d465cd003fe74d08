"""The sensitivity scan: what a trained policy loses when one layer alone is pruned.

Nothing is trained and no Ray is started: one evaluator plays on validation seeds, and each point
of the scan swaps pruned weights into its module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol

from rayprune.config import EvaluationConfig
from rayprune.errors import ConfigError, did_you_mean
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.distributions.from_sensitivity import overall, scaled_to, tolerated
from rayprune.pruning.pruner import LayerCount
from rayprune.rllib.commands.layer_scan import LayerScan
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.training.same_settings import require_same
from rayprune.storage.copies import shown
from rayprune.tracking.record import Record, prepare_out, read_rows, to_json, write_atomic
from rayprune.tracking.report.sensitivity_page import write_sensitivity_page

SCHEMA: Final = 1
ROWS_FILE: Final = "sensitivity.jsonl"
RESULT_FILE: Final = "sensitivity.json"
PAGE_FILE: Final = "sensitivity.html"
SUGGESTED_FILE: Final = "suggested.yaml"
TOGETHER: Final = "*"
"""The row of all layers at their suggested sparsities at once."""

BY_RETURN: Final = "return"
BY_VALUE: Final = "value_error"


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What a scan measures; the command line's options."""

    sparsities: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95)
    criterion: str = "l1"
    granularity: str = "weight"
    episodes: int = 20
    seed: int | None = None
    """First seed; None takes the run's own validation seeds."""
    tolerance: float = 0.05
    layers: tuple[str, ...] = ()
    """Glob patterns of the layers to scan; none is all."""
    target: float | None = None

    def pruning(self, distribution: Mapping[str, float]) -> PruningConfig:
        """Return the config that prunes these layers, and no others."""
        return PruningConfig(
            criterion=self.criterion,
            granularity=self.granularity,
            distribution=dict(distribution),
            schedule={"kind": "one_shot", "begin": 0},
        )

    def faults(self) -> list[str]:
        """Return what is wrong with the options by themselves."""
        faults = [
            f"`--sparsities` must lie in (0, 1), but one is {sparsity}."
            for sparsity in self.sparsities
            if not 0 < sparsity < 1
        ]
        if not self.sparsities or list(self.sparsities) != sorted(set(self.sparsities)):
            faults.append(f"`--sparsities` must rise, but are {list(self.sparsities)}.")
        if not 0 <= self.tolerance < 1:
            faults.append(f"`--tolerance` must be in [0, 1), but is {self.tolerance}.")
        if self.target is not None and not 0 < self.target < 1:
            faults.append(f"`--target` must be in (0, 1), but is {self.target}.")
        named = {"criterion": self.criterion, "granularity": self.granularity, "sparsity": 0.5}
        faults += PruningConfig.faults_of(named, prefix="--")
        if self.criterion in CRITERIA and CRITERIA[self.criterion].evidence:
            able = sorted(name for name, criterion in CRITERIA.items() if not criterion.evidence)
            faults.append(
                f"`--criterion` {self.criterion!r} needs data from training, which a scan doesn't "
                f"do. Take one of {able}."
            )
        return faults


class ScanReporter(Protocol):
    """Told of a scan's progress."""

    def start(self, total: int, done: int) -> None:
        """The scan starts, with so many points, of which some are done already."""

    def point(self, row: Mapping[str, Any]) -> None:
        """A point is measured."""


def scan_sensitivity(
    checkpoint: Path, options: ScanOptions, out: Path, *, resume: bool, reporter: ScanReporter
) -> dict[str, Any]:
    """Measure each layer alone at a ladder of sparsities; suggest a sparsity for each.

    Layers of the policy and shared ones are judged by the *return*: ``gap`` is by how much the IQM
    is lower than the unpruned policy's on the same seeds, with a paired bootstrap's 95 % interval.
    The suggested sparsity is the highest at which the interval's upper end stays within
    ``tolerance`` of the size of the unpruned IQM (which handles negative returns), interpolated
    between the rungs. Layers of the *value* network don't change what the policy does, so they are
    judged by the critic's error instead: ``value_unexplained``, the mean square change of the
    values over their variance on the unpruned policy's states, must stay within ``tolerance``.

    All suggested layers together may lose more than each alone: ``together`` is measured, too.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.
        options: what to measure.
        out: a directory of its own; gets sensitivity.jsonl (a row a point, which `resume` goes on
            from), sensitivity.json, sensitivity.html and suggested.yaml.
        resume: go on with a scan that was interrupted.
        reporter: told of the progress.

    Returns:
        The content of sensitivity.json::

            {"schema": 1, "checkpoint", "env", "algorithm", "settings": {...},
             "unpruned": {"episodes", "mean", "iqm", "ci95", "states", "value_std"},
             "floor": the lowest tolerated IQM, "sparsity_now": of the prunable weights,
             "layers": [{"name", "shape", "total", "group", "measured_by": "return" | "value_error",
                         "sparsity_now", "suggested",
                         "ladder": [{"sparsity", "reached", "iqm", "mean", "ci95", "gap",
                                     "agreement", "action_difference", "kl", "value_rmse",
                                     "value_unexplained"}]}],
             "suggested": {"distribution": {layer: sparsity}, "sparsity": of all prunable weights,
                           "target", "together": a ladder's entry}}

        ``agreement``, ``kl`` and ``value_rmse`` are with respect to the unpruned policy, on states
        that it met (at most about 8,000); actions are the module's, before they are unsquashed.
        With a unit granularity ``sparsity`` counts units, and ``total`` and ``reached`` weights.

    Raises:
        InputError: a wrong option, no checkpoint, or a directory that holds something else.
    """
    faults = options.faults()
    if faults:
        raise ConfigError(faults)
    with OpenPolicy.at(checkpoint) as policy:
        scan = _Scan(policy, options)
        prepare_out(out, resume, marker=ROWS_FILE)
        with Record.open(out / ROWS_FILE) as record:
            place = shown(policy.saved.directory.absolute())
            settings = {"settings": {**scan.settings(), "checkpoint": place}}
            known = _known_rows(out / ROWS_FILE, settings, record)
            result = scan.run(record, known, reporter)
    write_atomic(out / RESULT_FILE, to_json(result, indent=2) + "\n")
    write_atomic(out / SUGGESTED_FILE, suggested_yaml(result))
    write_sensitivity_page(result, out / PAGE_FILE)
    return result


def suggested_yaml(result: Mapping[str, Any]) -> str:
    """Return the allocation as YAML that `pruning.distribution` takes as it is."""
    entries = result["suggested"]["distribution"].items()
    lines = [f"  {to_json(name)}: {sparsity!r}" for name, sparsity in entries]
    return (
        "# Made by `rayprune sensitivity`. Use it as it is:\n"
        '#   rayprune train CONFIG --set "pruning.distribution=$(cat suggested.yaml)"\n'
        "# or paste it under `pruning: distribution:`, without a `sparsity` beside it.\n"
        "{\n" + ",\n".join(lines) + "\n}\n"
    )


def _known_rows(
    path: Path, settings: Mapping[str, Any], record: Record
) -> dict[tuple[str, float], dict[str, Any]]:
    """Return the points that are measured already; write or check the settings, the first row."""
    rows = read_rows(path)
    if not rows:
        record.append(settings)
        return {}
    held = rows[0].get("settings", {})
    require_same(
        {key: held.get(key) for key in settings["settings"]},
        settings["settings"],
        str(path),
        "the scan's own options",
        option="--",
        alike=_alike_as_json,
    )
    return {(row["layer"], row["sparsity"]): row for row in rows[1:]}


def _alike_as_json(held: Any, value: Any) -> bool:
    return to_json(held) == to_json(value)


class _Scan:
    """The points of a scan: those known already, those to be measured, and what they suggest."""

    def __init__(self, policy: OpenPolicy, options: ScanOptions) -> None:
        evaluation = policy.evaluation
        self._policy, self._options = policy, options
        self._seed = evaluation.validation_seed if options.seed is None else options.seed
        _check_seeds(self._seed, options.episodes, evaluation, policy.config.seed)
        self._scan = LayerScan(policy, options.pruning, self._seed, options.episodes)
        self._layers = _chosen(self._scan.layers, options.layers)
        # A target out of reach is told now, not at the end.
        self._suggested({layer.name: 0.0 for layer in self._layers})

    def settings(self) -> dict[str, Any]:
        """Return what makes two scans the same; tolerance and target only read the points."""
        own = {**asdict(self._options), "seed": self._seed}
        return {key: own[key] for key in own if key not in ("tolerance", "target", "layers")}

    def run(
        self,
        record: Record,
        known: Mapping[tuple[str, float], dict[str, Any]],
        reporter: ScanReporter,
    ) -> dict[str, Any]:
        """Measure what isn't known yet, and return the result."""
        self._scan.play()
        points = [(layer, s) for layer in self._layers for s in self._options.sparsities]
        missing = [(layer, s) for layer, s in points if (layer.name, s) not in known]
        reporter.start(len(points) + 1, len(points) - len(missing))
        rows = dict(known)
        for layer, sparsity in missing:
            play = measured_by(layer.group) == BY_RETURN
            row = self._scan.point(layer.name, {layer.name: sparsity}, sparsity, play=play)
            record.append(row)
            reporter.point(row)
            rows[layer.name, sparsity] = row
        result = self._result(rows)
        split = result["suggested"]["distribution"]
        together = self._scan.point(TOGETHER, split, None, play=True)
        reporter.point(together)
        result["suggested"]["together"] = _ladder_entry(together)
        return result

    def _result(self, rows: Mapping[tuple[str, float], dict[str, Any]]) -> dict[str, Any]:
        options, unpruned, config = self._options, self._scan.unpruned(), self._policy.config
        allowed = options.tolerance * abs(unpruned["iqm"])
        layers = [self._layer(layer, rows, allowed) for layer in self._layers]
        return {
            "schema": SCHEMA,
            "checkpoint": shown(self._policy.saved.directory),
            "env": str(config.env),
            "algorithm": type(config).__name__.removesuffix("Config"),
            "settings": {**asdict(options), "seed": self._seed},
            "unpruned": unpruned,
            "floor": unpruned["iqm"] - allowed,
            "sparsity_now": self._scan.sparsity_now,
            "layers": layers,
            "suggested": self._suggested({layer["name"]: layer["suggested"] for layer in layers}),
        }

    def _layer(
        self, layer: LayerCount, rows: Mapping[tuple[str, float], dict[str, Any]], allowed: float
    ) -> dict[str, Any]:
        ladder = [rows[layer.name, sparsity] for sparsity in self._options.sparsities]
        measure = measured_by(layer.group)
        if measure == BY_RETURN:
            losses, most = [row["gap"]["ci95"][1] for row in ladder], allowed
        else:
            # Without a critic in the checkpoint nothing is known of its layers: leave them dense.
            values = [row["value_unexplained"] for row in ladder]
            losses = [math.inf if value is None else value for value in values]
            most = self._options.tolerance
        points = list(zip(self._options.sparsities, losses, strict=True))
        return {
            "name": layer.name,
            "shape": list(layer.shape),
            "total": layer.total,
            "group": layer.group,
            "measured_by": measure,
            "sparsity_now": layer.sparsity,
            "suggested": tolerated(points, most),
            "ladder": [_ladder_entry(row) for row in ladder],
        }

    def _suggested(self, alone: Mapping[str, float]) -> dict[str, Any]:
        counts = {name: self._scan.units[name] for name in alone}
        rest, target = sum(self._scan.units.values()) - sum(counts.values()), self._options.target
        split = dict(alone) if target is None else scaled_to(alone, counts, target, rest)
        return {
            "distribution": split,
            "sparsity": overall(split, counts, rest),
            "target": target,
        }


def measured_by(group: str) -> str:
    """Return what tells how much a layer of a group matters."""
    return BY_VALUE if group == "value" else BY_RETURN


def _ladder_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("layer", "ci95_over")}


def _chosen(layers: Sequence[LayerCount], patterns: Sequence[str]) -> list[LayerCount]:
    names = [layer.name for layer in layers]
    faults = [
        f"`--layers` pattern {pattern!r} matches no layer that can be pruned."
        f"{did_you_mean(pattern, names) or f' Layers are {names}.'}"
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]
    if faults:
        raise ConfigError(faults)
    return [
        layer
        for layer in layers
        if not patterns or any(fnmatchcase(layer.name, pattern) for pattern in patterns)
    ]


def _check_seeds(
    first: int, episodes: int, evaluation: EvaluationConfig, trained_on: int | None
) -> None:
    """The test seeds choose nothing, and training must not have seen these episodes."""
    test = evaluation.test_seed
    if first < test + evaluation.episodes and test < first + episodes:
        raise ConfigError(
            f"`--seed` {first} with {episodes} episodes reaches into the test seeds from {test} "
            "on, which must choose nothing. Take others, or fewer `--episodes`."
        )
    if trained_on is not None and first <= trained_on < first + episodes:
        raise ConfigError(
            f"`--seed` {first} with {episodes} episodes takes in {trained_on}, the seed that the "
            "policy was trained with. Take another."
        )
