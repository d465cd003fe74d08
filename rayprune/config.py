"""ExperimentConfig: what a YAML file for ``rayprune train`` says, checked, all faults at once."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rayprune import yaml12
from rayprune.algorithms import ALGORITHMS, is_offline
from rayprune.errors import ConfigError, did_you_mean, shown
from rayprune.import_path import search_here
from rayprune.presets import find_config
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.quantisation.config import QuantisationConfig
from rayprune.pruning.schedules.times import waits_for_return
from rayprune.reasons import RAISED
from rayprune.run_recipe import given_blocks
from rayprune.validation import faults_from


def _whole(value: object) -> object:
    """``2e5`` is a float to YAML; as a count it is the integer 200000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _file_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        return value
    raise ValueError(
        "names the run's directory, so it must be of letters, digits, '.', '_' and '-', and begin "
        f"with a letter or digit, but is {value!r}."
    )


def _known_algorithm(value: str) -> str:
    if value in ALGORITHMS:
        return value
    names = list(ALGORITHMS)
    raise ValueError(
        f"must be one of {names}, but is {value!r}.{did_you_mean(value.upper(), names)}"
    )


Count = Annotated[int, BeforeValidator(_whole), Field(gt=0)]
Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**32)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Keywords = dict[str, Any]


class _Section(BaseModel):
    """Frozen, unknown keys refused, and no guessing: the text '5' is not the number 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class StopConfig(_Section):
    """When a run ends: at the first of these that is reached."""

    env_steps: Count | None = None
    """Lifetime env steps."""

    return_: Number | None = Field(default=None, alias="return")
    """A validation return."""

    updates: Count | None = None
    """Optimizer steps, for offline algorithms."""


class EvaluationConfig(_Section):
    """How the policy is measured, on seeds that training never saw."""

    every: Count | None = 20_000
    """Env steps (updates, offline) between validations; null validates at the end only."""

    episodes: Count = 20

    max_steps: Count = 50_000
    """Env steps after which an episode is cut off: one that never ends would be waited for."""

    validation_seed: Seed = 10_000
    test_seed: Seed = 20_000

    shifts: Annotated[tuple[Keywords, ...], Field(strict=False)] = ()
    """Variants of env_config in which the policy is measured as well."""

    dense: Text | None = None
    """``train`` trains the dense twin too; or a dense checkpoint to compare with."""


class TransferConfig(_Section):
    """A new task begun with a trained policy: what fits is kept, the rest of the network is new."""

    target: Number | None = None
    """A validation return; the summary tells the steps to it."""

    fresh: bool = False
    """Whether the same is trained from nothing too, in the run's directory ``fresh``."""


class NormaliseConfig(_Section):
    """What is normalised by running statistics; they travel with the policy."""

    observations: bool = False
    """The same as ``rllib.env_runners.observation_filter: MeanStdFilter``."""

    rewards: bool = False
    """Divide them by the spread of the discounted return, in training only."""


class TrackingConfig(_Section):
    """Where a run is followed, beside its own directory."""

    wandb: Literal["online", "offline", "off"] = "offline"
    project: Text = "rayprune"
    tensorboard: bool = True


