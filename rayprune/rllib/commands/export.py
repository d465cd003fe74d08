"""``rayprune export``: a checkpoint's policy as one file that runs without Ray."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from rayprune.deploy.export.export import check_name, check_path, export_policy
from rayprune.deploy.policy.agreement import Agreement, agreement
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.interface import Array, Interface
from rayprune.deploy.policy.runs import draw_noise, module_run
from rayprune.deploy.policy.sensors import few
from rayprune.errors import InvariantError
from rayprune.rllib.checkpoints.files import locate, module_state, read_evaluation
from rayprune.rllib.checkpoints.learner_state import origins_in
from rayprune.rllib.connectors.encoding import leaves
from rayprune.rllib.evaluation.evaluator import Acted, Evaluator
from rayprune.rllib.experiment.algorithm_config import config_of
from rayprune.rllib.export.policy import deployable
from rayprune.storage.copies import shown
from rayprune.tracking.record import to_json
from rayprune.tracking.versions import versions

_MOST_STEPS: Final = 10_000
_MOST_BYTES: Final = 2**26
"""So many observations are recorded at most: images are large."""


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    format: str,  # noqa: A002  # as `export_policy` calls it
    *,
    sample: bool = False,
    compacted: bool = True,
    lanes: int | None = None,
    quantised: bool = False,
    name: str | None = None,
    episodes: int | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export a checkpoint's policy, and prove the file on the policy's own observations.

    Those are recorded from greedy episodes on the experiment's validation seeds.

    Args:
        checkpoint: rayprune's, plain RLlib's, or a finished run's directory.
        out: the file.
        format: a key of `rayprune.deploy.formats.WRITERS`.
        compacted: remove dead units first, exactly.
        lanes: as `export_policy` takes it.
        quantised: of format ``onnx``: int8 on top, which then only comes close.
        name: as `export_policy` takes it.
        sample: the file draws actions with noise that it is given; else it acts greedily.
        episodes: how many to record; None for as many as the experiment evaluates with.
        overwrite: replace files that are there.

    Returns:
        The certificate, with the checkpoint it is of.

    Raises:
        InputError: no checkpoint, or a policy that can't be exported; says what is in the way.
        InvariantError: the file doesn't compute what the policy does. Nothing was written.
    """
    check_path(out, format, overwrite=overwrite)
    check_name(name, format)
    directory = locate(checkpoint)
    config, evaluation = config_of(directory), read_evaluation(directory)
    evaluator = Evaluator(config)
    try:
        evaluator.load_checkpoint(directory)
        # Before episodes are played: a policy that can't be exported is refused at once.
        greedy = deployable(evaluator)
        policy = deployable(evaluator, sample=True) if sample else greedy
        seen = Recorded(greedy.interface)
        first, count = evaluation.validation_seed, episodes or evaluation.episodes
        evaluator.returns(first, count, seen.watch)
        as_rllib = seen.proven(module_run(plain_copy(greedy)))
        about = {
            **_source(directory, config),
            "spaces": _spaces(evaluator),
            "inputs": _inputs(evaluator.spaces[INPUT_ENV_SINGLE_SPACES][0]),
            "action": "sampled" if sample else "greedy",
            "recorded": {"first_seed": first, "episodes": count, "greedy": True},
            "as_rllib": as_rllib.to_dict(),
        }
    finally:
        evaluator.close()
    certificate = export_policy(
        policy,
        out,
        format,
        recorded=seen.inputs(policy.interface),
        about=about,
        compacted=compacted,
        lanes=lanes,
        quantised=quantised,
        name=name,
        overwrite=overwrite,
    )
    return {"out": str(out), "checkpoint": portable(directory), **certificate}


