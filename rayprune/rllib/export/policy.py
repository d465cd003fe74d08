"""An RLlib policy, with the connectors around it, as one plain torch module.

It does what `Evaluator` does: the observation connectors with their statistics frozen, the module's
inference pass, the action that its distribution gives, and what RLlib does to it on its way to the
environment. What can't be said in tensors is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tree
from ray.rllib.connectors.common.flatten_observations import (
    FlattenObservations as FlattenConnector,
)
from ray.rllib.connectors.env_to_module import (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    BatchIndividualItems,
    MeanStdFilter,
    NumpyToTensor,
)
from ray.rllib.connectors.module_to_env import (
    GetActions,
    ListifyDataForVectorEnv,
    NormalizeAndClipActions,
    RemoveSingleTsTimeRankFromBatch,
    TensorToNumpy,
    UnBatchToIndividualItems,
)
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.utils import SMALL_NUMBER
from ray.rllib.utils.numpy import MAX_LOG_NN_OUTPUT, MIN_LOG_NN_OUTPUT
from torch import Tensor, nn

from rayprune.deploy.policy.actions import (
    Aim,
    Choose,
    Clip,
    Decide,
    GainAndShift,
    Number,
    Reshape,
    Unsquash,
)
from rayprune.deploy.policy.interface import Interface, Noise, Port
from rayprune.deploy.policy.policy import Arrange, DeployablePolicy, Flatten, Normalise, Observe
from rayprune.errors import InputError
from rayprune.policies.spaces import inward_bounds, observation_ports, unknown_actions
from rayprune.rllib.connectors.encoding import Encoding
from rayprune.rllib.connectors.filters import CLIP, ObservationFilter, RewardFilter
from rayprune.rllib.connectors.observations import EncodeObservations, FitActions, two_sided
from rayprune.rllib.export.network import RLModuleNetwork

_CARRYING = (
    AddObservationsFromEpisodesToBatch,
    AddStatesFromEpisodesToBatch,
    AddTimeDimToBatchAndZeroPad,
    BatchIndividualItems,
    NumpyToTensor,
    GetActions,
    ListifyDataForVectorEnv,
    RemoveSingleTsTimeRankFromBatch,
    TensorToNumpy,
    UnBatchToIndividualItems,
)
"""RLlib's default connectors that only carry data to the module and back."""


def deployable(evaluator: Any, *, sample: bool = False) -> DeployablePolicy:
    """Return the policy that an `Evaluator` holds as one module.

    Args:
        evaluator: loaded; its module becomes part of what is returned.
        sample: draw the actions with noise that is given; else the greedy ones.

    Raises:
        InputError: a connector, a space or a distribution that can't be exported; all of them.
    """
    obs_space, action_space = evaluator.spaces[INPUT_ENV_SINGLE_SPACES]
    observations = observation_ports(obs_space)
    module = evaluator.module.eval()
    to_module, to_env = evaluator.connectors
    _refuse_unknown([*to_module, *to_env])
    observe = Observe([stage for c in to_module for stage in _stages(c, obs_space)])
    network = RLModuleNetwork(module)
    if sample and network.acts_on_q:
        raise InputError(
            "`--sample` draws from a policy's distribution, and a Q-network has none: it explores "
            "with an epsilon. Export it without."
        )
    decide, noise_kind = _decision(module, action_space, to_env, sample=sample)
    given = [torch.from_numpy(port.zeros(1)) for port in observations]
    with torch.no_grad():
        dist_inputs, action = _try_out(observe, network, decide, given)
    interface = Interface(
        observations=observations,
        action=_port("action", action),
        dist_inputs=_port("dist_inputs", dist_inputs),
        noise=_noise_port(noise_kind, dist_inputs),
        noise_kind=noise_kind,
        states=network.ports,
    )
    return DeployablePolicy(observe, network, decide, interface)


def _nested(space: gym.Space[Any]) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {key: _nested(inner) for key, inner in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_nested(inner) for inner in space.spaces)
    return space


def _refuse_unknown(connectors: Sequence[Any]) -> None:
    ours = (EncodeObservations, FitActions, ObservationFilter, RewardFilter)
    known = (*_CARRYING, MeanStdFilter, FlattenConnector, NormalizeAndClipActions, *ours)
    names = [type(c).__name__ for c in connectors if type(c) not in known]
    if names:
        raise InputError(
            f"Connectors that can't be exported: {', '.join(names)}. Only RLlib's own defaults, "
            "MeanStdFilter and FlattenObservations can. Move what they do into an environment "
            "wrapper or into the module."
        )


def _stages(connector: Any, space: gym.Space[Any]) -> list[nn.Module]:
    if type(connector) is ObservationFilter:
        scaling = connector.scaling
        return [Normalise([(torch.from_numpy(scaling.mean), torch.from_numpy(scaling.std))], CLIP)]
    if type(connector) is MeanStdFilter:
        return [_normalise(connector)]
    if type(connector) is EncodeObservations:
        return [_encode(connector.encoding)]
    if type(connector) is FlattenConnector:
        if connector._keys_to_remove:
            raise InputError(
                "FlattenObservations with `keys_to_remove` can't be exported. Leave the keys out "
                "in an environment wrapper."
            )
        return [Flatten([_choices(leaf) for leaf in tree.flatten(_nested(space))])]
    return []


def _encode(encoding: Encoding) -> nn.Module:
    if encoding.layout is not None:
        (part,) = encoding.parts
        return Arrange(encoding.layout.axes, encoding.layout.shape, part.scale)
    parts = encoding.parts
    return Flatten(
        [part.sizes for part in parts],
        [part.starts for part in parts],
        [part.scale for part in parts],
    )


