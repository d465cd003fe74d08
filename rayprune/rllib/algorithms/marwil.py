"""MARWIL: clones the actions of recorded data, those that earned more than expected the more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ray.rllib.algorithms.marwil import MARWILConfig

from rayprune.rllib.algorithms.family import LEAVE_OUT, AlgorithmFamily, Unread, value_at
from rayprune.rllib.algorithms.ppo import LinearPPOCatalog


class MARWILFamily(AlgorithmFamily):
    """Monotonic advantage re-weighted imitation learning, Wang et al. 2018 (NeurIPS)."""

    config_class = MARWILConfig
    linear_catalog = LinearPPOCatalog
    one_update = True
    no_lstm = "RLlib reads offline data without recurrent states"
    # The moving average that advantages are divided by.
    learned_attributes: ClassVar[tuple[str, ...]] = ("moving_avg_sqd_adv_norms_per_module",)
    unread: ClassVar[tuple[Unread, ...]] = (Unread("training", ("burnin_len",), LEAVE_OUT),)

    def faults(self, blocks: Mapping[str, Any]) -> Iterator[str]:
        """Yield what it can't do: encourage a deviation, or have RLlib read its data."""
        yield from super().faults(blocks)
        if value_at(blocks, "training", "bc_logstd_coeff"):
            yield (
                "`rllib.training.bc_logstd_coeff` must be 0: RLlib 2.60 asks for the deviation of "
                "a distribution that tells none, and fails. Leave it out."
            )
        if "offline_data_class" in (value_at(blocks, "offline_data") or {}):
            yield (
                "`rllib.offline_data.offline_data_class` must be left out with MARWIL: RLlib's "
                "own cuts episodes into single steps, and has the untrained value net say what "
                "follows each."
            )
