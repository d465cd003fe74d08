"""BC: clones the actions of recorded data, without returns or values."""

from __future__ import annotations

from typing import ClassVar

from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.bc.bc_catalog import BCCatalog

from rayprune.rllib.algorithms.family import AlgorithmFamily, Unread
from rayprune.rllib.modules.linear_catalogs import Linear


class LinearBCCatalog(Linear, BCCatalog):
    """BC's catalog, which needs no hidden layer."""


class BCFamily(AlgorithmFamily):
    """Behaviour cloning."""

    config_class = BCConfig
    linear_catalog = LinearBCCatalog
    one_update = True
    no_lstm = "RLlib reads offline data without recurrent states"
    value_net = False
    unread: ClassVar[tuple[Unread, ...]] = (
        Unread(
            "training",
            (
                "gamma",
                "lambda_",
                "moving_average_sqd_adv_norm_start",
                "moving_average_sqd_adv_norm_update_rate",
                "vf_coeff",
            ),
            "BC clones actions, without returns or values; leave it out.",
        ),
    )
