"""A fit's YAML, parsed and checked: its budgets, the experiment, and the candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayprune.algorithms import is_offline
from rayprune.config import ExperimentConfig, experiment_faults, import_modules, load_raw
from rayprune.deploy.formats import format_named
from rayprune.deploy.targets import target_of
from rayprune.deploy.targets.base import Target
from rayprune.errors import ConfigError, InputError, shown
from rayprune.fit.candidates import (
    FLOAT,
    HIDDENS,
    Candidate,
    candidates_of,
    without_compaction,
)
from rayprune.fit.config import FitConfig, fit_faults
from rayprune.pruning.quantisation.config import QuantisationConfig
from rayprune.pruning.schedules import schedule_of
from rayprune.rllib.experiment.algorithm_config import base_config
from rayprune.rllib.experiment.experiment_checks import experiment_parts_faults
from rayprune.rllib.experiment.recipe_inputs import with_known_inputs
from rayprune.search.space import Space

_INTERVALS = 8
"""Measurements of a trial, where the interval isn't given."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a fit's file and its options say, parsed."""

    raw: Mapping[str, Any]
    """The nested mapping, the options in its `fit` block."""
    config: FitConfig
    experiment: ExperimentConfig
    """Of the dense reference: the file's own network."""
    candidates: tuple[Candidate, ...]
    dropped: Mapping[str, str]
    """Candidates that no experiment can be made of: name -> why."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Fit:
        """Parse a mapping that `load_fit` has checked.

        Raises:
            ConfigError: no candidate makes a valid experiment, or there are widths of nothing.
        """
        config = FitConfig.from_raw(raw.get("fit"))
        import_modules(raw.get("imports"))
        base = plain(raw)
        faults, experiment = experiment_faults(base, check_paths=False)
        if experiment is None:
            raise ConfigError(faults)
        hiddens = hiddens_of(experiment)
        if hiddens is None and "widths" in config.model_fields_set:
            raise ConfigError(
                f"`fit.widths` are of `{HIDDENS}`, which the file doesn't give, so that its "
                "network has one width alone. Give it, such as [256, 256] (layers that are fully "
                "connected, one list of them), or leave `fit.widths` out."
            )
        wanted = candidates_of(
            config,
            hiddens,
            interval_of(config, experiment),
            from_dense=config.from_dense and _trains_the_reference(experiment),
            weight_bits=_weight_bits(raw),
        )
        kept, dropped = _sound(raw, wanted)
        if not kept:
            raise ConfigError([f"`fit`: {fault}" for fault in dict.fromkeys(dropped.values())])
        return cls(
            raw=raw,
            config=config,
            experiment=experiment,
            candidates=tuple(kept),
            dropped=dropped,
        )

    @property
    def interval(self) -> int:
        """Env steps between two measurements of a trial."""
        return interval_of(self.config, self.experiment)

    @property
    def target(self) -> Target:
        """Where the policy shall act."""
        return target_of(self.config.target)

    def experiment_of(self, candidate: Candidate) -> ExperimentConfig:
        """Return a candidate's experiment."""
        faults, experiment = _experiment(self.raw, candidate)
        if experiment is None:
            raise ConfigError(faults)
        return experiment

    def check_target(self) -> None:
        """Refuse budgets that the target can't tell, and a target whose tools are missing.

        Raises:
            InputError: says which, and the packages.
        """
        target = self.target
        self.config.budgets.check_reported(target)
        if "int8" in self.config.precisions and "int8" not in format_named(target.format).options:
            raise ConfigError(
                f"`fit.precisions` has int8, which files of format {target.format!r} for target "
                f"{target.name!r} have not. Leave it out."
            )
        packages = target.missing()
        if packages:
            raise InputError(
                f"`fit.target` {target.name!r} needs {', '.join(packages)}: apt-get install "
                f"{' '.join(packages)} (Debian's names)."
            )


