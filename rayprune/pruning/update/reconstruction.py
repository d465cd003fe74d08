"""Reconstruction: what is left of each layer makes up for what a cut has taken.

By least squares, layer by layer, after the fashion of He et al. 2017 (arXiv:1707.06168) and Luo et
al. 2017 (ThiNet, arXiv:1707.06342) for channels, and of Dong et al. 2017 (arXiv:1705.07565), who
bring Optimal Brain Surgeon to one layer, for single weights. Theirs is done after training; here it
is part of each mask update, so that the policy hardly moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune.pruning.evidence.reduce import Reduce, SingleProcess
from rayprune.pruning.layers.hooks import hooked
from rayprune.pruning.pruner_part import PrunerView
from rayprune.pruning.remedies.reconstruct import KEY
from rayprune.pruning.reports import MaskChange

CUTS: Final = 36
"""In which a trained network is cut at once: as many as a recipe's ramp has."""
RIDGE: Final = 1e-3
"""See `Calibration`; benchmarks/reconstruction.py tries others."""
_MOST: Final = 200
"""Steps of conjugate gradients; each makes the rest smaller, so that fewer do no harm."""
_FEW: Final = 20
"""Steps for a layer whose step is dear."""
_WORK: Final = 2e10
"""Multiplications of all steps together, beyond `_FEW` of them: some seconds on one core."""
_TOLERANCE: Final = 1e-14
"""Of what is left to be made up for, squared, as a share of the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Inputs on which layers are held against what they were before a cut.

    Args:
        run: runs the module on them, the same way each time: no dropout, no statistics that move,
            and random numbers, if any, from the same seed.
        across: brings several processes together, each with inputs of its own; all end with the
            same weights. Each must call the same layers in the same order.
        ridge: what holds weights where they are, as a share of the inputs' mean square.
    """

    run: Callable[[], object]
    across: Reduce = field(default_factory=SingleProcess)
    ridge: float = RIDGE


