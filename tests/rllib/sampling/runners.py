"""RLlib's EnvRunner and ours on the same seed, and all that they give, compared to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import tree
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import SAMPLE_TIMER
from ray.rllib.utils.metrics.stats import StatsBase

from rayprune.rllib.connectors.filters import Scaling
from rayprune.rllib.replay.pieces import whole_episodes
from rayprune.rllib.sampling.env_runner import LeanEnvRunner

Call = dict[str, Any] | Callable[[Any], None]
_BUFFERS = ("observations", "actions", "rewards", "infos")
_TIMES = ("timer", "_sec_", "time_between")
_PLAIN = ("agent_id", "module_id", "t", "t_started", "custom_data", "observation_space")


def same(make_config: Callable[[], Any], calls: Sequence[Call] = ({}, {}, {})) -> LeanEnvRunner:
    """Assert that both give the same in each call, and return ours.

    Args:
        make_config: returns a config of its own each time.
        calls: arguments of `sample`, or what is done to the EnvRunner in between.
    """
    (theirs, _), (ours, runner) = (
        _played(kind, make_config(), calls) for kind in (SingleAgentEnvRunner, LeanEnvRunner)
    )
    for theirs_of_call, ours_of_call in zip(theirs, ours, strict=True):
        assert_same(theirs_of_call, ours_of_call)
    return runner


def _played(kind: Any, config: Any, calls: Sequence[Call]) -> tuple[list[Any], Any]:
    runner = kind(config=config, worker_index=0)
    found = []
    for call in calls:
        if callable(call):
            call(runner)
            continue
        samples = [of_episode(episode) for episode in whole_episodes(runner.sample(**call))]
        open_ones = [of_episode(episode) for episode in runner._ongoing_episodes]
        _name_by_order([*samples, *open_ones])
        found.append(
            {
                "samples": samples,
                # Only the next reset is left of what isn't cut.
                "open": open_ones if "num_episodes" not in call else [],
                "inputs": runner._cached_to_module,
                "metrics": _of_metrics(runner.get_metrics()),
                "draws": [random.getstate(), np.random.get_state(), torch.get_rng_state()],  # noqa: NPY002
                "steps": runner.num_env_steps_sampled_lifetime,
            }
        )
    runner.stop()
    return found, runner


def of_episode(episode: Any) -> dict[str, Any]:
    buffers = {name: getattr(episode, name) for name in _BUFFERS}
    buffers |= {f"outputs.{name}": held for name, held in episode.extra_model_outputs.items()}
    return {
        "id": episode.id_,
        "ends": (bool(episode.is_terminated), bool(episode.is_truncated)),
        "began": episode._start_time is not None,
        "order": list(episode.extra_model_outputs),
        **{name: getattr(episode, name) for name in _PLAIN},
        **{name: _of_buffer(buffer) for name, buffer in buffers.items()},
    }


def _of_buffer(buffer: Any) -> dict[str, Any]:
    # Later samples may add to what lists hold.
    data = list(buffer.data) if isinstance(buffer.data, list) else buffer.data
    held = {name: getattr(buffer, name) for name in ("lookback", "finalized", "space")}
    return {"data": data, "struct": buffer.space_struct, **held}


def _name_by_order(episodes: list[dict[str, Any]]) -> None:
    names: dict[str, int] = {}
    for episode in episodes:
        episode["id"] = names.setdefault(episode["id"], len(names))


def _of_metrics(metrics: Any) -> dict[str, Any]:
    leaves = tree.flatten_with_path(metrics)
    return {"/".join(path): None if _is_time(path) else _of_stats(stats) for path, stats in leaves}


def _of_stats(stats: StatsBase) -> Any:
    return stats.peek(compile=False), type(stats).__name__


def _is_time(path: Sequence[str]) -> bool:
    return any(part == SAMPLE_TIMER or any(map(part.__contains__, _TIMES)) for part in path)


def assert_same(theirs: Any, ours: Any, path: str = "") -> None:
    if isinstance(theirs, Scaling):
        assert_same((theirs.mean, theirs.std), (ours.mean, ours.std), path)
    elif isinstance(theirs, dict):
        assert set(theirs) == set(ours), (path, set(theirs) ^ set(ours))
        for key, value in theirs.items():
            assert_same(value, ours[key], f"{path}.{key}")
    elif isinstance(theirs, (list, tuple)):
        assert type(theirs) is type(ours), path
        assert len(theirs) == len(ours), (path, len(theirs), len(ours))
        for place, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            assert_same(one, other, f"{path}[{place}]")
    elif isinstance(theirs, torch.Tensor):
        assert theirs.dtype == ours.dtype, path
        assert torch.equal(theirs, ours), path
    elif isinstance(theirs, np.ndarray):
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape), path
        assert np.array_equal(theirs, ours, equal_nan=theirs.dtype.kind == "f"), path
    else:
        assert theirs == ours or (theirs != theirs and ours != ours), (path, theirs, ours)
