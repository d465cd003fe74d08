"""Population-based training for one objective, as a scheduler for Ray Tune."""

from __future__ import annotations

from typing import Any

from rayprune.errors import ConfigError
from rayprune.search.objectives import Objectives
from rayprune.search.schedulers.mo_pbt import MultiObjectivePBT


class PopulationPBT(MultiObjectivePBT):
    """Population-based training for one objective, under a constraint or not.

    Jaderberg et al. 2017 (arXiv:1711.09846), with `MultiObjectivePBT`'s bounds, lineage and
    restoring.

    Args:
        metric: key of the result to optimise.
        mode: ``max`` or ``min``.
        objectives: in place of both: `Objectives` of one direction, such as the sparsest at no
            less than 95 % of the dense return.
        options: as for `MultiObjectivePBT`.
    """

    def __init__(
        self,
        *,
        metric: str | None = None,
        mode: str = "max",
        objectives: Objectives | None = None,
        **options: Any,
    ) -> None:
        if (metric is None) == (objectives is None):
            raise ConfigError("Give one of `metric` and `objectives`, and not both.")
        chosen = objectives or Objectives(directions={str(metric): mode})
        if len(chosen.names) != 1:
            raise ConfigError(
                f"`objectives` must name one objective, but names {list(chosen.names)}. "
                "Use MultiObjectivePBT for several."
            )
        super().__init__(objectives=chosen, **options)
