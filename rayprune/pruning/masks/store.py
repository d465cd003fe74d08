"""`MaskStore`: a module's masks, what changes them, and all that is made as sparse as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from rayprune.errors import InputError, RunError, did_you_mean
from rayprune.pruning.layers.kinds import kind_of
from rayprune.pruning.layers.masked import MaskedLayer, prunable_parameters
from rayprune.pruning.layers.parametrised import (
    divides_by_all,
    effective,
    length_of,
    tensor_name,
)
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.masks.fading import Fading
from rayprune.pruning.masks.normalised_weights import silent_lengths, written_mask
from rayprune.pruning.masks.rnn_biases import silent_biases
from rayprune.pruning.masks.topk import keep_only
from rayprune.pruning.naming import check_tensor
from rayprune.pruning.reports import MaskChange


class Operation(NamedTuple):
    """How a weight that is dropped goes: at once, or in steps."""

    updates: int
    """Mask updates from when it is dropped to when it is zero."""
    factor: float
    """What it is multiplied by at each of them."""


AT_ONCE: Final = Operation(1, 0.0)


class Around(NamedTuple):
    """What is called around a drop, with a parameter and its full name."""

    before_drop: Sequence[Callable[[str, nn.Parameter], None]]
    after_drop: Sequence[Callable[[str, nn.Parameter], float | None]]
    """Each may multiply the whole parameter, and returns by what."""


NOTHING_AROUND: Final = Around((), ())


class MaskStore:
    """The masks of maskable layers by full parameter name, applied to gradients and weights.

    Args:
        layers: every layer that may ever hold a mask.
    """

    def __init__(self, layers: Sequence[PrunableLayer]) -> None:
        self._places = {
            layer.full_name(name): (layer, name) for layer in layers for name in layer.parameters
        }
        self._followed = [layer for layer in layers if _is_followed(layer.module)]
        self._multipliers: dict[str, Tensor] = {}
        self._pairs: list[tuple[nn.Parameter, Tensor]] | None = None
        self.prunable: tuple[PrunableLayer, ...] = tuple(layers)
        """The layers that a sparsity is of."""
        self.spared: frozenset[str] = frozenset()
        """Full names of parameters that are frozen: their biases never fall silent."""
        self.fading = Fading()

    def settle(self, prunable: tuple[PrunableLayer, ...], spared: Iterable[str]) -> None:
        """Take which layers are prunable now, and which parameters are frozen."""
        self.prunable, spared = prunable, frozenset(spared)
        if spared != self.spared:
            self.spared, self._pairs = spared, None
        self.fading.forget(spared)

    @property
    def names(self) -> tuple[str, ...]:
        """The full names of all parameters that may hold a mask."""
        return tuple(self._places)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks by full parameter name, the live tensors; a name is absent until pruned."""
        return {
            name: layer.module.masks[key]
            for name, (layer, key) in self._places.items()
            if key in layer.module.masks
        }

    @property
    def silenced(self) -> dict[str, tuple[nn.Parameter, Tensor]]:
        """What goes with the last weight of a unit, with masks: biases and magnitudes.

        See `rayprune.pruning.masks.rnn_biases` and `rayprune.pruning.masks.normalised_weights`.
        """
        return {
            layer.full_name(name): (layer.module.get_parameter(name), mask)
            for layer in self._followed
            for name, mask in {
                **silent_biases(layer.module),
                **silent_lengths(layer.module),
            }.items()
            if layer.full_name(name) not in self.spared
        }

    @property
    def written(self) -> dict[str, Tensor]:
        """The masks as they are written into the parameters, with those of `silenced`.

        Those of weight-normalised directions keep what has no magnitude any more.
        """
        return {name: self._written(name) for name in self.masks} | {
            name: mask for name, (_, mask) in self.silenced.items()
        }

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters by full name, masked or not."""
        return {name: self.weight(name) for name in self._places}

    @property
    def effective(self) -> dict[str, Tensor]:
        """The weights as their layers compute with them, by full name; see `parametrised`."""
        return {name: effective(x.module, key) for name, (x, key) in self._places.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters' shapes by full name."""
        return {name: tuple(weight.shape) for name, weight in self.weights.items()}

    def weight(self, name: str) -> nn.Parameter:
        """Return a parameter by its full name."""
        layer, key = self._places[name]
        return layer.module.get_parameter(key)

    def mask(self, name: str) -> Tensor | None:
        """Return a parameter's mask, the live tensor; None until it is pruned."""
        layer, key = self._places[name]
        return layer.module.masks.get(key)

    def eligible(self, name: str) -> Tensor | None:
        """Return what may still be chosen of a parameter: not masked, not fading; None for all."""
        return self.fading.eligible(name, self.mask(name))

    def commit(
        self,
        keeps: dict[str, Tensor],
        grows: Mapping[str, Tensor],
        *,
        step: float | None = None,
        operation: Operation = AT_ONCE,
        around: Around = NOTHING_AROUND,
    ) -> MaskChange:
        """Drop or fade what is not kept, zero what is gone, and let grow what is chosen.

        Args:
            keeps: bool by full parameter name, True = stays; overwritten and emptied.
            grows: likewise, True = becomes active.
            step: the clock, for the report.
            operation: how a weight that is dropped goes.
            around: called for each parameter before and after weights of it go.

        Raises:
            RunError: a weight that is divided by its own norm would go; nothing was changed.
        """
        self._check_left(keeps)
        pruned, changed, scales = 0, dict[str, None](), dict[str, float]()
        for name in self.names:
            if name not in keeps and name not in self.fading.ages:
                continue
            weight = self.weight(name)
            for before in around.before_drop:
                before(name, weight)
            gone = self._newly_gone(name, keeps.pop(name, None), operation)
            count = int(torch.count_nonzero(gone))
            if count:
                self.drop(name, gone)
                for after in around.after_drop:
                    factor = after(name, weight)
                    if factor is not None:
                        scales[name] = scales.get(name, 1.0) * factor
                changed[name] = None
                pruned += count
        counts = {name: int(torch.count_nonzero(fresh)) for name, fresh in grows.items()}
        regrown = {name: fresh for name, fresh in grows.items() if counts[name]}
        for name, fresh in regrown.items():
            self.grow(name, fresh)
            changed[name] = None
        grown = sum(counts.values())
        churn = (pruned + grown) / sum(layer.total for layer in self.prunable)
        sparsity = self.masked()
        return MaskChange(step, pruned, churn, sparsity, tuple(changed), grown, regrown, scales)

    def _check_left(self, keeps: Mapping[str, Tensor]) -> None:
        """Raise RunError if a weight would go as a whole that is divided by its own norm."""
        for name, keep in keeps.items():
            layer, key = self._places[name]
            if divides_by_all(layer.module, key) and not bool((self._left(name) & keep).any()):
                raise RunError(
                    f"No weight of {layer.name!r} would be left, whose spectral norm it is divided "
                    "by. List it under `pruning.protect`, or give `pruning.distribution` a "
                    "sparsity for each layer."
                )

    def _left(self, name: str) -> Tensor:
        mask = self.mask(name)
        return all_true(self.weight(name)) if mask is None else mask

    def _newly_gone(self, name: str, keep: Tensor | None, operation: Operation) -> Tensor:
        free = self.eligible(name)
        weight = self.weight(name)
        if keep is None:
            dropped = torch.zeros_like(weight, dtype=torch.bool)
        else:
            # In place: pages that are asked for anew cost more than the arithmetic on them.
            dropped = keep.logical_not_()
            if free is not None:
                dropped.logical_and_(free)
        return self.fading.advance(name, weight, dropped, operation.updates, operation.factor)

    def masked(self, group: str | None = None) -> float:
        """Return the fraction of the prunable weights that is masked; see `Pruner.masked`."""
        return self._share(group, lambda layer: layer.pruned)

    def sparsity(self, group: str | None = None) -> float:
        """Return the fraction that is masked and really zero; see `Pruner.sparsity`."""
        return self._share(group, lambda x: x.pruned - sum(map(self.stray, x.named)))

    def _share(self, group: str | None, count: Callable[[PrunableLayer], int]) -> float:
        layers = [layer for layer in self.prunable if group in (None, layer.group)]
        if not layers:
            groups = sorted({layer.group for layer in self.prunable})
            raise InputError(
                f"`group` must be one of {groups}, but is {group!r}.{did_you_mean(group, groups)}"
            )
        return sum(map(count, layers)) / sum(layer.total for layer in layers)

    def mask_gradients(self, gradients: Mapping[nn.Parameter, Tensor | None]) -> None:
        """Zero the gradients of pruned weights, in place; None is passed over.

        Raises:
            InputError: a gradient is no tensor, or not shaped like its parameter.
        """
        pairs = [
            (gradient, multiplier)
            for weight, multiplier in self._masked()
            if (gradient := gradients.get(weight)) is not None
        ]
        for gradient, multiplier in pairs:
            if not isinstance(gradient, Tensor) or gradient.shape != multiplier.shape:
                self._refuse("gradients", gradients)
        if pairs:
            torch._foreach_mul_([gradient for gradient, _ in pairs], [mult for _, mult in pairs])

    def mask_weights(self) -> None:
        """Zero the pruned weights, in place."""
        pairs = self._masked()
        if pairs:
            torch._foreach_mul_([weight for weight, _ in pairs], [mult for _, mult in pairs])

    def mask_along(self, tensors: Callable[[nn.Parameter], Iterable[Tensor]]) -> None:
        """Zero the pruned entries of other tensors, in place; see `Pruner.mask_along`."""
        pairs = [
            (tensor, multiplier.to(tensor.device))
            for weight, multiplier in self._masked()
            for tensor in tensors(weight)
        ]
        if pairs:
            torch._foreach_mul_([tensor for tensor, _ in pairs], [mult for _, mult in pairs])

    def mask_tensors(self, tensors: Mapping[nn.Parameter, Tensor]) -> None:
        """Zero the pruned entries of other tensors, in place; see `Pruner.mask_tensors`."""
        held = [(name, self.weight(name), self._written(name)) for name in self.masks]
        held += [(name, bias, mask) for name, (bias, mask) in self.silenced.items()]
        held = [(name, p, mask) for name, p, mask in held if p in tensors]
        for name, parameter, _ in held:
            check_tensor("tensors", name, tensors[parameter], parameter.shape)
        for _, parameter, mask in held:
            keep_only(tensors[parameter], mask.to(tensors[parameter].device))

    def violations(self) -> dict[str, int]:
        """Return how many pruned weights are not zero, by full parameter name; empty if right."""
        counts = {name: self.stray(name) for name in self.masks}
        for name, (bias, mask) in self.silenced.items():
            counts[name] = int(torch.count_nonzero((bias != 0) & ~mask))
        return {name: count for name, count in counts.items() if count}

    @torch.no_grad()
    def stray(self, name: str) -> int:
        """Return how many masked weights of a parameter are not zero."""
        if self.mask(name) is None:
            return 0
        return int(torch.count_nonzero((self.weight(name) != 0) & ~self._written(name)))

    def drop(self, name: str, gone: Tensor) -> None:
        """Mask weights and zero them.

        Args:
            name: the parameter's full name.
            gone: bool, shaped like the parameter; overwritten.
        """
        layer, key = self._places[name]
        stays = gone.logical_not_()
        if key == tensor_name(key):
            keep_only(self.weight(name), stays)
        mask = layer.module.masks.get(key)
        if mask is None:
            layer.module.masks[key] = stays
            self._pairs = None
        else:
            mask.logical_and_(stays)
        if key != tensor_name(key):
            keep_only(self.weight(name), self._written(name))
        self._rewrite_multiplier(name)
        if layer in self._followed:
            self._pairs = None  # biases may have fallen silent
            for bias, speaks in self.silenced.values():
                keep_only(bias, speaks)

    def grow(self, name: str, fresh: Tensor) -> None:
        """Unmask weights, which are zero from then on until they learn.

        Args:
            name: the parameter's full name.
            fresh: bool, shaped like the parameter.
        """
        layer, key = self._places[name]
        # They are zero already, unless something other than the caller wrote them. Directions of a
        # row without a magnitude are not, and go on from where they are.
        stays = ~fresh if key == tensor_name(key) else self._written(name).clone()
        layer.module.masks[key].logical_or_(fresh)
        keep_only(self.weight(name), stays)
        if key != tensor_name(key):
            keep_only(self.weight(name), self._written(name))
        self._rewrite_multiplier(name)
        if layer in self._followed:
            self._pairs = None

    def replace(self, masks: Mapping[str, Tensor], ages: Mapping[str, Tensor]) -> None:
        """Put other masks in place of all; a parameter that is not among them has none.

        Args:
            masks: by full parameter name.
            ages: of weights that fade; see `Fading.ages`.
        """
        for name, (layer, key) in self._places.items():
            layer.module.masks.pop(key, None)
            if name in masks:
                layer.module.masks[key] = masks[name].to(self.weight(name).device)
        self.fading = Fading({n: age.to(self.weight(n).device) for n, age in ages.items()})
        self.forget()

    def forget(self) -> None:
        """Look parameters and masks up anew: others have taken their places."""
        self._multipliers.clear()
        self._pairs = None

    def _refuse(self, field: str, given: Mapping[nn.Parameter, Any]) -> None:
        """Say which of the tensors is wrong."""
        for name, weight in self.weights.items():
            if given.get(weight) is not None:
                check_tensor(field, name, given[weight], weight.shape)

    def _masked(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Return the weights that have a mask, each with its multiplier."""
        pairs = self._pairs
        if pairs is None or any(m.device != w.device or m.dtype != w.dtype for w, m in pairs):
            # Kept, because this is asked for at every optimizer step.
            pairs = self._pairs = [
                (self.weight(name), self._multiplier(name)) for name in self.masks
            ] + [(bias, mask.to(bias)) for bias, mask in self.silenced.values()]
        return pairs

    def _multiplier(self, name: str) -> Tensor:
        """Return the mask as floats, beside its weight: several times faster than bools are."""
        weight = self.weight(name)
        known = self._multipliers.get(name)
        if known is None or known.device != weight.device or known.dtype != weight.dtype:
            # As bytes, since torch turns those into floats ten times faster than bools.
            known = self._bytes(name).to(weight)
            self._multipliers[name] = known
        return known

    def _rewrite_multiplier(self, name: str) -> None:
        multiplier = self._multipliers.get(name)
        if multiplier is not None:
            # Rewritten in place: a compiled step that reads it needn't be compiled again.
            multiplier.copy_(self._bytes(name))

    def _bytes(self, name: str) -> Tensor:
        return self._written(name).view(torch.uint8)

    def _written(self, name: str) -> Tensor:
        layer, key = self._places[name]
        return written_mask(layer.module, key)


def all_true(weight: Tensor) -> Tensor:
    """Return a mask that keeps all of a weight: one element, seen in its shape.

    >>> all_true(torch.zeros(2, 3)).shape, all_true(torch.zeros(2, 3)).untyped_storage().nbytes()
    (torch.Size([2, 3]), 1)
    """
    return torch.ones((), dtype=torch.bool, device=weight.device).expand(weight.shape)


def _is_followed(layer: MaskedLayer) -> bool:
    """Whether something else in the layer goes with the last weight of a unit."""
    return kind_of(layer).recurrent or any(
        length_of(layer, name) is not None for name in prunable_parameters(layer)
    )
