"""Whether pruning has cut a network off from its observation, seen by running it.

After a change of masks the network is run on rows of the last minibatch, and again with their
observations exchanged. An output that is the same in both no longer depends on what is observed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import QNetAPI, ValueFunctionAPI
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from rayprune.pruning.layers.hooks import hooked
from rayprune.pruning.reports import empty_line
from rayprune.pruning.tracing.replica import undisturbed
from rayprune.rllib.modules.heads import copy_to_run, parts_of

if TYPE_CHECKING:
    from rayprune.pruning.pruner import Pruner

ROWS = 64
"""Rows that are run."""

# What rounding may change, as a share of the largest value: kernels sum in another order by row.
ROUNDING = 1e-6

Batch = dict[str, Any]
Call = tuple[str, Any, Any]
"""A layer's name, its input and its output."""
Outputs = Callable[[Batch], Mapping[str, Any]]


class Teller:
    """Says once what is new of what is cut off."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def lines(self, module_id: str, found: Mapping[str, Any] | None) -> list[str]:
        """Return what to say of a module's report."""
        if found is None:
            return []
        empty = self._new(module_id, found["empty_layers"])
        constant = self._new(module_id, found["constant_outputs"])
        lines = [empty_line(empty)] if empty else []
        for output in constant:
            layer = found["constant_outputs"][output]
            where = "" if layer is None else f": it ends at {layer}"
            lines.append(
                f"Pruning has cut {module_id}'s {output} off from the observation{where}. Lower "
                "the sparsity, list layers under `pruning.protect`, or take `distribution: erk`."
            )
        return lines

    def _new(self, module_id: str, names: Any) -> list[str]:
        new = [name for name in names if (module_id, name) not in self._told]
        self._told.update((module_id, name) for name in new)
        return new


@torch.no_grad()
def constant_outputs(
    batch: Mapping[str, Any], pruner: Pruner, parent: Any = None
) -> dict[str, str | None]:
    """Return the outputs that don't depend on the observation, with the layer where each ends.

    A copy runs: a forward may count, or keep statistics.

    Args:
        batch: a minibatch of the module's.
        pruner: of a TorchRLModule as a Learner holds it, not wrapped.
        parent: the MultiRLModule that holds it, if that runs its modules in a way of its own.

    Returns:
        Empty if all depend, if nothing is pruned, or if the minibatch holds one observation only.
    """
    seen = {key: batch[key] for key in _READ if key in batch}
    seen = tree_map(lambda leaf: leaf[:ROWS] if isinstance(leaf, Tensor) else leaf, seen)
    other = {**seen, Columns.OBS: tree_map(_exchanged, seen[Columns.OBS])}
    if not pruner.held_masks or not _differ(seen[Columns.OBS], other[Columns.OBS]):
        return {}
    found = dict[str, "str | None"]()
    with undisturbed(pruner.module.parameters()):
        copied, module_id = copy_to_run(pruner.module, parent)
        own: Any = copied if module_id is None else copied[module_id].unwrapped()
        for part in parts_of(copied):
            part.eval()
        layers = {name: own.get_submodule(name) for name in pruner.layers}
        policy = _policy_of(copied, module_id)
        # Those beside it may put into the batch what its values read.
        for held in (seen, other) if module_id is not None else ():
            policy(held)
        for run in _outputs_of(own, policy):
            outputs = partial(_afresh, run, pruner.seed)
            one, two = outputs(seen), outputs(other)
            same = [name for name in one if not _differ(one[name], two[name])]
            if same:
                layer = _end(outputs, seen, other, layers)
                found.update(dict.fromkeys(same, layer))
    return found


_READ = (Columns.OBS, Columns.STATE_IN, Columns.ACTIONS, Columns.SEQ_LENS)


def _policy_of(copied: Any, module_id: Any) -> Outputs:
    """Return what runs a module's policy: itself, or the MultiRLModule that holds it."""
    if module_id is None:
        return lambda batch: copied._forward_inference(batch)
    return lambda batch: copied._forward_inference({module_id: batch})[module_id]


def _outputs_of(module: Any, policy: Outputs) -> list[Outputs]:
    """Return what a module computes from observations: its policy, and its values."""

    def acting(batch: Batch) -> Mapping[str, Any]:
        return _only(policy(batch), Columns.ACTION_DIST_INPUTS)

    def q_values(batch: Batch) -> Mapping[str, Any]:
        values = module.compute_q_values(batch)
        return _only(values, QF_PREDS) if isinstance(values, Mapping) else {QF_PREDS: values}

    def values(batch: Batch) -> Mapping[str, Any]:
        return {Columns.VF_PREDS: module.compute_values(batch)}

    outputs: list[Outputs] = [acting]
    if isinstance(module, QNetAPI):
        outputs.append(q_values)
    if isinstance(module, ValueFunctionAPI):
        outputs.append(values)
    return outputs


def _afresh(run: Outputs, seed: int, batch: Batch) -> Mapping[str, Any]:
    """Run with the same noise each time, on a batch that may be written to."""
    torch.manual_seed(seed)
    return run(tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, batch))


def _only(outputs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: outputs[name] for name in names if name in outputs}


def _exchanged(leaf: Any) -> Any:
    """Give each row another one's observation; of a single sequence, each of its steps."""
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.roll(1, dims=0 if len(leaf) > 1 or leaf.dim() < 3 else 1)


def _differ(one: Any, two: Any) -> bool:
    """Whether two outputs of the same form differ by more than rounding; NaN differs."""
    pairs = zip(tree_leaves(one), tree_leaves(two), strict=True)
    return any(
        not bool((a - b).abs().max() <= ROUNDING * a.abs().max())
        for a, b in ((a.double(), b.double()) for a, b in pairs if isinstance(a, Tensor))
        if a.numel()
    )


def _end(
    outputs: Outputs, seen: Batch, other: Batch, layers: Mapping[str, nn.Module]
) -> str | None:
    """Return the first layer whose input depends on the observation while its output doesn't.

    Where an activation is what ends it, it is the first layer that sees no difference any more.
    """
    calls: list[list[Call]] = [[], []]
    for run, batch in zip(calls, (seen, other), strict=True):
        with hooked(layers.values(), _keep(run, layers), with_kwargs=True):
            outputs(batch)
    blind: str | None = None
    for (name, given, out), (_, given_too, out_too) in zip(calls[0], calls[1], strict=False):
        if _differ(given, given_too) and not _differ(out, out_too):
            return name
        if blind is None and not _differ(given, given_too):
            blind = name
    return blind


def _keep(calls: list[Call], layers: Mapping[str, nn.Module]) -> Callable[..., None]:
    names = {layer: name for name, layer in layers.items()}

    def keep(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        calls.append((names[layer], next(iter((*given, *named.values()))), out))

    return keep
