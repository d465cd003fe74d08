import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.granularity.input import SensorPart
from rayprune.pruning.granularity.sensors import Sensors, find_sensors, unplugged

RAMP = {"kind": "linear", "begin": 0, "end": 100, "every": 50}


class TwoNets(nn.Module):
    """A policy that reads observations, a critic that reads actions before them."""

    def __init__(self, size=6):
        super().__init__()
        torch.manual_seed(0)
        self.policy = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 2))
        self.critic = nn.Sequential(nn.Linear(2 + size, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, obs):
        action = self.policy(obs / 10)
        return self.critic(torch.cat([action, obs], dim=1))


class Rich(nn.Module):
    """A camera through a convolution, a vector beside it."""

    def __init__(self):
        super().__init__()
        self.eye = nn.Conv2d(3, 4, 3)
        self.body = nn.LSTM(4 * 4 * 4 + 5, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, camera, state):
        seen = self.eye(nn.functional.pad(camera.permute(0, 3, 1, 2), (1, 1, 1, 1)) / 255.0)
        return self.head(self.body(torch.cat([seen.flatten(1), state], dim=1))[0])


def sensors_of(module, *shapes):
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.LSTM))
    }
    return find_sensors(
        layers, [torch.zeros(1, *s) for s in shapes], lambda leaves: module(*leaves)
    )


def pruner_of(module, sparsity=0.5, **config):
    config = PruningConfig(granularity="input", sparsity=sparsity, schedule=RAMP, **config)
    return Pruner(module, config, sensors=lambda: sensors_of(module, (6,)))


def test_the_layers_that_read_the_observation_are_found_with_their_columns():
    assert sensors_of(TwoNets(3), (3,)) == Sensors(
        (3,), {"policy.0": (0, 1, 2), "critic.0": (2, 3, 4)}
    )


def test_an_image_counts_by_channels_and_a_vector_beside_it_by_elements():
    found = sensors_of(Rich(), (4, 4, 3), (5,))
    assert found.sizes == (3, 5)
    assert found.columns["eye"] == (0, 1, 2, None, None, None, None, None)
    assert found.columns["body"] == (None, None, None, 64, 65, 66, 67, 68)
    assert "head" not in found.columns


def test_a_permuted_observation_is_followed():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, obs):
            return self.net(obs.flip(1) * -2.0)

    assert sensors_of(Backwards(), (3,)).columns == {"net": (2, 1, 0)}


@pytest.mark.parametrize("mix", [nn.LayerNorm(3), nn.Softmax(dim=1)])
def test_layers_that_see_a_mix_of_sensors_are_refused(mix):
    with pytest.raises(InputError, match="can't be told apart in layer '1'"):
        sensors_of(nn.Sequential(mix, nn.Linear(3, 2)), (3,))


def test_a_layer_that_does_not_run_is_told():
    net = TwoNets(3)
    net.spare = nn.Linear(3, 3)
    with pytest.raises(InputError, match=r"layers \['spare'\] did not run"):
        sensors_of(net, (3,))


def test_the_sensor_with_the_lowest_mean_goes_from_every_net():
    net = TwoNets()
    with torch.no_grad():
        net.policy[0].weight.fill_(1.0)
        net.critic[0].weight.fill_(1.0)
        net.policy[0].weight[:, 4] = 0.1
        net.critic[0].weight[:, 2 + 1] = 0.2
    pruner = pruner_of(net, 1 / 3)
    pruner.prune_to()
    assert [i for i in range(6) if not net.policy[0].weight[:, i].any()] == [1, 4]
    assert [i for i in range(8) if not net.critic[0].weight[:, i].any()] == [3, 6]
    assert net.policy[2].weight.all()


def test_an_unplugged_sensor_has_no_influence_at_all():
    net = TwoNets()
    pruner_of(net).prune_to()
    gone = unplugged(sensors_of(net, (6,)), dict(net.named_modules()))
    assert sum(gone) == 3
    one, other = torch.randn(4, 6), torch.randn(4, 6)
    other = torch.where(torch.tensor(gone), other, one)
    assert torch.equal(net(one), net(other))
    assert not torch.equal(net(one), net(torch.randn(4, 6)))


