"""Candidates: networks of a width, a granularity and a sparsity that may keep to the budgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rayprune.fit.config import LEAST_WIDTH, FitConfig

HIDDENS: Final = "rllib.rl_module.model_config.fcnet_hiddens"
SPARSITY: Final = "pruning.sparsity"
GRANULARITY: Final = "pruning.granularity"
COMPACT_EVERY: Final = "pruning.compact_every"
FLOAT: Final = "float32"
_UNPRUNED: Final = "weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to make the policy small.

    >>> lean = Candidate(hiddens=(64, 64), granularity="neuron", sparsity=0.75)
    >>> lean.name, replace(lean, sparsity=0.0).name, replace(lean, hiddens=None).name
    ('64x64-neuron-75', '64x64-dense', 'own-neuron-75')
    """

    hiddens: tuple[int, ...] | None
    """Widths of the hidden layers; None leaves the file's network as it is."""
    granularity: str
    sparsity: float
    precision: str = FLOAT
    """Of the exported file; ``int8`` is trained to be rounded."""
    compact_every: int | None = None
    """Env steps between live compactions, where units are what goes."""
    from_dense: bool = False
    """Whether it begins with the dense reference's weights."""
    weight_bits: int = 32
    """What a weight takes in a file."""

    @property
    def name(self) -> str:
        """What it goes by, in tables and as a folder."""
        end = "" if self.precision == FLOAT else f"-{self.precision}"
        return f"{self.network}{end}"

    @property
    def network(self) -> str:
        """What it goes by, whatever its precision."""
        widths = "own" if self.hiddens is None else "x".join(map(str, self.hiddens))
        if not self.sparsity:
            return f"{widths}-dense"
        kind = self.granularity.replace(":", "of")
        return f"{widths}-{kind}-{100 * self.sparsity:g}"

    @property
    def chain(self) -> str:
        """Candidates of the same chain grow with their weights."""
        return f"{self.granularity if self.sparsity else 'dense'} {self.precision}"

    @property
    def values(self) -> dict[str, Any]:
        """What it puts at the keys of an experiment."""
        widths = {} if self.hiddens is None else {HIDDENS: list(self.hiddens)}
        return {
            **widths,
            SPARSITY: self.sparsity,
            GRANULARITY: self.granularity,
            COMPACT_EVERY: self.compact_every,
        }


def candidates_of(
    fit: FitConfig,
    hiddens: Sequence[int] | None,
    interval: int,
    *,
    from_dense: bool = False,
    weight_bits: int = 8,
) -> list[Candidate]:
    """Return each width unpruned, and at each granularity and sparsity; in each precision.

    Args:
        fit: says which.
        hiddens: the file's widths; None where its network has none that could be set.
        interval: env steps between two measurements, and between two live compactions.
        from_dense: whether those of these widths may begin with the dense reference's weights.
        weight_bits: of a weight of those that are rounded.
    """
    own = None if hiddens is None else tuple(hiddens)
    found = [
        Candidate(
            hiddens=widths,
            granularity=granularity,
            sparsity=sparsity,
            precision=precision,
            compact_every=interval if granularity == "neuron" and sparsity else None,
            from_dense=from_dense and widths == own and sparsity > 0,
            weight_bits=32 if precision == FLOAT else weight_bits,
        )
        for widths in _widths(fit, hiddens)
        for granularity, sparsity in [
            (_UNPRUNED, 0.0),
            *((g, s) for g in fit.granularities for s in fit.sparsities),
        ]
        for precision in fit.precisions
    ]
    return list(dict.fromkeys(found))


def without_compaction(candidate: Candidate) -> Candidate:
    """Return it with masks alone, for runs that can't follow networks that shrink."""
    return replace(candidate, compact_every=None)


def _widths(fit: FitConfig, hiddens: Sequence[int] | None) -> Iterator[tuple[int, ...] | None]:
    if hiddens is None:
        yield None
        return
    for width in fit.widths:
        if isinstance(width, list):
            yield tuple(width)
        else:
            yield tuple(max(LEAST_WIDTH, round(width * units)) for units in hiddens)
