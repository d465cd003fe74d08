"""How close a policy stays to a dense one, on the states that the dense one meets.

The dense policy plays; at every step the other is asked what it would have done there. Each has
its own connectors (observation filters) and its own recurrent state, fed by the same history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import QNetAPI, ValueFunctionAPI

from rayprune.rllib.algorithms.policy import kl_between
from rayprune.rllib.environments.environment import open_episode
from rayprune.rllib.evaluation.evaluator import AT_ONCE, Evaluator
from rayprune.rllib.evaluation.steps import Acted, add_step

Array = np.ndarray[Any, Any]


def closeness(dense: Evaluator, other: Evaluator, first_seed: int, episodes: int) -> dict[str, Any]:
    """Compare two policies over the episodes that the dense one plays, with greedy actions.

    Args:
        dense: whole (with critic), loaded; its own environments are played in.
        other: whole, loaded, for the same spaces.
        first_seed: episode i is reset with ``first_seed + i``.
        episodes: how many.

    Returns:
        ``agreement``: share of states with the same greedy action (None for continuous actions);
        ``action_difference``: mean absolute difference of the greedy actions over their
        dimensions, in the environment's units (None for discrete ones); ``kl``: mean
        KL(dense || other) of the action distributions, in nats (None for DQN, whose policy is
        none); ``value_rmse``: root mean square difference of the values (PPO: V(s); DQN: Q of all
        actions; SAC: Q of the dense policy's action), and ``value_std``, the standard deviation
        of the dense ones, which it is to be seen against; ``states``: how many.
    """
    seen = Seen(), Seen()
    for begin in range(first_seed, first_seed + episodes, AT_ONCE):
        seeds = range(begin, min(begin + AT_ONCE, first_seed + episodes))
        _play(dense, other, seeds, *seen)
    return differences(dense.module, *seen)


def differences(module: Any, dense: Seen, other: Seen) -> dict[str, Any]:
    """Return `closeness`'s dict for what two policies did in the same states.

    Args:
        module: the dense one's, which knows the kind of action distribution.
        dense: what it did.
        other: what the other would have done.
    """
    values = None if not dense.values else (dense.all_values(), other.all_values())
    return {
        "agreement": agreement(dense.actions, other.actions),
        "action_difference": action_difference(dense.actions, other.actions),
        "kl": kl(module, dense.all_logits(), other.all_logits()),
        "value_rmse": None if values is None else rmse(*values),
        "value_std": None if values is None else float(values[0].std()),
        "states": len(dense.actions),
    }


@dataclass(slots=True)
class Seen:
    """What one policy did in each state."""

    actions: list[Any] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def add(self, acted: Acted, values: torch.Tensor | None) -> None:
        """Add one step in several environments."""
        self.actions += acted.for_env
        if acted.logits is not None:
            self.logits.append(flat(acted.logits, len(acted.actions)))
        if values is not None:
            self.values.append(values)

    def all_logits(self) -> torch.Tensor | None:
        """Return the inputs of the action distributions, shape ``(states, inputs)``."""
        return torch.cat(self.logits) if self.logits else None

    def all_values(self) -> Array:
        """Return the values, shape ``(states, n)``."""
        return torch.cat(self.values).double().cpu().numpy()


def _play(
    dense: Evaluator, other: Evaluator, seeds: Sequence[int], seen: Seen, compared: Seen
) -> None:
    envs = [dense.make_env() for _ in seeds]
    try:
        starts = [env.reset(seed=seed) for env, seed in zip(envs, seeds, strict=True)]
        # The other policy's episodes are the same, with recurrent states of its own.
        played, shadows = (
            [open_episode(env, *start) for env, start in zip(envs, starts, strict=True)]
            for _ in range(2)
        )
        memories: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        active = list(range(len(envs)))
        while active:
            ours = dense.act([played[i] for i in active], memories[0])
            theirs = other.act([shadows[i] for i in active], memories[1])
            seen.add(ours, values_of(dense.module, ours.batch, ours.actions))
            compared.add(theirs, values_of(other.module, theirs.batch, ours.actions))
            for place, i in enumerate(active):
                result = envs[i].step(ours.for_env[place])
                told = [(played[i], ours), (shadows[i], theirs)]
                add_step(result, told, ours.actions[place], place)
            active = [i for i in active if not played[i].is_done]
    finally:
        for env in envs:
            env.close()


def values_of(module: Any, batch: dict[str, Any], actions: Sequence[Any]) -> torch.Tensor | None:
    """Return the critic's values, shape ``(states, n)``; None where the module has none.

    Args:
        module: a whole RLModule.
        batch: its input.
        actions: what Q is asked of where it takes an action.
    """
    if getattr(module, "inference_only", False):
        return None
    with torch.no_grad():
        if isinstance(module, ValueFunctionAPI):
            return flat(module.compute_values(batch), len(actions))
        if isinstance(module, QNetAPI):
            given = dict(batch)
            if isinstance(actions[0], np.ndarray) and actions[0].dtype.kind == "f":
                given[Columns.ACTIONS] = torch.as_tensor(np.stack(actions)).to(_device(module))
            found = module.compute_q_values(given)
            # DQN's gives a dict with the distribution's parts beside the values.
            return flat(found["qf_preds"] if isinstance(found, dict) else found, len(actions))
    return None


def agreement(first: Sequence[Any], second: Sequence[Any]) -> float | None:
    """Return the share of states in which all discrete parts of the actions are the same.

    >>> agreement([0, 1, 1, 0], [0, 1, 0, 0])
    0.75
    """
    pairs = [_discrete(a, b) for a, b in zip(first, second, strict=True)]
    return float(np.mean([all(same) for same in pairs])) if pairs and pairs[0] else None


def action_difference(first: Sequence[Any], second: Sequence[Any]) -> float | None:
    """Return the mean absolute difference of the continuous parts of the actions.

    >>> action_difference([np.array([0.5, -1.0])], [np.array([1.0, -1.0])])
    0.25
    """
    gaps = [
        np.abs(np.subtract(x, y, dtype=float)).ravel()
        for a, b in zip(first, second, strict=True)
        for x, y in _leaves(a, b)
        if np.asarray(x).dtype.kind == "f"
    ]
    return float(np.concatenate(gaps).mean()) if gaps else None


def kl(module: Any, first: torch.Tensor | None, second: torch.Tensor | None) -> float | None:
    """Return the mean KL(first || second) of a module's action distributions, in nats.

    Args:
        module: tells the kind of distribution.
        first: its inputs, shape ``(states, inputs)``.
        second: the other's, likewise.
    """
    if first is None or second is None:
        return None
    kind = module.get_inference_action_dist_cls()
    # In double precision: of nearly equal distributions single would leave rounding alone.
    ours, theirs = kind.from_logits(first.double()), kind.from_logits(second.double())
    mean = float(kl_between(ours, theirs).mean())
    return max(mean, 0.0) if math.isfinite(mean) else None


def rmse(first: Array, second: Array) -> float:
    """Return the root mean square difference.

    >>> rmse(np.array([0.0, 3.0]), np.array([4.0, 3.0])) == 8**0.5
    True
    """
    return float(np.sqrt(np.mean((first - second) ** 2)))


def flat(values: Any, states: int) -> torch.Tensor:
    """Return values without the time axis that recurrent modules add, ``(states, n)``."""
    found: torch.Tensor = values.reshape(states, -1)
    return found


def _leaves(first: Any, second: Any) -> list[tuple[Any, Any]]:
    return list(zip(tree.flatten(first), tree.flatten(second), strict=True))


def _discrete(first: Any, second: Any) -> list[bool]:
    return [
        bool(np.array_equal(x, y))
        for x, y in _leaves(first, second)
        if np.asarray(x).dtype.kind in "iub"
    ]


def _device(module: Any) -> torch.device:
    device: torch.device = next(module.parameters()).device
    return device
