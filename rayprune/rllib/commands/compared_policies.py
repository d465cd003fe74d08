"""Policies that can be played against each other: checkpoints, and exported files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rayprune.config import EvaluationConfig
from rayprune.deploy.export.manifest import require_manifest
from rayprune.deploy.formats import is_exported, open_artifact
from rayprune.deploy.policy.artifact import Artifact, State
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.metadata import Metadata
from rayprune.deploy.policy.runs import module_run
from rayprune.errors import CheckpointError, InputError
from rayprune.policies.foreign_policy import ForeignOptions, ForeignPolicy, open_policy
from rayprune.policies.identity import portable
from rayprune.policies.places import is_foreign
from rayprune.rllib.environments.environment import guarded_env
from rayprune.rllib.evaluation.comparison import dense_policy
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.evaluation.paired_episodes import Actor, Env, PolicyActor, Result, Start
from rayprune.rllib.experiment.algorithm_config import settings_of
from rayprune.rllib.experiment.rllib_checks import env_faults
from rayprune.rllib.export.fingerprint import (
    checkpoint_identity,
    file_identity,
    foreign_identity,
)
from rayprune.rllib.torch_threads import fitting_threads


class Player(Protocol):
    """A policy under test."""

    @property
    def name(self) -> str:
        """Where it lies."""

    def actor(self) -> Actor:
        """Return it as one that plays; each has its own memory."""

    def parameters(self) -> dict[str, int | None]:
        """Return how many parameters the policy has, and how many aren't zero; None: unknown."""

    def identity(self) -> dict[str, Any]:
        """Return who it is, by hash, version and date; see `rayprune.rllib.export.fingerprint`."""

    def spaces(self) -> tuple[str, str]:
        """Return what it observes and how it acts, as their spaces print."""

    def threads(self) -> AbstractContextManager[None]:
        """Compute with as many threads as suit it."""

    def close(self) -> None:
        """Let go of what it holds."""


class CheckpointPlayer:
    """A checkpoint's policy, in RLlib."""

    def __init__(self, policy: OpenPolicy) -> None:
        self.name = portable(policy.saved.directory)
        self._policy = policy
        try:
            self._evaluator = policy.evaluator
        except BaseException:
            policy.close()
            raise

    def actor(self) -> Actor:
        """See `Player.actor`."""
        return PolicyActor(self._evaluator)

    def parameters(self) -> dict[str, int | None]:
        """See `Player.parameters`."""
        return {**self._policy.parameters()}

    def identity(self) -> dict[str, Any]:
        """See `Player.identity`."""
        return checkpoint_identity(self._policy.saved)

    def spaces(self) -> tuple[str, str]:
        """See `Player.spaces`."""
        observation, action = self._evaluator.spaces[INPUT_ENV_SINGLE_SPACES]
        return str(observation), str(action)

    def threads(self) -> AbstractContextManager[None]:
        """See `Player.threads`."""
        return fitting_threads(self._evaluator.module)

    def close(self) -> None:
        """See `Player.close`."""
        self._policy.close()


class FilePlayer:
    """An exported file's policy, in its own runtime."""

    def __init__(self, path: Path) -> None:
        self.name = portable(path)
        require_manifest(path)
        self._artifact = open_artifact(path)
        if self._artifact.interface.noise is not None:
            raise InputError(
                f"{self.name!r} draws its actions, but greedy policies are compared. Export it "
                "without --sample."
            )

    def actor(self) -> Actor:
        """See `Player.actor`."""
        return FileActor(self._artifact)

    def parameters(self) -> dict[str, int | None]:
        """See `Player.parameters`."""
        return {"total": None, "nonzero": None}

    def identity(self) -> dict[str, Any]:
        """See `Player.identity`."""
        return file_identity(self._artifact)

    def spaces(self) -> tuple[str, str]:
        """See `Player.spaces`; as the export found them."""
        held = self._artifact.metadata.about.get("spaces", {})
        return str(held.get("observation")), str(held.get("action"))

    def config(self) -> AlgorithmConfig:
        """Return a config of the environment that it was trained in.

        Raises:
            InputError: the file doesn't say which, or it isn't known here.
        """
        about = self._artifact.metadata.about
        env = about.get("env")
        if env is None:
            raise InputError(
                f"{self.name!r} doesn't say in which environment it acts: export it with `--env`."
            )
        return _environment(self.name, str(env), about.get("env_config", {}))

    def threads(self) -> AbstractContextManager[None]:
        """See `Player.threads`; a file was opened with one."""
        return nullcontext()

    def close(self) -> None:
        """See `Player.close`."""


