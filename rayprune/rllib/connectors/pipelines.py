"""Connector pipelines of a run: the user's own by ``module:name``, ours, and what joins them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rayprune.errors import ConfigError
from rayprune.reasons import RAISED, reason_of
from rayprune.rllib.connectors.encoding import measured
from rayprune.rllib.connectors.filters import ObservationFilter, RewardFilter

Factory = Callable[..., Any]

MAKERS: Final = ("env_to_module_connector", "module_to_env_connector", "learner_connector")
"""Keyword arguments that take a function in Python, and ``module:name`` in a YAML."""


class Connectors(ConnectorPipelineV2):
    """Connectors one after the other, as one piece of RLlib's pipeline.

    RLlib 2.60 merges the states of a pipeline's connectors by their place among those that have a
    state, not by their name: behind a connector without one, a state is merged by the wrong
    connector. As the first piece, which this one is, nothing is before it.
    """

    def __init__(self, *args: Any, connectors: Sequence[Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, connectors=list(connectors or ()), **kwargs)

    def recompute_output_observation_space(self, seen: Any, actions: Any) -> Any:
        """Tell each connector what the one before it gives; return what the last one gives."""
        self._fix_spaces(seen, actions)  # type: ignore[no-untyped-call]
        return self.connectors[-1].observation_space

    def __call__(self, *, batch: Any, data: Any = None, **kwargs: Any) -> Any:
        """Run them. RLlib hands the batch over under an old name too, which is dropped."""
        del data
        for connector in self.connectors:
            batch = connector(batch=batch, **kwargs)
        return batch

    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge each connector's states, by its name."""
        merged = {}
        for connector in self.connectors:
            name = type(connector).__name__
            held = [state[name] for state in states if name in state]
            if held:
                merged[name] = connector.merge_states(held)
        return merged


@dataclass(frozen=True)
class Imported:
    """A connector's maker that a YAML names; imported where it is called."""

    path: str
    """``package.module:name`` of a function, or of a connector's class without arguments."""
    field: str

    def load(self) -> Any:
        """Import it.

        Raises:
            ConfigError: there is none.
        """
        module, _, name = self.path.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        # A user's module may do anything when it is imported.
        except RAISED as error:
            raise ConfigError(
                f"`{self.field}` {self.path!r} can't be imported: {reason_of(error)}. "
                "Write it as `package.module:function`, and put its folder on PYTHONPATH."
            ) from error
        if not callable(found):
            raise ConfigError(
                f"`{self.field}` {self.path!r} must be a function that returns connectors, or a "
                f"connector's class, but is a {type(found).__name__}."
            )
        return found

    def __call__(self, *args: Any) -> list[Any]:
        """Make its connectors.

        Raises:
            ConfigError: it raised, or returned something else.
        """
        found = self.load()
        # A class takes spaces where RLlib's makers get the environment; a pipeline sets them.
        is_class = isinstance(found, type) and issubclass(found, ConnectorV2)
        try:
            made = found() if is_class else found(*args)
        except RAISED as error:
            raise ConfigError(
                f"`{self.field}` {self.path!r} failed: {reason_of(error)}."
            ) from error
        pieces = listed(made)
        if not all(isinstance(piece, ConnectorV2) for piece in pieces):
            raise ConfigError(
                f"`{self.field}` {self.path!r} must return a ConnectorV2 or a list of them, but "
                f"returned {made!r}."
            )
        return pieces


