"""Compaction in mid-training: what goes, and that learning goes on as it would have."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rayprune import Pruner, PruningConfig
from rayprune.deploy.compaction.live import TrainedNetwork, fingerprint, plan_live, prove_live
from rayprune.deploy.compaction.plan import apply_plan
from rayprune.errors import InputError

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class WithTarget(nn.Module):
    """A network and its target network, which has drifted."""

    def __init__(self, net: nn.Module, drift: float) -> None:
        super().__init__()
        self.net, self.target = net, copy.deepcopy(net)
        with torch.no_grad():
            for parameter in self.target.parameters():
                parameter.add_(drift * torch.randn_like(parameter))


def forward(module: WithTarget, x: Tensor) -> list[Tensor]:
    return [module.net(x), module.target(x)]


def training(
    module: WithTarget, x: Tensor, masks: dict[str, Tensor], merge: bool
) -> TrainedNetwork:
    pairs = [(f"net.{name}", f"target.{name}") for name, _ in module.net.named_parameters()]
    return TrainedNetwork(module, x, forward, masks, pairs, merge)


def pruned(net: nn.Module, seed: int, sparsity: float, granularity: str) -> dict[str, Tensor]:
    """Prune a network by chance, and return its masks as a `WithTarget` names them."""
    config = PruningConfig(
        sparsity=None if granularity == "hybrid" else sparsity,
        hybrid={"neuron": 0.8 * sparsity, "weight": sparsity} if granularity == "hybrid" else None,
        granularity=granularity,
        criterion="random",
    )
    last = f"{len(net) - 1}"
    pruner = Pruner(net, config, seed=seed, heads=[last])
    pruner.prune_to()
    return {f"net.{name}": mask for name, mask in pruner.masks.items()}


def by_hand() -> tuple[WithTarget, dict[str, Tensor]]:
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    module = WithTarget(net, drift=0.0)
    for part, bias in ((module.net, 2.0), (module.target, 3.0)):
        state = {"0.weight": [[1.0], [0.0]], "0.bias": [0.5, bias]}
        state |= {"2.weight": [[1.0, 10.0]], "2.bias": [0.25]}
        part.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return module, {"net.0.weight": torch.tensor([[True], [False]])}


def test_a_dead_units_constant_goes_into_the_next_bias_of_each_network_by_its_own_value():
    module, masks = by_hand()
    plan = plan_live(training(module, torch.ones(2, 1), masks, merge=False))
    apply_plan(module, plan)
    for part, bias in ((module.net, 20.25), (module.target, 30.25)):
        assert part[0].weight.tolist() == [[1.0]]
        assert part[2].weight.tolist() == [[1.0]]
        assert part[2].bias.tolist() == [bias]


def test_a_zero_that_is_not_masked_may_learn_again_and_stays():
    module, _ = by_hand()
    plan = plan_live(training(module, torch.ones(2, 1), {}, merge=False))
    assert plan.removed == ()


def test_a_layer_that_the_forward_does_not_reach_is_named():
    module, masks = by_hand()
    module.other = nn.Linear(1, 1)
    with pytest.raises(InputError, match="don't reach 'other'"):
        plan_live(training(module, torch.ones(2, 1), masks, merge=False))


def test_a_forward_that_has_sizes_written_into_it_keeps_their_units_and_says_why():
    class Literal(WithTarget):
        def read(self, x: Tensor) -> Tensor:
            return self.net[2](self.net[1](self.net[0](x)) + torch.zeros(2))

    module, masks = by_hand()
    literal = Literal(module.net, 0.0)
    given = TrainedNetwork(
        literal, torch.ones(2, 1), lambda m, x: [m.read(x), m.target(x)], masks, merge=False
    )
    plan = plan_live(given)
    assert not plan.removed
    assert "`add` is called with sizes that are written into the forward" in plan.left[0].reason
    assert plan.misfits
    prove_live(given, plan)


def test_plans_that_keep_other_units_have_other_fingerprints():
    module, masks = by_hand()
    one = plan_live(training(module, torch.ones(2, 1), masks, merge=False))
    other_mask = {"net.0.weight": torch.tensor([[False], [True]])}
    with torch.no_grad():
        module.net[0].weight[:] = module.target[0].weight[:] = torch.tensor([[0.0], [1.0]])
    other = plan_live(training(module, torch.ones(2, 1), other_mask, merge=False))
    assert fingerprint(one) != fingerprint(other)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, Tensor]:
    activation = ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]
    torch.manual_seed(draw(st.integers(0, 99)))
    width = draw(st.integers(4, 9))
    if draw(st.booleans()):
        net = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=draw(st.integers(0, 1))),
            activation(),
            nn.Conv2d(width, 5, 3, padding=draw(st.integers(0, 1))),
            activation(),
            nn.Flatten(),
            nn.LazyLinear(3),
        )
        x = torch.randn(4, 2, 7, 7)
    else:
        net = nn.Sequential(
            nn.Linear(3, width), activation(), nn.Linear(width, 6), activation(), nn.Linear(6, 2)
        )
        x = torch.randn(4, 3)
    net(x)
    return net.double(), x.double()


@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(networks(), st.integers(0, 9), st.floats(0.3, 0.8), st.sampled_from(["neuron", "hybrid"]))
def test_the_next_step_moves_all_that_is_kept_as_it_would_have(drawn, seed, sparsity, granularity):
    net, x = drawn
    masks = pruned(net, seed, sparsity, granularity)
    module = WithTarget(net, drift=0.1)
    with torch.no_grad():
        for name, mask in masks.items():
            module.get_parameter(name.replace("net.", "target.")).mul_(mask)
    adam = torch.optim.Adam(module.net.parameters(), lr=0.01)
    step(module, adam, x, masks)
    plan = plan_live(training(module, x, masks, merge=granularity == "neuron"))
    small = copy.deepcopy(module)
    apply_plan(small, plan)
    kept_masks = {name: plan.pick(name, mask) for name, mask in masks.items()}
    for name, mask in kept_masks.items():
        assert torch.all(small.get_parameter(name)[~mask] == 0)
        assert torch.all(small.get_parameter(name.replace("net.", "target."))[~mask] == 0)
    for one, other in zip(forward(module, x), forward(small, x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)

    follower = torch.optim.Adam(small.net.parameters(), lr=0.01)
    for name, parameter in module.net.named_parameters():
        follower.state[small.net.get_parameter(name)] = {
            key: value.clone() if value.dim() == 0 else plan.pick(f"net.{name}", value)
            for key, value in adam.state[parameter].items()
        }
    before = {name: p.detach().clone() for name, p in module.net.named_parameters()}
    small_before = {name: p.detach().clone() for name, p in small.net.named_parameters()}
    step(module, adam, x, masks)
    step(small, follower, x, kept_masks)
    for name, parameter in small.net.named_parameters():
        moved = module.net.get_parameter(name).detach() - before[name]
        wanted = plan.pick(f"net.{name}", moved)
        found = parameter - small_before[name]
        weight = kept_masks.get(f"net.{name.removesuffix('.bias')}.weight")
        if name.endswith(".bias") and weight is not None:
            # A dead unit that is left carries the constants of others: its bias moves for all.
            live = weight.flatten(1).any(dim=1)
            found, wanted = found[live], wanted[live]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)


def step(
    module: WithTarget, optimizer: torch.optim.Optimizer, x: Tensor, masks: dict[str, Tensor]
) -> None:
    optimizer.zero_grad()
    (module.net(x) - module.target(x).detach() - 1.0).square().mean().backward()
    for name, mask in masks.items():
        module.get_parameter(name).grad.mul_(mask)
    optimizer.step()


def test_a_forward_that_computes_its_sizes_shrinks_live():
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.out = nn.Linear(2, 8), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            both = self.both(x)
            half = both.shape[-1] // 2
            return self.out(both[..., :half] * torch.sigmoid(both[..., half:]))

    net, mask = Halves(), torch.ones(8, 2, dtype=torch.bool)
    mask[[0, 4, 2]] = False
    net.both.weight.data[~mask] = 0
    net.both.bias.data[[0, 4]] = 0
    given = TrainedNetwork(net, torch.ones(3, 2), lambda m, x: m(x), {"both.weight": mask})
    plan = plan_live(given)
    assert plan.kept["both.weight"][0].tolist() == [1, 2, 3, 5, 6, 7]
    assert not plan.misfits


class Remembering(nn.Module):
    """A recurrent layer between two others, whose state comes in and goes out."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.a, self.cell, self.o = nn.Linear(3, 4), kind(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        lstm = isinstance(self.cell, nn.LSTM)
        y, after = self.cell(torch.relu(self.a(x)), state if lstm else state[0])
        return self.o(y), *(after if lstm else [after])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_shrinks_again_and_again_and_its_states_stay_as_wide(
    kind: type[nn.RNNBase],
) -> None:
    torch.manual_seed(0)
    net = Remembering(kind)
    pruner = Pruner(net, PruningConfig(sparsity=0.5, granularity="neuron"), heads=["o"])
    x, states = torch.randn(5, 2, 3), [torch.zeros(1, 2, 6)] * (2 if kind is nn.LSTM else 1)
    given, width = (x, *states), 6
    for sparsity in (0.34, 0.67):
        pruner.prune_to(sparsity)
        whole = copy.deepcopy(net)
        network = TrainedNetwork(net, given, lambda m, *inputs: m(*inputs), pruner.masks)
        plan = plan_live(network)
        prove_live(network, plan)
        before = {name: tuple(weight.shape) for name, weight in net.named_parameters()}
        apply_plan(net, plan)
        pruner.compacted(0.0, before, plan.kept, plan.pick)
        assert net.cell.hidden_size == net.cell.weight_hh_l0.shape[1] < width
        # What the state holds of units that have just died would fade; now it isn't read.
        for wanted, found in zip(whole(*plan.ground(given)), net(*given), strict=True):
            assert torch.allclose(wanted, found, atol=1e-6)
        x, states = torch.randn(5, 2, 3), list(net(*given)[1:])
        given, width = (x, *states), net.cell.hidden_size
    assert [state.shape[-1] for state in states] == [6] * len(states)


def test_a_recurrent_layer_of_a_users_own_class_keeps_its_size_and_what_feeds_it_shrinks() -> None:
    class Own(nn.GRU):
        def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(*given)

    net = Remembering(Own)
    pruner = Pruner(net, PruningConfig(sparsity=0.5, granularity="neuron"), heads=["o"])
    pruner.prune_to(0.5)
    given = (torch.randn(5, 2, 3), torch.zeros(1, 2, 6))
    network = TrainedNetwork(net, given, lambda m, *inputs: m(*inputs), pruner.masks)
    plan = plan_live(network)
    prove_live(network, plan)
    assert {found.layer: found.units for found in plan.removed} == {"a": 2}
