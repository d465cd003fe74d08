"""Layers whose forward rounds its weights and what it reads, for as long as they are told to.

They keep the parameters of torch's own, in full precision and under the same names: optimizers,
masks and target networks see no difference. A masked weight is zero, and zero is a point of every
grid. What they are told lies in buffers, and so goes where the weights go: to EnvRunners, into
checkpoints and target networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from rayprune.pruning.quantisation.rounding import Grid, range_grid, rounded, weight_grid

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

OFF, OBSERVING, FROZEN = 0, 1, 2
"""Phases: in full precision; rounded, in ranges that follow what comes; in ranges that stay."""
BUFFERS: Final = ("quantisation", "activation_range")
"""Names of what a layer holds beside torch's."""


class Precision(NamedTuple):
    """What a layer is told: what its buffers hold, as numbers."""

    phase: int = OFF
    weights: int = 8
    """Bits."""
    activations: int = 0
    """Bits; 0 for floating point."""
    grid: Grid | None = None
    """Of what it reads, where the layer is fixed; None where nothing was observed."""


class QuantisedLayer(nn.Module):
    """What quantised layers share: a mixin that stands before torch's class."""

    rounds: bool = True
    """Known by this name to those who must not know the class."""
    quantisation: Tensor
    """Phase, bits of weights, bits of activations; shape ``(3,)``."""
    activation_range: Tensor
    """The least and the largest value that it reads, running averages; shape ``(2,)``."""
    weight: Tensor
    follow: float = 0.01
    """The share of the newest range in the average."""
    fixed: Precision | None = None
    """In place of what the buffers hold: once nothing changes any more."""
    step: Tensor | None = None
    """Of each row's weights, where the layer is fixed; shape ``(out,)``."""

    def forward(self, given: Tensor) -> Tensor:
        """Compute what torch's layer does, of rounded numbers."""
        told = self.precision
        if told.phase == OFF:
            plain: Tensor = super().forward(given)
            return plain
        return self._computed(self._read(given, told), self._rounded_weight(told))

    def train(self, mode: bool = True) -> Self:
        """Look anew at weights and buffers: what was written through ``.data`` tells no version."""
        for name in ("_rounded", *(f"_{buffer}" for buffer in BUFFERS)):
            self.__dict__.pop(name, None)
        return super().train(mode)

    @property
    def precision(self) -> Precision:
        """What the layer is told, read from its buffer when that has changed."""
        if self.fixed is not None:
            return self.fixed
        told: Precision = self._known("quantisation", _told)
        return told

    @property
    def grid(self) -> Grid | None:
        """Where what it reads is rounded to, as numbers; None where nothing was observed yet."""
        told = self.precision
        if self.fixed is not None or not told.activations:
            return told.grid
        found: Grid | None = self._known("activation_range", _grid_of, told.activations)
        return found

    @property
    def observes(self) -> bool:
        """Whether a forward writes to the layer's ranges."""
        return self.training and self.precision.phase == OBSERVING

    @torch.no_grad()
    def tell(self, phase: int, weights: int, activations: int | None) -> bool:
        """Tell the layer what to do from now on.

        Args:
            phase: `OFF`, `OBSERVING` or `FROZEN`.
            weights: bits.
            activations: bits; None for floating point.

        Returns:
            Whether it computes otherwise from now on.
        """
        told, before = Precision(phase, weights, activations or 0), self.precision
        if told == before:
            return False
        self.quantisation.copy_(torch.tensor([float(number) for number in told[:3]]))
        return phase != OFF or before.phase != OFF

    def _rounded_weight(self, told: Precision) -> Tensor:
        weight = self.weight
        if self.fixed is not None:
            return weight  # on the grid already
        if self.training or torch.is_grad_enabled():
            return rounded(weight, weight_grid(weight, told.weights))
        # Who acts does so many times between two syncs.
        held, now = (
            self.__dict__.get("_rounded"),
            (weight._version, weight.data_ptr(), told.weights),
        )
        if held is None or held[0] is not weight or held[1] != now:
            made = rounded(weight, weight_grid(weight, told.weights))
            held = self.__dict__["_rounded"] = weight, now, made
        found: Tensor = held[2]
        return found

    def _computed(self, given: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _read(self, given: Tensor, told: Precision) -> Tensor:
        if not told.activations:
            return given
        if told.phase == OBSERVING and self.training:
            self._observe(given)
            low, high = self.activation_range.unbind()
            return rounded(given, range_grid(low, high, told.activations))
        grid = self.grid
        return given if grid is None else rounded(given, grid)

    @torch.no_grad()
    def _observe(self, given: Tensor) -> None:
        """Let the range follow what comes; the first that comes is the range."""
        found = torch.stack(torch.aminmax(given.detach()))
        is_new = (self.activation_range == 0).all()
        self.activation_range.lerp_(found, torch.where(is_new, 1.0, self.follow))

    def _known(self, name: str, read: Callable[..., Any], *more: int) -> Any:
        """Return what a buffer says, which is read once for each time that it was written."""
        buffer: Tensor = getattr(self, name)
        held = self.__dict__.get(f"_{name}")
        now = buffer._version, more
        if held is None or held[0] is not buffer or held[1] != now:
            # Whoever traces the forward wants the numbers, not how they were come by.
            with _disable_current_modes(), torch.no_grad():
                held = self.__dict__[f"_{name}"] = buffer, now, read(buffer, *more)
        return held[2]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # Weights from elsewhere are of full precision: the layer goes on as it was told.
        for name in BUFFERS:
            state_dict.setdefault(prefix + name, getattr(self, name).detach())
        super()._load_from_state_dict(state_dict, prefix, *args)


class QuantisedLinear(QuantisedLayer, nn.Linear):
    """A Linear that rounds."""

    def _computed(self, given: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.linear(given, weight, self.bias)


class _QuantisedConvolution(QuantisedLayer):
    bias: Tensor | None

    def _computed(self, given: Tensor, weight: Tensor) -> Tensor:
        made: Tensor = self._conv_forward(given, weight, self.bias)  # type: ignore[operator]
        return made


class QuantisedConv1d(_QuantisedConvolution, nn.Conv1d):
    """A Conv1d that rounds."""


class QuantisedConv2d(_QuantisedConvolution, nn.Conv2d):
    """A Conv2d that rounds."""


class QuantisedConv3d(_QuantisedConvolution, nn.Conv3d):
    """A Conv3d that rounds."""


QUANTISED: Final[Mapping[type[nn.Module], type[QuantisedLayer]]] = {
    nn.Linear: QuantisedLinear,
    nn.Conv1d: QuantisedConv1d,
    nn.Conv2d: QuantisedConv2d,
    nn.Conv3d: QuantisedConv3d,
}
"""torch's class -> the one that rounds."""


def _told(buffer: Tensor) -> Precision:
    # A target network's are averages of its source's and its own, to the last bit or so.
    phase, weights, activations = map(round, buffer.tolist())
    return Precision(phase, weights, activations)


def _grid_of(buffer: Tensor, bits: int) -> Grid | None:
    low, high = buffer.unbind()
    if not bool(buffer.any()):
        return None
    inverse, step, least, most = (float(part) for part in range_grid(low, high, bits)[:4])
    return Grid(inverse, step, least, most)
