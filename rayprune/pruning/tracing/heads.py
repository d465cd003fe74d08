"""Heads: the layers whose units are a module's own outputs, found by running it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rayprune.pruning.layers.attach import Exclusions, make_maskable, maskable_layers
from rayprune.pruning.layers.kinds import axes_of
from rayprune.pruning.layers.masked import prunable_parameters
from rayprune.pruning.tracing.replica import replica, undisturbed
from rayprune.pruning.tracing.tags import UnitTags

UNSURE: Final = "unsure"
"""Outputs that may be hidden units, returned beside the others: they are if a weight reads them."""


def find_heads(
    module: nn.Module, run: Callable[[Any], Any], *, exclude: Exclusions = ()
) -> frozenset[str]:
    """Return the layers whose units reach what a run returns, each still by itself.

    Such units can't be removed: an output would become a constant. Sums, matrix products and
    convolutions end a unit's way; elementwise functions, norms and whatever moves numbers don't.

    Args:
        module: is made maskable, and else left as it is: a copy runs.
        run: takes the copy, and returns all outputs that count, in any nesting.
        exclude: as for `Pruner`.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), nn.Tanh())
    >>> sorted(find_heads(net, lambda net: net(torch.zeros(2, 4))))
    ['2']
    """
    make_maskable(module, exclude=exclude)
    layers = maskable_layers(module, exclude=exclude)
    runs = Runs(layers, replica(module, [module]))
    runs.add(lambda copied: {"outputs": run(copied)})
    return runs.heads | beside_others(module, layers, runs)[0]


class Runs:
    """Runs of one module, and what they have told together.

    Args:
        layers: the module's maskable layers by name.
        copied: a `replica` of it, or of what holds it.
        parts: the modules in the copy; by default it is one itself.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], copied: Any, parts: Sequence[nn.Module] | None = None
    ) -> None:
        self._layers = layers
        self._copied = copied
        parts = [copied] if parts is None else parts
        self._weights = [weight for part in parts for weight in part.parameters()]
        self._carried: defaultdict[str, set[str]] = defaultdict(set)
        self._reached: set[str] = set()
        self._read_on: set[str] = set()

    @property
    def heads(self) -> frozenset[str]:
        """The layers whose units are outputs."""
        sure = [layers for kind, layers in self._carried.items() if kind != UNSURE]
        return frozenset().union(*sure, self._carried[UNSURE] - self._read_on)

    @property
    def read_on(self) -> frozenset[str]:
        """The layers whose units another weight has read."""
        return frozenset(self._read_on)

    @property
    def unreached(self) -> frozenset[str]:
        """The layers that no run has used."""
        return frozenset(self._layers) - self._reached

    def add(self, run: Callable[[Any], Mapping[str, Any]]) -> None:
        """Run once more.

        Args:
            run: takes the copy, and returns outputs of any nesting by what kind they are.
        """
        with undisturbed(self._weights), UnitTags(self._layers, self._weights) as tags:
            outputs = run(self._copied)
        for kind, tree in outputs.items():
            for tensor in tree_leaves(tree):
                if isinstance(tensor, Tensor):
                    self._carried[kind] |= tags.carried(tensor)
        self._reached |= tags.reached
        self._read_on |= tags.read_on


def beside_others(
    module: nn.Module, layers: Mapping[str, nn.Module], runs: Runs
) -> tuple[frozenset[str], frozenset[str]]:
    """Sort layers whose units no run has seen the end of by their like in the same container.

    A network may choose among heads, or among experts, by what it observes; the few rows of a run
    then use some of a ModuleList or ModuleDict and not the others.

    Args:
        module: holds the layers.
        layers: its maskable layers by name.
        runs: of the module.

    Returns:
        Those like a head, and those like a layer that ran and is none.
    """
    like = _alike(module, layers)
    unseen = frozenset(layers) - runs.heads - runs.read_on
    heads = frozenset(name for name in unseen if like[name] & runs.heads)
    ran = frozenset(layers) - runs.unreached
    return heads, frozenset(name for name in runs.unreached - heads if like[name] & ran)


def _alike(module: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, set[str]]:
    """Return for each layer those in its place in another item of a container, of its width."""
    places: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    of: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for name, layer in layers.items():
        width = axes_of(layer).shape(next(iter(prunable_parameters(layer).values())).shape)[0]
        steps = name.split(".") if name else []
        for at in range(len(steps)):
            holder = ".".join(steps[:at])
            if isinstance(module.get_submodule(holder), nn.ModuleList | nn.ModuleDict):
                place = (holder, *steps[at + 1 :], type(layer), width)
                places[place].add(name)
                of[name].append(place)
    return {name: set().union(*(places[place] for place in of[name])) for name in layers}
