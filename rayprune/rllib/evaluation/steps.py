"""One step of a policy in several environments, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.env.single_agent_episode import SingleAgentEpisode


@dataclass(frozen=True, slots=True)
class Acted:
    """One greedy step of a policy in several environments."""

    observations: list[Any]
    """Per environment, as it gave them."""
    batch: dict[str, Any]
    """What the module was given."""
    logits: torch.Tensor | None
    """The inputs of its action distribution, None where it gives actions alone (DQN)."""
    actions: list[Any]
    """Per environment, as the module means them."""
    for_env: list[Any]
    """Per environment, as it takes them: unsquashed."""
    extras: dict[str, Any]
    """What else an episode keeps, such as recurrent states; batched."""


def add_step(
    result: tuple[Any, Any, bool, bool, dict[str, Any]],
    acted: Sequence[tuple[SingleAgentEpisode, Acted]],
    action: Any,
    place: int,
) -> None:
    """Tell episodes what came of an action.

    Args:
        result: what the environment's ``step`` returned.
        acted: the episodes, each with the policy's step whose extras it keeps.
        action: what was done, whoever chose it.
        place: of the environment in the batch.
    """
    obs, reward, terminated, truncated, info = result
    for episode, step in acted:
        episode.add_env_step(
            observation=obs,
            action=action,
            reward=float(reward),
            infos=info,
            terminated=bool(terminated),
            truncated=bool(truncated),
            extra_model_outputs={key: value[place] for key, value in step.extras.items()},
        )
