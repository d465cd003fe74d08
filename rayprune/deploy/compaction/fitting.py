"""What lives, so that the forward fits it: as it is, or with other sizes written into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from rayprune.deploy.compaction.abstract_values import AbstractValue, varies
from rayprune.deploy.compaction.findings import Findings
from rayprune.deploy.compaction.liveness import Matrix, Norm, liveness, read_matrices, read_norms
from rayprune.deploy.compaction.module_calls import given_to, operator_name
from rayprune.deploy.compaction.sizes.literals import Change
from rayprune.deploy.compaction.sizes.misfits import Misfit, find_misfits
from rayprune.deploy.compaction.sizes.resized_forward import ResizedForward
from rayprune.deploy.compaction.trace import Forward, Trace, call
from rayprune.errors import InputError, first_line

if TYPE_CHECKING:
    from rayprune.deploy.compaction.sizes.symbolic_trace import Given

Sizes = Literal["trusted", "rewritten", "held"]
"""What is done where a forward has sizes that no longer fit."""


@dataclass(frozen=True, slots=True)
class TracedForward:
    """A forward, what it is a forward of, and what it was traced with."""

    module: nn.Module
    """In evaluation mode, on the CPU."""
    arguments: tuple[Any, ...]
    forward: Forward | None
    traced: Trace


@dataclass(frozen=True, slots=True)
class Fitted:
    """What lives, where the forward fits it."""

    matrices: list[Matrix]
    norms: Mapping[str, Norm]
    live: Tensor
    held: Tensor
    misfits: tuple[str, ...]
    resized: Mapping[str, ResizedForward]


def fitted(run: TracedForward, findings: Findings, *, merge: bool, sizes: Sizes) -> Fitted:
    """Find what lives; units whose sizes the forward must have, and can't be given, live too."""
    barred: dict[str | None, str] = {None: "that is no module's own"}
    told: tuple[str, ...] = ()
    while True:
        matrices, norms = read_matrices(findings, merge=merge), read_norms(findings)
        live, held = liveness(findings, [*matrices, *norms.values()])
        misfits = list(find_misfits(run.traced, findings, run.module, live | held))
        told = tuple(dict.fromkeys((*told, *(misfit.reason for misfit in misfits))))
        if sizes == "trusted" or not misfits:
            return Fitted(matrices, norms, live, held, told, {})
        resized = dict[str, ResizedForward]()
        if sizes == "rewritten":
            resized = _rewritten(run, findings, misfits, barred)
        stuck = [misfit for misfit in misfits if misfit.module not in resized]
        if not stuck:
            return Fitted(matrices, norms, live, held, told, resized)
        for misfit in stuck:
            why = barred.get(misfit.module)
            reason = f"{misfit.reason} ({why})" if why else misfit.reason
            for channels in misfit.channels:
                findings.hold(channels, reason)


def _rewritten(
    run: TracedForward, findings: Findings, misfits: Sequence[Misfit], barred: dict[str | None, str]
) -> dict[str, ResizedForward]:
    """Return new code for each module that can have it; note why others can't."""
    # It brings torch's compiler, a second that whoever needs no new code is spared.
    from rayprune.deploy.compaction.sizes.symbolic_trace import resized_code

    found: dict[str, ResizedForward] = {}
    by_module: dict[str | None, list[Misfit]] = {}
    for misfit in misfits:
        by_module.setdefault(misfit.module, []).append(misfit)
    names = [name for name in by_module if name is not None and name not in barred]
    called = given_to(run.module, lambda: call(run.module, run.arguments, run.forward), names)
    for name in names:
        try:
            given = _given(run, findings, name, called[name])
            found[name] = resized_code(
                run.module.get_submodule(name), given, _by_place(by_module[name])
            )
        # Whatever its code raises when its sizes are open.
        except Exception as error:
            barred[name] = first_line(error)
    return found


def _by_place(misfits: Sequence[Misfit]) -> dict[int, Sequence[Change]]:
    """Gather a module's changes.

    Raises:
        InputError: there are none that would do, or others at each call.
    """
    found: dict[int, Sequence[Change]] = {}
    for misfit in misfits:
        if misfit.changes is None:
            raise InputError("no other sizes would do the same")
        if str(found.setdefault(misfit.place, misfit.changes)) != str(misfit.changes):
            raise InputError("it is called several times, and would need others each time")
    return found


def _given(
    run: TracedForward,
    findings: Findings,
    name: str,
    called: tuple[tuple[Any, ...], dict[str, Any]],
) -> Given:
    from rayprune.deploy.compaction.sizes.symbolic_trace import Given

    first = next(call for call in run.traced.calls if call.name == name)
    found = []
    for node, dims in zip(first.inputs, first.dims, strict=True):
        value = findings.values.get(node) if node is not None else None
        if isinstance(value, AbstractValue):  # the axis of units is not open
            found.append([not varies(value.channels, dim) for dim in range(dims)])
        else:
            found.append([False] * dims)
    return Given(*called, found, [operator_name(node) for node in first.own])