@given(
    st.lists(st.floats(0, 0.98), min_size=2, max_size=4),
    st.sampled_from(["mean", "sum", "l2"]),
    st.sampled_from(["l1", "random"]),
)
def test_masks_nest_and_unplug_an_exact_number(sparsities, pooling, criterion):
    net = TwoNets()
    pruner = pruner_of(net, criterion=criterion, pooling=pooling)
    before = {name: torch.ones_like(w, dtype=torch.bool) for name, w in pruner.parameters.items()}
    for sparsity in sparsities:
        pruner.prune_to(sparsity)
        for name, mask in pruner.masks.items():
            assert not bool((mask & ~before[name]).any())
            before[name] = mask.clone()
    gone = unplugged(sensors_of(net, (6,)), dict(net.named_modules()))
    assert sum(gone) == round(max(sparsities) * 6)


@pytest.mark.parametrize("pooling", ["mean", "sum", "l2"])
def test_scores_pool_over_all_columns_as_a_loop_does(pooling):
    net = Rich()
    found = sensors_of(net, (4, 4, 3), (5,))
    config = PruningConfig(granularity="input", sparsity=0.5, pooling=pooling)
    pruner = Pruner(net, config, sensors=lambda: found)
    by_hand = {
        "mean": lambda w: w.abs().mean(),
        "sum": lambda w: w.abs().sum(),
        "l2": lambda w: w.square().sum().sqrt(),
    }[pooling]
    columns = [net.eye.weight[:, i] for i in range(3)]
    columns += [net.body.weight_ih_l0[:, 64 + i] for i in range(5)]
    expected = torch.stack([by_hand(column.detach()) for column in columns])
    pruner.prune_to()
    gone = unplugged(found, dict(net.named_modules()))
    assert sorted(expected.argsort()[:4].tolist()) == [i for i, dead in enumerate(gone) if dead]
    assert "body.weight_hh_l0" not in pruner.held_masks


def test_a_mean_is_over_the_weights_that_read_the_sensor():
    shapes = {"a": torch.Size([1, 2]), "b": torch.Size([1, 1])}
    part = SensorPart(shapes, {"a": (0, 1), "b": (None, 0)})
    scores = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[4.0]])}
    assert part.pool(scores, "mean").tolist() == [1.0, 3.0]


def test_scaling_thresholds_and_the_schedule_work_on_sensors():
    net = TwoNets()
    pruner = pruner_of(net, operation={"scale": 0.5, "steps": 2})
    for step in range(50, 400, 50):
        pruner.update(step)
    assert sum(unplugged(sensors_of(net, (6,)), dict(net.named_modules()))) == 3
    other = TwoNets()
    with torch.no_grad():
        other.policy[0].weight[:, 2] = 0
        other.critic[0].weight[:, 4] = 0
    config = PruningConfig(granularity="input", threshold={"absolute": 1e-6})
    Pruner(other, config, sensors=lambda: sensors_of(TwoNets(), (6,))).prune_to()
    assert [
        i
        for i, d in enumerate(unplugged(sensors_of(other, (6,)), dict(other.named_modules())))
        if d
    ] == [2]


def test_each_budget_decides_for_its_own_nets():
    net = TwoNets()
    config = PruningConfig(
        granularity="input", sparsity=0.5, groups={"critic": {"sparsity": 0}}, schedule=RAMP
    )
    pruner = Pruner(
        net, config, groups=lambda n: n.split(".")[0], sensors=lambda: sensors_of(net, (6,))
    )
    pruner.prune_to()
    assert set(pruner.held_masks) == {"policy.0.weight"}
    assert pruner.sparsity("policy") == 0.5


def test_what_does_not_go_with_sensors_is_refused():
    with pytest.raises(ConfigError, match="pass Pruner"):
        Pruner(TwoNets(), PruningConfig(granularity="input", sparsity=0.5))
    with pytest.raises(ConfigError, match="`distribution` must be 'uniform' or 'global'"):
        PruningConfig(granularity="input", sparsity=0.5, distribution="erk")
    with pytest.raises(ConfigError, match="a protected layer would go on reading every sensor"):
        pruner_of(TwoNets(), protect=["policy.0"])
