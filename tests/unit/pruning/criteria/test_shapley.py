import itertools
import math

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.criteria.shapley import estimate_shapley
from rayprune.pruning.evidence.coalitions import (
    Coalitions,
    Shortcut,
    _running_product,
    _running_sum,
)
from rayprune.pruning.evidence.divergences import categorical_divergence, gaussian_divergence
from rayprune.pruning.evidence.objectives import Objective
from rayprune.pruning.evidence.reduce import SingleProcess
from rayprune.pruning.granularity.neuron import unit_parts
from rayprune.pruning.layers.attach import make_maskable
from rayprune.pruning.layers.prunable import PrunableLayer

UNITS = 8


def policy(**kind):
    return make_maskable(
        nn.Sequential(
            nn.Linear(3, UNITS), nn.Tanh(), nn.Linear(UNITS, 6), nn.ReLU(), nn.Linear(6, 4)
        )
    )


def no_loss(module, batch):
    raise AssertionError("the outputs and their divergence are to be used")


RICH = Objective(no_loss, no_loss, lambda m, x: m(x), categorical_divergence)


def plain_loss(module, x):
    return module(x).square().mean()


PLAIN = Objective.of(plain_loss)


def coalitions(module, batches, objective=RICH, name="0"):
    layer = PrunableLayer(name, module.get_submodule(name), "all")
    (part,) = unit_parts(layer.module, layer.parameters)
    return Coalitions(module, layer, part, batches, objective, SingleProcess())


def slow_value(module, alive, x, objective, name="0"):
    """Zero the rows of the others by hand and run the whole network."""
    layer = module.get_submodule(name)
    before = layer.weight.detach().clone()
    whole = module(x).detach()
    with torch.no_grad():
        layer.weight[~alive] = 0
        after = module(x)
        value = -plain_loss(module, x) if objective is PLAIN else None
        layer.weight.copy_(before)
    if value is not None:
        return float(value)
    p = torch.distributions.Categorical(logits=whole)
    return -float(
        torch.distributions.kl_divergence(p, torch.distributions.Categorical(logits=after)).mean()
    )


