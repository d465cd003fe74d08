"""What is feasible, before anything is trained: candidates counted, and measured where it matters.

Counting comes first: a file can't be smaller than its weights. Then the candidates of one chain
(one granularity, or none) are measured by bisection, as what takes more weights takes more of all
else; each that is trained is measured itself before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rayprune.fit.budgets import BUDGETS, Budgets, Figures, Use
from rayprune.fit.candidates import Candidate
from rayprune.fit.untrained import Left

FITS: Final = "fits"
PRESUMED: Final = "presumably fits"
TOO_MUCH: Final = "takes too much"

Measure = Callable[[Candidate], Figures]


@dataclass(slots=True)
class Assessment:
    """What is known of a candidate before it is trained."""

    candidate: Candidate
    left: Left
    figures: Figures | None = None
    """What was measured of it; None where it wasn't."""
    verdict: str = PRESUMED
    reason: str = ""

    @property
    def feasible(self) -> bool:
        """Whether nothing speaks against it."""
        return self.verdict != TOO_MUCH

    @property
    def least(self) -> dict[str, float]:
        """Lower bounds of what it takes."""
        return self.left.least(self.candidate.weight_bits)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict, for JSON."""
        return {
            "candidate": self.candidate.name,
            "config": self.candidate.values,
            "weights": self.left.weights,
            "least": self.least,
            "figures": None if self.figures is None else dict(self.figures),
            "verdict": self.verdict,
            "reason": self.reason,
        }


@dataclass(slots=True)
class Feasibility:
    """All candidates, those first that are to be trained first."""

    budgets: Budgets
    assessments: list[Assessment] = field(default_factory=list)

    @property
    def feasible(self) -> list[Assessment]:
        """Those that nothing speaks against; each network in the most welcome precision alone."""
        found: dict[str, Assessment] = {}
        for one in self.assessments:
            if one.feasible:
                found.setdefault(one.candidate.network, one)
        return list(found.values())

    @property
    def nearest(self) -> Assessment | None:
        """The measured candidate that exceeds its tightest budget by the smallest share."""

        def shares(one: Assessment) -> tuple[float, float]:
            found = [use.share or 0.0 for use in self.budgets.uses(one.figures or {})]
            # Where several exceed that one alike, the others decide.
            return self.budgets.worst_share(one.figures or {}), sum(found)

        known = [one for one in self.assessments if one.figures is not None]
        return min(known, key=shares, default=None)

    def refusal(self) -> str:
        """Return why nothing is feasible: the tightest budget, and the nearest that would be."""
        nearest = self.nearest
        if nearest is None or nearest.figures is None:
            use = self._tightest_by_count()
            return (
                f"Not feasible, because of `{use.name}`: the weights of the smallest candidate "
                f"alone are {_text(use.name, use.measured or 0)}, and {_text(use.name, use.limit)} "
                f"are allowed. Raise it above that, or allow smaller networks by `fit.widths`."
            )
        use = self.budgets.tightest(nearest.figures)
        if use.measured is None:
            return (
                f"Not feasible, because `{use.name}` can't be measured: the target gave no figure "
                f"for {nearest.candidate.name}. Drop that budget, or choose another `fit.target`."
            )
        over = [one for one in self.budgets.uses(nearest.figures) if not one.met]
        asked = " ".join(f"--{one.name} {_asked(one)}" for one in over)
        keys = " ".join(f"--set fit.{one.name}={_asked(one)}" for one in over)
        return (
            f"Not feasible, because of `{use.name}`: the nearest candidate, "
            f"{nearest.candidate.name}, takes {_text(use.name, use.measured or 0)}, and "
            f"{_text(use.name, use.limit)} are allowed. It is feasible with {asked} (of a job: "
            f"{keys}); or allow smaller networks by `fit.widths` and `fit.sparsities`."
        )

    def _tightest_by_count(self) -> Use:
        found = [self.budgets.exceeded(one.least) for one in self.assessments]
        over = [use for use in found if use is not None]
        return min(over, key=lambda use: use.share or math.inf)


def assess(
    candidates: Sequence[tuple[Candidate, Left]], budgets: Budgets, measure: Measure
) -> Feasibility:
    """Tell which candidates may keep to the budgets.

    Args:
        candidates: each with what is left of it.
        budgets: what they shall keep to.
        measure: returns what an untrained one takes; asked of a few of each chain.
    """
    assessments = [Assessment(candidate, left) for candidate, left in candidates]
    for one in assessments:
        over = budgets.exceeded(one.least)
        if over is not None:
            one.verdict = TOO_MUCH
            one.reason = f"its weights alone: {over.text}"
    chains: dict[str, list[Assessment]] = {}
    for one in sorted(assessments, key=lambda one: -one.left.weights):
        if one.feasible:
            chains.setdefault(one.candidate.chain, []).append(one)
    for chain in chains.values():
        _bisect(chain, budgets, measure)
    # sorted() is stable: of one network the precisions stay as they were given.
    return Feasibility(budgets, sorted(assessments, key=promise))


def promise(one: Assessment) -> tuple[bool, int, int, str]:
    """Return what candidates are ordered by: those first that are likely to do, and cheap to try.

    What begins with the dense reference's weights has only to keep its return. What has more
    weights left loses less of it. Among those that have about as many (by powers of two) the
    narrower network trains faster.
    """
    size, candidate = round(math.log2(max(one.left.weights, 1))), one.candidate
    return not candidate.from_dense, -size, math.prod(candidate.hiddens or (1,)), candidate.network


def take_measurement(one: Assessment, budgets: Budgets, figures: Figures) -> None:
    """Judge a candidate by what was measured of it.

    Where nothing but the slow actions are too slow, and the median isn't, something else on the
    machine may be to blame: the trained file's own measurement decides.
    """
    one.figures = figures
    one.reason = budgets.tightest(figures).text
    if budgets.met(figures):
        one.verdict = FITS
    elif budgets.met({**figures, "p99_us": figures.get("p50_us")}):
        one.verdict = PRESUMED
        one.reason += "; its median would do, and what else runs may be to blame"
    else:
        one.verdict = TOO_MUCH


def _bisect(chain: Sequence[Assessment], budgets: Budgets, measure: Measure) -> None:
    """Find where a chain, the largest first, begins to keep to the budgets."""
    last = len(chain) - 1
    # The smallest first: where it takes too much, nothing else need be measured.
    take_measurement(chain[last], budgets, measure(chain[last].candidate))
    low, high = -1, last
    while chain[last].feasible and high - low > 1:
        middle = (low + high) // 2
        take_measurement(chain[middle], budgets, measure(chain[middle].candidate))
        low, high = (low, middle) if chain[middle].feasible else (middle, high)
    known = [one for one in chain if one.figures is not None]
    for place, one in enumerate(chain):
        if one.figures is not None:
            continue
        too_much = place < high if chain[last].feasible else True
        by = _neighbour(one, known, too_much=too_much)
        one.verdict = TOO_MUCH if too_much else PRESUMED
        one.reason = f"not {'smaller' if too_much else 'larger'} than {by.candidate.name}"


def _neighbour(one: Assessment, known: Sequence[Assessment], *, too_much: bool) -> Assessment:
    """Return the measured candidate that another is judged by.

    That is the smallest of the larger ones that fit, or the largest of the smaller that don't.
    """
    size = one.left.weights
    if too_much:
        below = [other for other in known if not other.feasible and other.left.weights <= size]
        return max(below, key=lambda other: other.left.weights)
    above = [other for other in known if other.feasible and other.left.weights >= size]
    return min(above, key=lambda other: other.left.weights)


def _asked(use: Use) -> str:
    """Return the limit that a candidate would keep to, as an option takes it."""
    quantity = BUDGETS[use.name].quantity
    needed = math.ceil(use.measured) if use.measured is not None else use.limit
    unit = {"µs": "us", "µJ": "uJ", "B": ""}.get(quantity.base, quantity.base)
    return f"{needed}{unit}"


def _text(name: str, value: float) -> str:
    return BUDGETS[name].quantity.text(value)
