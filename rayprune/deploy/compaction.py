"""Exact compaction: a masked network's dead units go, and what is left computes the same."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from rayprune.deploy.equivalence import prove
from rayprune.deploy.plan import Left, Plan, Removed, apply_plan
from rayprune.deploy.planning import plan_compaction
from rayprune.deploy.tracing import Forward, as_arguments, check_runs
from rayprune.errors import InputError
from rayprune.pruning.attach import unmask

_EVERYTHING = ""


@dataclass(frozen=True, slots=True)
class Compacted:
    """A smaller network, and how it came to be."""

    module: nn.Module
    """New, of the same classes, its layers plain torch; the given module is untouched."""
    removed: tuple[Removed, ...]
    """What went, by layer."""
    left: tuple[Left, ...]
    """What holds units back that might have gone, by layer, with the reason."""
    max_error: float
    """Largest difference of any output in f32, over the example and random inputs."""
    plan: Plan
    """The indices kept; :func:`~rayprune.deploy.plan.apply_plan` does it again elsewhere."""
    example_input: Any
    """The example in the form that the smaller module takes; only recurrent states can differ."""
    certificate: dict[str, Any]
    """The proof, as :func:`~rayprune.deploy.equivalence.prove` returns it."""


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
        module: any module.
        example_input: a tensor, a tuple of arguments, or a dict batch (RLlib's modules take one);
            a batch of two or more shows best which axis is which.
        forward: what to keep exact instead of ``module(*arguments)``, for one
            ``lambda module, batch: module.forward_inference(batch)``. Layers that it doesn't reach
            stay as they are; they fit no longer if they read one that has shrunk.
        shrink_states: let recurrent states that come in and go out lose units too, and take them
            to start at zero. Without it an LSTM or GRU whose state is an input keeps its size.

    Raises:
        InputError: the forward fails on ``example_input``.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> _ = nn.init.zeros_(net[0].weight[1])
    >>> import torch
    >>> small = compact(net, torch.zeros(2, 2))
    >>> small.module[2], small.max_error < 1e-6
    (Linear(in_features=2, out_features=1, bias=True), True)
    """
    whole = copy.deepcopy(module)
    unmask(whole)
    evaluated = copy.deepcopy(whole).cpu().eval()
    check_runs(evaluated, as_arguments(example_input), forward)
    request = _Request(whole, evaluated, example_input, forward, shrink_states)
    try:
        plan = request.plan()
    # A forward that can't be traced, or does what the reading of it did not foresee.
    except Exception as error:
        why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        plan = Plan(left=(Left(_EVERYTHING, 0, why),))
    try:
        return request.fulfil(plan)
    # Whatever a forward with literal shapes may raise, and the proof.
    except Exception as error:
        return request.fulfil_in_parts(plan, f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class _Request:
    module: nn.Module
    evaluated: nn.Module
    example_input: Any
    forward: Forward | None
    shrink_states: bool

    def plan(self, keep: Iterable[str] = ()) -> Plan:
        return plan_compaction(
            self.evaluated,
            self.example_input,
            self.forward,
            shrink_states=self.shrink_states,
            keep=keep,
        )

    def fulfil(self, plan: Plan) -> Compacted:
        small = apply_plan(copy.deepcopy(self.module), plan)
        certificate = prove(
            self.module, small, plan, self.example_input, forward=self.forward, random=2
        )
        adapted = plan.adapt(as_arguments(self.example_input))
        return Compacted(
            module=small,
            removed=plan.removed,
            left=plan.left,
            max_error=certificate["errors"]["f32"],
            plan=plan,
            example_input=adapted if isinstance(self.example_input, tuple) else adapted[0],
            certificate=certificate,
        )

    def fulfil_in_parts(self, plan: Plan, reason: str) -> Compacted:
        """Take one layer after the other, and leave those whole whose loss is noticed."""
        layers = [removed.layer for removed in plan.removed]
        done = self.fulfil(self.plan(keep=layers))
        whole: list[Left] = []
        for index, layer in enumerate(layers):
            barred = {left.layer for left in whole} | set(layers[index + 1 :])
            try:
                done = self.fulfil(self.plan(keep=barred))
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                whole.append(Left(layer, plan.units[layer].numel(), f"it would break: {why}"))
        return replace(done, left=(*done.left, *whole))
