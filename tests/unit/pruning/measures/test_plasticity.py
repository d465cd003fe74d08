"""Dormant units, effective rank and gradient noise, against slow or foreign ways to the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune.pruning.measures.activity_hooks import STATES, ActivityHooks, rows_of
from rayprune.pruning.measures.plasticity import (
    WINDOW,
    GradientNoise,
    Plasticity,
    dormant_share,
    effective_rank,
)


def test_a_unit_is_dormant_at_a_fortieth_of_its_layers_mean_activity():
    activity = torch.tensor([[0.0, 0.02, 0.03, 3.95]])  # the mean is 1
    assert dormant_share(activity) == 0.5


def test_a_silent_layer_is_all_dormant_and_of_rank_nought():
    assert dormant_share(torch.zeros(5, 3)) == 1.0
    assert effective_rank(torch.zeros(5, 3)) == 0


def slow_dormant(rows, tau):
    scores = [sum(abs(row[unit]) for row in rows) / len(rows) for unit in range(len(rows[0]))]
    mean = sum(scores) / len(scores)
    return sum(score <= tau * mean for score in scores) / len(scores)


@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 100))
def test_dormant_is_what_a_slow_loop_counts(states, units, seed):
    chance = torch.Generator().manual_seed(seed)
    rows = torch.randn(states, units, generator=chance, dtype=torch.float64).relu()
    assert dormant_share(rows, tau=0.3) == pytest.approx(slow_dormant(rows.tolist(), 0.3))


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
def test_the_effective_rank_is_numpys(states, units, rank, seed):
    chance = np.random.default_rng(seed)
    features = chance.normal(size=(states, rank)) @ chance.normal(size=(rank, units))
    values = np.linalg.svd(features, compute_uv=False)
    shares = np.cumsum(values) / values.sum()
    expected = int(np.argmax(shares >= 0.99)) + 1
    assert effective_rank(torch.as_tensor(features)) == expected


def test_the_streamed_ratio_is_that_of_all_minibatch_gradients_together():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    data, goals = torch.randn(12, 8, 4), torch.randn(12, 8, 1)
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters, x, y):
        return (torch.func.functional_call(net, parameters, (x,)) - y).square().mean()

    # The oracle: every minibatch's gradient at once, kept whole.
    all_gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, data, goals)
    noise = GradientNoise()
    for x, y in zip(data, goals, strict=True):
        net.zero_grad()
        (net(x) - y).square().mean().backward()
        noise.add({name: p.grad for name, p in net.named_parameters()})
    for names in (["0.weight"], ["0.weight", "2.weight", "2.bias"]):
        stacked = torch.cat([all_gradients[name].flatten(1) for name in names], 1)
        expected = stacked.mean(0).norm() / stacked.var(0).sum().sqrt()
        assert noise.ratio(names) == pytest.approx(float(expected), rel=1e-4)


def test_noise_alone_gives_one_over_the_root_of_the_steps():
    torch.manual_seed(0)
    noise = GradientNoise()
    for _ in range(25):
        noise.add({"w": torch.randn(20_000)})
    assert noise.ratio(["w"]) == pytest.approx(0.2, rel=0.05)


def test_one_step_or_no_gradient_has_no_ratio():
    noise = GradientNoise()
    noise.add({"w": torch.ones(3)})
    assert noise.ratio(["w"]) is None
    noise.add({"w": torch.ones(3)})
    assert noise.ratio(["w"]) is None
    assert noise.ratio(["other"]) is None


def test_a_masked_weight_changes_no_ratio():
    whole, part = GradientNoise(), GradientNoise()
    for step in range(4):
        gradient = torch.tensor([1.0 + step, -2.0])
        whole.add({"w": torch.cat([gradient, torch.zeros(3)])})
        part.add({"w": gradient})
    assert whole.ratio(["w"]) == part.ratio(["w"])


def test_hooks_keep_what_comes_after_the_nonlinearity():
    net = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 2))
    hooks = ActivityHooks(net, {"0": net[0], "3": net[3]})
    x = torch.randn(7, 3)
    net(x)
    hooks.end_step()
    features = hooks.features()
    assert torch.equal(features["0"], net[:3](x).detach())
    assert torch.equal(features["3"], net(x).detach())
    hooks.remove()
    assert not any(part._forward_hooks for part in net.modules())


def test_hooks_pass_over_forwards_without_gradients_and_all_but_the_first_of_a_step():
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    hooks = ActivityHooks(net, {"0": net[0]})
    with torch.no_grad():
        net(torch.zeros(1, 3))
    first = net(torch.ones(2, 3))
    net(torch.full((2, 3), 5.0))
    hooks.end_step()
    assert torch.equal(hooks.features()["0"], first.detach())


def test_no_more_states_are_kept_than_asked_for():
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    hooks = ActivityHooks(net, {"0": net[0]}, states=10)
    for _ in range(4):
        net(torch.randn(4, 3))
        hooks.end_step()
    assert hooks.features()["0"].shape == (10, 5)


def test_rows_of_a_convolution_are_positions_and_those_of_a_recurrent_layer_steps():
    images = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    assert torch.equal(rows_of(images, STATES, axis=-3)[0], images[0, :, 0, 0])
    assert rows_of(torch.zeros(4, 6, 8), STATES).shape == (24, 8)


@pytest.mark.parametrize(("kind", "sides"), [(nn.Conv1d, (9,)), (nn.Conv2d, (5, 5))])
def test_dormant_units_of_a_convolution_are_filters(kind, sides):
    net = nn.Sequential(kind(2, 8, 2), nn.ReLU())
    with torch.no_grad():
        net[0].bias[:4], net[0].bias[4:] = -100.0, 1.0
    measured = Plasticity(net, {"0": ("0.weight",)}, units=["0"])
    measured.begin_step(0, WINDOW)
    for _ in range(WINDOW):
        net(torch.randn(16, 2, *sides))
        measured.end_step({})
    assert measured.latest["dormant"] == {"0": 0.5}


def train(net, steps, plasticity=None, every=20):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    data = torch.Generator().manual_seed(1)
    for step in range(steps):
        if plasticity is not None:
            plasticity.begin_step(step, every)
        x = torch.randn(16, 4, generator=data)
        optimizer.zero_grad()
        (net(x) - x[:, :1]).square().mean().backward()
        if plasticity is not None:
            plasticity.end_step({n: p.grad for n, p in net.named_parameters()})
        optimizer.step()


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


LAYERS = {"0": ("0.weight",), "2": ("2.weight",)}


def test_a_window_closes_after_its_steps_and_changes_no_bit_of_training():
    plain, watched = network(), network()
    measured = Plasticity(watched, LAYERS, units=["0"])
    train(plain, WINDOW + 5)
    train(watched, WINDOW + 5, measured, every=1000)
    assert not measured.is_open
    assert measured.latest is not None
    assert set(measured.latest["srank"]) == set(measured.latest["dormant"]) == {"0"}
    assert set(measured.latest["gradient_snr"]) == {"0", "2"}
    figures = measured.take()
    assert figures is measured.latest
    assert measured.take() is None
    for ours, theirs in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_dropped_window_leaves_no_hook_and_no_figures():
    net = network()
    measured = Plasticity(net, LAYERS, units=["0"])
    train(net, WINDOW - 1, measured)
    assert measured.is_open
    measured.drop()
    assert measured.latest is None
    assert not any(part._forward_hooks for part in net.modules())


def test_recurrent_layers_are_measured_by_their_outputs():
    net = nn.LSTM(3, 6, batch_first=True)
    hooks = ActivityHooks(net, {"": net})
    output, _ = net(torch.randn(2, 5, 3))
    hooks.end_step()
    assert torch.equal(hooks.features()[""], output.detach().reshape(10, 6))


def test_each_parameter_is_measured_over_the_steps_that_gave_it_a_gradient():
    torch.manual_seed(0)
    noise = GradientNoise()
    always, sometimes = torch.randn(12, 7), torch.randn(12, 5)
    there = [0, 1, 4, 5, 9]
    for step in range(12):
        given = {"always": always[step]}
        if step in there:
            given["sometimes"] = sometimes[step]
        noise.add(given if step else {"sometimes": sometimes[0]})
    seen = always[1:]
    expected = seen.mean(0).norm() / seen.var(0).sum().sqrt()
    assert noise.ratio(["always"]) == pytest.approx(float(expected), rel=1e-5)
    seen = sometimes[there]
    expected = seen.mean(0).norm() / seen.var(0).sum().sqrt()
    assert noise.ratio(["sometimes"]) == pytest.approx(float(expected), rel=1e-5)


def test_steps_without_any_gradient_and_gradients_seen_once_have_no_ratio():
    noise = GradientNoise()
    noise.add({})
    noise.add({"w": torch.ones(3)})
    noise.add({})
    assert noise.ratio(["w"]) is None
    noise.add({"w": torch.full((3,), torch.nan)})
    assert noise.ratio(["w"]) is None


def test_a_parameter_of_another_shape_begins_anew():
    noise = GradientNoise()
    noise.add({"w": torch.ones(3)})
    for value in (1.0, 3.0):
        noise.add({"w": torch.tensor([value], dtype=torch.float64)})
    assert noise.ratio(["w"]) == pytest.approx(2**0.5)


def test_half_precision_gradients_are_summed_in_single():
    torch.manual_seed(0)
    exact, half = GradientNoise(), GradientNoise()
    for _ in range(WINDOW):
        gradient = (1 + 1e-2 * torch.randn(500)).bfloat16()
        exact.add({"w": gradient.double()})
        half.add({"w": gradient})
    assert half.ratio(["w"]) == pytest.approx(exact.ratio(["w"]), rel=1e-3)


def test_a_window_that_saw_nothing_reports_nothing():
    net = network()
    measured = Plasticity(net, LAYERS, units=["0"])
    measured.begin_step(0, 100)
    for _ in range(WINDOW):
        measured.end_step({"0.weight": None, "2.weight": None})
    assert not measured.is_open
    assert measured.take() is None


class Experts(nn.Module):
    """Of two experts one runs in each forward, the second from half a window on."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 1)
        self.calls = 0

    def forward(self, x):
        chosen = self.experts[int(self.calls >= WINDOW // 2)]
        self.calls += 1
        # The body twice in a forward: the first time counts.
        return self.head(chosen(self.body(x).relu() + 0 * self.body(2 * x)))


def test_layers_that_run_in_some_steps_only_are_measured_on_those():
    torch.manual_seed(0)
    net = Experts()
    names = ["body", "experts.0", "experts.1", "experts.2", "head", "gone"]
    layers = {name: (f"{name}.weight",) for name in names}
    measured = Plasticity(net, layers, units=names)
    train(net, WINDOW, measured, every=100)
    figures = measured.take()
    ran = {"body", "experts.0", "experts.1", "head"}
    assert set(figures["dormant"]) == set(figures["srank"]) == set(figures["gradient_snr"]) == ran
