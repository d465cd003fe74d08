"""Exact compaction: a masked network's dead units go, and what is left computes the same."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils import _pytree as pytree

from rayprune.deploy.compaction.fitting import Sizes
from rayprune.deploy.compaction.plan import HeldBack, Plan, Removed, apply_plan
from rayprune.deploy.compaction.planner import plan_compaction
from rayprune.deploy.compaction.proof import DTYPES, precision_of, prove
from rayprune.deploy.compaction.trace import Forward, as_arguments, check_runs
from rayprune.errors import InputError
from rayprune.pruning.layers.attach import unmask
from rayprune.pruning.layers.plain_parameters import bake, copied

_EVERYTHING = ""


@dataclass(frozen=True, slots=True)
class Compacted:
    """A smaller network, and how it came to be."""

    module: nn.Module
    """New, of the same classes, its layers plain torch; the given module is untouched. A part whose
    forward has sizes written into it is of a subclass: its code is that of the example's call, in
    evaluation mode (ADR 0039)."""
    removed: tuple[Removed, ...]
    """What went, by layer."""
    left: tuple[HeldBack, ...]
    """What holds units back that might have gone, by layer, with the reason."""
    max_error: float
    """Largest difference of any output in the module's own precision, mostly f32, over the example
    and random inputs."""
    plan: Plan
    """The indices kept; `rayprune.deploy.compaction.plan.apply_plan` does it again elsewhere."""
    example_input: Any
    """The example in the form that the smaller module takes; only recurrent states can differ."""
    certificate: dict[str, Any]
    """The proof, as :func:`~rayprune.deploy.compaction.proof.prove` returns it."""


def compact(
    module: nn.Module,
    example_input: Any,
    *,
    forward: Forward | None = None,
    shrink_states: bool = False,
) -> Compacted:
    """Remove from a copy of a module all units that do nothing, exactly.

    It reads exact zeros, so any pruned module will do. A unit goes that nothing living reads; and
    one that no input reaches, its constant output folded into the biases behind it. Layers keep at
    least one unit. Inputs and outputs keep their shapes. What can't be proven stays, and `left`
    says why; where the smaller module fails or computes anything else, the layers concerned stay
    whole.

    Args:
        module: any module, of float32, float64, float16 or bfloat16. What torch computes a weight
            from (its masks of `torch.nn.utils.prune`, a parametrisation) is resolved in the copy.
        example_input: a tensor, a tuple of arguments, or a dict batch (RLlib's modules take one);
            a batch of two or more shows best which axis is which.
        forward: what to keep exact instead of ``module(*arguments)``, for one
            ``lambda module, batch: module.forward_inference(batch)``. Layers that it doesn't reach
            stay as they are; they fit no longer if they read one that has shrunk.
        shrink_states: let recurrent states that come in and go out lose units too, and take them
            to start at zero. Without it an LSTM or GRU whose state is an input keeps its size.

    Raises:
        InputError: the forward fails on ``example_input``, or can't be compared with itself; or
            the module can't be copied, or has parameters of another type.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> _ = nn.init.zeros_(net[0].weight[1])
    >>> import torch
    >>> small = compact(net, torch.zeros(2, 2))
    >>> small.module[2], small.max_error < 1e-6
    (Linear(in_features=2, out_features=1, bias=True), True)
    """
    whole = _plain_copy(module)
    evaluated = copy.deepcopy(whole).cpu().eval()
    check_runs(evaluated, as_arguments(example_input), forward)
    request = _Request(whole, evaluated, example_input, forward, shrink_states)
    try:
        plan = request.plan()
    # A forward that can't be traced, or does what the reading of it did not foresee.
    except Exception as error:
        why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        plan = Plan(left=(HeldBack(_EVERYTHING, 0, why),))
    try:
        return request.fulfil(plan)
    # Whatever a forward with literal shapes may raise, and the proof.
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    return request.fulfil_otherwise(plan) or request.fulfil_in_parts(plan, failure)


def _plain_copy(module: nn.Module) -> nn.Module:
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter) or parameter.is_meta:
            raise InputError(f"{name!r} has no values yet. Run the module once, then compact it.")
        if not (parameter.dtype in DTYPES.values() or _is_whole(parameter.dtype)):
            known = ", ".join(str(dtype) for dtype in DTYPES.values())
            raise InputError(
                f"`compact` takes modules of {known}, but {name!r} is {parameter.dtype}. Convert "
                "the module first."
            )
    try:
        whole = copied(module)
    except Exception as error:  # whatever a user's module holds
        raise InputError(
            f"The module can't be copied, and so not compacted: {type(error).__name__}: {error}"
        ) from error
    bake(whole)
    unmask(whole)
    return whole


def _is_whole(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex)


@dataclass(frozen=True, slots=True)
class _Request:
    module: nn.Module
    evaluated: nn.Module
    example_input: Any
    forward: Forward | None
    shrink_states: bool

    def plan(self, keep: Iterable[str] = (), sizes: Sizes = "trusted") -> Plan:
        return plan_compaction(
            self.evaluated,
            self.example_input,
            self.forward,
            shrink_states=self.shrink_states,
            keep=keep,
            sizes=sizes,
        )

    def fulfil_otherwise(self, plan: Plan) -> Compacted | None:
        """Rewrite the sizes in the forward, or keep the units that they are of, if it has any."""
        for sizes in ("rewritten", "held") if plan.misfits else ():
            with suppress(Exception):  # whatever a forward, traced so, may raise; and the proof
                return self.fulfil(self.plan(sizes=sizes))
        return None

    def fulfil(self, plan: Plan) -> Compacted:
        small = apply_plan(copy.deepcopy(self.module), plan)
        certificate = prove(
            self.module, small, plan, self.example_input, forward=self.forward, random=2
        )
        if plan.resized:
            self._prove_twice_as_many(small, plan)
        adapted = plan.adapt(as_arguments(self.example_input))
        return Compacted(
            module=small,
            removed=plan.removed,
            left=plan.left,
            max_error=certificate["errors"][precision_of(self.module)],
            plan=plan,
            example_input=adapted if isinstance(self.example_input, tuple) else adapted[0],
            certificate=certificate,
        )

    def _prove_twice_as_many(self, small: nn.Module, plan: Plan) -> None:
        """Prove that rewritten sizes are not those of the example's batch."""
        rows = as_arguments(self.example_input)
        twice = pytree.tree_map_only(Tensor, lambda x: torch.cat([x, x]) if x.dim() else x, rows)
        try:
            check_runs(self.evaluated, twice, self.forward)
        except InputError:
            return  # its first axis is not a batch's
        prove(self.module, small, plan, twice, forward=self.forward, random=0)

    def fulfil_in_parts(self, plan: Plan, reason: str) -> Compacted:
        """Take one layer after the other, and leave those whole whose loss is noticed."""
        layers = [removed.layer for removed in plan.removed]
        try:
            done = self.fulfil(self.plan(keep=layers))
        # Whatever a user's forward may raise in double precision; and one that draws by chance.
        except Exception as error:
            raise InputError(
                "Compaction can't be proven for this forward: unchanged, it already fails the "
                f"comparison ({type(error).__name__}: {error}). It must give the same twice, and "
                "run in double precision on the CPU."
            ) from error
        whole: list[HeldBack] = []
        for index, layer in enumerate(layers):
            barred = {left.layer for left in whole} | set(layers[index + 1 :])
            try:
                done = self.fulfil(self.plan(keep=barred))
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                whole.append(HeldBack(layer, plan.units[layer].numel(), f"it would break: {why}"))
        return replace(done, left=(*done.left, *whole))
