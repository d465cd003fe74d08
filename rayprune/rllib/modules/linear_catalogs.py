"""What makes of ``fcnet_hiddens: []`` what it says, in a catalog of RLlib's: no hidden layer.

RLlib 2.60 takes the last of the hidden layers for the encoder's output, and fails where there is
none. Here the encoder is then the identity, so that each head reads the observation itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gymnasium.spaces import Box
from ray.rllib.core.models.catalog import Catalog
from ray.rllib.core.models.configs import MLPEncoderConfig

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