@dataclass(frozen=True)
class EnvToModule:
    """Makes what stands in front of RLlib's default env-to-module connectors."""

    makers: tuple[Factory, ...]
    """In their order; each is told what the one before it gives as the environment's space."""
    observations: bool = False
    rewards: bool = False
    rewrite: bool = True
    """See `ObservationFilter`."""

    def __call__(self, env: Any = None, spaces: Any = None, device: Any = None) -> Any:
        """Return the connectors."""
        if not (self.observations or self.rewards or len(self.makers) > 1):
            # As RLlib would have it, so that checkpoints look as they always did.
            return self.makers[0](env, spaces, device) if self.makers else []
        seen, actions = _spaces(env, spaces)
        pieces: list[Any] = []
        before = seen
        for number, make in enumerate(self.makers):
            before = _after(pieces, seen, actions)
            given = (env, spaces) if number == 0 else (None, _told(spaces, before, actions))
            pieces += listed(make(*given, device))
        if self.observations:
            choices = _choices(before, _after(pieces, seen, actions))
            pieces.append(ObservationFilter(choices=choices, rewrite=self.rewrite))
        if self.rewards:
            pieces.append(RewardFilter())
        return Connectors(connectors=pieces) if pieces else []


@dataclass(frozen=True)
class Joined:
    """Makes the connectors of several makers, one after the other."""

    makers: tuple[Factory, ...]

    def __call__(self, *args: Any) -> list[Any]:
        """Return the connectors."""
        return [piece for make in self.makers for piece in listed(make(*args))]


def own_makers(config: AlgorithmConfig) -> dict[str, Factory | None]:
    """Return what a user gave for each of `MAKERS`."""
    return {name: getattr(config, f"_{name}") for name in MAKERS}


def join(config: AlgorithmConfig, own: Mapping[str, Factory | None]) -> None:
    """Put a user's own connectors beside ours, which a config has by now.

    Args:
        config: changed in place.
        own: a user's, from before ours were set.
    """
    observe, act, learn = (own[name] for name in MAKERS)
    ours = [config._env_to_module_connector]
    config.env_runners(env_to_module_connector=EnvToModule((*_given(observe), *_given(*ours))))
    if act is not None:
        # RLlib's own connectors to the environment follow a user's; so do ours.
        ours = [config._module_to_env_connector]
        config.env_runners(module_to_env_connector=Joined((act, *_given(*ours))))
    if learn is not None and config._learner_connector is not learn:
        # Ours makes of recorded data what an EnvRunner would give.
        config.learners(learner_connector=Joined((*_given(config._learner_connector), learn)))


def _given(*makers: Factory | None) -> tuple[Factory, ...]:
    return tuple(maker for maker in makers if maker is not None)


def listed(made: Any) -> list[Any]:
    """Return a maker's connectors as a list."""
    return list(made) if isinstance(made, (list, tuple)) else [made]


def pieces_of(pipeline: Any) -> list[Any]:
    """Return the connectors of a pipeline, those inside of `Connectors` one by one."""
    return [
        inner
        for piece in pipeline.connectors
        for inner in (pieces_of(piece) if isinstance(piece, ConnectorPipelineV2) else [piece])
    ]


def _spaces(env: Any, spaces: Any) -> tuple[Any, Any]:
    if env is not None:
        return (
            getattr(env, "single_observation_space", env.observation_space),
            getattr(env, "single_action_space", env.action_space),
        )
    found: tuple[Any, Any] = (spaces or {}).get(INPUT_ENV_SINGLE_SPACES, (None, None))
    return found


def _told(spaces: Any, seen: Any, actions: Any) -> dict[str, Any]:
    return {**(spaces or {}), INPUT_ENV_SINGLE_SPACES: (seen, actions)}


def _after(pieces: Sequence[Any], seen: Any, actions: Any) -> Any:
    """Return the observation space behind some connectors."""
    for piece in pieces:
        piece.input_action_space, piece.input_observation_space = actions, seen
        seen = piece.observation_space
    return seen


def _choices(before: Any, flat: Any) -> npt.NDArray[np.bool_] | None:
    """Return which elements of an encoded observation are choices, None where none is."""
    choices = ~measured(before) if before is not None else np.array(False)
    fits = isinstance(flat, gym.spaces.Box) and flat.shape == choices.shape
    return choices if fits and choices.any() else None