def brute_force(module, x, objective):
    """Sum over every coalition with its textbook weight: |S|! (n - |S| - 1)! / n!."""
    values = {
        members: slow_value(module, torch.tensor(members), x, objective)
        for members in itertools.product([False, True], repeat=UNITS)
    }
    shapley = []
    for unit in range(UNITS):
        total = 0.0
        for members, value in values.items():
            if not members[unit]:
                size = sum(members)
                joined = (*members[:unit], True, *members[unit + 1 :])
                weight = math.factorial(size) * math.factorial(UNITS - size - 1)
                total += weight / math.factorial(UNITS) * (values[joined] - value)
        shapley.append(total)
    gain = values[(True,) * UNITS] - values[(False,) * UNITS]
    return torch.tensor(shapley, dtype=torch.float64), gain


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("objective", [RICH, PLAIN], ids=["divergence", "loss"])
@pytest.mark.parametrize("minibatches", [1, 4, 600])
def test_sampled_values_are_brute_forces_within_monte_carlo_error(objective, minibatches):
    module, x = policy(), torch.randn(600, 3)[: 600 if minibatches == 600 else 40]
    exact, gain = brute_force(module, x, objective)
    permutations = 300 if objective is RICH else 60
    batches = x.split(len(x) // min(minibatches, 20 if minibatches == 600 else 4))
    found = estimate_shapley(
        coalitions(module, list(batches), objective), generator(), permutations
    )
    # Five standard errors, and what float32 can tell.
    error = (found.values - exact).abs()
    assert (error < 5 * found.standard_error + 1e-6).all()
    assert float(error.max()) < 0.2 * float(exact.abs().max())
    assert float(found.values.sum()) == pytest.approx(gain, rel=1e-4)


def test_values_sum_exactly_to_the_gain_however_few_the_orders():
    module, batches = policy(), list(torch.randn(40, 3).split(8))
    game = coalitions(module, batches)
    everyone = torch.ones(UNITS, dtype=torch.bool)
    gain = sum(game.value(everyone, b) - game.value(~everyone, b) for b in range(5)) / 5
    for permutations in (2, 4, 10, 64):
        values = estimate_shapley(game, generator(), permutations).values
        assert float(values.sum()) == pytest.approx(float(gain), rel=1e-4)


def test_the_shortcut_gives_what_the_whole_network_gives():
    module, x = policy(), torch.randn(30, 3)
    game = coalitions(module, [x])
    order = torch.randperm(UNITS)
    quick = game.prefixes(order, 0)
    assert isinstance(game._shortcuts[0], Shortcut)
    alive = torch.zeros(UNITS, dtype=torch.bool)
    for place in range(UNITS + 1):
        alive[order[:place]] = True
        assert float(quick[place]) == pytest.approx(slow_value(module, alive, x, RICH), abs=1e-6)


def test_both_ways_of_adding_units_up_agree():
    state, changes, columns = torch.randn(5, 7), torch.randn(9, 5), torch.randn(9, 7)
    slow, total = [], state.clone()
    for change, column in zip(changes, columns, strict=True):
        total = total + change[:, None] * column
        slow.append(total)
    for running in (_running_sum, _running_product):
        found = running(state, changes, columns)
        torch.testing.assert_close(found, torch.stack(slow, dim=1), rtol=1e-4, atol=1e-5)


class Residual(nn.Module):
    """The units go around their consumer, too: adding up columns would be wrong."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(UNITS, UNITS)
        self.mixer = nn.Linear(UNITS, UNITS)
        self.head = nn.Linear(UNITS, 4)

    def forward(self, x):
        hidden = torch.tanh(self.body(x))
        return self.head(hidden + self.mixer(hidden))


class Normalised(nn.Module):
    """The consumer sees each unit in relation to the others."""

    def __init__(self):
        super().__init__()
        self.body, self.norm = nn.Linear(UNITS, UNITS), nn.LayerNorm(UNITS)
        self.head = nn.Linear(UNITS, 4)

    def forward(self, x):
        return self.head(self.norm(self.body(x)))


@pytest.mark.parametrize("kind", [Residual, Normalised])
def test_where_units_take_other_ways_the_whole_network_is_run(kind):
    module, x = make_maskable(kind()), torch.randn(30, UNITS)
    game = coalitions(module, [x], name="body")
    order = torch.randperm(UNITS)
    values = game.prefixes(order, 0)
    assert game._shortcuts[0] is None
    alive = torch.zeros(UNITS, dtype=torch.bool)
    for place in range(UNITS + 1):
        alive[order[:place]] = True
        slow = slow_value(module, alive, x, RICH, name="body")
        assert float(values[place]) == pytest.approx(slow, abs=1e-6)


def test_the_agreement_of_the_halves_rises_with_the_orders():
    module, batches = policy(), [torch.randn(50, 3)]
    few = estimate_shapley(coalitions(module, batches), generator(3), 4)
    many = estimate_shapley(coalitions(module, batches), generator(3), 400)
    assert many.agreement > 0.9
    assert many.agreement >= few.agreement
    assert float(many.standard_error.mean()) < 0.3 * float(few.standard_error.mean())


@pytest.mark.parametrize("kind", ["mlp", "cnn", "lstm"])
def test_units_are_pruned_by_their_shapley_values_and_the_module_is_left_alone(kind):
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.body(x)[0])

    module, x = {
        "mlp": lambda: (policy(), torch.randn(20, 3)),
        "cnn": lambda: (
            nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)),
            torch.randn(5, 1, 4, 4),
        ),
        "lstm": lambda: (Sequence(), torch.randn(4, 6, 3)),
    }[kind]()
    config = PruningConfig(
        sparsity=0.5, criterion="shapley", granularity="neuron", evidence={"permutations": 4}
    )
    pruner = Pruner(module, config)
    before = {name: weight.detach().clone() for name, weight in pruner.parameters.items()}
    scores = pruner.scores(batch=x, loss=plain_loss)
    for name, weight in pruner.parameters.items():
        assert torch.equal(weight, before[name])
        assert scores[name].shape == weight.shape
    again = pruner.scores(batch=x, loss=plain_loss)
    assert all(torch.equal(score, again[name]) for name, score in scores.items())
    pruner.prune_to(batch=x, loss=plain_loss)
    assert 0.3 < pruner.sparsity() < 0.6


def test_divergences_are_torchs():
    reference, changed = torch.randn(6, 4), torch.randn(3, 6, 4)
    for ours, kind in (
        (categorical_divergence, lambda z: torch.distributions.Categorical(logits=z)),
        (
            gaussian_divergence,
            lambda z: torch.distributions.Independent(torch.distributions.Normal(z, 1.0), 1),
        ),
    ):
        theirs = torch.distributions.kl_divergence(kind(reference.expand(3, -1, -1)), kind(changed))
        torch.testing.assert_close(ours(reference, changed), theirs, rtol=1e-4, atol=1e-5)
