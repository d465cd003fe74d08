import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.errors import NonFiniteError
from rayprune.pruning.masks import topk as masks
from rayprune.pruning.masks.topk import find_cut, keep_above, keep_top, kept_count


def by_argsort(scores, keep, live=None):
    """Keep by a stable argsort: the slow and obvious way."""
    flat = np.concatenate([score.double().numpy().ravel() for score in scores])
    order = np.argsort(-flat, kind="stable")
    if live is not None:
        alive = np.concatenate([mask.numpy().ravel() for mask in live])
        order = order[alive[order]]
    chosen = np.zeros(len(flat), dtype=bool)
    chosen[order[: max(keep, 0)]] = True
    pieces = np.split(chosen, np.cumsum([score.numel() for score in scores])[:-1])
    return [
        torch.from_numpy(piece).view(score.shape)
        for piece, score in zip(pieces, scores, strict=True)
    ]


def assert_same(ours, theirs):
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_hand_worked_case_keeps_the_two_largest():
    (mask,) = keep_top([torch.tensor([0.1, 0.9, -0.2, 0.5])], keep=2)
    assert mask.tolist() == [False, True, False, True]


def test_ties_go_to_the_lower_index_across_tensors():
    first, second = keep_top([torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 1.0]])], keep=3)
    assert first.tolist() == [True, True]
    assert second.tolist() == [[True, False]]


def test_zeros_of_both_signs_tie():
    (mask,) = keep_top([torch.tensor([-0.0, 0.0, -0.0, 0.0])], keep=2)
    assert mask.tolist() == [True, True, False, False]


@pytest.mark.parametrize("keep", [-3, 0, 4, 99])
def test_keep_is_clipped_to_what_there_is(keep):
    (mask,) = keep_top([torch.ones(4)], keep)
    assert int(mask.sum()) == min(max(keep, 0), 4)


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_nan_is_refused_by_name_wherever_it_stands(keep):
    scores = [torch.tensor([1.0]), torch.tensor([math.nan, 5.0])]
    with pytest.raises(NonFiniteError, match=r"'fc\.weight'"):
        keep_top(scores, keep, names=["conv.weight", "fc.weight"])


def test_infinities_rank_at_the_ends():
    score = torch.tensor([-math.inf, 3.0, math.inf, -math.inf])
    assert keep_top([score], 1)[0].tolist() == [False, False, True, False]
    assert keep_top([score], 3)[0].tolist() == [True, True, True, False]


def test_what_is_not_live_is_never_kept_even_when_it_scores_best():
    score, live = torch.tensor([9.0, 1.0, -math.inf]), torch.tensor([False, True, True])
    assert keep_top([score], 2, live=[live])[0].tolist() == [False, True, True]
    assert keep_top([score], 3, live=[live])[0].tolist() == [False, True, True]


@pytest.mark.parametrize(("total", "sparsity", "kept"), [(10, 0.5, 5), (7, 0.9, 1), (3, 0.5, 1)])
def test_kept_count_rounds_the_pruned_number(total, sparsity, kept):
    assert kept_count(total, sparsity) == kept == total - round(sparsity * total)


# Few distinct values, so that most draws hold ties.
VALUES = st.sampled_from([-math.inf, -2.5, -0.0, 0.0, 1e-40, 0.5, 1.0, 3.0, math.inf])


@given(
    st.lists(st.lists(VALUES, max_size=12), min_size=1, max_size=4),
    st.integers(-1, 40),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    st.data(),
)
def test_keep_top_equals_a_stable_argsort(lists, keep, dtype, data):
    scores = [torch.tensor(values, dtype=dtype) for values in lists]
    assert_same(keep_top(scores, keep), by_argsort(scores, keep))
    flags = st.booleans()
    live = [torch.tensor([data.draw(flags) for _ in values], dtype=torch.bool) for values in lists]
    assert_same(keep_top(scores, keep, live=live), by_argsort(scores, keep, live))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["normal", "ties", "one value", "sorted"])
@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.999])
def test_keep_top_breaks_ties_by_index_at_any_size(monkeypatch, dtype, kind, share):
    # Small enough to cross chunks, and to take the way of a sample, in little time.
    monkeypatch.setattr(masks, "CPU_CHUNK", 1 << 12)
    monkeypatch.setattr(masks, "NARROW_FROM", 1 << 14)
    monkeypatch.setattr(masks, "SAMPLE", 1 << 9)
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(40_000, generator=generator)
    flat = {
        "normal": normal,
        "ties": (normal * 4).round(),
        "one value": torch.ones(40_000),
        "sorted": normal.sort().values,
    }[kind].to(dtype)
    scores = [flat[:10_000].view(100, 100), flat[10_000:]]
    keep = round(share * 40_000)
    assert_same(keep_top(scores, keep), by_argsort(scores, keep))
    live = [torch.rand(score.shape, generator=generator) < 0.6 for score in scores]
    keep = round(share * sum(int(mask.sum()) for mask in live))
    assert_same(keep_top(scores, keep, live=live), by_argsort(scores, keep, live))


def test_keep_top_is_exact_over_millions_of_scores():
    scores = [
        torch.randn(1500, 1000, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    ]
    assert sum(score.numel() for score in scores) > masks.NARROW_FROM
    assert_same(keep_top(scores, 300_001), by_argsort(scores, 300_001))


@pytest.mark.parametrize("bracket", [(100.0, 200.0), (-200.0, -100.0), (-0.1, 0.1)])
def test_a_sample_that_misleads_costs_no_exactness(monkeypatch, bracket):
    monkeypatch.setattr(masks, "NARROW_FROM", 1)
    monkeypatch.setattr(masks, "_bracket", lambda *_: bracket)
    scores = [torch.randn(1000, generator=torch.Generator().manual_seed(0))]
    assert_same(keep_top(scores, 70), by_argsort(scores, 70))


def test_a_float64_difference_below_float32_still_ranks():
    score = torch.tensor([1.0, 1.0 + 1e-12, 1.0 - 1e-12], dtype=torch.float64)
    assert keep_top([score], 1)[0].tolist() == [False, True, False]


def test_scores_made_in_pieces_give_the_same_cut():
    weight = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    cut = find_cut([weight], 90, transform=torch.abs)
    assert cut == find_cut([weight.abs()], 90)
    mask, _ = keep_above(weight, cut, cut.ties, transform=torch.abs)
    assert_same([mask], by_argsort([weight.abs()], 90))


@given(st.lists(VALUES, min_size=1, max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_masks_nest_as_fewer_are_kept(values, one, other):
    score = torch.tensor(values)
    (few,), (many,) = keep_top([score], min(one, other)), keep_top([score], max(one, other))
    assert not bool((few & ~many).any())


@settings(max_examples=30)
@given(st.integers(1, 400), st.floats(0, 0.999))
def test_kept_counts_are_exact(total, sparsity):
    keep = kept_count(total, sparsity)
    (mask,) = keep_top([torch.zeros(total)], keep)
    assert int(mask.sum()) == total - round(sparsity * total)
