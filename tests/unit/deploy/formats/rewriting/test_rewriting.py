"""Rewritten graphs compute what the captured ones do, of other operators."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rayprune.deploy.formats.rewriting import narrow_filters
from rayprune.deploy.formats.rewriting.batch_norms import fold_batch_norms
from rayprune.deploy.formats.rewriting.channels_last import read_as_it_lies
from rayprune.deploy.formats.rewriting.direct_actions import compute_action_directly
from rayprune.deploy.formats.rewriting.graphs import Rewrite, rewritten
from rayprune.deploy.formats.rewriting.narrow_filters import fill_registers
from rayprune.deploy.policy.actions import Aim, Decide, Unsquash
from rayprune.deploy.policy.capture import quiet


def captured_of(module: nn.Module, *inputs: Tensor, batch: bool = True) -> ExportedProgram:
    shapes = tuple({0: Dim("batch")} for _ in inputs) if batch else None
    with quiet(), torch.no_grad():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)


def operators(program: ExportedProgram) -> list[str]:
    names = (str(node.target) for node in program.graph.nodes if node.op == "call_function")
    return [name.split(".")[1] for name in names if name.startswith("aten")]


def unchanged_by(rewrite: Rewrite, module: nn.Module, *inputs: Tensor) -> bool:
    captured = captured_of(module, *inputs)
    return rewritten(captured, rewrite) is captured


def assert_same(module: nn.Module, program: ExportedProgram, *inputs: Tensor) -> None:
    for batch in (1, 4):
        given = [
            x[:1].expand(batch, *x.shape[1:]) + torch.randn(batch, *x.shape[1:]) for x in inputs
        ]
        expected, found = module(*given), program.module()(*given)
        for one, other in zip(_several(expected), _several(found), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def _several(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def normalising(*layers: nn.Module) -> nn.Module:
    module = nn.Sequential(*layers).double().eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return module


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (normalising(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)), torch.zeros(3, 3)),
        (normalising(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2)), torch.zeros(3, 3)),
        (normalising(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)), torch.zeros(3, 2, 5, 5)),
        (normalising(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3)), torch.zeros(3, 2, 5, 5)),
        (normalising(nn.Conv1d(2, 4, 3, groups=2), nn.BatchNorm1d(4)), torch.zeros(3, 2, 5)),
    ],
    ids=["behind", "before", "padded", "image", "grouped"],
)
def test_a_batch_norm_becomes_part_of_the_layer_beside_it(module, x):
    captured = captured_of(module, x.double())
    program = rewritten(captured, fold_batch_norms)
    assert len(operators(program)) == 1
    assert_same(module, program, x.double())


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (normalising(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3, padding=1)), torch.zeros(3, 2, 5, 5)),
        (normalising(nn.Linear(3, 4), nn.BatchNorm1d(6)), torch.zeros(3, 6, 3)),
        (normalising(nn.Tanh(), nn.BatchNorm1d(3), nn.Tanh()), torch.zeros(3, 3)),
    ],
    ids=["zeros around", "other axis", "no layer"],
)
def test_a_batch_norm_stays_where_no_layer_could_do_it(module, x):
    assert unchanged_by(fold_batch_norms, module, x.double())


class Seeing(nn.Module):
    """A convolution of a channels-last image, padded first or not."""

    def __init__(self, conv: nn.Module, pad: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.pad = conv, pad or nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.pad(image.permute(0, 3, 1, 2)))


@settings(deadline=None, max_examples=25)
@given(
    channels=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    rows_apart=st.integers(1, 2),
    sides=st.sampled_from([None, (1, 2), (0, 3, 2, 1)]),
    bias=st.booleans(),
)
def test_an_image_is_read_as_it_lies(channels, kernel, stride, padding, rows_apart, sides, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 3, kernel, stride, padding, (rows_apart, 1), bias=bias)
    module = Seeing(conv, sides and nn.ConstantPad2d(sides, 0.5)).double()
    image = torch.randn(3, 9, 8, channels, dtype=torch.float64)
    captured = captured_of(module, image)
    plain = rewritten(captured, read_as_it_lies)
    assert "permute" in operators(captured)
    assert "permute" not in operators(plain)
    assert_same(module, plain, image)


def test_one_number_may_be_the_stride_of_both_axes():
    class Striding(Seeing):
        def forward(self, image: Tensor) -> Tensor:
            first = image.permute(0, 3, 1, 2)
            return nn.functional.conv2d(first, self.conv.weight, stride=(2,))

    module = Striding(nn.Conv2d(2, 4, 2)).double()
    image = torch.randn(3, 6, 6, 2, dtype=torch.float64)
    plain = rewritten(captured_of(module, image), read_as_it_lies)
    assert "permute" not in operators(plain)
    assert_same(module, plain, image)


@pytest.mark.parametrize(
    ("module", "channels"),
    [
        (Seeing(nn.Conv2d(4, 4, 2, groups=2)), 4),
        (Seeing(nn.Conv2d(2, 4, 2, dilation=(1, 2))), 2),
        (Seeing(nn.Conv2d(2, 4, 2), nn.ReflectionPad2d(1)), 2),
        (Seeing(nn.Conv2d(2, 4, 2), nn.ReLU()), 2),
    ],
)
def test_groups_columns_apart_mirrors_and_other_operators_between_stay(module, channels):
    assert unchanged_by(read_as_it_lies, module, torch.randn(3, 6, 6, channels))


@pytest.mark.parametrize("bias", [True, False])
def test_an_image_that_is_put_channels_last_again_is_flattened_as_it_lies(bias):
    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(2, 3, 2), nn.Linear(3 * 4 * 5, 2, bias=bias)

        def forward(self, image: Tensor) -> Tensor:
            return self.out(torch.relu(self.conv(image)).permute(0, 2, 3, 1).flatten(1))

    module = Flattening().double()
    image = torch.randn(3, 2, 5, 6, dtype=torch.float64)
    plain = rewritten(captured_of(module, image), read_as_it_lies)
    assert "permute" not in operators(plain)
    assert_same(module, plain, image)


@pytest.mark.parametrize(("axes", "first"), [((0, 3, 2, 1), 1), ((0, 2, 3, 1), 2)])
def test_other_orders_and_other_flattenings_stay(axes, first):
    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(60 if first == 1 else 12, 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.out(image.permute(*axes).flatten(first))

    assert unchanged_by(read_as_it_lies, Flattening(), torch.randn(3, 3, 5, 4))


def test_many_channels_stay():
    module = Seeing(nn.Conv2d(33, 4, 2))
    assert unchanged_by(read_as_it_lies, module, torch.randn(3, 6, 6, 33))


def test_a_view_of_what_lies_in_another_order_then_is_still_taken():
    class Viewing(Seeing):
        def forward(self, image: Tensor) -> Tensor:
            seen = super().forward(image).permute(0, 2, 3, 1)
            return seen.view(seen.shape[0], -1)

    module = Viewing(nn.Conv2d(2, 4, 2)).double()
    image = torch.randn(3, 6, 6, 2, dtype=torch.float64)
    plain = rewritten(captured_of(module, image), read_as_it_lies)
    assert operators(plain).count("permute") == 1
    assert_same(module, plain, image)


def test_another_permutation_stays():
    class Turned(Seeing):
        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image.permute(0, 3, 2, 1))

    assert unchanged_by(read_as_it_lies, Turned(nn.Conv2d(2, 4, 2)), torch.randn(3, 6, 6, 2))


def test_a_fixed_batch_size_stays_fixed():
    captured = captured_of(Seeing(nn.Conv2d(2, 4, 2)), torch.randn(1, 6, 6, 2), batch=False)
    plain = rewritten(captured, read_as_it_lies)
    assert plain is not captured
    assert plain.example_inputs[0][0].shape == (1, 6, 6, 2)
    assert not plain.range_constraints


@settings(deadline=None, max_examples=25)
@given(
    filters=st.integers(1, 4),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    steps=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    along=st.sampled_from([0, 1]),
    padding=st.integers(0, 2),
    rest=st.integers(0, 3),
    bias=st.booleans(),
)
def test_two_halves_of_each_kernel_add_up(filters, stride, steps, along, padding, rest, bias):
    torch.manual_seed(0)
    kernel = [3, 3]
    # An odd kernel has no halves: only one of its axes is even.
    kernel[along] = 2 * stride[along] * steps[along]
    size = [k + 2 * s + rest for k, s in zip(kernel, stride, strict=True)]
    conv = nn.Conv2d(2, filters, tuple(kernel), stride, padding, bias=bias).double()
    image = torch.randn(3, 2, *size, dtype=torch.float64)
    captured = captured_of(conv, image)
    with patch.object(narrow_filters, "_LEAST_GAIN", -1e9):
        halved = rewritten(captured, fill_registers(8))
    assert operators(halved).count("conv2d") == 2
    assert_same(conv, halved, image)


@pytest.mark.parametrize(
    ("conv", "size", "halved"),
    [
        (nn.Conv2d(4, 8, 8, 4), 84, True),
        (nn.Conv2d(4, 9, 8, 4), 84, False),  # more than half of a register's 16
        (nn.Conv2d(4, 8, 8, 4), 24, False),  # too few places
        (nn.Conv2d(2, 8, 4, 2), 84, False),  # too small a kernel
        (nn.Conv2d(4, 8, 7, 4), 84, False),  # halves that are no whole steps apart
        (nn.Conv2d(4, 8, 8, 4, dilation=2), 84, False),
        (nn.Conv2d(8, 8, 8, 4, groups=2), 84, False),
    ],
)
def test_kernels_are_halved_where_registers_would_stay_empty(conv, size, halved):
    image = torch.randn(3, conv.in_channels, size, size)
    assert unchanged_by(fill_registers(16), conv, image) is not halved
    assert unchanged_by(fill_registers(8), conv, image)


class Acting(nn.Module):
    """A Gaussian policy; its log-stds are outputs, or parameters of their own."""

    def __init__(self, low: Tensor, high: Tensor, *, free: bool = False, bias: bool = True) -> None:
        super().__init__()
        size = len(low)
        self.out = nn.Linear(5, size if free else 2 * size, bias=bias)
        self.log_std = nn.Parameter(torch.randn(size)) if free else None
        self.decide = Decide(Aim(), Unsquash(low, high))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        dist_inputs = self.out(features)
        if self.log_std is not None:
            free = self.log_std.unsqueeze(0).expand(features.shape[0], -1)
            dist_inputs = torch.cat([dist_inputs, free], dim=-1)
        return self.decide(dist_inputs), dist_inputs


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_an_action_within_bounds_is_rows_of_the_last_linear(free, bias):
    torch.manual_seed(0)
    low, high = torch.tensor([-0.4, 0.0, -3.0]), torch.tensor([0.4, 2.0, 1.5])
    module = Acting(low, high, free=free, bias=bias).double()
    features = torch.randn(3, 5, dtype=torch.float64)
    direct = rewritten(captured_of(module, features), compute_action_directly)
    found = operators(direct)
    assert found.count("linear") == 1
    assert not {"add", "mul", "chunk"} & set(found)
    assert_same(module, direct, features)
    action = module(torch.randn(200, 5).double())[0].float()
    assert ((action > low) & (action < high)).any(dim=0).all(), "not only the bounds are compared"


def test_means_in_a_chunk_of_a_join_of_chunks_are_found():
    class Clamping(Acting):
        """As RLlib's default heads do, whose means come first."""

        def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
            log_std, mean = self.out(features).chunk(2, dim=-1)
            dist_inputs = torch.cat([mean, log_std.clamp(-2.0, 2.0)], dim=-1)
            return self.decide(dist_inputs), dist_inputs

    torch.manual_seed(0)
    module = Clamping(torch.zeros(3), torch.full((3,), 4.0)).double()
    features = torch.randn(3, 5, dtype=torch.float64)
    direct = rewritten(captured_of(module, features), compute_action_directly)
    assert not {"add", "mul"} & set(operators(direct))
    assert_same(module, direct, features)