class Recorded:
    """What a policy was given and what it did, step by step, up to a number of steps.

    Args:
        interface: of the greedy policy.
    """

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self._inputs: list[list[Array]] = []
        self._did: list[tuple[Array, Array | None]] = []
        self._steps = self._bytes = 0

    def watch(self, acted: Acted) -> None:
        """Keep a step of an `Evaluator`, unless there are enough."""
        if self._steps >= _MOST_STEPS or self._bytes >= _MOST_BYTES:
            return
        batched = tree.map_structure(lambda *leaves: np.stack(leaves), *acted.observations)
        leaves = [*self._interface.leaves(batched), *self._states(acted)]
        self._inputs.append(leaves)
        logits = None if acted.logits is None else _flat(acted.logits, len(leaves[0]))
        self._did.append((np.stack(acted.for_env), logits))
        self._steps += len(leaves[0])
        self._bytes += sum(leaf.nbytes for leaf in leaves)

    def inputs(self, interface: Interface) -> list[Array]:
        """Return the steps as inputs of ``interface``, which may want noise."""
        joined = self._joined()
        count = len(interface.observations)
        return [*joined[:count], *draw_noise(interface, len(joined[0]), seed=0), *joined[count:]]

    def proven(self, run: Any) -> Agreement:
        """Compare what RLlib did with what a policy does.

        Raises:
            InvariantError: they differ.
        """
        actions, dist_inputs = run(self._joined())[:2]
        did = np.concatenate([step[0] for step in self._did]).astype(actions.dtype)
        logits = [step[1] for step in self._did if step[1] is not None]
        # Of a Q-network RLlib gives the action alone.
        given = np.concatenate(logits) if logits else dist_inputs
        stateless = replace(self._interface, states=())
        found = agreement(stateless, [did, given], [actions, dist_inputs])
        if not found.holds:
            raise InvariantError(
                f"The policy outside RLlib doesn't do what it does there: on {found.observations} "
                f"observations `{found.worst}` differs by {found.max_error:.2e} and "
                f"{found.differing_actions} action(s) differ. Nothing was written. A module whose "
                "inference depends on more than its inputs can't be exported."
            )
        return found

    def _states(self, acted: Acted) -> list[Array]:
        held = dict(tree.flatten_with_path(acted.batch.get(Columns.STATE_IN, {})))
        named = {".".join(["state", *map(str, path)]): state for path, state in held.items()}
        return [named[port.name].numpy().copy() for port in self._interface.states]

    def _joined(self) -> list[Array]:
        return [np.concatenate(parts) for parts in zip(*self._inputs, strict=True)]


def _flat(logits: torch.Tensor, rows: int) -> Array:
    # A recurrent module's have a time axis, of one step.
    flat: Array = logits.reshape(rows, -1).numpy().copy()
    return flat


def weights_sha256(directory: Path) -> str:
    """Return the SHA-256 of a checkpoint's weights: names and bits, in order of names."""
    digest = hashlib.sha256()
    for name, values in sorted(module_state(directory).items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def portable(path: Path) -> str:
    """Return what a file may call a place: a URL, or a path that tells nothing of this machine."""
    told = shown(path)
    if not Path(told).is_absolute():
        return told
    whole = Path(told)
    if whole.is_relative_to(Path.cwd()):
        return str(whole.relative_to(Path.cwd()))
    # A run's checkpoints are known by the run's name.
    return str(Path(*whole.parts[-3:])) if whole.parent.name == "checkpoints" else whole.name


def _source(directory: Path, config: AlgorithmConfig) -> dict[str, Any]:
    return {
        "checkpoint": portable(directory),
        "weights_sha256": weights_sha256(directory),
        "compacted_in_training": bool(origins_in(directory)),
        "algorithm": type(config).__name__.removesuffix("Config"),
        "env": str(config.env),
        "env_config": json.loads(to_json(dict(config.env_config))),
        "versions": versions(),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _inputs(space: gym.Space[Any]) -> dict[str, dict[str, Any]]:
    """Return the names and bounds of each observation's elements, by the input's name."""
    told: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves(space):
        inside = ".".join(map(str, path))
        count = math.prod(leaf.shape or ())
        own = getattr(leaf, "names", None)
        plain = [f"{inside or 'obs'}[{i}]" if leaf.shape else inside or "obs" for i in range(count)]
        low, high = _bounds(leaf)
        told[".".join(["obs", *map(str, path)])] = {
            "names": list(map(str, own)) if own is not None and len(own) == count else plain,
            "low": low,
            "high": high,
        }
    return told


def _bounds(space: gym.Space[Any]) -> tuple[Any, Any]:
    """Return the least and the largest value of each element; JSON, infinities None."""
    low: Any
    high: Any
    if isinstance(space, gym.spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, gym.spaces.Discrete):
        low = np.array(int(space.start))
        high = low + int(space.n) - 1
    elif isinstance(space, gym.spaces.MultiDiscrete):
        low = np.asarray(space.start, np.int64)
        high = low + np.asarray(space.nvec, np.int64) - 1
    else:
        low, high = np.array(0), np.array(1)
    return few(low.astype(np.float64).reshape(-1)), few(high.astype(np.float64).reshape(-1))


def _spaces(evaluator: Evaluator) -> dict[str, str]:
    observation, action = evaluator.spaces[INPUT_ENV_SINGLE_SPACES]
    return {"observation": str(observation), "action": str(action)}
