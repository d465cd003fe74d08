"""Actor-critic RLModules with a policy net and a value net of their own widths."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import gymnasium as gym
import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.rl_module.apis import (
    TARGET_NETWORK_ACTION_DIST_INPUTS,
    InferenceOnlyAPI,
    TargetNetworkAPI,
    ValueFunctionAPI,
)
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from rayprune.rllib.models import nets, spaces
from rayprune.rllib.models.configs import (
    ConvConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    NatureCNNConfig,
    ResidualCNNConfig,
)

Batch = dict[str, Any]
State = dict[str, dict[str, Tensor]]


class ActorCritic(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI, TargetNetworkAPI):
    """A policy net and a value net, after layers that they may share.

    Subclasses say in :meth:`build` which layers those are. The target nets are APPO's; other
    algorithms never make them.
    """

    config_class: ClassVar[type[ModelConfig]]

    def setup(self) -> None:
        """Build the nets; RLlib calls this once, from the constructor."""
        given = self.model_config or {}
        if dataclasses.is_dataclass(given):
            given = dataclasses.asdict(given)
        self.settings = self.config_class.from_dict(given)
        # Complete, so that checkpoints name every width, and `max_seq_len` is where RLlib looks.
        self.model_config = self.settings.to_dict()
        self.shared, self.policy, self.value = self.build()

    @abstractmethod
    def build(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return the layers that both nets share, the policy net, and the value net."""

    def observations(self, batch: Batch) -> Tensor:
        """Return the observations as the nets take them."""
        obs: Tensor = batch[Columns.OBS]
        return obs

    def policy_out(self, size: int) -> Iterator[nets.NamedLayer]:
        """Yield the layer ``out`` from ``size`` hidden units to the distribution's inputs."""
        width = spaces.distribution_inputs(self.action_space, type(self).__name__)
        if isinstance(self.action_space, gym.spaces.Box) and self.settings.free_log_std:
            yield "out", nn.Linear(size, width // 2)
            yield "gaussian", nets.FreeLogStd(width // 2)
        else:
            yield "out", nn.Linear(size, width)

    def _forward(self, batch: Batch, **kwargs: Any) -> Batch:
        return {Columns.ACTION_DIST_INPUTS: self.policy(self.shared(self.observations(batch)))}

    def _forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        # Passed on as embeddings, what is shared is computed once for both nets.
        shared = self.shared(self.observations(batch))
        return {Columns.ACTION_DIST_INPUTS: self.policy(shared), Columns.EMBEDDINGS: shared}

    def compute_values(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """Return the values, shape ``(batch,)``, or ``(batch, time)`` of an LSTM."""
        shared = self.shared(self.observations(batch)) if embeddings is None else embeddings
        values: Tensor = self.value(shared)
        return values.squeeze(-1)

    def get_non_inference_attributes(self) -> list[str]:
        """Name what EnvRunners don't need: the value net and the target nets."""
        return ["value", "old_shared", "old_policy"]

    def make_target_networks(self) -> None:
        """Make APPO's target nets."""
        self.old_shared = cast(nn.Sequential, make_target_network(self.shared))
        self.old_policy = cast(nn.Sequential, make_target_network(self.policy))

    def get_target_network_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Pair each net with its target; no pairs where no targets were made."""
        if not hasattr(self, "old_policy"):
            return []
        return [(self.shared, self.old_shared), (self.policy, self.old_policy)]

    def forward_target(self, batch: Batch) -> Batch:
        """Run the target policy."""
        inputs = self.old_policy(self.old_shared(self.observations(batch)))
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: inputs}

    def get_inference_action_dist_cls(self) -> Any:
        """Return the distribution class that the action space calls for."""
        return spaces.action_distribution(self.action_space, type(self).__name__)


class PrunableMLP(ActorCritic):
    """Fully connected nets over a flat observation; settings in :class:`MLPConfig`."""

    config_class = MLPConfig
    settings: MLPConfig

    def build(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return the shared layers, the policy net, and the value net."""
        c = self.settings
        size = spaces.flat_size(self.observation_space, type(self).__name__)
        body = [size, *c.shared_hiddens][-1]
        policy = nets.hidden_layers(body, c.policy_hiddens, c.activation)
        value = nets.hidden_layers(body, c.value_hiddens, c.activation)
        return (
            nets.chain(nets.hidden_layers(size, c.shared_hiddens, c.activation)),
            nets.chain([*policy, *self.policy_out([body, *c.policy_hiddens][-1])]),
            nets.chain([*value, ("out", nn.Linear([body, *c.value_hiddens][-1], 1))]),
        )


class _ConvActorCritic(ActorCritic):
    """Convolutions over images, flattened, then fully connected layers."""

    settings: ConvConfig

    def observations(self, batch: Batch) -> Tensor:
        """Return images as float, channels first; bytes are scaled to between 0 and 1."""
        obs: Tensor = batch[Columns.OBS]
        images = obs.float().permute(0, 3, 1, 2)
        # By the space, not the tensor: RLlib's connectors may have made floats of the bytes.
        return images / 255.0 if self._bytes else images

    def build(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return the shared convolutions, the policy net, and the value net."""
        self._bytes = getattr(self.observation_space, "dtype", None) == np.uint8
        image = spaces.image_shape(self.observation_space, type(self).__name__)
        shared = nets.chain(self.convolutions("shared", image[0]))
        shape = nets.output_shape(shared, image)
        policy, policy_size = self._trunk("policy", shape)
        value, value_size = self._trunk("value", shape)
        return (
            shared,
            nets.chain([*policy, *self.policy_out(policy_size)]),
            nets.chain([*value, ("out", nn.Linear(value_size, 1))]),
        )

    @abstractmethod
    def convolutions(self, net: str, channels: int) -> Iterator[nets.NamedLayer]:
        """Yield ``net``'s convolutions over ``channels`` input channels."""

    def _trunk(self, net: str, shape: tuple[int, int, int]) -> tuple[list[nets.NamedLayer], int]:
        layers = [*self.convolutions(net, shape[0])]
        channels, height, width = nets.output_shape(nets.chain(layers), shape)
        size, widths = channels * height * width, getattr(self.settings, f"{net}_hiddens")
        layers.append(("flatten", nn.Flatten()))
        layers += nets.hidden_layers(size, widths, self.settings.activation)
        return layers, [size, *widths][-1]


class PrunableNatureCNN(_ConvActorCritic):
    """DQN's three convolutions and a hidden layer; settings in :class:`NatureCNNConfig`."""

    config_class = NatureCNNConfig
    settings: NatureCNNConfig

    def convolutions(self, net: str, channels: int) -> Iterator[nets.NamedLayer]:
        """Yield ``conv0``, ``conv_act0``, ... of ``net``, whose kernels follow the shared ones."""
        c = self.settings
        first = 0 if net == "shared" else len(c.shared_channels)
        filters = c.channels(net)
        kernels = c.kernels[first : first + len(filters)]
        return nets.convolutions(channels, filters, kernels, c.activation)


class PrunableResidualCNN(_ConvActorCritic):
    """IMPALA's residual net; settings in :class:`ResidualCNNConfig`."""

    config_class = ResidualCNNConfig
    settings: ResidualCNNConfig

    def convolutions(self, net: str, channels: int) -> Iterator[nets.NamedLayer]:
        """Yield ``stage0``, ``stage1``, ... of ``net``, and an activation after its last one."""
        c = self.settings
        widths = c.channels(net)
        yield from nets.stages(channels, widths, c.blocks(net), c.activation)
        # The blocks leave their sum unactivated; shared stages hand it on to stages as it is.
        if net != "shared":
            yield from nets.activation("stage_act", c.activation)


class PrunableLSTM(ActorCritic):
    """Fully connected layers, then an LSTM, in each net; settings in :class:`LSTMConfig`."""

    config_class = LSTMConfig
    settings: LSTMConfig

    def build(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return the shared layers, the policy net, and the value net."""
        shared, size = self._trunk(
            "shared", spaces.flat_size(self.observation_space, type(self).__name__)
        )
        policy, policy_size = self._trunk("policy", size)
        value, value_size = self._trunk("value", size)
        # RLlib drops an inference-only module's `value`, but stumbles over `value.out`.
        if not (self.inference_only and "value" in self.settings.cells):
            value.append(("out", nn.Linear(value_size, 1)))
        return (
            nets.chain(shared),
            nets.chain([*policy, *self.policy_out(policy_size)]),
            nets.chain(value),
        )

    def get_initial_state(self) -> dict[str, dict[str, np.ndarray]]:
        """Return ``{net: {"h": zeros, "c": zeros}}`` of nets with an LSTM, ``(cell,)`` each."""
        return {
            net: {key: np.zeros(cell, dtype=np.float32) for key in ("h", "c")}
            for net, cell in self.settings.cells.items()
        }

    def get_non_inference_attributes(self) -> list[str]:
        """Name what EnvRunners don't need.

        The value net's LSTM is needed: training sequences begin with the state that it had while
        sampling. It is kept and, unlike that of RLlib's own modules, synchronised.
        """
        value = "value.out" if "value" in self.settings.cells else "value"
        return [value, "old_shared", "old_policy"]

    def _forward(self, batch: Batch, **kwargs: Any) -> Batch:
        shared, state = self._run(self.shared, "shared", self.observations(batch), batch)
        inputs, policy_state = self._run(self.policy, "policy", shared, batch)
        state |= policy_state
        if "value" in self.settings.cells:
            state |= self._run(self.value, "value", shared, batch)[1]
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.STATE_OUT: state}

    def _forward_train(self, batch: Batch, **kwargs: Any) -> Batch:
        # No STATE_OUT: losses don't read it, and the value net would run twice to make it.
        shared, _ = self._run(self.shared, "shared", self.observations(batch), batch)
        inputs, _ = self._run(self.policy, "policy", shared, batch)
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.EMBEDDINGS: shared}

    def compute_values(self, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
        """Return the values, shape ``(batch, time)``."""
        if embeddings is None:
            embeddings, _ = self._run(self.shared, "shared", self.observations(batch), batch)
        return self._run(self.value, "value", embeddings, batch)[0].squeeze(-1)

    def forward_target(self, batch: Batch) -> Batch:
        """Run the target policy."""
        shared, _ = self._run(self.old_shared, "shared", self.observations(batch), batch)
        inputs, _ = self._run(self.old_policy, "policy", shared, batch)
        return {TARGET_NETWORK_ACTION_DIST_INPUTS: inputs}

    def _trunk(self, net: str, size: int) -> tuple[list[nets.NamedLayer], int]:
        c = self.settings
        widths = getattr(c, f"{net}_hiddens")
        layers = [*nets.hidden_layers(size, widths, c.activation)]
        size = [size, *widths][-1]
        if net in c.cells:
            layers.append(("lstm", nn.LSTM(size, c.cells[net], batch_first=True)))
            size = c.cells[net]
        return layers, size

    @staticmethod
    def _run(layers: nn.Sequential, net: str, x: Tensor, batch: Batch) -> tuple[Tensor, State]:
        """Run ``layers`` from ``net``'s state in the batch; return outputs and ``{net: state}``.

        Args:
            layers: the net, in which an LSTM may stand anywhere.
            net: name of the state.
            x: inputs, shape ``(batch, time, features)``.
            batch: holds the states, shape ``(batch, cell)``.
        """
        state: State = {}
        for layer in layers:
            if isinstance(layer, nn.LSTM):
                # torch wants the LSTM's layers first; there is one.
                h, c = (batch[Columns.STATE_IN][net][key].unsqueeze(0) for key in ("h", "c"))
                x, (h, c) = layer(x, (h, c))
                state[net] = {"h": h.squeeze(0), "c": c.squeeze(0)}
            else:
                x = layer(x)
        return x, state
