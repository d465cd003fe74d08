"""Layer sparsities from tolerated losses, and their exact scaling to a target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.errors import ConfigError
from rayprune.pruning.distributions.from_sensitivity import overall, scaled_to, tolerated
from rayprune.pruning.masks.topk import kept_count


def test_the_limit_lies_where_the_loss_crosses_what_is_allowed():
    # From 2 at 0.8 to 42 at 0.9: a loss of 12 lies a quarter of the way.
    assert tolerated([(0.5, 1.0), (0.8, 2.0), (0.9, 42.0)], 12.0) == pytest.approx(0.825)


def test_a_gain_is_no_reason_to_prune_less():
    assert tolerated([(0.5, -30.0), (0.9, 10.0)], 10.0) == 0.9


def test_the_first_crossing_counts_even_if_the_loss_comes_back():
    assert tolerated([(0.5, 10.0), (0.9, 0.0)], 5.0) == 0.25


def test_a_loss_without_bound_gives_the_last_good_rung():
    assert tolerated([(0.5, 0.0), (0.8, float("inf"))], 1.0) == 0.5


def test_nothing_allowed_leaves_a_layer_that_loses_at_once_dense():
    assert tolerated([(0.5, 3.0)], 0.0) == 0.0


layers = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3),
    st.tuples(st.integers(2, 5000), st.floats(0, 0.999)),
    min_size=1,
    max_size=6,
)


@given(layers, st.floats(0, 0.98), st.integers(0, 2000))
def test_a_scaled_allocation_meets_its_target_to_the_weight(given_layers, target, rest):
    counts = {name: count for name, (count, _) in given_layers.items()}
    sparsities = {name: sparsity for name, (_, sparsity) in given_layers.items()}
    total = sum(counts.values()) + rest
    if round(target * total) > sum(count - 1 for count in counts.values()):
        with pytest.raises(ConfigError, match="at most"):
            scaled_to(sparsities, counts, target, rest)
        return
    found = scaled_to(sparsities, counts, target, rest)
    # By the masks' own rounding, which the pruner will do.
    pruned = sum(count - kept_count(count, found[name]) for name, count in counts.items())
    assert pruned == round(target * total)
    assert all(0 <= sparsity < 1 for sparsity in found.values())
    assert overall(found, counts, rest) == pruned / total


def test_shrinking_keeps_the_ratios_of_sparsities_and_growing_those_of_densities():
    counts = {"a": 1000, "b": 1000}
    lower = scaled_to({"a": 0.4, "b": 0.8}, counts, 0.3)
    assert lower["b"] == pytest.approx(2 * lower["a"], abs=2e-3)
    higher = scaled_to({"a": 0.4, "b": 0.8}, counts, 0.9)
    assert 1 - higher["a"] == pytest.approx(3 * (1 - higher["b"]), abs=4e-3)
