"""Recorded operations give what they gave, for other values too, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune.rllib.learner.updates.programs import Program, program_of, same_tensors
from rayprune.rllib.learner.updates.recording import NotRecordable, record

WEIGHT = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))

BIAS = nn.Parameter(torch.ones(3))


def program(compute: Callable[[Tensor], list[Tensor | None]]) -> Program:
    given = torch.ones(2, 4)
    return program_of(record([given], lambda: compute(given)))


def check(compute: Callable[[Tensor], list[Tensor | None]]) -> None:
    made = program(compute)
    for seed in range(3):
        given = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        expected = compute(given)
        torch.manual_seed(seed)
        assert same_tensors(made([given]), expected)


def gradients(given: Tensor) -> list[Tensor | None]:
    WEIGHT.grad = None
    hidden = torch.tanh(nn.functional.linear(given, WEIGHT))
    (hidden.logsumexp(-1) * 1.0).mean().backward()
    return [WEIGHT.grad, None]


def in_place(given: Tensor) -> list[Tensor | None]:
    total = given * 2.0
    total[0] += 1.0
    view = total.view(-1)
    view.mul_(3.0)
    return [total, given.t() @ total]


def random(given: Tensor) -> list[Tensor | None]:
    return [given + torch.randn(2, 4), given * torch.rand(4)]


def twice(given: Tensor) -> list[Tensor | None]:
    one, other = torch.exp(given), torch.exp(given)
    other.add_(1.0)
    return [one, other, torch.exp(given).t().t()]


def encoded(given: Tensor) -> list[Tensor | None]:
    return [nn.functional.one_hot(given.abs().long() % 3, 3)]


def parted(given: Tensor) -> list[Tensor | None]:
    left, right = given.chunk(2, -1)
    best = right.max(dim=-1)
    return [left * right, best.values, best.indices]


def summed(given: Tensor) -> list[Tensor | None]:
    total, same = torch.tensor(1.0), torch.tensor(2.0)
    total += given.sum()
    return [total, given * same]


def with_numbers(given: Tensor) -> list[Tensor | None]:
    counts = given.abs().long()
    found = [given * 2, given * 0.1, given / 3.0, given + 0.1, given - 0.1, counts * 2, counts / 3]
    bounds = [given >= 0.3, given <= 0.3, given > 0.3, given < 0.3, given == 1.0, given != 1.0]
    return [*found, *bounds, given.pow(1.0) * 1.0, given.double() * 0.1]


def of_biases(given: Tensor) -> list[Tensor | None]:
    WEIGHT.grad = BIAS.grad = None
    (nn.functional.linear(given, WEIGHT, BIAS) ** 2).sum().backward()
    rows = given.sum(0, keepdim=True)
    return [BIAS.grad, rows.view(4), rows.view(2, 2), rows]


@pytest.mark.parametrize(
    "compute",
    [gradients, in_place, random, twice, encoded, parted, summed, with_numbers, of_biases],
)
def test_a_program_gives_what_was_computed(compute: Any) -> None:
    check(compute)


def test_a_program_reads_what_has_changed_in_place() -> None:
    made = program(gradients)
    with torch.no_grad():
        WEIGHT.mul_(2.0)
    assert same_tensors(made([torch.ones(2, 4)]), gradients(torch.ones(2, 4)))


def test_no_result_lies_in_another_s_memory() -> None:
    def shared(given: Tensor) -> list[Tensor | None]:
        total = given.sum(0)
        one, other = total.clone(), torch.empty_like(total)
        other.copy_(total)
        return [total, one, other]

    made: list[Any] = program(shared)([torch.ones(2, 4)])
    made[0].zero_()
    assert made[1].sum() == made[2].sum() == 8


def test_zeros_that_somebody_writes_to_are_made_anew() -> None:
    def zeros(given: Tensor) -> list[Tensor | None]:
        left = given.new_zeros(2, 4)
        return [torch.zeros(3), left.view(8), given + given.new_zeros(4)]

    made = program(zeros)
    for _ in range(2):
        found: list[Any] = made([torch.ones(2, 4)])
        assert same_tensors(found, zeros(torch.ones(2, 4)))
        for result in found:
            result.add_(1.0)


def test_what_is_drawn_for_nothing_is_drawn_all_the_same() -> None:
    def wasteful(given: Tensor) -> list[Tensor | None]:
        torch.rand(3)
        return [given * 2.0]

    made = program(wasteful)
    torch.manual_seed(0)
    made([torch.ones(2, 4)])
    found = torch.get_rng_state()
    torch.manual_seed(0)
    wasteful(torch.ones(2, 4))
    assert torch.equal(found, torch.get_rng_state())


def test_nan_is_the_same_as_nan() -> None:
    one, other = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")])
    assert same_tensors([one], [other])
    assert not same_tensors([one], [torch.tensor([float("nan"), 1.0])])


def by_value(given: Tensor) -> list[Tensor | None]:
    return [given if given.sum() > 0 else -given]


def picked(given: Tensor) -> list[Tensor | None]:
    return [given[given > 0].sum()]


def kept(given: Tensor) -> list[Tensor | None]:
    with torch.no_grad():
        WEIGHT.add_(given.sum())
    return [given]


@pytest.mark.parametrize(
    ("compute", "why"), [(by_value, "values"), (picked, "values"), (kept, "there before")]
)
def test_what_would_not_be_done_alike_again_is_refused(compute: Any, why: str) -> None:
    with pytest.raises(NotRecordable, match=why):
        program(compute)