class ForeignPlayer:
    """A policy of Stable-Baselines3 or of one's own, as the module that would be exported."""

    def __init__(self, policy: ForeignPolicy) -> None:
        self.name = policy.name
        self._policy = policy

    def actor(self) -> Actor:
        """See `Player.actor`."""
        return FileActor(_InMemory(self._policy))

    def parameters(self) -> dict[str, int | None]:
        """See `Player.parameters`."""
        return self._policy.parameters()

    def identity(self) -> dict[str, Any]:
        """See `Player.identity`."""
        return foreign_identity(self._policy)

    def spaces(self) -> tuple[str, str]:
        """See `Player.spaces`."""
        observation, action = self._policy.spaces
        return str(observation), str(action)

    def config(self) -> AlgorithmConfig:
        """Return a config of the environment that was given with it.

        Raises:
            InputError: none was.
        """
        options = self._policy.options
        if options.env is None:
            raise InputError(f"Of {self.name!r} the environment isn't known: give `--env`.")
        return _environment(self.name, options.env, options.env_config)

    def threads(self) -> AbstractContextManager[None]:
        """See `Player.threads`."""
        return fitting_threads(self._policy.policy)

    def close(self) -> None:
        """See `Player.close`."""


class _InMemory(Artifact):
    """A policy that was never written to a file."""

    def __init__(self, policy: ForeignPolicy) -> None:
        super().__init__(Path(policy.name), Metadata(policy.policy.interface))
        self._run = module_run(plain_copy(policy.policy))

    def run(self, inputs: list[Array]) -> list[Array]:
        """See `Artifact.run`."""
        return self._run(inputs)


class FileActor:
    """An `Actor` of an exported file: raw observations in, actions out."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._observations: list[Any] = []
        self._state: State = {}
        self._active: list[int] = []
        self._kind: Any = None

    def open(self, envs: Sequence[Env], starts: Sequence[Start]) -> None:
        """See `Actor.open`."""
        self._observations = [obs for obs, _ in starts]
        space = envs[0].action_space
        self._kind = space.dtype if isinstance(space, gym.spaces.Box) else None
        self._state = self._artifact.initial_state(len(starts))

    def act(self, active: Sequence[int]) -> tuple[list[Any], list[Any]]:
        """See `Actor.act`."""
        self._active = list(active)
        held = [self._observations[i] for i in self._active]
        batch = tree.map_structure(lambda *leaves: np.stack(leaves), *held)
        state = {name: values[self._active] for name, values in self._state.items()}
        step = self._artifact.act(batch, state)
        for name, values in step.state.items():
            # Under the name of the state that went in, at the places of these episodes.
            self._state[name][self._active] = values
        # A file gives float32, whatever kind of float the space is of.
        actions = list(step.actions.astype(self._kind or step.actions.dtype, copy=False))
        return actions, actions

    def tell(self, place: int, result: Result, action: Any) -> None:
        """See `Actor.tell`."""
        self._observations[self._active[place]] = result[0]


def _environment(name: str, env: str, env_config: Mapping[str, Any]) -> AlgorithmConfig:
    for fault in env_faults(env):
        raise CheckpointError(f"{name!r}: {fault}")
    return AlgorithmConfig().environment(env, env_config=dict(env_config))


def open_players(
    dense: Path, pruned: Path, source: ForeignOptions | None = None
) -> tuple[list[Player], AlgorithmConfig, EvaluationConfig]:
    """Open two policies, dense first, and the environment's config that both play in.

    It is the pruned policy's own; of an exported file it is the dense checkpoint's, and of two
    files the one that the pruned file names; where a policy is from elsewhere it is what was given
    with it. Last comes how the pruned policy's experiment evaluates; a file knows of none.

    Args:
        dense: a checkpoint, a run, an exported file, or a policy from elsewhere.
        pruned: likewise.
        source: what policies from elsewhere don't say themselves.

    Raises:
        InputError: one can't be opened.
    """
    theirs = _without_checkpoint(pruned, source)
    if theirs is not None:
        ours = _without_checkpoint(dense, source)
        config = settings_of(dense).config if ours is None else _config_of(theirs, ours)
        opened = CheckpointPlayer(dense_policy(dense, config)) if ours is None else ours
        return [opened, theirs], config, EvaluationConfig()
    held = settings_of(pruned)
    first = _without_checkpoint(dense, source)
    players: list[Player] = [first or CheckpointPlayer(dense_policy(dense, held.config))]
    try:
        players.append(CheckpointPlayer(OpenPolicy(held.config, held.directory)))
    except BaseException:
        players[0].close()
        raise
    return players, held.config, held.evaluation


def _without_checkpoint(
    path: Path, source: ForeignOptions | None
) -> FilePlayer | ForeignPlayer | None:
    """Return the player of what is no checkpoint; None for what is one."""
    if is_exported(path):
        return FilePlayer(path)
    return ForeignPlayer(open_policy(path, source)) if is_foreign(path) else None


def _config_of(*players: FilePlayer | ForeignPlayer) -> AlgorithmConfig:
    """Return the environment's config of the first that knows it."""
    given = [player for player in players if isinstance(player, ForeignPlayer)]
    return (given or players)[0].config()


def environment_of(config: AlgorithmConfig) -> Callable[[], gym.Env[Any, Any]]:
    """Return what makes one environment."""
    return lambda: guarded_env(config)
