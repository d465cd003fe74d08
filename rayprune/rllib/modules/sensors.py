"""The sensors of an RLModule: found by tracing it, named by the environment's space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import QNetAPI, ValueFunctionAPI
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from torch import Tensor, nn

from rayprune.errors import InputError
from rayprune.policies.spaces import Space, leaves
from rayprune.pruning.granularity.sensors import Sensors, find_sensors, unplugged
from rayprune.pruning.layers.attach import maskable_layers
from rayprune.pruning.layers.masked import MASKABLE


def sensors_of(module: nn.Module, targets: list[nn.Module]) -> Sensors:
    """Return the sensors that the module's prunable layers read."""
    return module_sensors(module, dict(maskable_layers(module, exclude=targets)))


def module_sensors(module: Any, layers: dict[str, nn.Module]) -> Sensors:
    """Return the sensors that an RLModule's layers read, critics' included.

    Args:
        module: with all the nets that are to be looked at.
        layers: its prunable layers by name; all of them must take part in acting or valuing.

    Raises:
        InputError: they can't be told; see `find_sensors`.
    """
    sample = module.observation_space.sample()
    device = next(module.parameters()).device
    ahead = (1, 1) if module.is_stateful() else (1,)
    leaves = [
        torch.zeros((*ahead, *np.shape(leaf)), device=device) for leaf in tree.flatten(sample)
    ]
    training = module.training
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            return find_sensors(
                layers, leaves, lambda given: _run(module, tree.unflatten_as(sample, list(given)))
            )
    finally:
        module.train(training)


def sensor_report(evaluator: Any) -> dict[str, list[str]] | None:
    """Return which sensors the policy reads and which can be unplugged, by name.

    Args:
        evaluator: an `Evaluator` that holds the policy.

    Returns:
        ``{"kept": [...], "unplugged": [...]}``; None where the sensors can't be told apart.
    """
    module = evaluator.module
    named: list[tuple[str, nn.Module]] = list(module.named_modules())
    layers = {
        name: layer
        for name, layer in named
        if isinstance(layer, tuple(MASKABLE)) and not name.startswith(_valuing(module))
    }
    try:
        sensors = module_sensors(module, layers)
    except InputError:
        return None
    spaces = evaluator.spaces
    seen = spaces[DEFAULT_MODULE_ID][0]
    names = sensor_names(spaces[INPUT_ENV_SINGLE_SPACES][0], seen, sensors.sizes)
    gone = unplugged(sensors, layers)
    return {
        "kept": [name for name, dead in zip(names, gone, strict=True) if not dead],
        "unplugged": [name for name, dead in zip(names, gone, strict=True) if dead],
    }


def sensor_names(env: Space, seen: Space, sizes: Sequence[int]) -> list[str]:
    """Name sensors after the environment's observation space.

    Args:
        env: as the environment has it; a Box with an attribute ``names`` names its elements.
        seen: as the module sees it; connectors may have flattened the environment's.
        sizes: how many sensors there are in each leaf of what the module sees.

    >>> box = gym.spaces.Box(-1, 1, (2,))
    >>> sensor_names(box, box, [2])
    ['obs[0]', 'obs[1]']
    >>> rich = gym.spaces.Dict({"state": box, "gear": gym.spaces.Discrete(2)})
    >>> sensor_names(rich, gym.spaces.Box(-1, 1, (4,)), [4])
    ['gear=0', 'gear=1', 'state[0]', 'state[1]']
    """
    if len(sizes) == 1 and isinstance(seen, gym.spaces.Box):
        flat = [name for path, leaf in _names(env) for name in _elements(path or "obs", leaf)]
        return flat if len(flat) == sizes[0] else [f"obs[{i}]" for i in range(sizes[0])]
    names: list[str] = []
    for (path, leaf), size in zip(_names(seen), sizes, strict=True):
        own = list(_elements(path, leaf))
        # An image's sensors are its channels where a convolution reads it.
        names += own if len(own) == size else [f"{path}[{i}]" for i in range(size)]
    return names


def _names(space: Space) -> Iterator[tuple[str, Space]]:
    """Yield the leaves with their dotted paths."""
    for path, leaf in leaves(space):
        yield ".".join(map(str, path)), leaf


def _elements(path: str, leaf: Space) -> Iterator[str]:
    """Yield the names of a leaf's numbers; a choice is as many as it has values."""
    if isinstance(leaf, gym.spaces.Discrete):
        yield from (f"{path}={int(leaf.start) + value}" for value in range(int(leaf.n)))
    elif isinstance(leaf, gym.spaces.MultiDiscrete):
        for index in np.ndindex(*leaf.shape):
            first, count = int(leaf.start[index]), int(leaf.nvec[index])
            place = f"{path}[{','.join(map(str, index))}]"
            yield from (f"{place}={first + value}" for value in range(count))
    elif leaf.shape == ():
        yield path
    else:
        given = getattr(leaf, "names", None)
        if given is not None and len(given) == np.prod(leaf.shape or ()):
            yield from map(str, given)
            return
        for index in np.ndindex(*(leaf.shape or ())):
            yield f"{path}[{','.join(map(str, index))}]"


def _run(module: Any, observation: Any) -> None:
    """Act and value once, so that every net of RLlib's own and of usual modules runs."""
    batch: dict[str, Any] = {Columns.OBS: observation}
    if module.is_stateful():
        batch[Columns.STATE_IN] = tree.map_structure(
            lambda state: torch.as_tensor(np.asarray(state))[None].to(_device(observation)),
            module.get_initial_state(),
        )
    # The public method runs without gradients, and the trace is by gradients.
    module._forward_inference(dict(batch))
    if module.inference_only:
        return
    if isinstance(module, ValueFunctionAPI):
        module.compute_values(dict(batch))
    if issubclass(type(module), QNetAPI):
        if isinstance(module.action_space, gym.spaces.Box):
            # SAC's critics read continuous actions beside the observation.
            shape = module.action_space.shape
            batch[Columns.ACTIONS] = torch.zeros(1, *shape, device=_device(observation))
        module.compute_q_values(batch)


def _device(observation: Any) -> torch.device:
    leaf: Tensor = tree.flatten(observation)[0]
    return leaf.device


def _valuing(module: Any) -> tuple[str, ...]:
    """Return name prefixes of critics that RLlib's recurrent modules keep beside the policy."""
    return ("encoder.critic_encoder", "value")
