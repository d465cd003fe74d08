"""Target networks that follow their sources, without state dicts made anew for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from ray.rllib.core.learner.utils import update_target_network
from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from ray.rllib.utils.metrics import (
    LAST_TARGET_UPDATE_TS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_TARGET_UPDATES,
)
from torch import Tensor, nn

from rayprune.rllib.settings.foreign_code import is_known

Pair = tuple[list[Tensor], list[Tensor]]


class TargetNetworks:
    """The target networks of a Learner of DQN's family."""

    def __init__(self) -> None:
        self._pairs: dict[int, Pair | None] = {}
        self._known: list[int] = []

    def update_due(self, learner: Any, timesteps: dict[str, Any]) -> None:
        """Update those that are due, and log it.

        Args:
            learner: a DQNLearner.
            timesteps: of the update that has just been done.
        """
        now = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        self._look(learner._params)
        for module_id, wrapped in learner.module._rl_modules.items():
            module, last = wrapped.unwrapped(), learner.last_update_ts_by_mid
            config = learner.config.get_config_for_module(module_id)
            waited = now - last[module_id]
            if waited < config.target_network_update_freq or not isinstance(
                module, TargetNetworkAPI
            ):
                continue
            for main, target in module.get_target_network_pairs():
                self._update(main, target, config.tau)
            last[module_id] = now
            learner.metrics.log_value((module_id, NUM_TARGET_UPDATES), 1, reduce="lifetime_sum")
            learner.metrics.log_value((module_id, LAST_TARGET_UPDATE_TS), now, reduce="max")

    def _look(self, parameters: Iterable[Any]) -> None:
        """Forget what is known of networks if their parameters are others by now."""
        known = [id(parameter) for parameter in parameters]
        if known != self._known:
            self._known, self._pairs = known, {}

    def _update(self, main: Any, target: Any, tau: float) -> None:
        if id(target) not in self._pairs:
            self._pairs[id(target)] = _pair_of(main, target)
        pair = self._pairs[id(target)]
        if pair is None:
            update_target_network(main_net=main, target_net=target, tau=tau)
        else:
            _follow(*pair, tau)


@torch.no_grad()
def _follow(mains: list[Tensor], targets: list[Tensor], tau: float) -> None:
    moved = torch._foreach_mul(mains, tau)
    torch._foreach_add_(moved, torch._foreach_mul(targets, 1 - tau))
    torch._foreach_copy_(targets, moved)


def _pair_of(main: Any, target: Any) -> Pair | None:
    """Return the tensors of a source and of its target, None if they aren't all there is to it."""
    if not (isinstance(main, nn.Module) and isinstance(target, nn.Module)):
        return None
    if not all(is_known(type(layer)) for net in (main, target) for layer in net.modules()):
        return None
    # Themselves, not what their memory is now: someone may put other numbers in their `data`.
    sources, targets = main.state_dict(keep_vars=True), target.state_dict(keep_vars=True)
    floats = all(isinstance(t, Tensor) and t.is_floating_point() for t in targets.values())
    if not targets or not floats or any(name not in sources for name in targets):
        return None
    return [sources[name] for name in targets], list(targets.values())
