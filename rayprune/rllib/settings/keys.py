"""Names of what travels to the Learners in a config, and of what comes back in their state."""

from __future__ import annotations

from typing import Final

CONFIG_KEY: Final = "rayprune"
"""Key of the plain pruning dict in ``AlgorithmConfig.learner_config_dict``."""

DRIVEN_KEY: Final = "driven"
"""Key, inside the pruning dict, that says that a driver validates and posts what follows."""

MODULES_KEY: Final = "modules"
"""Key, inside the pruning dict, of the ids of the modules to prune, each with its changes."""

LEAN_KEY: Final = "rayprune_lean"
"""Key, in ``AlgorithmConfig.learner_config_dict``, of whether RLlib's loops may be made lean."""

QUANTISE_KEY: Final = "rayprune_quantise"
"""Key, in ``AlgorithmConfig.learner_config_dict``, of the plain dict of a QuantisationConfig."""

REGISTERED_KEY: Final = "registered"
"""Key, inside the pruning dict, of what the user registered, which remote Learners don't know."""

PRUNE: Final = "prune"
"""Value of ``pruning.frozen``."""

START: Final = "start"
"""Value of ``pruning.distillation.from``."""

LEVEL: Final = "level"
CRITERION: Final = "criterion"
"""Signals of a driver, beside `rayprune.pruning.schedules.times.BEGAN`."""

STATE_KEY: Final = "rayprune"
"""Key of masks, progress and carried-over values in a Learner's state."""
