"""Which RLModules a Learner prunes, and why it leaves the others alone."""

from __future__ import annotations

from typing import Any, Final

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

from rayprune.errors import ConfigError
from rayprune.pruning.layers.attach import is_maskable, not_excluded
from rayprune.pruning.layers.masked import MASKABLE, prunable_parameters
from rayprune.pruning.layers.torch_prune import is_torch_pruned
from rayprune.pruning.measures.unmaskable import weights_of
from rayprune.pruning.update.frozen import wholly_frozen
from rayprune.rllib.algorithms.target_networks import target_networks
from rayprune.rllib.learner import ranks
from rayprune.rllib.settings.module_configs import is_asked_for, is_named, is_pruned, is_trained

KIND_NAMES: Final = ", ".join(kind.__name__ for kind in MASKABLE)


class ChosenModules:
    """A Learner's choice of modules, by its config and by what they hold.

    Args:
        learner: its config and its modules are read at use time.
    """

    def __init__(self, learner: TorchLearner) -> None:
        self._learner = learner
        self.frozen_too: set[str] = set()
        """Modules that are pruned though every layer is frozen: they were asked for by name."""
        self.seen: set[str] = set()
        """Modules that the minibatches of this update have data for."""

    def includes(self, module_id: str) -> bool:
        """Whether a module is chosen and trained, or asked for though it is frozen."""
        config, module = self._learner.config, self._module(module_id)
        if not (isinstance(module, torch.nn.Module) and is_pruned(config, module_id)):
            return False
        if not prunable_layers(module):
            # Among others it is left alone; where it is all there is, a Pruner says what it lacks.
            return is_named(config, module_id) or len(self._learner.module.keys()) == 1
        asked = is_asked_for(config, module_id)
        if not asked and not is_trained(config, module_id):
            return False
        if not self._is_frozen(module_id):
            return True
        if asked:
            # To name a module whose every layer is frozen can mean nothing else.
            self.frozen_too.add(module_id)
        return asked

    def trains(self, module_id: str) -> bool:
        """Whether a module was trained by this update, or is pruned though it isn't."""
        config = self._learner.config
        if config.policies_to_train is None or is_asked_for(config, module_id):
            return True
        # A function decides by the batch: what it left out is in none of them.
        # Learners of a group see different batches, and must decide alike.
        by_batch = callable(config.policies_to_train) and not ranks.is_group()
        return module_id in self.seen if by_batch else is_trained(config, module_id)

    def check(self, *, any_pruned: bool) -> None:
        """Raise ConfigError if no module could ever be pruned.

        Args:
            any_pruned: whether one is by now.
        """
        ids = list(self._learner.module.keys())
        if not any(prunable_layers(self._module(module_id)) for module_id in ids):
            raise ConfigError(
                f"None of {sorted(ids)} has a layer to prune: none is a {KIND_NAMES}."
            )
        if not any_pruned and all(map(self._is_frozen, ids)):
            raise ConfigError(
                f"Everything that could be pruned is frozen (requires_grad=False) in "
                f"{sorted(ids)}. Unfreeze a layer, or set `pruning.frozen` to 'prune'."
            )

    def left_alone(self, module_id: str) -> str | None:
        """Say why a module that isn't pruned is left alone; None if it has no part in it."""
        config, module = self._learner.config, self._module(module_id)
        chosen = is_pruned(config, module_id) and isinstance(module, torch.nn.Module)
        if not chosen or not weights_of(module):
            return None
        if not prunable_layers(module):
            return f"none of its layers is a {KIND_NAMES}."
        if not is_trained(config, module_id):
            why = "`policies_to_train` leaves it out."
        elif self._is_frozen(module_id):
            why = "its layers are frozen (requires_grad=False)."
        else:
            return None
        return (
            f"{why} To prune it all the same, name it in `modules`, or set `pruning.frozen` to "
            "'prune'."
        )

    def _is_frozen(self, module_id: str) -> bool:
        """Whether there are weights that could be pruned, and none of them is trained."""
        layers = prunable_layers(self._module(module_id))
        return bool(layers) and wholly_frozen(layers)

    def _module(self, module_id: str) -> Any:
        return self._learner.module[module_id].unwrapped()


def prunable_layers(module: Any) -> list[torch.nn.Module]:
    """Return a module's layers that have weights to prune, without its target networks'."""
    if not isinstance(module, torch.nn.Module):
        return []
    parts = not_excluded(module, target_networks(module))
    return [part for _, part in parts if is_maskable(part) and _can_be_pruned(part)]


def _can_be_pruned(layer: torch.nn.Module) -> bool:
    return bool(prunable_parameters(layer)) or is_torch_pruned(layer)


def refuse_torch_pruned(module_id: str, module: torch.nn.Module) -> None:
    """Raise ConfigError for a module whose EnvRunners would look for other parameter names."""
    if is_torch_pruned(module):
        raise ConfigError(
            f"the RLModule of {module_id!r} is pruned by torch.nn.utils.prune, and its copies on "
            "the EnvRunners too. End its `setup` with `rayprune.make_maskable(self)`, which takes "
            "the masks over everywhere."
        )