def _choices(space: gym.Space[Any]) -> list[int]:
    if isinstance(space, gym.spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, gym.spaces.MultiDiscrete):
        return [int(size) for size in space.nvec.flatten()]
    return []


def _normalise(connector: Any) -> Normalise:
    if connector._filters is None:
        connector._init_new_filters()
    held = connector._filters[None]
    shapes = tree.flatten(held.shape) if isinstance(held.shape, (dict, tuple)) else [held.shape]
    statistics: list[tuple[Tensor, Tensor] | None] = []
    for shape, stats in zip(shapes, tree.flatten(held.running_stats), strict=True):
        if shape is None:
            statistics.append(None)
            continue
        mean = stats.mean if held.demean else np.zeros_like(stats.mean)
        std = stats.std + SMALL_NUMBER if held.destd else np.ones_like(stats.mean)
        statistics.append((torch.from_numpy(np.array(mean)), torch.from_numpy(np.array(std))))
    return Normalise(statistics, held.clip or None)


def _decision(
    module: Any, space: gym.Space[Any], to_env: Sequence[Any], *, sample: bool
) -> tuple[Decide, Noise | None]:
    """Return what makes actions of distribution inputs, and the noise it wants."""
    kind = module.get_inference_action_dist_cls()
    fit = next((c for c in to_env if type(c) is FitActions), None)
    # As a class, for what RLlib binds to a space prints with the whole path of its module.
    if issubclass(kind, (TorchCategorical, TorchMultiCategorical)):
        choose, starts = _choice(space), _starts(space) if fit is not None else []
        return Decide(choose, *starts), "gumbel" if sample else None
    if issubclass(kind, (TorchDiagGaussian, TorchSquashedGaussian)):
        squashed = issubclass(kind, TorchSquashedGaussian)
        bounds = (MIN_LOG_NN_OUTPUT, MAX_LOG_NN_OUTPUT) if squashed else None
        aim = Aim(squashed=squashed, log_std_bounds=bounds)
        stages = _fitted(space, fit) if fit is not None else _to_bounds(space, to_env)
        return Decide(aim, *stages), "normal" if sample else None
    raise InputError(
        f"Actions of {space} can't be exported: only those that are drawn from one categorical, "
        f"Gaussian or squashed Gaussian distribution can, and these come from {_plain_name(kind)}."
    )


def _choice(space: gym.Space[Any]) -> Choose:
    if isinstance(space, gym.spaces.Discrete):
        return Choose([int(space.n)], several=False)
    if isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
        return Choose([int(size) for size in space.nvec], several=True)
    raise unknown_actions(space)


def _starts(space: gym.Space[Any]) -> list[nn.Module]:
    assert isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete))
    return [Number(torch.from_numpy(np.array(space.start, np.int64)))]


def _fitted(space: gym.Space[Any], fit: FitActions) -> list[nn.Module]:
    """Return what `FitActions` does, in float32."""
    box = _float_vector(space, most_axes=1)
    shape = [Reshape(box.shape)] if len(box.shape) != 1 else []
    low, high = inward_bounds(box)
    if not fit.normalize:
        return [Clip(low, high), *shape] if fit.clip else [*shape]
    mapped = torch.from_numpy(two_sided(box).reshape(-1))
    if mapped.all():
        return [Unsquash(low, high), *shape]
    gain = torch.where(mapped, (high - low) / 2, 1.0)
    rescale = [GainAndShift(gain, torch.where(mapped, low + gain, 0.0))] if mapped.any() else []
    return [*rescale, Clip(low, high), *shape]


def _to_bounds(space: gym.Space[Any], to_env: Sequence[Any]) -> list[nn.Module]:
    """Return what RLlib's own connector does."""
    box = _float_vector(space)
    low, high = (torch.from_numpy(np.array(bound)) for bound in (box.low, box.high))
    last = [c for c in to_env if type(c) is NormalizeAndClipActions]
    if last and last[0].normalize_actions:
        bounded = bool(box.bounded_below.all() and box.bounded_above.all())
        return [Unsquash(low, high)] if bounded else []
    return [Clip(low, high)] if last and last[0].clip_actions else []


def _float_vector(space: gym.Space[Any], most_axes: int | None = None) -> gym.spaces.Box:
    if isinstance(space, gym.spaces.Box) and np.dtype(space.dtype).kind == "f":
        axes = len(space.shape)
        if axes == 1 or (most_axes is not None and axes <= most_axes):
            return space
    raise unknown_actions(space)


def _plain_name(kind: Any) -> str:
    return str(kind.__name__).rpartition(".")[2].removesuffix("Partial").rstrip("'>")


def _try_out(
    observe: nn.Module, network: RLModuleNetwork, decide: nn.Module, given: list[Tensor]
) -> tuple[Tensor, Tensor]:
    states = [torch.from_numpy(port.zeros(1)) for port in network.ports]
    dist_inputs = network(*observe(*given), *states)[0]
    return dist_inputs, decide(dist_inputs)


def _noise_port(kind: Noise | None, dist_inputs: Tensor) -> Port | None:
    if kind is None:
        return None
    size = dist_inputs.shape[-1]
    return Port("noise", (size if kind == "gumbel" else size // 2,))


def _port(name: str, value: Tensor) -> Port:
    return Port(name, tuple(value.shape[1:]), str(value.numpy().dtype))