class ExperimentConfig(_Section):
    """One experiment, as its YAML file says it; made by ``load_experiment``."""

    name: Annotated[str, AfterValidator(_file_name)] = Field(
        description="a name for the run's directory"
    )
    algorithm: Annotated[str, AfterValidator(_known_algorithm)] = Field(
        description=f"one of {list(ALGORITHMS)}"
    )
    env: Text = Field(description="a gymnasium id, such as CartPole-v1")
    env_config: Keywords = Field(default_factory=dict)
    seed: Seed = 0

    rllib: dict[str, Keywords] = Field(default_factory=dict)
    """Method of AlgorithmConfig -> its keyword arguments; their meaning is checked by RLlib."""

    normalise: NormaliseConfig = NormaliseConfig()
    lean: bool = True
    """Whether leaner loops that compute the same replace RLlib's, where they can."""
    pruning: PruningConfig
    quantise: QuantisationConfig | None = None
    """How the policy learns to act with weights and activations of few bits; null: it doesn't."""
    stop: StopConfig = StopConfig(env_steps=200_000)
    evaluation: EvaluationConfig = EvaluationConfig()
    start_from: Text | None = None
    """A checkpoint to start from: rayprune's own, or one that plain RLlib wrote."""
    transfer: TransferConfig | None = None
    """Given, ``start_from`` may be of another task: heads and first layers may differ."""
    tracking: TrackingConfig = TrackingConfig()

    search: Keywords | None = None
    """A sweep's block, kept as it is; ``rayprune train`` has no use for it."""
    fit: Keywords | None = None
    """A fit's block, likewise."""

    imports: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Modules imported before anything else is checked: they register own criteria."""

    @property
    def offline(self) -> bool:
        """Whether it learns from recorded data, and counts updates in place of env steps."""
        return is_offline(self.algorithm)

    @property
    def length(self) -> int | None:
        """Env steps of the whole run, or updates where it is offline."""
        return self.stop.updates if self.offline else self.stop.env_steps

    @property
    def horizon(self) -> int | None:
        """What a schedule's fractions are fractions of."""
        return self.pruning.horizon or self.length

    @property
    def dated_pruning(self) -> PruningConfig:
        """The pruning, which knows how long the run is."""
        return self.pruning.over(self.horizon)


def load_experiment(
    path: str | Path,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    *,
    check_paths: bool = True,
) -> ExperimentConfig:
    """Read a YAML file, apply ``--set`` overrides and ``--seed``, and check it all.

    Args:
        path: the YAML file; its stem is the experiment's name if it gives none.
        overrides: ``a.b.c=VALUE`` strings; the later wins.
        seed: replaces the file's seed.
        check_paths: whether the checkpoints that it names must exist, and its seeds differ. They
            must for a run to start; to read the config of a finished run they need not.

    Returns:
        The experiment.

    Raises:
        ConfigError: with every fault of the file and the overrides.
    """
    raw, faults = load_raw(path, overrides, seed)
    more, experiment = experiment_faults(raw, check_paths=check_paths)
    if experiment is None or faults:
        raise ConfigError([*faults, *more])
    return experiment


