"""`Granularity`: what is removed together; `Part`: weights that compete, one by one or as units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rayprune.errors import ConfigError
from rayprune.pruning.checks import Faults, listed
from rayprune.pruning.component import Chosen, GranularityRules
from rayprune.pruning.distributions import is_even
from rayprune.pruning.granularity.sensors import Sensors
from rayprune.pruning.layers.kinds import kind_of
from rayprune.pruning.layers.masked import prunable_name
from rayprune.pruning.layers.prunable import PrunableLayer


def _l2(scores: Tensor) -> Tensor:
    return scores.square().sum(dim=1).sqrt()


POOLINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda scores: scores.sum(dim=1),
    "mean": lambda scores: scores.mean(dim=1),
    "l2": _l2,
}
"""How a unit's score comes from its weights' scores, ``(units, weights) -> (units,)``."""

Named = Mapping[str, Tensor]
"""Tensors by parameter name, shaped like the parameters."""


@dataclass(frozen=True, slots=True)
class Part(ABC):
    """Weights that compete, of one layer unless a granularity says otherwise."""

    shapes: Mapping[str, torch.Size]
    """Parameter name -> shape; names are full where the part is a `PrunableLayer`'s."""

    ranks_within: ClassVar[bool] = False
    """Whether `expand` needs the weights' scores again, to choose inside of a unit."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(self.shapes)

    @property
    @abstractmethod
    def count(self) -> int:
        """How many compete: weights or units."""

    @abstractmethod
    def pool(self, scores: Named, pooling: str) -> Tensor:
        """Pool weight scores to the scores that compete.

        Args:
            scores: of every parameter of the part.
            pooling: a key of `POOLINGS`.

        Returns:
            One score for each that competes; any shape.
        """

    @abstractmethod
    def expand(self, keep: Tensor, scores: Named) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's mask.

        Args:
            keep: bool, shaped as `pool` returned.
            scores: as given to `pool` where `ranks_within`; else it may be empty.
        """

    def swap_rows(self, values: Tensor) -> Tensor | None:
        """Lay a parameter's values out with those in a row that may take each other's place.

        Returns:
            Shape ``(rows, n)``; None where each may take any other's.
        """
        del values
        return None

    def from_swap_rows(self, rows: Tensor) -> Tensor:
        """Return values shaped like the parameter again."""
        return rows.view(self.shapes[self.parameters[0]])

    def live(self, free: Mapping[str, Tensor | None]) -> Tensor | None:
        """Return which may still be chosen: units with any weight left.

        Args:
            free: by parameter name, bool, the weights that may be chosen; None for all of them.

        Returns:
            Bool, shaped as `pool` returns; None for all of them.
        """
        known = next((mask for mask in free.values() if mask is not None), None)
        if known is None:
            return None
        counts = {
            name: torch.ones(self.shapes[name], device=known.device)
            if mask is None
            else mask.to(torch.float32)
            for name, mask in free.items()
        }
        return self.pool(counts, "sum") > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a granularity may ask of the network whose layers it prunes."""

    module: nn.Module
    heads: Collection[str]
    """Names of layers whose units are the network's own outputs."""
    tied: Collection[str]
    """Names of layers that share a weight with another."""
    sensors: Callable[[], Sensors] | None
    """Tells which layers read the observation."""
    by_return: bool
    """Whether what goes is chosen by the return that it costs."""


