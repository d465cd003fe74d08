"""Catalogs of RLlib's that make of ``fcnet_hiddens: []`` what it says: no hidden layer.

RLlib 2.60 takes the last of the hidden layers for the encoder's output, and fails where there is
none. Here the encoder is then the identity, so that each head reads the observation itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gymnasium.spaces import Box
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc.bc_catalog import BCCatalog
from ray.rllib.algorithms.dqn.dqn_catalog import DQNCatalog
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.models.configs import MLPEncoderConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

_HIDDENS: Final = "fcnet_hiddens"

if TYPE_CHECKING:
    _Base = Catalog
else:
    _Base = object


class IdentityEncoderConfig(MLPEncoderConfig):
    """Of an encoder without a layer, whose output is the observation."""

    @property
    def output_dims(self) -> tuple[int, ...]:
        """The observation's."""
        return tuple(int(size) for size in self.input_dims)


class Linear(_Base):
    """The override that needs no hidden layer. Mixed into RLlib's catalogs."""

    @classmethod
    def _get_encoder_config(
        cls, observation_space: Any, model_config_dict: Any, *args: Any, **kwargs: Any
    ) -> Any:
        vector = isinstance(observation_space, Box) and len(observation_space.shape) == 1
        if vector and not (model_config_dict[_HIDDENS] or model_config_dict["use_lstm"]):
            return IdentityEncoderConfig(input_dims=observation_space.shape, hidden_layer_dims=[])
        return super()._get_encoder_config(observation_space, model_config_dict, *args, **kwargs)


class LinearPPOCatalog(Linear, PPOCatalog):
    """PPO's, APPO's and IMPALA's."""


class LinearDQNCatalog(Linear, DQNCatalog):
    """DQN's."""


class LinearSACCatalog(Linear, SACCatalog):
    """SAC's and CQL's."""


class LinearBCCatalog(Linear, BCCatalog):
    """BC's."""


_CATALOGS: Final[Mapping[str, type[Catalog]]] = {
    "PPO": LinearPPOCatalog,
    "APPO": LinearPPOCatalog,
    "IMPALA": LinearPPOCatalog,
    "DQN": LinearDQNCatalog,
    "SAC": LinearSACCatalog,
    "CQL": LinearSACCatalog,
    "BC": LinearBCCatalog,
}


def allow_linear(config: AlgorithmConfig, algorithm: str) -> None:
    """Let RLlib's networks do without hidden layers, where a config's ``model_config`` says so.

    Args:
        config: changed in place; without a module class of its own.
        algorithm: as the YAML names it; of another nothing is changed.
    """
    if algorithm in _CATALOGS and not config.model_config.get(_HIDDENS, True):
        # With nothing but the catalog: RLlib fills in the rest, as it stands when it builds.
        config.rl_module(rl_module_spec=RLModuleSpec(catalog_class=_CATALOGS[algorithm]))