def test_rows_that_are_too_many_or_too_large_are_not_added():
    wide = Acting(torch.zeros(2000), torch.ones(2000))
    assert unchanged_by(compute_action_directly, wide, torch.randn(3, 5))
    huge = Acting(torch.tensor([-3e38]), torch.tensor([3e38]))
    assert unchanged_by(compute_action_directly, huge, torch.randn(3, 5))


def test_between_minus_one_and_one_nothing_is_scaled():
    torch.manual_seed(0)
    module = Acting(-torch.ones(3), torch.ones(3)).double()
    features = torch.randn(3, 5, dtype=torch.float64)
    direct = rewritten(captured_of(module, features), compute_action_directly)
    assert operators(direct) == ["linear", "chunk", "clamp"]
    assert_same(module, direct, features)


def test_an_action_that_no_linear_gives_stays():
    class Squashed(Acting):
        def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
            dist_inputs = torch.tanh(self.out(features))
            return self.decide(dist_inputs), dist_inputs

    module = Squashed(torch.zeros(3), torch.ones(3))
    assert unchanged_by(compute_action_directly, module, torch.randn(3, 5))
    discrete = nn.Sequential(nn.Linear(5, 3), nn.Softmax(dim=-1))

    class Choosing(nn.Module):
        def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
            logits = discrete[0](features)
            return logits.argmax(dim=-1), logits

    assert unchanged_by(compute_action_directly, Choosing(), torch.randn(3, 5))
