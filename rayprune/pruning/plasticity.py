"""Plasticity: dormant units, effective rank of features, and the gradients' signal-to-noise ratio.

Measured in a window of a few optimizer steps every now and then, so that it may stay on: nothing
is hooked or summed in between. It reads what training computes anyway and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

TAU = 0.025
"""Below this share of its layer's mean activity a unit counts as dormant."""

DELTA = 0.01
"""Share of the singular values' sum that the effective rank may leave out."""

STATES = 128
"""Rows of features that a layer is measured on; the effective rank can't exceed it."""

WINDOW = 16
"""Optimizer steps over which gradients are compared."""

Figures = dict[str, dict[str, float]]
"""``{"dormant" | "srank" | "gradient_snr": {layer: value}}``."""


def dormant_share(activations: Tensor, tau: float = TAU) -> float:
    """Return the share of units that are tau-dormant.

    A unit's score is the mean of ``|h|`` over the states, divided by the mean of that over the
    layer's units; it is dormant if its score is at most tau (Sokar et al. 2023, arXiv:2302.12902).

    Args:
        activations: after the nonlinearity, shape ``(states, units)``.
        tau: at least 0.

    >>> dormant_share(torch.tensor([[0.0, 1.0, 2.0], [0.0, -1.0, 2.0]]))
    0.3333333432674408
    """
    activity = activations.abs().mean(0)
    # Multiplied out: a layer that is silent as a whole is all dormant, not 0/0.
    return float((activity <= tau * activity.mean()).float().mean())


def effective_rank(features: Tensor, delta: float = DELTA) -> int:
    """Return the srank: how many singular values make up ``1 - delta`` of their sum.

    Kumar et al. 2021 (arXiv:2010.14498). Not centred, as there.

    Args:
        features: shape ``(states, units)``.
        delta: in (0, 1).

    >>> effective_rank(torch.diag(torch.tensor([50.0, 49.5, 0.5])))
    2
    """
    values = torch.linalg.svdvals(features.float())
    sums = values.cumsum(0)
    if float(sums[-1]) == 0:
        return 0
    return int((sums < (1 - delta) * sums[-1]).sum()) + 1


class GradientNoise:
    """Mean and variance of gradients in a stream (Welford's update), without keeping them.

    >>> noise = GradientNoise()
    >>> for gradient in (1.0, 3.0):
    ...     noise.add({"w": torch.tensor([gradient])})
    >>> round(noise.ratio(["w"]), 4)
    1.4142
    """

    def __init__(self) -> None:
        self.steps = 0
        self._mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add one step's gradients, by parameter name; all steps have the same names."""
        self.steps += 1
        new = list(gradients.values())
        if self.steps == 1:
            self._mean = {name: gradient.clone() for name, gradient in gradients.items()}
            self._squares = {
                name: torch.zeros_like(gradient) for name, gradient in gradients.items()
            }
            return
        means = [self._mean[name] for name in gradients]
        before = torch._foreach_sub(new, means)
        torch._foreach_add_(means, before, alpha=1 / self.steps)
        after = torch._foreach_sub(new, means)
        torch._foreach_addcmul_([self._squares[name] for name in gradients], before, after)

    def ratio(self, names: Iterable[str]) -> float | None:
        """Return the signal-to-noise ratio of some parameters together, ``|mean| / std``.

        Both are Euclidean norms over the weights, so that masked ones, whose gradients are zero,
        add to neither. Gradients that are noise alone give ``1 / sqrt(steps)``, not 0. None before
        the second step, or where all gradients are zero.

        Args:
            names: those that got no gradient are passed over.
        """
        known = [name for name in names if name in self._mean]
        signal = sum(float(self._mean[name].double().square().sum()) for name in known)
        noise = sum(float(self._squares[name].double().sum()) for name in known)
        if self.steps < 2 or noise <= 0:
            return None
        return float((signal / (noise / (self.steps - 1))) ** 0.5)


