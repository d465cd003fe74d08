"""``prune``: turn any AlgorithmConfig into a pruning one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import ConfigError
from rayprune.pruning.config import DEFAULT_HORIZON, PruningConfig
from rayprune.pruning.granularity import find_granularity
from rayprune.pruning.quantisation.config import QuantisationConfig
from rayprune.pruning.remedies import replay_faults
from rayprune.pruning.schedules import schedule_of
from rayprune.rllib.algorithms import family_of
from rayprune.rllib.composed_callbacks import compose
from rayprune.rllib.lean import make_lean
from rayprune.rllib.learner import pruned
from rayprune.rllib.learner.extensions.competing_networks import competition_faults
from rayprune.rllib.learner.extensions.policy_changes import NO_KL
from rayprune.rllib.modules.quantisable import make_modules_quantisable
from rayprune.rllib.modules.resizable import make_shrinkable
from rayprune.rllib.normalisation import as_configured
from rayprune.rllib.recipe_of_run import filled_for
from rayprune.rllib.remedies import hold_sampling
from rayprune.rllib.settings.keys import (
    CONFIG_KEY,
    DRIVEN_KEY,
    MODULES_KEY,
    QUANTISE_KEY,
    REGISTERED_KEY,
)
from rayprune.rllib.settings.registered import own_parts

Config = TypeVar("Config", bound=AlgorithmConfig)


Modules = Iterable[str] | Mapping[str, Mapping[str, Any]]
Quantise = QuantisationConfig | Mapping[str, Any] | None


def prune(
    config: Config,
    pruning: PruningConfig | Mapping[str, Any],
    *,
    modules: Modules | None = None,
    quantise: Quantise = None,
    lean: bool = True,
) -> Config:
    """Return a copy of ``config`` whose Learners prune while they train.

    The user's own learner class, callbacks and module spec are kept and composed with. Call it
    last: what a later ``.callbacks(...)`` or ``.learners(learner_class=...)`` replaces is missed
    and refused when the algorithm is built.

    Args:
        config: any AlgorithmConfig of RLlib's new API stack with a torch Learner.
        pruning: what to prune. A plain dict may hold ``tune.*`` domains; it is then validated in
            the trial, where the values are known. With a recipe, what that says of the algorithm
            is filled in: a dense critic, how often masks change, a bound on each mask update.
        modules: ids of the RLModules to prune, for multi-agent training; the others stay dense.
            None prunes all. A mapping gives each its changes of ``pruning``:
            ``{"pursuer": {}, "evader": {"sparsity": 0.5}}``.
        quantise: how the policies that are pruned learn to act with few bits; None: they don't.
            Its fractions are of ``pruning.horizon``.
        lean: whether RLlib's loops are replaced by leaner ones that compute the same, where nothing
            in the config replaces or watches them.

    Returns:
        A config of the same class, not frozen; ``build_algo()`` and Tune work as usual.

    Raises:
        ConfigError: a fault in ``pruning``, or a config that is not on the new API stack.

    Example::

        config = prune(
            PPOConfig().environment("CartPole-v1"), PruningConfig(sparsity=0.9, horizon=100_000)
        )
        algo = config.build_algo()
    """
    check_undriven(pruning)
    whole = filled_for(config, pruning)
    return with_pruning(config, whole, modules=modules, quantise=quantise, lean=lean)


def check_undriven(pruning: PruningConfig | Mapping[str, Any]) -> None:
    """Raise ConfigError if a schedule waits for what nobody posts while `algo.train()` runs."""
    held = plain(pruning)
    if schedule_of(held.get("schedule")).finds_sparsity:
        raise ConfigError(
            f"`pruning.schedule.kind` {held['schedule']['kind']} needs a driver that validates the "
            "policy and rolls it back, which `algo.train()` can't. Use `rayprune train` with a "
            "YAML file, or another kind here."
        )


def with_pruning(
    config: Config,
    pruning: PruningConfig | Mapping[str, Any],
    *,
    modules: Modules | None = None,
    quantise: Quantise = None,
    driven: bool = False,
    lean: bool = True,
) -> Config:
    """Do what `prune` does.

    Args:
        config: any AlgorithmConfig of RLlib's new API stack with a torch Learner.
        pruning: what to prune.
        modules: see `prune`.
        quantise: likewise.
        driven: whether the caller posts what the schedule waits for, see
            `rayprune.rllib.learner.extensions.signals`.
        lean: see `prune`.
    """
    if not (config.enable_rl_module_and_learner and config.enable_env_runner_and_connector_v2):
        raise ConfigError(
            "`config` must be on RLlib's new API stack, but is not. "
            "Drop `api_stack(enable_rl_module_and_learner=False)`."
        )
    held = plain(pruning)
    faults = pruning_faults_of(config, held)
    faults += schedule_faults_of(config, held)
    if quantise is not None:
        faults += [*quantise_faults_of(held), *_compilation_faults(config)]
    if faults:
        raise ConfigError(faults)
    result = as_configured(config).copy(copy_frozen=False)
    if result._rl_module_spec is None and not result.is_multi_agent:
        family_of(result).allow_linear(result)
    hold_sampling(result, held["remedies"] or {})
    rounding = {} if quantise is None else {QUANTISE_KEY: _quantisation(quantise, held)}
    if rounding:
        make_modules_quantisable(result)
    if held["compact_every"] is not None:
        make_shrinkable(result)
    held.update(_chosen(pruning, modules))
    held.update({DRIVEN_KEY: True} if driven else {})
    result.learners(
        learner_class=pruned(result.learner_class),
        learner_config_dict={**config.learner_config_dict, CONFIG_KEY: held, **rounding},
    )
    compose(result)
    make_lean(result, lean=lean)
    return result


def pruning_faults_of(config: AlgorithmConfig, pruning: Mapping[str, Any]) -> list[str]:
    """Return the faults of remedies and granularities that an algorithm can't be given.

    Args:
        config: the algorithm's.
        pruning: the plain mapping, sound in itself.
    """
    family, name = family_of(config), type(config).__name__.removesuffix("Config")
    faults = [] if family.replays else [*replay_faults(pruning["remedies"] or {}, name)]
    chosen = find_granularity(pruning["granularity"]) if family.no_units else None
    if chosen is not None and (chosen.removes_units or chosen.becomes_identity):
        faults.append(
            f"`pruning.granularity` {pruning['granularity']!r} can't be had with {name}: "
            f"{family.no_units}. Take 'weight', a block, or N:M."
        )
    if family.acts_by_values and pruning.get("max_kl") is not None:
        faults.append(NO_KL)
    return faults


def schedule_faults_of(config: AlgorithmConfig, pruning: Mapping[str, Any]) -> list[str]:
    """Return why an algorithm can't be given a schedule.

    Args:
        config: the algorithm's.
        pruning: the plain mapping, sound in itself.
    """
    competes = schedule_of(pruning.get("schedule")).competes
    return competition_faults(config) if competes else []


def quantise_faults_of(pruning: Mapping[str, Any]) -> list[str]:
    """Return why a policy that is pruned so can't be quantised while it is trained.

    Args:
        pruning: the plain mapping, sound in itself.
    """
    if not schedule_of(pruning.get("schedule")).competes:
        return []
    return [
        f"`quantise` can't be had with `pruning.schedule.kind` {pruning['schedule']['kind']!r}, "
        "whose networks would observe their ranges in turn. Take another kind, or quantise the "
        "trained policy (`rayprune export --format c --int8`)."
    ]


def _compilation_faults(config: AlgorithmConfig) -> Iterator[str]:
    for key in ("torch_compile_learner", "torch_compile_worker"):
        if getattr(config, key, False):
            yield (
                f"`quantise` can't be had with `{key}`, whose graphs would go on with what layers "
                "were told when they were made. Leave one of the two out."
            )


def _quantisation(quantise: Any, pruning: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain dict that travels to the Learners, its times in env steps."""
    if not isinstance(quantise, QuantisationConfig):
        quantise = QuantisationConfig.from_dict(quantise)
    dated: dict[str, Any] = quantise.over(pruning["horizon"] or DEFAULT_HORIZON).to_dict()
    return dated


