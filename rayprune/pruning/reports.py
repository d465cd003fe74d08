"""What a Pruner tells of its layers and of its mask updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """How far a mask update has moved what a network computes, on given observations.

    None stands for what the network has not got, or nobody has measured.
    """

    kl: float | None = None
    """KL(policy before || policy after) of the actions, in nats, mean over observations."""
    value_change: float | None = None
    """Mean absolute change of values (V or Q), as a share of their standard deviation; of V's
    targets', where that is larger and they are known."""
    greedy_changed: float | None = None
    """Share of the observations whose greedy action is another, where values choose it."""
    estimated: bool = False
    """Whether `kl` is estimated from actions, for want of a closed form."""

    def to_dict(self) -> dict[str, float | bool]:
        """Return what was measured as plain numbers; ``estimated`` only where it is true."""
        held = {name: getattr(self, name) for name in ("kl", "value_change", "greedy_changed")}
        known = {name: value for name, value in held.items() if value is not None}
        return {**known, "estimated": True} if self.estimated else known


@dataclass(frozen=True, slots=True)
class MaskChange:
    """What a mask update did."""

    step: float | None
    """The clock at the update; None for `Pruner.prune_to`."""
    pruned: int
    """Weights newly set to zero."""
    churn: float
    """Fraction of the prunable weights whose mask changed, either way."""
    sparsity: float
    """Of all prunable weights, after the update."""
    changed: tuple[str, ...]
    """Full names of the parameters whose mask changed."""
    grown: int = 0
    """Weights newly active; they are exactly zero still."""
    regrown: Mapping[str, Tensor] = field(default_factory=dict)
    """Which, by full parameter name: bool, True = newly active. Their moments must be zeroed."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """What ``remedies: {rescale: true}`` multiplied a parameter by; target networks follow."""
    policy: PolicyChange | None = None
    """How far the policy has moved, where ``divergence`` was given."""
    taken: float = 1.0
    """How much of the step that was due was taken; less than all where a trust region bound it."""


@dataclass(frozen=True, slots=True)
class LayerCount:
    """The weights of one maskable layer."""

    name: str
    parameters: tuple[str, ...]
    """Full names of the prunable parameters."""
    shape: tuple[int, ...]
    """``(out, in, ...)``; a recurrent layer as one matrix."""
    total: int
    nonzero: int
    """Weights that are not exactly zero, masked or not."""
    sparsity: float
    """Fraction masked."""
    protected: bool
    group: str
    exempt: bool
    """Whether it is not prunable at all, and stands outside of every sparsity."""
    frozen: bool = False
    """Whether it is exempt for being frozen."""


@dataclass(slots=True)
class ScheduleProgress:
    """How far a Pruner has come; its targets are the config's."""

    tick: float | None = None
    """The clock at the last scheduled mask update."""
    targets: dict[str, float] = field(default_factory=dict)
    """What was due then, by the config's field."""
    updates: int = 0
    """Mask updates so far."""
    behind: bool = False
    """Whether a trust region has held back some of what was due."""


def empty_line(layers: Iterable[str]) -> str:
    """Say that no weight is left in some layers, and what to do."""
    return (
        f"No weight is left in {', '.join(layers)}: what comes after sees constants. List them "
        "under `pruning.protect`, or give `pruning.distribution` a sparsity for each."
    )