class ActivityHooks:
    """Keeps what a few layers gave in the first training forward of each step.

    A layer's activation is the output of the parameterless module that takes the layer's output
    next (ReLU, Tanh, ...), with a norm in between; else the layer's own output. Units are the
    columns of a Linear, the channels of a Conv (rows: states and positions), and the hidden units
    of a recurrent layer.

    Args:
        module: all of it is watched: activations are modules of their own.
        layers: by name.
        states: rows that are kept of a layer.
    """

    def __init__(
        self, module: nn.Module, layers: Mapping[str, nn.Module], states: int = STATES
    ) -> None:
        self._names = {id(layer): name for name, layer in layers.items()}
        self._states = states
        self._rows: dict[str, list[Tensor]] = {name: [] for name in layers}
        self._fresh: dict[str, Tensor] = {}
        # The output whose next module is waited for, with its layer.
        self._awaited: dict[int, tuple[str, Tensor]] = {}
        self._handles: list[RemovableHandle] = [
            part.register_forward_hook(self._hook)
            for part in module.modules()
            if id(part) in self._names or _passes_on(part)
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> ActivityHooks:
        # A copy of the module is not watched, and tensors of a graph can't be copied.
        return self

    def end_step(self) -> None:
        """Take over what this step's first forward gave."""
        for name, output in self._fresh.items():
            if sum(len(part) for part in self._rows[name]) < self._states:
                self._rows[name].append(rows_of(output, self._states))
        self._fresh.clear()
        self._awaited.clear()

    def features(self) -> dict[str, Tensor]:
        """Return the rows of each layer that was run, shape ``(states, units)``."""
        return {
            name: torch.cat(parts)[: self._states] for name, parts in self._rows.items() if parts
        }

    def remove(self) -> None:
        """Leave the module as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # Value estimates for advantages run without gradients; they are no training forward.
        if not torch.is_grad_enabled():
            return
        result = output[0] if isinstance(output, tuple) else output
        name = self._names.get(id(part))
        if name is not None:
            if name not in self._fresh and isinstance(result, Tensor):
                self._remember(name, result)
        elif inputs and (held := self._awaited.pop(id(inputs[0]), None)) is not None:
            self._remember(held[0], result)

    def _remember(self, name: str, result: Tensor) -> None:
        self._fresh[name] = result.detach()
        # With the tensor itself: an id may be used again once its object is gone.
        self._awaited[id(result)] = (name, result)


class Plasticity:
    """Measures one module in windows of `WINDOW` optimizer steps.

    Args:
        module: whose layers are watched.
        layers: all layers by name, with the full names of their weights.
        units: names of the layers whose units are hidden ones, not outputs of the network.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Mapping[str, tuple[str, ...]],
        units: Iterable[str],
    ) -> None:
        self._module, self._layers = module, layers
        self._units = [name for name in units if name in layers]
        self._hooks: ActivityHooks | None = None
        self._noise = GradientNoise()
        self.latest: Figures | None = None
        """The last finished window's figures."""
        self._taken: Figures | None = None

    def begin_step(self, updates: int, every: int) -> None:
        """Open a window if one begins at the next optimizer step.

        Args:
            updates: optimizer steps done.
            every: steps from one window's beginning to the next one's.
        """
        if updates % every == 0 and self._hooks is None:
            watched = {name: self._module.get_submodule(name) for name in self._units}
            self._hooks = ActivityHooks(self._module, watched)

    def end_step(self, gradients: Mapping[str, Tensor]) -> None:
        """Take one step's gradients, if a window is open; close it after its last step.

        Args:
            gradients: by full parameter name, masked or not.
        """
        if self._hooks is None:
            return
        self._hooks.end_step()
        self._noise.add(gradients)
        if self._noise.steps == WINDOW:
            self.latest = self._figures(self._hooks.features())
            self.drop()

    def drop(self) -> None:
        """Give up the open window, such as at a checkpoint, which can't hold half of one."""
        if self._hooks is not None:
            self._hooks.remove()
        self._hooks, self._noise = None, GradientNoise()

    def take(self) -> Figures | None:
        """Return the figures of a window that has finished since the last call; else None."""
        # Without a lock: another thread may train meanwhile, and replaces `latest` as a whole.
        latest = self.latest
        if latest is self._taken:
            return None
        self._taken = latest
        return latest

    @property
    def is_open(self) -> bool:
        """Whether a window is open."""
        return self._hooks is not None

    @torch.no_grad()
    def _figures(self, features: Mapping[str, Tensor]) -> Figures:
        ratios = {name: self._noise.ratio(weights) for name, weights in self._layers.items()}
        return {
            "dormant": {name: dormant_share(rows) for name, rows in features.items()},
            "srank": {name: float(effective_rank(rows)) for name, rows in features.items()},
            "gradient_snr": {name: value for name, value in ratios.items() if value is not None},
        }


def rows_of(output: Tensor, most: int) -> Tensor:
    """Return a layer's output as ``(rows, units)``, at most so many, evenly spaced.

    >>> rows_of(torch.zeros(2, 3, 4, 4), most=8).shape, rows_of(torch.zeros(5, 7), most=8).shape
    (torch.Size([8, 3]), torch.Size([5, 7]))
    """
    if output.dim() == 4:
        output = output.movedim(1, -1)
    rows = output.reshape(-1, output.shape[-1])
    if len(rows) <= most:
        return rows
    picked = torch.arange(most, device=rows.device) * len(rows) // most
    return rows[picked]


def _passes_on(part: nn.Module) -> bool:
    """Whether a module turns a layer's output into its activation: a nonlinearity or a norm."""
    if next(part.children(), None) is not None or isinstance(part, (nn.Flatten, nn.Dropout)):
        return False
    norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return next(part.parameters(), None) is None or isinstance(part, norms)