class Reconstruction:
    """Linear layers' outputs before a cut, and how to come back to them after it.

    In the order in which the layers are called each is given the inputs that it has now and the
    outputs that it had, and solves for them: so it makes up for its own weights and for units that
    are gone before it. Weights that are pruned stay exactly zero; units without a weight stay as
    they are. Of a layer that is called more than once the first call counts.

    Args:
        layers: by name, before the cut; see `repairable`.
        calibration: runs their module.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 1.0]]))
    >>> inputs = torch.tensor([[1.0, 1.0], [2.0, 2.0]])  # both tell the same
    >>> before = Reconstruction({"0": layer}, Calibration(run=lambda: layer(inputs)))
    >>> layer.weight.data[0, 1] = 0.0
    >>> before.repair({"0.weight": torch.tensor([[True, False]])})
    >>> [round(weight, 2) for weight in layer.weight[0].tolist()]
    [2.0, 0.0]
    """

    @torch.no_grad()
    def __init__(self, layers: Mapping[str, nn.Linear], calibration: Calibration) -> None:
        self._names = {layer: name for name, layer in layers.items()}
        self._calibration = calibration
        self._outputs: dict[str, Tensor] = {}
        with hooked(self._names, self._note):
            calibration.run()

    @torch.no_grad()
    def repair(self, masks: Mapping[str, Tensor]) -> None:
        """Change what is left of the layers, in place, so that they put out what they did.

        Args:
            masks: by full parameter name, True = keep; what has none is whole.
        """
        repaired = set[str]()

        def solve(layer: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            name = self._names[layer]
            before = self._outputs.get(name)
            if name in repaired or before is None or before.shape != output.shape or not inputs:
                return None
            repaired.add(name)
            self._solve(layer, inputs[0], before - output, masks.get(f"{name}.weight"))
            return functional.linear(inputs[0], layer.weight, layer.bias)

        with hooked(self._names, solve):
            self._calibration.run()

    def _note(self, layer: nn.Linear, inputs: tuple[Any, ...], output: Tensor) -> None:
        del inputs
        self._outputs.setdefault(self._names[layer], output.detach().clone())

    def _solve(self, layer: nn.Linear, inputs: Tensor, lost: Tensor, mask: Tensor | None) -> None:
        """Add to a layer's kept weights what makes up for its lost outputs."""
        rows, lost = _rows(inputs, layer.in_features), _rows(lost, layer.out_features)
        has_bias = layer.bias is not None and layer.bias.requires_grad
        if has_bias:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        share = 1 / max(1, len(rows))
        products = [rows.T @ rows * share, rows.T @ lost * share]
        gram, cross = self._calibration.across.mean(products)
        keep = torch.ones_like(layer.weight, dtype=torch.bool) if mask is None else mask
        if has_bias:
            keep = torch.cat([keep, keep.any(1, keepdim=True)], 1)
        change = masked_ridge(gram, cross, keep, self._calibration.ridge).to(layer.weight.dtype)
        if not change.isfinite().all():
            return
        layer.weight.add_(change[:, : layer.in_features])
        if has_bias:
            layer.bias.add_(change[:, -1])


def made_up_for(
    pruner: PrunerView, calibration: Calibration | None
) -> Callable[[MaskChange], None]:
    """Return what makes up for a cut, where a config asks for it and there are inputs.

    Args:
        pruner: before its masks change.
        calibration: runs its module.

    Returns:
        ``f(change)``, to be called once they have; where weights have grown it does nothing.
    """
    if calibration is None or not made_up(pruner.config):
        return lambda change: None
    before = Reconstruction(repairable(pruner.layers, pruner.spared), calibration)

    def repair(change: MaskChange) -> None:
        if change.pruned and not change.grown:
            before.repair(pruner.held_masks)

    return repair


def cuts_of(config: Any) -> int:
    """Return in how many cuts a config's whole sparsity is taken at once."""
    in_parts = made_up(config) and config.threshold is None
    return CUTS if in_parts else 1


def made_up(config: Any) -> bool:
    """Return whether a config's cuts are made up for, where there are inputs."""
    return bool(config.remedies.get(KEY)) and config.fading_updates == 1


def in_cuts(cut: Callable[[float], MaskChange], cuts: int) -> MaskChange:
    """Cut in several steps, the first ones large, as a cubic ramp has them.

    Args:
        cut: is called with how much of all is due, up to 1.
        cuts: how often.

    Returns:
        The last change, with what all of them pruned.

    >>> shares = []
    >>> def cut(share):
    ...     shares.append(share)
    ...     return MaskChange(None, pruned=1, churn=0.25, sparsity=share, changed=("0.weight",))
    >>> change = in_cuts(cut, 2)
    >>> shares, change.pruned, change.churn, change.sparsity
    ([0.875, 1.0], 2, 0.5, 1.0)
    """
    changes = [cut(1 - (1 - number / cuts) ** 3) for number in range(1, cuts + 1)]
    if cuts == 1:
        return changes[0]
    scales: dict[str, float] = {}
    for name, factor in (pair for change in changes for pair in change.scales.items()):
        scales[name] = scales.get(name, 1.0) * factor
    return replace(
        changes[-1],
        pruned=sum(change.pruned for change in changes),
        churn=sum(change.churn for change in changes),
        changed=tuple(dict.fromkeys(name for change in changes for name in change.changed)),
        scales=scales,
    )


def masked_ridge(gram: Tensor, cross: Tensor, keep: Tensor, ridge: float = RIDGE) -> Tensor:
    """Solve a ridge regression for each output, from the inputs that it is allowed.

    Each output's row ``d`` minimises ``d G d' - 2 d c + r |d|^2`` among rows that are zero where
    ``keep`` is not set, by conjugate gradients with Jacobi's preconditioner, all rows at once.

    Args:
        gram: G, mean products of inputs, shape ``(inputs, inputs)``.
        cross: mean products of inputs and what they shall make, shape ``(inputs, outputs)``.
        keep: bool, shape ``(outputs, inputs)``.
        ridge: r, as a share of G's mean diagonal.

    Returns:
        Shape ``(outputs, inputs)``.

    >>> gram, cross = torch.tensor([[2.0, 2.0], [2.0, 3.0]]), torch.tensor([[1.0], [2.0]])
    >>> masked_ridge(gram, cross, torch.tensor([[False, True]]), ridge=0.0)
    tensor([[0.0000, 0.6667]])
    """
    allowed = keep.to(gram.dtype)
    damping = ridge * gram.diagonal().mean()
    scale = allowed / (gram.diagonal() + damping).clamp(min=torch.finfo(gram.dtype).tiny)
    left = cross.T * allowed
    found = torch.zeros_like(left)
    direction = scale * left
    size = (left * direction).sum(1, keepdim=True)
    enough = _TOLERANCE * size
    affordable = int(_WORK / (keep.numel() * len(gram)))
    for _ in range(min(_MOST, 2 * len(gram), max(_FEW, affordable))):
        if bool((size <= enough).all()):
            break
        curved = (direction @ gram) * allowed + damping * direction
        step = _by(size, (direction * curved).sum(1, keepdim=True))
        found += step * direction
        left = left - step * curved
        scaled = scale * left
        before, size = size, (left * scaled).sum(1, keepdim=True)
        direction = scaled + _by(size, before) * direction
    return found


def repairable(
    layers: Mapping[str, nn.Module], spared: Collection[str] = ()
) -> dict[str, nn.Linear]:
    """Return the layers that can make up for a cut: Linear ones with a weight of their own.

    Args:
        layers: by name.
        spared: full names of parameters that are left alone.
    """
    uses = Counter(id(getattr(layer, "weight", None)) for layer in layers.values())
    return {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, nn.Linear)
        and type(layer).forward is nn.Linear.forward
        and isinstance(layer.weight, nn.Parameter)
        and "weight" in layer._parameters
        and layer.weight.requires_grad
        and uses[id(layer.weight)] == 1
        and f"{name}.weight" not in spared
    }


def _rows(tensor: Tensor, width: int) -> Tensor:
    exact = torch.float32 if tensor.device.type == "mps" else torch.float64
    return tensor.reshape(-1, width).to(exact)


def _by(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with 0 where a row is solved already."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))
