"""What a sweep would take, told without running it: `rayprune sweep --plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rayprune.errors import ResourceError
from rayprune.pruning.config import PruningConfig, choices_of
from rayprune.rllib.cluster.connect import on_ray
from rayprune.rllib.cluster.resources import learner_gpus, resolve_gpus
from rayprune.rllib.experiment.algorithm_config import base_config, build_config
from rayprune.search.planning.calibration import calibrate
from rayprune.search.planning.forecast import Calibration, forecast
from rayprune.search.planning.placement import Placement, place, present_nodes, total
from rayprune.search.sweep_spec import Sweep

Nodes = Sequence[Mapping[str, float]]


def plan_sweep(
    raw: Mapping[str, Any], *, address: str | None, nodes: Nodes | None
) -> dict[str, Any]:
    """Count the trials that run at once and estimate the time; train a few iterations for it.

    Resources are worked out by the code that a sweep works them out by. Nothing is written.

    Args:
        raw: the nested mapping that `load_sweep` returned.
        address: a Ray cluster, None for ``RAY_ADDRESS`` or an own Ray, which ends again.
        nodes: of a cluster that isn't there; None for the one at ``address``.

    Returns:
        ``trial`` (its resources), ``bundles``, ``strategy``, ``cluster``, ``nodes``, ``trials``,
        ``at_once``, ``rounds``, ``calibration`` and ``estimate_s`` (None where no trial fits where
        it was to be calibrated, and ``uncalibrated`` says why); where groups have choices of their
        own, ``groups``: these by group, with the first values of the space in them.

    Raises:
        InputError: the sweep would be refused.
    """
    sweep = Sweep.of(raw, Path())
    with on_ray(address, base_config(sweep.experiment)):
        here = present_nodes()
        planned = here if nodes is None else nodes
        placement = _place(sweep, planned)
        measured, reason = _calibrated(sweep, placement if nodes is None else None, here)
    told = {
        "trial": total(placement.bundles),
        "bundles": list(placement.bundles),
        "strategy": placement.strategy,
        "cluster": {
            kind: amount for kind, amount in total(planned).items() if kind in ("CPU", "GPU")
        },
        "nodes": len(planned),
        "trials": sweep.trials,
        "at_once": placement.at_once,
        "rounds": -(-sweep.trials // placement.at_once),
        **_groups(sweep.experiment.pruning),
    }
    if measured is None:
        return {**told, "calibration": None, "estimate_s": None, "uncalibrated": reason}
    found = forecast(sweep, placement.at_once, measured)
    estimate = {"dense": found.dense_s, "trial": found.trial_s, "sweep": found.sweep_s}
    return {**told, "calibration": asdict(measured), "estimate_s": estimate, "uncalibrated": None}


def _groups(pruning: PruningConfig) -> dict[str, Any]:
    own = {name: choices_of(pruning.of_group(name)) for name in pruning.own_groups}
    return {"groups": own} if own else {}


def _place(sweep: Sweep, nodes: Nodes) -> Placement:
    asked = learner_gpus(sweep.experiment.rllib)
    config = resolve_gpus(build_config(sweep.experiment), asked, total(nodes))
    return place(config, sweep.search, sweep.trials, nodes)


def _calibrated(
    sweep: Sweep, placement: Placement | None, here: Nodes
) -> tuple[Calibration | None, str | None]:
    """Time a trial on the cluster that Ray is on, or say why it can't be."""
    if placement is None:
        try:
            placement = _place(sweep, here)
        except ResourceError as error:
            return None, str(error)
    measured = calibrate(sweep, placement)
    if measured is None:
        return None, "The cluster is busy: it had no room for one trial."
    return measured, None
