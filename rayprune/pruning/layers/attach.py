"""`make_maskable`: find the layers that can be pruned, and swap their classes in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import Tensor, nn

from rayprune.pruning.layers.masked import MaskedLayer, prunable_parameters
from rayprune.pruning.layers.parametrised import parametrised_base
from rayprune.pruning.layers.subclasses import masked_class, masked_class_of, plain_class
from rayprune.pruning.layers.torch_prune import adopt_torch_pruning, check_adoptable

Exclusions = Iterable["str | nn.Module"]


def make_maskable(module: nn.Module, *, exclude: Exclusions = ()) -> nn.Module:
    """Turn a module's layers into maskable ones, in place: those of `MASKABLE`, and of subclasses.

    Only the class of a layer changes: parameters keep their identity, their names and what an
    optimizer knows of them. Doing it twice changes nothing. What ``torch.nn.utils.prune`` has
    pruned is taken over: its masks become the layer's, and its parametrisation goes.

    Args:
        module: any module; it may be a layer itself.
        exclude: modules, or glob patterns of module names, to leave as they are together with
            all that is in them (target networks, for one).

    Returns:
        The same module.

    Raises:
        InputError: ``torch.nn.utils.prune`` pruned a bias; nothing was changed.

    >>> make_maskable(nn.Sequential(nn.Linear(2, 1), nn.Tanh()))
    Sequential(
      (0): MaskedLinear(in_features=2, out_features=1, bias=True)
      (1): Tanh()
    )
    """
    found = _by_themselves(not_excluded(module, exclude))
    ours = [(name, layer) for name, layer in found if is_maskable(layer)]
    for name, layer in ours:
        check_adoptable(name, layer)
    for name, layer in ours:
        adopted = adopt_torch_pruning(name, layer)
        masked = masked_class_of(layer)
        if masked is not None and prunable_parameters(layer):
            layer.__class__ = masked
            layer.masks = {}  # type: ignore[assignment]
        for key, mask in adopted.items():
            held = layer.masks.get(key)  # type: ignore[union-attr, operator]
            layer.masks[key] = mask if held is None else mask & held  # type: ignore[index, operator]
    return module


def unmask(module: nn.Module) -> dict[str, Tensor]:
    """Give every layer its torch class back, in place.

    What exports, quantises or traces by class wants that. The weights stay as they are.

    Returns:
        The masks by full parameter name, True = keep.

    >>> layer = make_maskable(nn.Linear(2, 1))
    >>> unmask(layer), layer
    ({}, Linear(in_features=2, out_features=1, bias=True))
    """
    masks: dict[str, Tensor] = {}
    for name, layer in module.named_modules():
        kind = plain_class(layer) if isinstance(layer, MaskedLayer) else None
        if kind is not None:
            masks.update({join(name, key): mask for key, mask in layer.masks.items()})
            del layer.masks
            layer.__dict__.pop("bypassed", None)
            layer.__class__ = kind
    return masks


def is_maskable(layer: nn.Module) -> bool:
    """Whether a layer is maskable, or is made so by `make_maskable` if it has weights."""
    if isinstance(layer, nn.Embedding) and layer.sparse:
        return False
    kind = parametrised_base(layer) or type(layer)
    return isinstance(layer, MaskedLayer) or masked_class(kind) is not None


def maskable_layers(module: nn.Module, *, exclude: Exclusions = ()) -> dict[str, MaskedLayer]:
    """Return the maskable layers by name, in the module's order.

    A layer whose weights all belong to an earlier one (tied weights) is left out, so that no
    weight counts twice.

    >>> list(maskable_layers(make_maskable(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))))
    ['0']
    """
    layers: dict[str, MaskedLayer] = {}
    seen: set[int] = set()
    for name, layer in not_excluded(module, exclude):
        if isinstance(layer, MaskedLayer):
            own = {id(weight) for weight in prunable_parameters(layer).values()}
            if own - seen:
                layers[name] = layer
            seen |= own
    return layers


def tied_layers(module: nn.Module, *, exclude: Exclusions = ()) -> frozenset[str]:
    """Return the names of the maskable layers that share a prunable weight with another layer.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> net[1].weight = net[0].weight
    >>> sorted(tied_layers(make_maskable(net)))
    ['0', '1']
    """
    users: dict[int, list[str]] = {}
    for name, layer in not_excluded(module, exclude):
        if isinstance(layer, MaskedLayer):
            for weight in prunable_parameters(layer).values():
                users.setdefault(id(weight), []).append(name)
    return frozenset(name for names in users.values() if len(names) > 1 for name in names)


def _by_themselves(
    found: Iterable[tuple[str, nn.Module]],
) -> list[tuple[str, nn.Module]]:
    """Leave out the output projections of attention layers, which those run as a part of theirs."""
    found = list(found)
    parts = {id(x.out_proj) for _, x in found if isinstance(x, nn.MultiheadAttention)}
    return [(name, layer) for name, layer in found if id(layer) not in parts]


def join(layer: str, parameter: str) -> str:
    """Join the names of a layer and its parameter; the root's name is empty.

    >>> join("pi.0", "weight"), join("", "weight")
    ('pi.0.weight', 'weight')
    """
    return f"{layer}.{parameter}" if layer else parameter


def not_excluded(module: nn.Module, exclude: Exclusions) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module and its parts by name, without what is excluded; see `make_maskable`."""
    exclude = list(exclude)
    patterns = [item for item in exclude if isinstance(item, str)]
    roots = [item for item in exclude if isinstance(item, nn.Module)]
    barred = {id(inner) for root in roots for inner in root.modules()}
    for name, layer in module.named_modules():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            barred |= {id(inner) for inner in layer.modules()}
        if id(layer) not in barred:
            yield name, layer