def plain(pruning: PruningConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete plain dict that travels in ``learner_config_dict``.

    Complete, because ``AlgorithmConfig.update_from_dict`` replaces that dict as a whole.
    """
    if isinstance(pruning, PruningConfig):
        held = pruning.to_dict()
    elif _has_domains(pruning):
        held = {**PruningConfig(sparsity=0.0).to_dict(), **pruning}
    else:
        held = PruningConfig.from_dict(dict(pruning)).to_dict()
    own = own_parts(held)
    return {**held, REGISTERED_KEY: own} if own else held


def _chosen(
    pruning: PruningConfig | Mapping[str, Any], modules: Modules | None
) -> dict[str, dict[str, Any]]:
    """Return the entry for ``modules``: changes of the pruning by module id, checked."""
    if modules is None:
        return {}
    if isinstance(modules, str) or not modules:
        raise ConfigError(
            f"`modules` must be a list of module ids, or a mapping of changes by module id, but is "
            f"{modules!r}. Leave it out to prune every module."
        )
    changes = modules if isinstance(modules, Mapping) else {mid: {} for mid in modules}
    base = {key: value for key, value in plain(pruning).items() if key != REGISTERED_KEY}
    for changed in changes.values():
        plain({**base, **changed})  # raises on a fault
    return {MODULES_KEY: {str(mid): dict(changed) for mid, changed in changes.items()}}


def _has_domains(value: Any) -> bool:
    """Whether a ``tune.*`` domain or ``grid_search`` lies anywhere in ``value``."""
    if isinstance(value, Mapping):
        return "grid_search" in value or any(map(_has_domains, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_domains, value))
    # By module, because importing ray.tune here would cost every user of RLlib its start-up.
    return type(value).__module__.startswith("ray.tune.search.sample")
