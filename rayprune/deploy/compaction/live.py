"""Compaction in mid-training: what may go from a network that goes on learning.

An export may drop whatever is zero now. Here a weight that is zero, but not masked, may learn
again, so that only masks count. Target networks lose the same units as their sources, and moments
the same rows.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rayprune.deploy.compaction.fitting import Sizes
from rayprune.deploy.compaction.plan import Plan, apply_plan
from rayprune.deploy.compaction.planner import plan_compaction
from rayprune.deploy.compaction.proof import prove
from rayprune.deploy.compaction.trace import Forward
from rayprune.errors import InputError
from rayprune.pruning.layers.attach import join
from rayprune.pruning.layers.hooks import hooked
from rayprune.pruning.layers.masked import MASKABLE
from rayprune.pruning.layers.narrow_recurrent import can_be_narrow
from rayprune.pruning.layers.norm_sizes import NORMS

# Not zero for whoever reads which weights there are, and nothing to whoever multiplies by it.
_LIVE_ZERO = 1e-30


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A network in training, and what has to be known of it before units may go."""

    module: nn.Module
    """Its pruned weights, those of target networks among them, are exactly zero."""
    example: Any
    """An input of `forward`."""
    forward: Forward
    """All that the module is ever used for: takes the module and the example."""
    masks: Mapping[str, Tensor]
    """By full parameter name; those of target networks are their sources'."""
    targets: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """Pairs of full parameter names: of a weight, and of its copy in a target network."""
    merge: bool = False
    """Whether one constant may carry others: where masks are of whole rows."""
    keep: Collection[str] = ()
    """Layers that keep all of their units, whatever the forward shows: outputs of other uses."""


def plan_live(network: TrainedNetwork) -> Plan:
    """Find what can go from a network in training; change nothing.

    Raises:
        InputError: it can't be traced, or has layers that the forward doesn't reach.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> mask = torch.ones(3, 2, dtype=torch.bool)
    >>> mask[1] = False
    >>> _ = nn.init.zeros_(net[0].weight[1:])
    >>> given, masks = torch.zeros(2, 2), {"0.weight": mask}
    >>> found = plan_live(TrainedNetwork(net, given, lambda m, x: m(x), masks))
    >>> found.kept["0.weight"][0].tolist()
    [0, 2]
    """
    traced = _with_live_zeros(network)
    plan = _plan(network, traced, "trusted")
    if plan.misfits:
        fits = _holds(network, plan)
        plan = replace(plan, misfits=()) if fits else _plan(network, traced, "held")
    missed = sorted(set(_layers(traced)) - set(plan.units))
    missed = sorted({*missed} - _called(network, traced, missed))
    if missed:
        raise InputError(
            f"its known forwards don't reach {missed[0]!r}"
            + (f" and {len(missed) - 1} more" if len(missed) > 1 else "")
            + ", which might not fit what is left"
        )
    return plan


def _plan(network: TrainedNetwork, traced: nn.Module, sizes: Sizes) -> Plan:
    return plan_compaction(
        traced,
        network.example,
        network.forward,
        merge=network.merge,
        keep=[_giving(network.module, name) for name in network.keep],
        tied=network.targets,
        live=True,
        sizes=sizes,
        shrink_states=_states_are_found(traced),
        wide_states=True,
    )


def _states_are_found(module: nn.Module) -> bool:
    """Whether each recurrent layer can find its units in a state that is wider."""
    return all(can_be_narrow(x) for x in module.modules() if isinstance(x, nn.RNNBase))


def _holds(network: TrainedNetwork, plan: Plan) -> bool:
    """Whether the forward computes its sizes, so that it fits what is left as it is."""
    try:
        prove_live(network, plan)
    # Whatever a forward with literal sizes may raise.
    except Exception:
        return False
    return True


def prove_live(network: TrainedNetwork, plan: Plan) -> None:
    """Prove on the example and one random input that a plan leaves all outputs as they are.

    Raises:
        InvariantError: it doesn't; names the layer.
    """
    whole = copy.deepcopy(network.module).cpu()
    small = apply_plan(copy.deepcopy(whole), plan)
    prove(whole, small, plan, network.example, forward=network.forward, random=1)


def fingerprint(plan: Plan) -> int:
    """Return a number that is the same for plans that keep the same; at least 0.

    >>> fingerprint(Plan()) == fingerprint(Plan()) >= 0
    True
    """
    digest = hashlib.blake2b(digest_size=7)
    for name in sorted(plan.kept):
        digest.update(name.encode())
        for indices in plan.kept[name]:
            digest.update(indices.cpu().numpy().tobytes())
    return int.from_bytes(digest.digest(), "big")


def _with_live_zeros(network: TrainedNetwork) -> nn.Module:
    """Return a copy in which only what is masked, or its copy in a target network, is zero."""
    module = copy.deepcopy(network.module).cpu().eval()
    named = dict(module.named_parameters())
    masks = {name: mask.cpu() for name, mask in network.masks.items()}
    masks |= {copied: masks[name] for name, copied in network.targets if name in masks}
    scales = {f"{name}.weight" for name, part in module.named_modules() if type(part) in NORMS}
    with torch.no_grad():
        for name, weight in named.items():
            if weight.dim() > 1 or name in scales:
                live = weight == 0
                if name in masks:
                    live &= masks[name]
                weight.masked_fill_(live, _LIVE_ZERO)
    return module


def _giving(module: nn.Module, name: str) -> str:
    """Return which layer gives what another does: of attention it is a part, the projection."""
    attends = isinstance(module.get_submodule(name), nn.MultiheadAttention)
    return join(name, "out_proj") if attends else name


def _layers(module: nn.Module) -> Iterable[str]:
    kinds = (*MASKABLE, *MASKABLE.values())
    return (name for name, layer in module.named_modules() if isinstance(layer, kinds))


def _called(network: TrainedNetwork, module: nn.Module, names: Sequence[str]) -> set[str]:
    """Return which layers the forward calls: the trace has seen them, and holds what they touch."""
    found: set[str] = set()
    if names:
        layers = {module.get_submodule(name): name for name in names}
        with (
            hooked(layers, lambda layer, inputs, output: found.add(layers[layer])),
            torch.no_grad(),
        ):
            network.forward(module, network.example)
    return found