def load_fit(
    path: Path,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Fit:
    """Read a fit's YAML and report the faults of all its parts together.

    Args:
        path: the YAML file; without a `fit` block the options are one.
        overrides: ``KEY=VALUE`` strings of ``--set``.
        seed: replaces the file's seed.
        options: keys of the `fit` block that the command line gives; they win.

    Raises:
        ConfigError: with every fault.
        InputError: the target's tools are missing.
    """
    raw, faults = load_raw(path, overrides, seed)
    given = raw.get("fit")
    if given is None or isinstance(given, Mapping):
        raw["fit"] = {**(given or {}), **(options or {})}
    if raw.get("pruning") is None:
        raw["pruning"] = {}  # a block whose lines are all commented out is as none
    pruning = raw["pruning"]
    if isinstance(pruning, dict) and "threshold" not in pruning:
        # A candidate has its own; the file's only has to be one.
        pruning.setdefault("sparsity", 0.5)
    raw = with_known_inputs(raw)
    more, config = fit_faults(raw["fit"])
    faults += more
    whole = {**plain(raw), "quantise": raw.get("quantise")}
    faults += [*experiment_parts_faults(whole), *_run_faults(whole, config)]
    if faults:
        raise ConfigError(faults)
    fit = Fit.of(raw)
    fit.check_target()
    return fit


def plain(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of the dense reference: without the blocks that are none of it."""
    return {**raw, "search": None, "fit": None, "quantise": None}


def space_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return the `search.space` that holds all candidates."""
    values: dict[str, list[Any]] = {}
    for candidate in candidates:
        for key, value in candidate.values.items():
            held = values.setdefault(key, [])
            if value not in held:
                held.append(value)
    return {key: {"choice": held} for key, held in values.items()}


def hiddens_of(experiment: ExperimentConfig) -> list[int] | None:
    """Return the widths of the file's hidden layers; None where they can't be set by a key."""
    block = experiment.rllib.get("rl_module", {})
    if "module_class" in block:
        held = block.get("model_config", {}).get("fcnet_hiddens")
    else:
        held = base_config(experiment).model_config.get("fcnet_hiddens")
    return [int(units) for units in held] if isinstance(held, (list, tuple)) and held else None


def interval_of(config: FitConfig, experiment: ExperimentConfig) -> int:
    """Return the env steps between two measurements of a trial."""
    return config.interval or max(1, (experiment.stop.env_steps or 1) // _INTERVALS)


def rounded(raw: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Return the experiment's mapping for candidates of a precision: trained to be rounded, or not.

    Args:
        raw: the fit's mapping.
        precision: of the exported file.
    """
    block = None if precision == FLOAT else raw.get("quantise") or {}
    return {**plain(raw), "quantise": block}


def _trains_the_reference(experiment: ExperimentConfig) -> bool:
    """Whether the dense reference is trained here, and is where candidates may begin."""
    begun = experiment.start_from is not None or experiment.transfer is not None
    return experiment.evaluation.dense in (None, "train") and not begun


def _weight_bits(raw: Mapping[str, Any]) -> int:
    """Return the bits of a weight of candidates that are rounded."""
    return QuantisationConfig.from_dict(raw.get("quantise") or {}).weights


def _experiment(
    raw: Mapping[str, Any], candidate: Candidate
) -> tuple[list[str], ExperimentConfig | None]:
    base = rounded(raw, candidate.precision)
    applied = Space.from_dict(space_of([candidate])).apply(base, candidate.values)
    return experiment_faults(applied, check_paths=False)


def _sound(
    raw: Mapping[str, Any], wanted: Sequence[Candidate]
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates that make experiments, and why the others don't."""
    kept, dropped = [], {}
    for candidate in wanted:
        # Not every schedule and algorithm can follow networks that shrink.
        for tried in dict.fromkeys((candidate, without_compaction(candidate))):
            faults, experiment = _experiment(raw, tried)
            if experiment is not None:
                kept.append(tried)
                break
        else:
            dropped[candidate.name] = faults[0]
    return kept, dropped


def _run_faults(raw: Mapping[str, Any], config: FitConfig | None) -> Iterator[str]:
    """Yield what trials can't be trained by; those of a sweep have the same rules."""
    if is_offline(raw.get("algorithm")):
        yield (
            f"`algorithm` can't be {raw['algorithm']} in a fit, whose candidates are measured by "
            "env steps: it samples none. Run `rayprune train`, `export` and `certify`."
        )
        return
    if raw.get("quantise") is not None and config is not None and "int8" not in config.precisions:
        yield (
            "`quantise` is for candidates in int8, and `fit.precisions` has none: add int8 there, "
            "or leave `quantise` out."
        )
    stop, pruning = raw.get("stop"), raw.get("pruning")
    if isinstance(stop, Mapping):
        for key in sorted({"return", "updates"} & set(stop)):
            yield (
                f"`stop.{key}` can't be used in a fit, whose candidates train for the same env "
                "steps. Give `stop.env_steps`."
            )
        steps, interval = stop.get("env_steps"), config and config.interval
        if isinstance(steps, (int, float)) and interval and steps < interval:
            yield (
                f"`fit.interval` must be at most `stop.env_steps` ({shown(steps)}), but is "
                f"{interval}: no candidate would ever be measured. Lower it."
            )
    schedule = pruning.get("schedule") if isinstance(pruning, Mapping) else None
    if isinstance(schedule, Mapping) and schedule_of(schedule).finds_sparsity:
        yield (
            f"`pruning.schedule.kind` {schedule.get('kind')!r} finds a sparsity itself, which here "
            "the budgets decide. Take 'cubic' or another kind that ends at `pruning.sparsity`."
        )
