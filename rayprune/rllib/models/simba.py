"""SimBa: residual feed-forward nets with layer norms (Lee et al. 2024, arXiv:2410.09754).

Wide nets of this kind go on getting better where plain ones get worse. Observations are normalised
by their running mean and deviation, as the paper does; that is not in these modules, but in front
of them (`rayprune.rllib.normalise`), where EnvRunners share one count and an export folds it in.

`PrunableSimBa` is an actor-critic. Algorithms with Q-networks have modules of their own, which do
what RLlib's do and have nets of SimBa's in place of RLlib's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
from ray.rllib.algorithms.cql.torch.default_cql_torch_rl_module import DefaultCQLTorchRLModule
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.iql.torch.default_iql_torch_rl_module import DefaultIQLTorchRLModule
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from rayprune.rllib.models import nets, spaces
from rayprune.rllib.models.configs import (
    ModelConfig,
    SimBaConfig,
    SimBaDQNConfig,
    SimBaSACConfig,
)
from rayprune.rllib.models.modules import ActorCritic

if TYPE_CHECKING:
    _Base = TorchRLModule
else:
    _Base = object


def wants_normalised(module_class: Any, model_config: Mapping[str, Any]) -> bool:
    """Return whether a module counts on normalised observations.

    Args:
        module_class: any, or None.
        model_config: its settings, which may be wrong.
    """
    if not (
        isinstance(module_class, type) and issubclass(module_class, (PrunableSimBa, QNetworks))
    ):
        return False
    return model_config.get("normalise_observations", True) is True


class PrunableSimBa(ActorCritic):
    """Residual nets over a flat observation; settings in :class:`SimBaConfig`."""

    config_class = SimBaConfig
    settings: SimBaConfig

    def build(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return nothing that is shared, the policy net, and the value net."""
        c = self.settings
        size = spaces.flat_size(self.observation_space, type(self).__name__)
        policy = nets.residual_layers(size, c.policy_width, c.policy_blocks, c.activation)
        value = nets.residual_layers(size, c.value_width, c.value_blocks, c.activation)
        return (
            nets.chain([]),
            nets.chain([*policy, *self.policy_out(c.policy_width)]),
            nets.chain([*value, ("out", nn.Linear(c.value_width, 1))]),
        )


class SimBaSACCatalog(SACCatalog):
    """SAC's catalog, whose nets are SimBa's."""

    settings: SimBaConfig
    qf_head_config: Any

    def build_encoder(self, framework: str) -> Any:
        """Return the policy net without its head."""
        c = self.settings
        layers = nets.residual_layers(self._seen, c.policy_width, c.policy_blocks, c.activation)
        return nets.ColumnEncoder(layers, [Columns.OBS])

    def build_qf_encoder(self, framework: str) -> Any:
        """Return a Q-network without its head; of continuous actions it reads them too."""
        actions = self.action_space
        if not isinstance(actions, gym.spaces.Box):
            return self.build_vf_encoder()
        layers = self._value_layers(self._seen + actions.shape[0])
        return nets.ColumnEncoder(layers, [Columns.OBS, Columns.ACTIONS])

    def build_vf_encoder(self) -> Any:
        """Return a net of a Q-network's size that reads no actions."""
        return nets.ColumnEncoder(self._value_layers(self._seen), [Columns.OBS])

    def build_pi_head(self, framework: str) -> Any:
        """Return the layer that gives the distribution's inputs."""
        distribution = self.get_action_dist_cls(framework)
        inputs = distribution.required_input_dim(self.action_space)
        return nn.Linear(self.settings.policy_width, int(inputs))

    def build_qf_head(self, framework: str) -> Any:
        """Return the layer that gives a Q-value, its quantiles, or one for each discrete action."""
        return nn.Linear(self.settings.value_width, self.qf_head_config.output_layer_dim)

    @property
    def _seen(self) -> int:
        return spaces.flat_size(self.observation_space, type(self).__name__)

    def _value_layers(self, size: int) -> Iterator[nets.NamedLayer]:
        c = self.settings
        return nets.residual_layers(size, c.value_width, c.value_blocks, c.activation)


class SimBaTQCCatalog(SimBaSACCatalog, TQCCatalog):
    """TQC's catalog, whose nets are SimBa's."""


class SimBaDQNCatalog(DQNCatalog):
    """DQN's catalog, whose net is SimBa's."""

    settings: SimBaDQNConfig
    af_head_config: Any
    vf_head_config: Any

    def build_encoder(self, framework: str) -> Any:
        """Return the net without its heads."""
        c = self.settings
        size = spaces.flat_size(self.observation_space, type(self).__name__)
        layers = nets.residual_layers(size, c.width, c.blocks, c.activation)
        return nets.ColumnEncoder(layers, [Columns.OBS])

    def build_af_head(self, framework: str) -> Any:
        """Return the layer that gives Q-values or advantages."""
        return nn.Linear(self.settings.width, self.af_head_config.output_layer_dim)

    def build_vf_head(self, framework: str) -> Any:
        """Return the layer that gives the value beside the advantages."""
        return nn.Linear(self.settings.width, self.vf_head_config.output_layer_dim)


class QNetworks(_Base):
    """What makes of one of RLlib's modules with Q-networks one whose nets are ours."""

    config_class: ClassVar[type[ModelConfig]]
    own_catalog: ClassVar[type[Catalog]]
    settings: ModelConfig
    catalog: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # RLlib fills in the catalog of the algorithm, whoever the module is.
        super().__init__(*args, **{**kwargs, "catalog_class": self.own_catalog})

    def setup(self) -> None:
        """Build the nets; RLlib calls this once, from the constructor."""
        given: Any = self.model_config
        self.settings = self.config_class.from_dict(given)
        spaces.flat_size(self.observation_space, type(self).__name__)
        rllibs = {key: given[key] for key in given if key in self.config_class.from_rllib}
        # Complete, so that checkpoints name every width.
        self.model_config = {**rllibs, **self.settings.to_dict()}
        self.catalog.settings = self.settings
        super().setup()  # type: ignore[no-untyped-call]


class PrunableSimBaSAC(QNetworks, DefaultSACTorchRLModule):
    """SimBa for SAC; settings in :class:`SimBaSACConfig`."""

    config_class = SimBaSACConfig
    own_catalog = SimBaSACCatalog


class PrunableSimBaCQL(QNetworks, DefaultCQLTorchRLModule):
    """SimBa for CQL; settings in :class:`SimBaSACConfig`."""

    config_class = SimBaSACConfig
    own_catalog = SimBaSACCatalog


class PrunableSimBaTQC(QNetworks, DefaultTQCTorchRLModule):
    """SimBa for TQC; settings in :class:`SimBaSACConfig`."""

    config_class = SimBaSACConfig
    own_catalog = SimBaTQCCatalog


class PrunableSimBaIQL(QNetworks, DefaultIQLTorchRLModule):
    """SimBa for IQL, its value net too; settings in :class:`SimBaSACConfig`."""

    config_class = SimBaSACConfig
    own_catalog = SimBaSACCatalog
    settings: SimBaSACConfig

    def setup(self) -> None:
        """Build the nets; RLlib asks the catalog for all but the value net."""
        super().setup()
        if not self.inference_only:
            self.vf_encoder = self.catalog.build_vf_encoder()
            self.vf = nn.Linear(self.settings.value_width, 1)


class PrunableSimBaDQN(QNetworks, DefaultDQNTorchRLModule):
    """SimBa for DQN; settings in :class:`SimBaDQNConfig`."""

    config_class = SimBaDQNConfig
    own_catalog = SimBaDQNCatalog
