"""TQC: SAC with critics of quantiles, whose highest are left out of the targets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import gymnasium as gym
from ray.rllib.algorithms.sac.sac_learner import QF_PREDS, QF_TARGET_NEXT
from ray.rllib.algorithms.tqc import TQCConfig
from ray.rllib.algorithms.tqc.default_tqc_rl_module import DefaultTQCRLModule
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.columns import Columns
from torch import Tensor

from rayprune.rllib.algorithms.family import Unread, value_at
from rayprune.rllib.algorithms.sac import SACFamily
from rayprune.rllib.algorithms.values import Values, bootstrapped
from rayprune.rllib.modules.linear_catalogs import Linear

# RLlib's loss holds each quantile against each target by shapes that torch takes for a slip.
warnings.filterwarnings(
    "ignore", r"Using a target size \(torch\.Size\(\[\d+, 1, \d+\]\)\)", UserWarning
)


class LinearTQCCatalog(Linear, TQCCatalog):
    """TQC's catalog, which needs no hidden layer."""


class TQCFamily(SACFamily):
    """Truncated quantile critics, Kuznetsov et al. 2020 (arXiv:2005.04269)."""

    config_class = TQCConfig
    module_class = DefaultTQCRLModule
    linear_catalog = LinearTQCCatalog
    actions: ClassVar[tuple[type, ...] | None] = (gym.spaces.Box,)
    no_lstm = "RLlib's TQC, like its SAC, fails with recurrent nets"
    unread: ClassVar[tuple[Unread, ...]] = (
        *SACFamily.unread,
        Unread("training", ("twin_q",), "Set `n_critics`."),
    )

    def faults(self, blocks: Mapping[str, Any]) -> Iterator[str]:
        """Yield what it can't do: leave no quantile to learn from."""
        yield from super().faults(blocks)
        default = TQCConfig()
        given = value_at(blocks, "training") or {}
        count, dropped = (
            given.get(key, getattr(default, key))
            for key in ("n_quantiles", "top_quantiles_to_drop_per_net")
        )
        if isinstance(count, int) and isinstance(dropped, int) and dropped >= count:
            yield (
                f"`rllib.training.top_quantiles_to_drop_per_net` must be less than `n_quantiles` "
                f"({count}), but is {dropped}. Drop fewer, or give each critic more quantiles."
            )

    def values(
        self,
        module: Any,
        batch: dict[str, Any],
        config: Any,
        temperature: float,
        embeddings: Any = None,
    ) -> Values:
        """Return each critic's mean of quantiles, and soft targets from what is not cut off."""
        del embeddings
        out = module._forward_train(batch)
        quantiles = out[QF_TARGET_NEXT].flatten(1).sort(dim=1).values
        kept = module.quantiles_total - module.top_quantiles_to_drop_per_net * module.n_critics
        following = quantiles[:, :kept].mean(dim=1) - temperature * out["logp_next"]
        return Values(_means(out[QF_PREDS]), bootstrapped(batch, following, config.gamma))

    def value_outputs(self, module: Any, batch: dict[str, Any]) -> list[Tensor]:
        """Return each critic's mean of quantiles for the actions taken."""
        return _means(module._qf_forward_all_critics(batch[Columns.OBS], batch[Columns.ACTIONS]))


def _means(quantiles: Tensor) -> list[Tensor]:
    """Return means by critic, each ``(rows,)``, of quantiles ``(rows, critics, quantiles)``."""
    return list(quantiles.mean(dim=2).unbind(dim=1))
