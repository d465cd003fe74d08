"""Forward passes of RLlib's default modules where they act, in `straight` lines.

What they compute is RLlib's to the bit, and so are the random numbers that DQN draws. A module that
overrides its forward pass, or holds a net of another kind, is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.torch.encoder import TorchActorCriticEncoder
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from rayprune.rllib.sampling.straight import is_encoder, straight

Forward: TypeAlias = Callable[[dict[str, Any], int], dict[str, Any]]
"""Takes a module's inputs, and the lifetime env steps."""


def exploring(module: Any) -> Forward:
    """Return a module's forward pass for exploration, called where no gradients are kept."""
    for find in (_ppo, _sac, _dqn):
        found = find(module)
        if found is not None:
            return found
    return lambda inputs, step: module._forward_exploration(inputs, t=step)


def _ppo(module: Any) -> Forward | None:
    # As long as it explores as it does all else.
    if not (
        _inherits(module, DefaultPPOTorchRLModule, "_forward")
        and _inherits(module, TorchRLModule, "_forward_exploration")
    ):
        return None
    encoder: Any = module.encoder
    if not _is_of(encoder, TorchActorCriticEncoder):
        return None
    actor = encoder.encoder if encoder.config.shared else encoder.actor_encoder
    return _inputs_of_distribution(actor, module.pi) if is_encoder(actor) else None


def _sac(module: Any) -> Forward | None:
    names = ("_forward_exploration", "_forward_inference")
    # TQC's acts as SAC's does, and doesn't derive from it.
    kinds = DefaultSACTorchRLModule, DefaultTQCTorchRLModule
    if not any(all(_inherits(module, kind, name) for name in names) for kind in kinds):
        return None
    if not is_encoder(module.pi_encoder):
        return None
    return _inputs_of_distribution(module.pi_encoder, module.pi)


def _inputs_of_distribution(encoder: Any, head: Any) -> Forward:
    encode, act = straight(encoder), straight(head)
    return lambda inputs, _: {Columns.ACTION_DIST_INPUTS: act(encode(inputs[Columns.OBS]))}


def _dqn(module: Any) -> Forward | None:
    names = ("_forward_exploration", "compute_q_values", "_qf_forward_helper")
    if not all(_inherits(module, DefaultDQNTorchRLModule, name) for name in names):
        return None
    if module.get_exploration_action_dist_cls() is not TorchCategorical:
        return None
    if not is_encoder(module.encoder):
        return None
    encode = straight(module.encoder)
    af: Any = straight(module.af)
    heads = {"af": af, "vf": straight(module.vf)} if module.uses_dueling else af
    schedule = module.epsilon_schedule

    def encoder(inputs: dict[str, Any]) -> dict[str, Any]:
        return {ENCODER_OUT: encode(inputs[Columns.OBS])}

    def forward(inputs: dict[str, Any], step: int) -> dict[str, Any]:
        values = module._qf_forward_helper(inputs, encoder, heads)[QF_PREDS]
        schedule.update(step)
        return {Columns.ACTIONS: _epsilon_greedy(values, schedule.get_current_value())}

    return forward


def _epsilon_greedy(values: torch.Tensor, epsilon: Any) -> torch.Tensor:
    """Return the best actions, or any of those that are allowed, shape ``(envs,)``.

    Args:
        values: of the actions, shape ``(envs, actions)``; one that isn't allowed has minus
            infinity, and one of exactly 0 is not drawn either, as RLlib has it.
        epsilon: how often any is taken.
    """
    best = torch.argmax(values, dim=-1)
    held = torch.nan_to_num(values.reshape(-1, values.size(-1)), neginf=0.0)
    drawn = torch.multinomial((held != 0.0).float(), num_samples=1).squeeze(1)
    chance = torch.rand((values.shape[0],), device=drawn.device)
    return torch.where(chance < epsilon, drawn, best)


def _is_of(net: Any, kind: type) -> bool:
    return type(net) is kind


def _inherits(module: Any, base: type, name: str) -> bool:
    return getattr(type(module), name, None) is getattr(base, name)
