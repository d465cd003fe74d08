"""Fake quantisation against torch's own, which nobody here wrote."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)

from rayprune.pruning.quantisation.rounding import (
    range_grid,
    rounded,
    weight_grid,
    whole_numbers,
)


def torchs_weights(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return a weight as torch rounds it, and the gradient of its sum of squares."""
    most = 2 ** (bits - 1) - 1
    own = weight.clone().requires_grad_()
    fake = FakeQuantize(
        observer=PerChannelMinMaxObserver,
        quant_min=-most,
        quant_max=most,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    out = fake(own)
    out.square().sum().backward()
    assert own.grad is not None
    return out.detach(), own.grad


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(7, 12), (4, 3, 3, 3)])
def test_weights_are_rounded_as_torch_rounds_them(bits: int, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(bits))
    wanted, gradient = torchs_weights(weight, bits)
    own = weight.clone().requires_grad_()
    found = rounded(own, weight_grid(own, bits))
    found.square().sum().backward()
    # Torch has the step of half the range and we of the largest: a last bit may differ.
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(own.grad, gradient, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("bits", "low"), [(8, -0.7), (8, 0.0), (16, -3.0)])
def test_activations_are_rounded_as_torch_rounds_them(bits: int, low: float) -> None:
    values = torch.rand(64, 9, generator=torch.Generator().manual_seed(1)) * 2 + low
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    fake = FakeQuantize(
        observer=MovingAverageMinMaxObserver,
        quant_min=least,
        quant_max=most,
        dtype=torch.qint8 if bits == 8 else torch.qint32,
        qscheme=torch.per_tensor_affine,
    )
    fake(values)
    fake.disable_observer()  # type: ignore[no-untyped-call]
    beyond = (values * 1.3).requires_grad_()
    wanted = fake(beyond)
    wanted.sum().backward()
    gradient, beyond.grad = beyond.grad, None
    found = rounded(beyond, range_grid(values.amin(), values.amax(), bits))
    found.sum().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(beyond.grad, gradient)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_weight_is_its_whole_number_times_its_row_s_step(bits: int) -> None:
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(2))
    weight[1] = 0.0
    weight[:, ::3] = 0.0
    grid = weight_grid(weight, bits)
    whole = whole_numbers(weight, grid)
    assert torch.equal(whole * grid.step, rounded(weight, grid))
    assert whole.abs().max() == 2 ** (bits - 1) - 1
    assert not whole[:, ::3].any()
    assert not whole[1].any()


def test_two_bits_clip_what_is_far_out_and_keep_what_is_in_the_middle() -> None:
    weight = torch.tensor([[1.0, 1.0, -1.0, 5.0, 0.0]])  # of four that aren't zero the mean is 2
    assert rounded(weight, weight_grid(weight, 2)).tolist() == [[0.0, 0.0, -0.0, 4.0, 0.0]]


def test_nan_stays_nan_and_infinity_is_clipped() -> None:
    grid = range_grid(torch.tensor(-1.0), torch.tensor(1.0), 8)
    given = torch.tensor([float("nan"), float("inf"), -float("inf")])
    nan, high, low = rounded(given, grid).tolist()
    assert nan != nan
    assert 0.9 < high < 1.1
    assert -1.1 < low < -0.9
