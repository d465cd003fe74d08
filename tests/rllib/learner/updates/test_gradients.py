"""Gradients are clipped to the bit as RLlib clips them, and looked at once."""

from __future__ import annotations

import pytest
import torch
from ray.rllib.utils.torch_utils import clip_gradients
from torch import Tensor

from rayprune.rllib.learner.updates.gradients import all_finite, clip_by_global_norm


def gradients_of(norm: float) -> list[Tensor]:
    drawn = [
        torch.randn(shape, generator=torch.Generator().manual_seed(5)) for shape in (7, (3, 4))
    ]
    length = torch.norm(torch.stack([torch.norm(each) for each in drawn]))
    return [each * (norm / length) for each in drawn]


# RLlib multiplies by 1 / 49 * 49, which is less than one.
@pytest.mark.parametrize("limit", [49.0, 40, 0.5, 1e-7])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9999999, 1.0, 1.0001, 7.0])
def test_they_are_clipped_as_rllib_clips_them(limit: float, share: float) -> None:
    theirs, ours = gradients_of(share * limit), gradients_of(share * limit)
    norm = clip_gradients(dict(enumerate(theirs)), grad_clip=limit, grad_clip_by="global_norm")
    clipped = clip_by_global_norm(ours, limit)
    assert clipped.were_finite
    assert torch.equal(clipped.norm, norm)
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e30])
def test_so_they_are_where_a_norm_is_no_number(value: float) -> None:
    theirs, ours = gradients_of(2.0), gradients_of(2.0)
    theirs[1][0, 1] = ours[1][0, 1] = value
    norm = clip_gradients(dict(enumerate(theirs)), grad_clip=0.5, grad_clip_by="global_norm")
    clipped = clip_by_global_norm(ours, 0.5)
    assert not clipped.were_finite
    assert torch.equal(clipped.norm, norm)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e30])
def test_one_that_is_no_number_is_found_among_many(value: float) -> None:
    gradients = gradients_of(2.0)
    assert all_finite(gradients)
    assert all_finite([])
    gradients[0][6] = value  # of the last one the square is no float
    assert not all_finite(gradients)
