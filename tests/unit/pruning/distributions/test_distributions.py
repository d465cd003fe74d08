import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune import PruningConfig
from rayprune.errors import ConfigError
from rayprune.pruning.distributions import DISTRIBUTIONS, Distribution, Shape, register_distribution
from rayprune.pruning.distributions.erk import erk
from rayprune.pruning.distributions.uniform import uniform


def shape(*dims):
    return Shape(dims, math.prod(dims))


def published_erk(dims_of, sparsity):
    """google-research/rigl's loop at a power scale of 1, with counts that aren't floored."""
    dense = set()
    while True:
        divisor = rhs = 0.0
        raw = {}
        for name, dims in dims_of.items():
            size = np.prod(dims)
            if name in dense:
                rhs -= size * sparsity
            else:
                rhs += size * (1 - sparsity)
                raw[name] = np.sum(dims) / np.prod(dims)
                divisor += raw[name] * size
        eps = rhs / divisor
        largest = max(raw.values())
        if largest * eps <= 1:
            return {n: 0.0 if n in dense else 1 - eps * raw[n] for n in dims_of}
        dense |= {name for name, value in raw.items() if value == largest}


MLP = {"first": (256, 4), "middle": (256, 256), "head": (2, 256)}
NATURE = {"c1": (32, 4, 8, 8), "c2": (64, 32, 4, 4), "c3": (64, 64, 3, 3), "fc": (512, 3136)}


def test_erk_by_hand_saturates_the_thin_layer():
    # kept 60 of 120; raw .2 and .6; scale 60 / (20 + 12) = 1.875, so thin (1.125) goes dense;
    # then wide keeps 40 of its 100.
    split = erk({"wide": shape(10, 10), "thin": shape(10, 2)}, 0.5)
    assert split == pytest.approx({"wide": 0.6, "thin": 0.0})


@pytest.mark.parametrize("dims_of", [MLP, NATURE])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99])
def test_erk_equals_the_published_loop_saturated_layers_too(dims_of, sparsity):
    ours = erk({name: shape(*dims) for name, dims in dims_of.items()}, sparsity)
    assert ours == pytest.approx(published_erk(dims_of, sparsity), abs=1e-12)


def test_the_cases_above_hold_saturated_layers_and_none():
    shapes = {name: shape(*dims) for name, dims in MLP.items()}
    dense = {s: [name for name, value in erk(shapes, s).items() if value == 0] for s in (0.9, 0.99)}
    assert dense == {0.9: ["first", "head"], 0.99: []}


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=2),
        st.lists(st.integers(1, 40), min_size=2, max_size=4),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 0.99),
)
def test_erk_and_uniform_meet_the_budget_around_protected_layers(dims_of, sparsity):
    shapes = {name: shape(*dims) for name, dims in dims_of.items()}
    total = sum(item.count for item in shapes.values())
    protected = frozenset(list(shapes)[:1]) if len(shapes) > 1 else frozenset()
    free = total - sum(shapes[name].count for name in protected)
    sparsity = min(sparsity, free / total)
    for function in (uniform, erk):
        split = function(shapes, sparsity, protected)
        pruned = sum(split[name] * shapes[name].count for name in shapes)
        assert pruned == pytest.approx(sparsity * total, rel=1e-9, abs=1e-9)
        assert all(0 <= value <= 1 + 1e-12 for value in split.values())
        assert all(split[name] == 0 for name in protected)


def test_uniform_gives_the_very_sparsity_when_nothing_is_protected():
    assert uniform({"a": shape(3, 7), "b": shape(5, 11)}, 0.7) == {"a": 0.7, "b": 0.7}


def test_a_distribution_is_registered_once():
    register_distribution(
        "tapered", lambda shapes, sparsity, protected: dict.fromkeys(shapes, sparsity)
    )
    assert "tapered" in DISTRIBUTIONS
    with pytest.raises(ConfigError, match="'tapered' exists already"):
        register_distribution("tapered", uniform)
    with pytest.raises(TypeError):
        DISTRIBUTIONS["mine"] = uniform


def test_a_distribution_that_gives_layers_one_target_goes_with_a_threshold():
    def halved(shapes, sparsity, protected):
        return dict.fromkeys(shapes, sparsity / 2)

    register_distribution("halved", halved)
    register_distribution("halved evenly", Distribution(halved, even=True))
    values = {"threshold": {"absolute": 0.1}}
    assert PruningConfig.faults_of({**values, "distribution": "halved evenly"}) == []
    (fault,) = PruningConfig.faults_of({**values, "distribution": "halved"})
    assert "must be 'uniform' or 'global' with a threshold" in fault
