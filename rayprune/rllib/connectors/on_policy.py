"""Connectors of on-policy Learners that do what RLlib's do, on arrays at once.

Both classes are called as RLlib's are: its metrics name their timers by that.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from ray.rllib.connectors import learner as rllib
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.postprocessing.episodes import add_one_ts_to_episodes_and_truncate
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets
from ray.rllib.utils.torch_utils import convert_to_torch_tensor


class AddOneTsToEpisodesAndTruncate(rllib.AddOneTsToEpisodesAndTruncate):
    """Repeats each episode's last step once, to ask the value net what is to come.

    RLlib's goes through getters, validates, and hands flags on as lists, one element at a time. For
    several agents it is called as it is.
    """

    def __call__(
        self, *, batch: Any, episodes: list[Any], shared_data: Any = None, **kwargs: Any
    ) -> Any:
        """Add a step to each episode, and the flags of all steps to the batch."""
        if isinstance(episodes[0], MultiAgentEpisode):
            return super().__call__(
                batch=batch, episodes=episodes, shared_data=shared_data, **kwargs
            )
        for place, episode in enumerate(episodes):
            episode.id_ += f"_{place}"
            length = len(episode)
            _add_step(episode)
            flags = {
                Columns.LOSS_MASK: np.arange(length + 1) < length,
                Columns.TERMINATEDS: _only_at(length - 1, length, bool(episode.is_terminated)),
                Columns.TRUNCATEDS: _only_at(length - 1, length, bool(episode.is_truncated)),
            }
            for name, values in flags.items():
                self.add_n_batch_items(batch, name, values, length + 1, episode)
        shared_data["_added_loss_mask_for_valid_episode_ts"] = True
        return batch


class GeneralAdvantageEstimation(rllib.GeneralAdvantageEstimation):
    """Asks the value net without keeping what a backward pass would need, which no one takes here.

    Recurrent nets are left to RLlib: torch may run them otherwise then.
    """

    def __call__(self, *, rl_module: Any, batch: Any, **kwargs: Any) -> Any:
        """Compute advantages and value targets, and add them to the batch as tensors."""
        if rl_module.is_stateful():
            return super().__call__(rl_module=rl_module, batch=batch, **kwargs)
        own = {mid: rl_module[mid].unwrapped() for mid in rl_module.keys() if mid in batch}  # noqa: SIM118 - a MultiRLModule is no dict
        critics = {mid: one for mid, one in own.items() if isinstance(one, ValueFunctionAPI)}
        with torch.no_grad():
            estimates = {mid: one.compute_values(batch[mid]) for mid, one in critics.items()}
        for mid, estimate in estimates.items():
            values = convert_to_numpy(estimate)
            columns = batch[mid]
            targets = value_targets(
                values,
                convert_to_numpy(columns[Columns.REWARDS]),
                convert_to_numpy(columns[Columns.TERMINATEDS]),
                convert_to_numpy(columns[Columns.TRUNCATEDS]),
                gamma=self.gamma,
                lambda_=self.lambda_,
            )
            advantages = targets - values
            advantages = (advantages - advantages.mean()) / max(1e-4, advantages.std())
            for name, found in (
                (Postprocessing.ADVANTAGES, advantages),
                (Postprocessing.VALUE_TARGETS, targets),
            ):
                columns[name] = convert_to_torch_tensor(found, str(estimate.device))
        return batch


def value_targets(
    values: Any, rewards: Any, terminateds: Any, truncateds: Any, *, gamma: float, lambda_: float
) -> Any:
    """Return the targets of a value net, as RLlib's ``compute_value_targets`` does, to the bit.

    Its loop takes NumPy's numbers one by one; where they are all of double precision, as those of
    its connectors are, Python's floats do the same arithmetic in less than half the time.

    Args:
        values: estimates, shape ``(steps,)``, episodes one after the other.
        rewards: likewise.
        terminateds: whether a step ended its episode.
        truncateds: whether a step cut it off.
        gamma: discount.
        lambda_: of generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438).
    """
    going_on = 1.0 - terminateds
    propagates = going_on * (1.0 - truncateds)
    residuals = rewards + gamma * going_on * np.append(values[1:], 0.0) - values
    if not residuals.dtype == propagates.dtype == np.float64:
        return compute_value_targets(values, rewards, terminateds, truncateds, gamma, lambda_)
    advantage, discount, advantages = 0.0, gamma * lambda_, list[float]()
    steps = zip(reversed(residuals.tolist()), reversed(propagates.tolist()), strict=True)
    for residual, propagate in steps:
        advantage = residual + discount * propagate * advantage
        advantages.append(advantage)
    found = np.array(advantages[::-1], np.float64).astype(np.float32)
    return (found + values).astype(np.float32)


_QUICK: Final[dict[type, type]] = {
    rllib.AddOneTsToEpisodesAndTruncate: AddOneTsToEpisodesAndTruncate,
    rllib.GeneralAdvantageEstimation: GeneralAdvantageEstimation,
}


def quicken(pipeline: Any) -> None:
    """Let a Learner's connectors be those of here, where they are RLlib's own, in place."""
    for piece in getattr(pipeline, "connectors", ()):
        # What they hold stays: spaces, a discount.
        piece.__class__ = _QUICK.get(type(piece), type(piece))


def _add_step(episode: Any) -> None:
    """Repeat the last step of an episode, with no reward."""
    buffers = [episode.observations, episode.actions, *episode.extra_model_outputs.values()]
    if not all(isinstance(buffer.data, np.ndarray) for buffer in [*buffers, episode.rewards]):
        add_one_ts_to_episodes_and_truncate([episode])
        return
    for buffer in buffers:
        buffer.data = np.concatenate([buffer.data, buffer.data[-1:]])
    # Of 64 bits, as RLlib's 0.0 is, which rewards of 32 then become.
    episode.rewards.data = np.concatenate([episode.rewards.data, np.zeros(1)])
    episode.infos.append(episode.infos[-1])
    episode.t += 1
    if not episode.is_done:
        episode.is_truncated = True


def _only_at(place: int, length: int, value: bool) -> Any:
    flags = np.zeros(length + 1, np.bool_)
    flags[place] = value
    return flags