class Granularity(GranularityRules, ABC):
    """What is removed together; of which layers, and what competes.

    Args:
        name: as a config has it.
    """

    __slots__ = ("name",)

    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names that a config may give it."""
    form: ClassVar[str] = ""
    """A sentence on how a config names it, where the registry's key is not a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def named(cls, key: str, name: str) -> Granularity | None:
        """Return what a config means by a name; None if that is another granularity's.

        Args:
            key: the registry's.
            name: the config's.
        """
        return cls(key) if name in (key, *cls.aliases) else None

    @classmethod
    def conflicts(cls, prefix: str, chosen: Chosen) -> Faults:
        """Yield groups of the wrong form, and layers' own targets where units lie over several."""
        yield from super().conflicts(prefix, chosen)
        distribution = chosen.values.get("distribution", "uniform")
        if cls.spans_layers and not is_even(distribution):
            yield (
                f"`{prefix}distribution` must be 'uniform' or 'global' with granularity "
                f"{chosen.granularity_name!r}, whose units lie over several layers, but is "
                f"{distribution!r}."
            )

    @abstractmethod
    def parts(self, layers: Iterable[PrunableLayer]) -> tuple[Part, ...]:
        """Split layers into what competes, with the parameters' full names."""

    @abstractmethod
    def count(self, layers: Iterable[PrunableLayer]) -> int:
        """Return how many compete in layers, as they were before any compaction."""

    def share(self, sparsity: float) -> float:
        """Return the fraction of what competes that a sparsity takes."""
        return sparsity if self.implied_sparsity is None else sparsity / self.implied_sparsity

    def layers_of(
        self, layers: Sequence[PrunableLayer], network: Network
    ) -> tuple[PrunableLayer, ...]:
        """Return the layers that it can prune; all others are exempt.

        Args:
            layers: the maskable layers that may be pruned at all.
            network: they are of.

        Raises:
            ConfigError: there are none, or nothing tells.
        """
        if not self.whole_rows:
            return tuple(layers)
        hidden = tuple(layer for layer in layers if layer.name not in network.heads)
        if layers and not hidden:
            raise ConfigError(
                f"`granularity` can't be {self.name!r}: the units of "
                f"{listed(x.name for x in layers)} are the network's own outputs, and none can go. "
                "Choose 'weight', or add a hidden layer."
            )
        return hidden

    def layer_faults(
        self, layers: Sequence[PrunableLayer], protected: Collection[str], tied: Collection[str]
    ) -> list[str]:
        """Return why layers can't be pruned.

        Args:
            layers: those that are not protected.
            protected: names of the others.
            tied: names of layers that share a weight with another.
        """
        del protected
        names = [layer.name for layer in layers if layer.name in tied]
        if not self.removes_units or not names:
            return []
        return [
            f"`pruning.granularity` {self.name!r} can't remove units of {listed(names)}, whose "
            "weights are tied: a row is a unit of one layer and not of the other. List them under "
            "`pruning.protect`, or take granularity 'weight'."
        ]

    def torn(self, frozen: Iterable[str]) -> bool:
        """Return whether something would go in part, and so must stay as a whole.

        Args:
            frozen: names in one layer of parameters that are left alone, biases included.
        """
        return self.removes_units and any(map(prunable_name, frozen))

    def frozen_faults(self, names: Iterable[str]) -> list[str]:
        """Return why layers can't be left alone.

        Args:
            names: of layers that are frozen.
        """
        del names
        return []


def unmultiplied_faults(name: str, layers: Iterable[PrunableLayer]) -> list[str]:
    """Return why layers can't be pruned by what sparse matrix products know.

    Args:
        name: the granularity's.
        layers: those that are not protected.
    """
    wrong = [layer.name for layer in layers if not kind_of(layer.module).multiplies]
    if not wrong:
        return []
    return [
        f"`pruning.granularity` {name!r} means nothing to {listed(wrong)}, which no matrix product "
        f"computes: an Embedding looks its vectors up, a Bilinear multiplies two inputs. List "
        f"{'it' if len(wrong) == 1 else 'them'} under `pruning.protect`, or take granularity "
        "'weight'."
    ]


class WithinLayers(Granularity):
    """A granularity of which nothing lies in more than one layer."""

    __slots__ = ()

    @abstractmethod
    def split(self, layer: nn.Module, parameters: Mapping[str, Tensor]) -> list[Part]:
        """Split one layer into sets of what competes.

        Args:
            layer: a maskable one.
            parameters: the layer's prunable parameters, by a name that ends in theirs in the layer.
        """

    def parts(self, layers: Iterable[PrunableLayer]) -> tuple[Part, ...]:
        """Split each layer for itself."""
        return tuple(part for layer in layers for part in self.split(layer.module, layer.named))

    def count(self, layers: Iterable[PrunableLayer]) -> int:
        """Add up what competes in each layer."""
        return sum(part.count for x in layers for part in self.split(x.module, x.whole))
