"""Whether a config is still as `prune` has left it."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.errors import ConfigError
from rayprune.rllib.settings.foreign_code import callback_classes
from rayprune.rllib.settings.keys import CONFIG_KEY


def check_composed(config: AlgorithmConfig) -> None:
    """Raise ConfigError if something that `prune` has set was replaced after it.

    Checked where the algorithm and where its Learners are built, by whichever part is left.
    """
    faults = [
        f"`{field}` was set to {value} after `prune(config, ...)`, {so}. Call `prune` last."
        for field, value, so in _replaced(config)
    ]
    if faults:
        raise ConfigError(faults)


def _replaced(config: AlgorithmConfig) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    learner_class: Any = config.learner_class
    # By its method, because our Learner's module imports this one.
    if not hasattr(learner_class, "pruning_report"):
        found.append(("learner_class", learner_class.__qualname__, "which does not prune"))
    if CONFIG_KEY not in config.learner_config_dict:
        keys = sorted(config.learner_config_dict)
        found.append(("learner_config_dict", f"a dict of {keys}", "and says nothing of pruning"))
    callbacks = callback_classes(config)
    if not any(hasattr(callback, "checks_zeros") for callback in callbacks):
        names = [getattr(callback, "__qualname__", repr(callback)) for callback in callbacks]
        without = "without ours nothing would check the zeros, and results would lack `rayprune`"
        found.append(("callbacks_class", ", ".join(names) or "nothing", without))
    return found
