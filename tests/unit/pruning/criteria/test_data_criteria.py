"""Criteria that need data, each against an oracle that nobody here wrote, or a slow loop."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mutual_info_score
from torch import nn

from rayprune import Pruner, PruningConfig, register_criterion
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.criteria.activation import wanda, wanda_rows
from rayprune.pruning.criteria.gradient import fisher, snip, taylor
from rayprune.pruning.criteria.information import (
    bin_indices,
    binned_information,
    gaussian_information,
)
from rayprune.pruning.evidence.objectives import Actions


def net(dtype=torch.float64):
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def loss(module, x):
    return (module(x) - x[:, :3]).square().sum(-1).mean()


def scored(criterion, module=None, batch=None, **config):
    module = net() if module is None else module
    batch = torch.randn(16, 4, dtype=torch.float64) if batch is None else batch
    pruner = Pruner(module, PruningConfig(sparsity=0.5, criterion=criterion, **config))
    return pruner, batch, pruner.scores(batch=batch, loss=loss)


def slope(module, weight, direction, batch, h=1e-6):
    """Central difference of the loss along a direction in one weight tensor."""
    with torch.no_grad():
        weight += h * direction
        above = loss(module, batch)
        weight -= 2 * h * direction
        below = loss(module, batch)
        weight += h * direction
    return float(above - below) / (2 * h)


@pytest.mark.parametrize(("criterion", "of"), [("snip", abs), ("taylor", lambda x: x**2)])
def test_first_order_criteria_equal_finite_differences(criterion, of):
    pruner, batch, scores = scored(criterion)
    for name, weight in pruner.parameters.items():
        for index in itertools.product(*map(range, weight.shape)):
            only = torch.zeros_like(weight)
            # Removing a weight moves it by -w along its own axis.
            only[index] = weight[index].detach()
            change = of(slope(pruner.module, weight, only, batch))
            assert float(scores[name][index]) == pytest.approx(change, rel=1e-5, abs=1e-9)


def test_a_units_taylor_score_is_the_square_of_the_change_of_removing_all_of_it():
    module = net()
    batch = torch.randn(16, 4, dtype=torch.float64)
    exact = []
    for unit in range(6):
        row = torch.zeros_like(module[0].weight)
        row[unit] = module[0].weight[unit].detach()
        exact.append(slope(module, module[0].weight, row, batch) ** 2)
    config = PruningConfig(
        criterion="taylor", granularity="neuron", distribution={"0": 0.5, "2": 0.0}
    )
    pruner = Pruner(module, config)
    pruner.prune_to(batch=batch, loss=loss)
    kept = pruner.masks["0.weight"].any(dim=1)
    lowest = sorted(range(6), key=lambda unit: exact[unit])[:3]
    assert sorted(torch.nonzero(~kept).flatten().tolist()) == sorted(lowest)
    # A pool of squares would have chosen others: it knows no cancellation.
    squares = taylor(module[0].weight, torch.ones(6, 4)).sum(1)
    assert squares.shape == (6,)


def test_hand_worked_scores():
    weight, gradient = torch.tensor([[2.0, -1.0]]), torch.tensor([[-0.5, 3.0]])
    assert snip(weight, gradient).tolist() == [[1.0, 3.0]]
    assert taylor(weight, gradient).tolist() == [[1.0, 9.0]]
    assert fisher(weight, torch.tensor([[1.0, 4.0]])).tolist() == [[2.0, 2.0]]
    assert wanda(torch.tensor([[2.0, -1.0], [0.5, 1.0]]), torch.tensor([[1.0, 3.0]])).tolist() == [
        [2.0, 3.0],
        [0.5, 3.0],
    ]


def test_wanda_equals_a_slow_loop():
    pruner, batch, scores = scored("wanda")
    hidden = torch.tanh(pruner.module[0](batch)).detach()
    for name, inputs in (("0.weight", batch), ("2.weight", hidden)):
        weight = pruner.parameters[name].detach()
        for i, j in itertools.product(*map(range, weight.shape)):
            norm = math.sqrt(sum(float(x) ** 2 for x in inputs[:, j]))
            assert float(scores[name][i, j]) == pytest.approx(abs(float(weight[i, j])) * norm)


def test_wanda_rows_prunes_every_row_alike_and_within_it_as_wanda_ranks():
    module, batch = net(), torch.randn(16, 4, dtype=torch.float64)
    pruner = Pruner(module, PruningConfig(sparsity=0.5, criterion="wanda_rows"))
    plain = Pruner(net(), PruningConfig(sparsity=0.5, criterion="wanda"))
    plain.module.load_state_dict(module.state_dict())
    ranked = plain.scores(batch=batch, loss=loss)
    pruner.prune_to(batch=batch, loss=loss)
    for name, mask in pruner.masks.items():
        for row, scores in zip(mask, ranked[name], strict=True):
            assert int(row.sum()) == len(row) // 2
            assert float(scores[row].min()) > float(scores[~row].max())


def test_wanda_rows_ties_go_to_the_lower_index():
    ranks = wanda_rows(torch.ones(1, 4), torch.ones(1, 4))
    assert ranks.tolist() == [[0.75, 0.5, 0.25, 0.0]]


@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0.05, 3.0))
def test_gaussian_information_has_the_closed_form_of_a_jointly_gaussian_pair(seed, size, noise):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(4000, size, generator=generator)
    mixing = torch.randn(size, generator=generator)
    x = y @ mixing + noise * torch.randn(4000, generator=generator)
    found = float(gaussian_information(x[:, None], Actions(y)))
    # From determinants of the sample covariance, as textbooks have it.
    joint = np.cov(np.column_stack([x, y]).T)
    exact = 0.5 * math.log(
        joint[0, 0] * np.linalg.det(np.atleast_2d(joint[1:, 1:])) / np.linalg.det(joint)
    )
    assert found == pytest.approx(exact, rel=1e-2, abs=1e-3)
    truth = 0.5 * math.log(1 + float(mixing.square().sum()) / noise**2)
    assert found == pytest.approx(truth, rel=0.1, abs=0.05)


def test_gaussian_information_of_a_constant_unit_is_zero_and_of_the_action_itself_is_finite():
    y = torch.randn(100, 1)
    x = torch.cat([torch.full((100, 1), 3.0), y, torch.randn(100, 1)], dim=1)
    dead, same, other = gaussian_information(x, Actions(y)).tolist()
    assert dead == 0.0
    assert 5 < same < 20
    assert 0 <= other < 0.1


def test_probabilities_that_sum_to_one_are_no_singular_case():
    p = torch.randn(500, 3).softmax(dim=1)
    x = torch.cat([p[:, :1] + 0.1 * torch.randn(500, 1), torch.randn(500, 1)], dim=1)
    found = gaussian_information(x, Actions(p, (3,)))
    without = gaussian_information(x, Actions(p[:, :2]))
    torch.testing.assert_close(found, without, rtol=1e-3, atol=1e-4)


def test_binned_information_equals_sklearns_mutual_information():
    x, y = torch.randn(600, 3), torch.randn(600, 2)
    x[:, 0] += y[:, 0]
    found = binned_information(x, Actions(y), bins=8)
    units, actions = bin_indices(x, 8).numpy(), bin_indices(y, 8).numpy()
    for unit in range(3):
        exact = sum(mutual_info_score(units[:, unit], actions[:, d]) for d in range(2))
        assert float(found[unit]) == pytest.approx(exact, rel=1e-5)


def test_binned_information_of_discrete_actions_weighs_by_their_probabilities():
    x, p = torch.randn(400, 2), torch.randn(400, 4).softmax(dim=1)
    found = binned_information(x, Actions(p, (4,)), bins=5)
    for unit in range(2):
        table = np.zeros((5, 4))
        for row, index in zip(p, bin_indices(x, 5)[:, unit], strict=True):
            table[index] += row.numpy()
        # sklearn takes whole counts only.
        exact = mutual_info_score(None, None, contingency=np.round(table * 1e6).astype(int))
        assert float(found[unit]) == pytest.approx(exact, rel=1e-4)


def test_binned_information_sees_what_no_correlation_shows():
    x = torch.linspace(-1, 1, 1001)[:, None]
    assert float(gaussian_information(x, Actions(x.square()))) == pytest.approx(0, abs=1e-4)
    assert float(binned_information(x, Actions(x.square()))) > 1.0


def test_binned_information_forgets_monotone_functions():
    x, y = torch.randn(300, 1), torch.randn(300, 1)
    same = binned_information(x, Actions(y)), binned_information(torch.exp(x), Actions(y))
    assert torch.equal(*same)


def test_information_gain_looks_behind_the_activation_function():
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        module[0].bias.copy_(torch.tensor([0.0, 0.0, -100.0]))
    config = PruningConfig(criterion="information_gain", granularity="neuron", sparsity=0.3)
    scores = Pruner(module, config).scores(batch=torch.randn(200, 2), loss=loss)
    # Before the ReLU the third unit varies with the input; behind it, it is dead.
    assert scores["0.weight"][2].tolist() == [0.0, 0.0]
    assert (scores["0.weight"][:2] > 0.01).all()


def test_information_gain_looks_behind_a_norm_too():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        module[1].bias[0] = -100.0  # unit 0 is zero in every state
    config = PruningConfig(
        sparsity=0.5, criterion="information_gain", granularity="neuron", protect=("3",)
    )
    scores = Pruner(module, config).scores(batch=torch.randn(512, 4), loss=loss)["0.weight"][:, 0]
    assert scores[0] == 0.0
    assert (scores[1:] > 0.001).all()


def test_mapped_batches_and_iterables_of_minibatches_will_do():
    module, x = net(), torch.randn(12, 4, dtype=torch.float64)

    def of_mapping(module, batch):
        return loss(module, batch["obs"])

    config = PruningConfig(sparsity=0.5, criterion="fisher")
    one = Pruner(module, config).scores(batch={"obs": x}, loss=of_mapping)
    many = Pruner(module, config).scores(batch=iter(x.split(4)), loss=loss)
    for name, score in one.items():
        torch.testing.assert_close(score, many[name])


def test_observations_and_minibatches_are_limits():
    calls = []

    def counting(module, x):
        calls.append(len(x))
        return loss(module, x)

    x = torch.randn(64, 4, dtype=torch.float64)
    config = PruningConfig(sparsity=0.5, criterion="snip", evidence={"observations": 20})
    pruner = Pruner(net(), config)
    pruner.scores(batch=x.split(8), loss=counting)
    assert calls == [8, 8]
    calls.clear()
    pruner.config = config.replace(evidence={"minibatches": 3})
    pruner.scores(batch=x.split(8), loss=counting)
    assert calls == [8, 8, 8]


def test_a_users_criterion_may_ask_for_any_input():
    register_criterion("flow", lambda weight, input_norm, gradient: weight * input_norm * gradient)
    register_criterion("spread", lambda activations: activations.std(dim=0))
    _, _, scores = scored("flow")
    assert scores["0.weight"].shape == (6, 4)
    _, _, units = scored("spread", granularity="neuron")
    assert units["0.weight"].shape == (6, 4)
    assert torch.equal(units["0.weight"][:, 0], units["0.weight"][:, 3])


@pytest.mark.parametrize("criterion", ["snip", "fisher", "wanda"])
def test_a_criterion_without_batches_says_which_arguments_to_give(criterion):
    pruner = Pruner(net(), PruningConfig(sparsity=0.5, criterion=criterion))
    with pytest.raises(InputError, match=r"batch=.*loss="):
        pruner.prune_to()
    assert pruner.sparsity() == 0


def test_a_layer_that_the_loss_never_uses_is_named():
    module = nn.ModuleDict({"used": nn.Linear(4, 2), "idle": nn.Linear(4, 2)})
    pruner = Pruner(module, PruningConfig(sparsity=0.5, criterion="taylor"))
    with pytest.raises(InputError, match=r"'idle\.weight'.*Protect"):
        pruner.prune_to(batch=torch.randn(3, 4), loss=lambda m, x: m["used"](x).mean())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"criterion": "shapley"}, "scores units, but `granularity` is 'weight'"),
        ({"criterion": "information_gain"}, "Set it to 'neuron'"),
        ({"evidence": {"estimator": "kraskov"}}, "must be one of ['binned', 'gaussian']"),
        ({"evidence": {"objective": "logprob"}}, "Did you mean 'log_prob'?"),
        ({"evidence": {"observation": 3}}, "Did you mean 'observations'?"),
        ({"evidence": {"observations": 0}}, "an integer of at least 1, but is 0"),
        ({"evidence": {"permutations": 7}}, "must be even"),
        ({"evidence": 4096}, "must be a mapping"),
        ({"criterion": "snip", "evidence": {"objective": "kl"}}, "no first-order term"),
        ({"criterion": "fisher", "evidence": {"objective": "loss"}}, "or the criterion 'taylor'"),
    ],
)
def test_each_fault_of_the_evidence_block_says_the_way_out(values, words):
    with pytest.raises(ConfigError) as error:
        PruningConfig(sparsity=0.5, **values)
    assert len(error.value.faults) == 1
    assert words in error.value.faults[0]


def test_keys_that_the_criterion_does_not_use_are_allowed():
    config = PruningConfig(sparsity=0.5, evidence={"estimator": "binned", "permutations": 8})
    assert config.evidence["observations"] == 4096
    assert PruningConfig.from_dict(config.to_dict()) == config


def test_spearman_is_scipys():
    from rayprune.pruning.criteria.shapley import spearman

    first, second = torch.randn(40), torch.randn(40)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
