import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError, RunError
from rayprune.pruning.update.thresholds import threshold_of


def layer(*weights):
    module = nn.Linear(len(weights), 1, bias=False)
    module.weight.data = torch.tensor([weights])
    return module


def kept_of(module, **config):
    Pruner(module, PruningConfig(**config)).prune_to()
    return [round(weight, 4) for weight in module.weight.flatten().tolist() if weight]


def test_the_first_worked_example_of_the_spec_loses_two_weights():
    module = layer(0.5, 0.2, 0.3, 0.6, 0.1, 0.4)
    assert kept_of(module, threshold={"absolute": 0.25}) == [0.5, 0.3, 0.6, 0.4]


def test_the_second_worked_example_of_the_spec_keeps_three_weights():
    module = layer(1, 0.5, 0.2, 0.1, 0.3, -0.4, -0.6, -0.8)
    assert kept_of(module, threshold={"absolute": 0.5}) == [1.0, -0.6, -0.8]


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ({"percentile": 50}, [4.0, -5.0, 6.0]),
        ({"percentile": 1}, [2.0, 3.0, 4.0, -5.0, 6.0]),
        ({"mean_fraction": 1}, [4.0, -5.0, 6.0]),
        ({"mean_fraction": 2, "of_lowest": 50}, [-5.0, 6.0]),
    ],
)
def test_percentile_and_mean_by_hand(spec, kept):
    assert kept_of(layer(1.0, 2.0, 3.0, 4.0, -5.0, 6.0), threshold=spec) == kept


@given(st.lists(st.integers(0, 9), min_size=1, max_size=25), st.integers(1, 100))
def test_percentile_is_the_score_of_that_rank(values, percent):
    scores = [torch.tensor(values, dtype=torch.float32)]
    rank = -(-percent * len(values) // 100)
    assert threshold_of({"percentile": percent}, scores) == sorted(values)[rank - 1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=25), st.integers(1, 100))
def test_mean_of_the_lowest_is_the_mean_of_the_lowest(values, percent):
    scores = [torch.tensor(values[:3], dtype=torch.float32), torch.tensor(values[3:]).float()]
    count = -(-percent * len(values) // 100)
    expected = sum(sorted(values)[:count]) / count
    ours = threshold_of({"mean_fraction": 1.0, "of_lowest": percent}, scores)
    assert ours == pytest.approx(expected)


def test_the_scope_is_the_layer_or_under_global_the_module():
    for distribution, left in {"uniform": [1, 1], "global": [0, 2]}.items():
        module = nn.Sequential(layer(0.1, 0.2), layer(1.0, 2.0))
        config = PruningConfig(threshold={"percentile": 50}, distribution=distribution)
        Pruner(module, config).prune_to()
        assert [int(torch.count_nonzero(part.weight)) for part in module] == left


def test_repeating_a_threshold_settles():
    module = nn.Linear(40, 40)
    pruner = Pruner(module, PruningConfig(threshold={"mean_fraction": 0.8}))
    sparsities = [pruner.prune_to().sparsity for _ in range(4)]
    assert 0.2 < sparsities[0] < 0.6
    assert sparsities[0] == sparsities[-1]


def test_the_schedule_ramps_the_threshold():
    module = layer(*[i / 100 for i in range(1, 101)])
    config = PruningConfig(
        threshold={"absolute": 0.5},
        schedule={"kind": "linear", "begin": 0, "end": 100, "every": 10},
        horizon=100,
    )
    pruner = Pruner(module, config)
    assert [pruner.update(step).sparsity for step in (0, 50, 100)] == [0.0, 0.25, 0.5]
    assert pruner.update(500) is None
    pruner.config = config.replace(threshold={"absolute": 0.75})
    assert pruner.update(501).sparsity == 0.75


def test_a_threshold_over_every_score_is_an_error_that_names_the_largest():
    module = layer(0.5, 0.2)
    with pytest.raises(RunError, match=r"absolute.*group 'all'.*largest score is 0\.5"):
        Pruner(module, PruningConfig(threshold={"absolute": 3})).prune_to()
    assert torch.count_nonzero(module.weight) == 2


def test_prune_to_a_sparsity_overrides_a_threshold():
    pruner = Pruner(layer(1.0, 2.0, 3.0, 4.0), PruningConfig(threshold={"absolute": 3.5}))
    assert pruner.prune_to(0.25).sparsity == 0.25


def test_a_threshold_beside_a_sparsity_or_erk_is_refused():
    with pytest.raises(ConfigError) as caught:
        PruningConfig(sparsity=0.5, threshold={"absolute": 1}, distribution="erk")
    assert len(caught.value.faults) == 2
