"""Unit gates: a factor on each output unit, which closes where the unit isn't worth its cost."""

from __future__ import annotations

from rayprune.pruning.checks import Faults
from rayprune.pruning.component import Chosen
from rayprune.pruning.penalties.base import Penalty, unit_conflicts


class GatesPenalty(Penalty):
    """Gates on output units, each pressed shut by what its unit costs: units go.

    After XiNet (Guenter & Sideris 2025, arXiv:2507.11975), whose units are scaled by 0/1 random
    variables, the parameters of which fall to zero where a unit contributes less than the
    parameters that it costs, and then for good. Here the gate is the variable's mean itself: a unit
    weighs ``w = g * v`` with a gate g in [0, 1], which is never written down, and ``dL/dg`` is
    ``sum(w * dL/dw) / g``, so that the network stays as it is. Beside the optimizer's step a gate
    moves by ``-lr * sqrt(n) * (slope + strength * cost)``:

    - n is the number of weights of its unit, as a gate of 1 is to weights of about 1 / sqrt(n);
    - the slope is ``dL/dg`` as Adam would normalise it, in [-1, 1]: minus 1 where the loss steadily
      wants the unit. So compare the strength with 1, as for the other penalties;
    - the cost is n as a share of the mean unit's. The weights that read a unit are not counted.

    A gate at 0 holds its unit's weights at exactly zero; the most open one of a layer stays ajar.
    What is zero is pruned at the next mask update by ``threshold: {absolute: 0}``, or among the
    first by a ``sparsity``.
    """

    spares_heads = True
    gated = True

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield the fault of units that are shut, but never go."""
        yield from super().conflicts(prefix, chosen)
        yield from unit_conflicts(prefix, chosen)