def load_raw(
    path: str | Path, overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the file's mapping with the overrides in it, and the overrides' faults."""
    path = find_config(path)
    raw = yaml12.read_mapping(path)
    if raw.get("name") is None:  # or a line that was left empty
        raw["name"] = path.stem
    faults = yaml12.apply_overrides(raw, overrides)
    if seed is not None:
        raw["seed"] = seed
    return raw, faults


def experiment_faults(
    raw: Mapping[str, Any], *, check_paths: bool = True
) -> tuple[list[str], ExperimentConfig | None]:
    """Check a raw mapping: return every fault, and the experiment when there is none."""
    given = given_blocks(raw)
    faults = import_modules(given.get("imports"))
    pruning_faults, given["pruning"] = _pruning(given.get("pruning"))
    faulty = {"pruning"} if pruning_faults else set()
    quantise_faults, given["quantise"] = QuantisationConfig.parse(given.get("quantise"))
    experiment: ExperimentConfig | None = None
    try:
        experiment = ExperimentConfig.model_validate(given)
    except ValidationError as error:
        faults += faults_from(error, ExperimentConfig)
        faulty |= {str(details["loc"][0]) for details in error.errors() if details["loc"]}
        experiment = _without(given, faulty)
    faults += pruning_faults + quantise_faults
    if check_paths:
        # What a finished run was checked for needn't hold of a part of it that is read back.
        faults += _cross_faults(experiment, faulty) + _path_faults(experiment)
    return faults, None if faults else experiment


def import_modules(names: object) -> list[str]:
    """Import the modules that an experiment names; return what went wrong.

    The working directory is searched too, as ``python -m`` would.
    """
    faults: list[str] = []
    search_here()
    for name in names if isinstance(names, (list, tuple)) else ():
        try:
            importlib.import_module(str(name))
        # The module is the user's own, so anything may come out of it.
        except RAISED as error:
            reason = f"{type(error).__name__}: {error}"
            faults.append(f"`imports` names {name!r}, which can't be imported: {reason}.")
    return faults


def to_yaml(experiment: ExperimentConfig, versions: Mapping[str, str]) -> str:
    """Return the resolved experiment as YAML that ``load_experiment`` reads back the same."""
    content = experiment.model_dump(by_alias=True, exclude={"pruning"})
    content = {
        key: experiment.pruning.to_dict() if key == "pruning" else content[key]
        for key in (info.alias or name for name, info in ExperimentConfig.model_fields.items())
    }
    return yaml12.dump(yaml12.plain({**content, "versions": dict(versions)}))


def _pruning(raw: object) -> tuple[list[str], PruningConfig]:
    """Return the faults of the pruning block, and its config (a stand-in when it has faults)."""
    if isinstance(raw, PruningConfig):
        return [], raw
    config = None
    if raw is None:
        faults = ["`pruning` is missing: give at least {sparsity: 0.9}; 0 is a dense run."]
    elif not isinstance(raw, Mapping):
        faults = [f"`pruning` must be a mapping, but is {shown(raw)}."]
    else:
        faults, config = PruningConfig.parse(raw)
    return faults, PruningConfig(sparsity=0.0) if config is None else config


def _without(given: Mapping[str, Any], faulty: set[str]) -> ExperimentConfig:
    """Return the experiment with stand-ins for its faulty keys, to check the others together."""
    stand_ins = {"name": "name", "algorithm": "PPO", "env": "env"}
    sound = {key: value for key, value in given.items() if str(key) not in faulty}
    return ExperimentConfig.model_validate({**stand_ins, **sound, "pruning": given["pruning"]})


def named_checkpoints(experiment: ExperimentConfig) -> dict[str, str]:
    """Return the checkpoints that an experiment names, by its keys."""
    teacher = (experiment.pruning.distillation or {}).get("from")
    named = {
        "start_from": experiment.start_from,
        "evaluation.dense": experiment.evaluation.dense,
        "pruning.distillation.from": teacher,
    }
    words = {"evaluation.dense": "train", "pruning.distillation.from": "start"}
    return {key: path for key, path in named.items() if path not in (None, words.get(key))}


def _path_faults(experiment: ExperimentConfig) -> list[str]:
    # A URL such as s3://... is for `checkpoints.locate` to fetch.
    return [
        f"`{field}` must be a checkpoint's directory{_OR.get(field, '')}, but there is no {path!r}."
        for field, path in named_checkpoints(experiment).items()
        if "://" not in path and not Path(path).exists()
    ]


_OR = {
    "evaluation.dense": ", 'train' or null",
    "pruning.distillation.from": ", 'start' or null",
}


def _stop_faults(experiment: ExperimentConfig) -> list[str]:
    stop = experiment.stop
    if experiment.offline:
        return _offline_stop_faults(experiment)
    if stop.env_steps or stop.updates or stop.return_ is not None:
        return []
    return ["`stop` must give at least one of `env_steps`, `return` and `updates`."]


def _offline_stop_faults(experiment: ExperimentConfig) -> list[str]:
    stop, name = experiment.stop, experiment.algorithm
    if stop.updates is None:
        return [f"`stop.updates` is missing: {name} learns offline, so a run's length is updates."]
    if "env_steps" in stop.model_fields_set and stop.env_steps is not None:
        return [
            f"`stop.env_steps` must be left out with {name}, which samples none, but is "
            f"{stop.env_steps}. Give `stop.updates` alone."
        ]
    return []


def _transfer_faults(experiment: ExperimentConfig) -> list[str]:
    transfer = experiment.transfer
    if transfer is None:
        return []
    faults = []
    if experiment.start_from is None:
        faults.append("`transfer` needs a policy: give its checkpoint as `start_from`.")
    if transfer.fresh and transfer.target is None:
        faults.append(
            "`transfer.fresh` compares the steps to a return: give it as `transfer.target`."
        )
    return faults


def _horizon_faults(experiment: ExperimentConfig) -> list[str]:
    """A fraction of the run needs a run whose length is known beforehand."""
    pruning, stop, quantise = experiment.pruning, experiment.stop, experiment.quantise
    given = stop.return_ is not None or stop.updates is not None
    if experiment.horizon is not None or not given:
        return []
    dated = {"pruning.schedule": pruning.fractions if pruning.needs_horizon else {}}
    dated["quantise"] = {} if quantise is None else quantise.fractions
    told = {
        block: " and ".join(f"`{key}` {time}" for key, time in times.items())
        for block, times in dated.items()
    }
    return [
        f"`{block}` has {shares}, of `stop.env_steps`, which isn't given. "
        "Give it beside what `stop` has, or give absolute env steps (above 1) there."
        for block, shares in told.items()
        if shares
    ]


def _quantise_faults(experiment: ExperimentConfig) -> list[str]:
    quantise, horizon = experiment.quantise, experiment.horizon
    return [] if quantise is None or horizon is None else quantise.faults_over(horizon)


def _driver_faults(experiment: ExperimentConfig) -> list[str]:
    """What waits for a return needs validations on the way."""
    schedule, evaluation = experiment.pruning.schedule, experiment.evaluation
    gated, waits = experiment.pruning.gated, waits_for_return(schedule)
    faults = []
    teacher = (experiment.pruning.distillation or {}).get("from")
    if teacher == "start" and experiment.start_from is None:
        faults.append(
            "`pruning.distillation.from` is start, but `start_from` is null: an untrained policy "
            "teaches nothing. Give `start_from`, a checkpoint, or null for the policy of before "
            "the first pruning."
        )
    if evaluation.every is None and (gated or waits):
        who = f"a {schedule['kind']} schedule" if gated else "`pruning.schedule.begin`"
        faults.append(
            f"`evaluation.every` is null, but {who} decides by validation returns. Give the env "
            "steps between two validations, such as 10000."
        )
    compares = gated and schedule.get("reference") == "dense" and experiment.pruning.sparsity != 0
    if compares and evaluation.dense is None and experiment.start_from is None:
        faults.append(
            "`pruning.schedule.reference` is dense, but there is no dense policy. Set "
            "`evaluation.dense` to train or a checkpoint, or `start_from`; or take "
            "`reference: peak`, the best validation so far."
        )
    return faults


def _seed_faults(experiment: ExperimentConfig) -> list[str]:
    """Training, validation and test must not share an episode."""
    evaluation = experiment.evaluation
    validation, test, episodes = (
        evaluation.validation_seed,
        evaluation.test_seed,
        evaluation.episodes,
    )
    faults = [
        f"`seed` {experiment.seed} is among the {episodes} seeds from `evaluation.{key}` "
        f"({first}): training must not see them. Take another."
        for key, first in (("validation_seed", validation), ("test_seed", test))
        if first <= experiment.seed < first + episodes
    ]
    if abs(validation - test) < episodes:
        faults.append(
            f"`evaluation.test_seed` must be at least `evaluation.episodes` ({episodes}) away from "
            f"`evaluation.validation_seed` ({validation}), but is {test}: they would share "
            "episodes."
        )
    return faults


_CROSS_CHECKS: tuple[tuple[set[str], Callable[[ExperimentConfig], list[str]]], ...] = (
    ({"stop", "algorithm"}, _stop_faults),
    ({"start_from", "transfer"}, _transfer_faults),
    ({"stop", "pruning", "quantise"}, _horizon_faults),
    ({"stop", "pruning", "quantise"}, _quantise_faults),
    ({"seed", "evaluation"}, _seed_faults),
    ({"pruning", "evaluation", "start_from"}, _driver_faults),
)


def _cross_faults(experiment: ExperimentConfig, faulty: set[str]) -> list[str]:
    """Run the checks between keys of which none is faulty by itself."""
    return [
        fault for keys, check in _CROSS_CHECKS if not keys & faulty for fault in check(experiment)
    ]
