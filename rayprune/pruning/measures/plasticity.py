"""Plasticity: dormant units, effective rank of features, and the gradients' signal-to-noise ratio.

Measured in a window of a few optimizer steps every now and then, so that it may stay on: nothing
is hooked or summed in between. It reads what training computes anyway and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from rayprune.pruning.measures.activity_hooks import ActivityHooks

TAU = 0.025
"""Below this share of its layer's mean activity a unit counts as dormant."""

DELTA = 0.01
"""Share of the singular values' sum that the effective rank may leave out."""

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

    Each parameter has its own count of steps: one that got no gradient in a step has not been
    sampled there, whatever became of the others.

    >>> noise = GradientNoise()
    >>> for gradient in (1.0, 3.0):
    ...     noise.add({"w": torch.tensor([gradient])})
    >>> round(noise.ratio(["w"]), 4)
    1.4142
    """

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}
        self._mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add one step's gradients, by parameter name.

        Args:
            gradients: any names; one whose shape has changed since its last step begins anew.
        """
        given = {name: _single(gradient) for name, gradient in gradients.items()}
        for name, gradient in given.items():
            if not self._goes_on(name, gradient):
                self._begin(name, gradient)
        going_on = [name for name in given if self._steps[name]]
        # Mostly they have all been there as often, so that this is one group.
        for steps in {self._steps[name] for name in going_on}:
            group = [name for name in going_on if self._steps[name] == steps]
            new = [given[name] for name in group]
            means = [self._mean[name] for name in group]
            before = torch._foreach_sub(new, means)
            torch._foreach_add_(means, before, alpha=1 / (steps + 1))
            after = torch._foreach_sub(new, means)
            torch._foreach_addcmul_([self._squares[name] for name in group], before, after)
        for name in gradients:
            self._steps[name] += 1

    def ratio(self, names: Iterable[str]) -> float | None:
        """Return the signal-to-noise ratio of some parameters together, ``|mean| / std``.

        Both are Euclidean norms over the weights, so that masked ones, whose gradients are zero,
        add to neither. Gradients that are noise alone give ``1 / sqrt(steps)``, not 0. None before
        the second step, where all gradients are zero, or where one isn't finite.

        Args:
            names: those that got no gradient in two steps are passed over.
        """
        known = [name for name in names if self._steps.get(name, 0) > 1]
        signal = sum(float(self._mean[name].double().square().sum()) for name in known)
        noise = sum(
            float(self._squares[name].double().sum()) / (self._steps[name] - 1) for name in known
        )
        if noise <= 0 or not math.isfinite(signal + noise):
            return None
        return float((signal / noise) ** 0.5)

    def _goes_on(self, name: str, gradient: Tensor) -> bool:
        held = self._mean.get(name)
        return held is not None and _form(held) == _form(gradient)

    def _begin(self, name: str, gradient: Tensor) -> None:
        self._steps[name] = 0
        self._mean[name] = gradient.clone()
        self._squares[name] = torch.zeros_like(gradient)


class Plasticity:
    """Measures one module in windows of `WINDOW` optimizer steps.

    Figures are of what was seen: a layer that ran in some steps only is measured on those, and one
    that never ran, or got no gradient in two steps, has none.

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
        self._steps = 0
        self._closed: tuple[str, ...] = ()
        self._withdrawals = 0
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
            parts = dict(self._module.named_modules(remove_duplicate=False))
            names = [] if self._gave_up else [name for name in self._units if name in parts]
            self._hooks = ActivityHooks(self._module, {name: parts[name] for name in names})
            self._closed = self._hooks.closed or self._closed

    def pass_over(self) -> None:
        """Forget the forwards since the last step, if a window is open: none was of a minibatch."""
        if self._hooks is not None:
            self._hooks.pass_over()

    def end_step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Take one step's gradients, if a window is open; close it after its last step.

        Args:
            gradients: by full parameter name, masked or not; None, or absent, where the step had
                none.

        Raises:
            Exception: whatever a hook has met in a forward; it was not raised there.
        """
        if self._hooks is None:
            return
        self._hooks.end_step()
        self._noise.add({n: gradient for n, gradient in gradients.items() if gradient is not None})
        self._steps += 1
        if self._steps == WINDOW:
            figures = self._figures(self._hooks.features())
            if any(figures.values()):
                self.latest = figures
            self.drop()

    def drop(self) -> None:
        """Give up the open window, such as at a checkpoint, which can't hold half of one."""
        if self._hooks is not None:
            self._hooks.remove()
            self._withdrawals += self._hooks.withdrawn
        self._hooks, self._noise, self._steps = None, GradientNoise(), 0

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

    @property
    def unhooked(self) -> str:
        """Why some layers have no figures of their units; empty where all may have them."""
        if self._gave_up:
            return "torch.compile compiles what hooks were in, and would anew whenever they come"
        if self._closed:
            return f"torch.compile or torch.jit holds {', '.join(map(repr, self._closed))}"
        return ""

    @property
    def _gave_up(self) -> bool:
        # The first compilation may be that of what is known to be compiled, and has no hooks.
        return self._withdrawals > (1 if self._closed else 0)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The watched layers' weights by full name, as the module has them now."""
        names = {weight for weights in self._layers.values() for weight in weights}
        everything = self._module.named_parameters(remove_duplicate=False)
        return {name: parameter for name, parameter in everything if name in names}

    @torch.no_grad()
    def _figures(self, features: Mapping[str, Tensor]) -> Figures:
        ratios = {name: self._noise.ratio(weights) for name, weights in self._layers.items()}
        rows = {name: _single(held) for name, held in features.items()}
        return {
            "dormant": {name: dormant_share(held) for name, held in rows.items()},
            "srank": {name: float(effective_rank(held)) for name, held in rows.items()},
            "gradient_snr": {name: value for name, value in ratios.items() if value is not None},
        }


def _single(tensor: Tensor) -> Tensor:
    """Return a dense tensor in which sums over many elements mean something."""
    dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return dense.float() if dense.dtype in (torch.float16, torch.bfloat16) else dense


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device
