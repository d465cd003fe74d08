"""Two policies on the same seeds, side by side: returns, and where their actions first differ.

As long as two deterministic policies act alike, an environment that follows from its seed takes
both through the same states. The step at which they first don't is where their episodes part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.spaces.space_utils import get_base_struct_from_space

from rayprune.rllib.environments.environment import open_episode
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.evaluation.steps import Acted, add_step
from rayprune.tracking.reporter import Pace

Env = gym.Env[Any, Any]
Start = tuple[Any, dict[str, Any]]
"""What an environment's ``reset`` returns."""
Result = tuple[Any, Any, bool, bool, dict[str, Any]]
"""What its ``step`` returns."""

ALIKE: Final = 0.01
"""Continuous actions are alike within this share of their range (or this much, without bounds)."""


class Actor(Protocol):
    """A policy in several episodes at once, whatever runtime computes it."""

    def open(self, envs: Sequence[Env], starts: Sequence[Start]) -> None:
        """Begin new episodes."""

    def act(self, active: Sequence[int]) -> tuple[list[Any], list[Any]]:
        """Return the actions of the given episodes as the environment takes them, and as told."""

    def tell(self, place: int, result: Result, action: Any) -> None:
        """Say what came of the action at a place of the last `act`, whoever chose it."""


class PolicyActor:
    """A checkpoint's policy, with RLlib's own connectors."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._episodes: list[SingleAgentEpisode] = []
        self._shared: dict[str, Any] = {}
        self._active: list[int] = []
        self._acted: Acted | None = None

    def open(self, envs: Sequence[Env], starts: Sequence[Start]) -> None:
        """See `Actor.open`."""
        self._shared = {}
        self._episodes = [
            open_episode(env, *start) for env, start in zip(envs, starts, strict=True)
        ]

    def act(self, active: Sequence[int]) -> tuple[list[Any], list[Any]]:
        """See `Actor.act`; what is told is the module's own action."""
        self._active = list(active)
        self._acted = self._evaluator.act([self._episodes[i] for i in active], self._shared)
        return self._acted.for_env, self._acted.actions

    def tell(self, place: int, result: Result, action: Any) -> None:
        """See `Actor.tell`."""
        assert self._acted is not None
        episode = self._episodes[self._active[place]]
        add_step(result, [(episode, self._acted)], action, place)


@dataclass(slots=True)
class EpisodePair:
    """What came of one seed."""

    seed: int
    dense: float = 0.0
    """The dense policy's return."""
    pruned: float = 0.0
    dense_steps: int = 0
    pruned_steps: int = 0
    diverged_at: int | None = None
    """The step, from 0, at which the actions first differ; None where they never do."""


class PolicySide:
    """One policy's episodes in a round, each in an environment of its own."""

    def __init__(self, actor: Actor, make_env: Callable[[], Env], seeds: Sequence[int]) -> None:
        self.actor = actor
        self.returns = [0.0 for _ in seeds]
        self.steps = [0 for _ in seeds]
        self.active = list(range(len(seeds)))
        self.envs: list[Env] = []
        try:
            self.envs += [make_env() for _ in seeds]
            self.starts = [env.reset(seed=seed) for env, seed in zip(self.envs, seeds, strict=True)]
            actor.open(self.envs, self.starts)
        except BaseException:
            self.close()
            raise

    def act(self) -> dict[int, tuple[Any, Any]]:
        """Return the action of each open episode: as the environment takes it, and as told."""
        if not self.active:
            return {}
        return dict(zip(self.active, zip(*self.actor.act(self.active), strict=True), strict=True))

    def step(self, chosen: dict[int, tuple[Any, Any]], shadow: Actor | None = None) -> None:
        """Act in the environments, and tell what came of it; ``shadow`` is told the same."""
        going_on = []
        for place, (i, (action, told)) in enumerate(chosen.items()):
            result: Result = self.envs[i].step(action)
            self.returns[i] += float(result[1])
            self.steps[i] += 1
            for actor in (self.actor, *([] if shadow is None else [shadow])):
                actor.tell(place, result, told)
            if not (result[2] or result[3]):
                going_on.append(i)
        self.active = going_on

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


def play_pairs(
    make_env: Callable[[], Env],
    dense: Actor,
    pruned: Actor,
    seeds: Sequence[int],
    shadow: Actor | None = None,
    compare: Callable[[Any, Any], None] | None = None,
) -> list[EpisodePair]:
    """Play an episode of each policy for each seed.

    Args:
        make_env: makes one environment.
        dense: the reference.
        pruned: the other.
        seeds: of the environments.
        shadow: the other once more, led along the dense policy's states.
        compare: told of the dense action and the shadow's at each of those states.
    """
    sides: list[PolicySide] = []
    try:
        sides += [PolicySide(actor, make_env, seeds) for actor in (dense, pruned)]
        ours, theirs = sides
        pairs = [EpisodePair(seed) for seed in seeds]
        alike = Alike(ours.envs[0].action_space)
        if shadow is not None:
            shadow.open(ours.envs, ours.starts)
        pace = Pace()
        while ours.active or theirs.active:
            pace.tell(lambda: _how_far(pairs, ours, theirs))
            first, second = ours.act(), theirs.act()
            _note_divergence(pairs, first, second, ours.steps, alike)
            if shadow is not None and first:
                asked, _ = shadow.act(list(first))
                for (action, _), other in zip(first.values(), asked, strict=True):
                    if compare is not None:
                        compare(action, other)
            ours.step(first, shadow)
            theirs.step(second)
        for i, pair in enumerate(pairs):
            pair.dense, pair.pruned = ours.returns[i], theirs.returns[i]
            pair.dense_steps, pair.pruned_steps = ours.steps[i], theirs.steps[i]
        return pairs
    finally:
        for side in sides:
            side.close()


def _how_far(pairs: Sequence[EpisodePair], *sides: PolicySide) -> str:
    going = len(set().union(*(side.active for side in sides)))
    longest = max(max(side.steps) for side in sides)
    return (
        f"Plays {len(pairs)} pairs from seed {pairs[0].seed}: {going} are still open, after up to "
        f"{longest:,} steps."
    )


class Alike:
    """Whether two actions are the same, or nearly so where they are continuous."""

    def __init__(self, space: gym.Space[Any]) -> None:
        parts = tree.flatten(get_base_struct_from_space(space))
        self._tolerances = [_tolerance(part) for part in parts]

    def __call__(self, first: Any, second: Any) -> bool:
        """Compare two actions as the environment takes them."""
        parts = zip(tree.flatten(first), tree.flatten(second), self._tolerances, strict=True)
        return all(
            bool(np.all(np.abs(np.subtract(a, b, dtype=float)) <= tolerance))
            for a, b, tolerance in parts
        )


def _tolerance(space: gym.Space[Any]) -> Any:
    if not isinstance(space, gym.spaces.Box) or space.dtype is None or space.dtype.kind != "f":
        return 0.0
    width = space.high.astype(float) - space.low.astype(float)
    return ALIKE * np.where(np.isfinite(width), width, 1.0)


def _note_divergence(
    pairs: Sequence[EpisodePair],
    first: dict[int, tuple[Any, Any]],
    second: dict[int, tuple[Any, Any]],
    steps: Sequence[int],
    alike: Alike,
) -> None:
    for i in first.keys() & second.keys():
        if pairs[i].diverged_at is None and not alike(first[i][0], second[i][0]):
            pairs[i].diverged_at = steps[i]
