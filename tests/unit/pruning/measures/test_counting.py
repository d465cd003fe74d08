import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from rayprune import Pruner, PruningConfig
from rayprune.pruning.measures.counting import count_flops, count_parameters, dead_units


def test_parameters_and_flops_of_an_mlp_by_hand():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    Pruner(net, PruningConfig(sparsity=0.5)).prune_to()
    count = count_parameters(net)
    assert (count.total, count.nonzero) == (32 + 8 + 16 + 2, 16 + 8 + 8 + 2)
    assert count.sparsity == pytest.approx(24 / 58)
    flops = count_flops(net, lambda: net(torch.zeros(1, 4)))
    assert (flops.dense, flops.sparse) == (2 * (32 + 16), 2 * (16 + 8))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_equal_torchs_own_counter(stride, groups):
    from torch.utils.flop_counter import FlopCounterMode

    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=stride, groups=groups, padding=1),
        nn.Flatten(2),
        nn.Conv1d(4, 6, 3),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    x = torch.zeros(1, 2, 9, 9)
    net(x)
    with FlopCounterMode(display=False) as theirs:
        net(x)
    assert count_flops(net, lambda: net(x)).dense == theirs.get_total_flops()


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers_count_every_step(kind, gates):
    net = kind(5, 7, num_layers=2, bidirectional=True)
    weights = 2 * gates * 7 * (5 + 7) + 2 * gates * 7 * (14 + 7)
    assert count_flops(net, lambda: net(torch.zeros(3, 1, 5))).dense == 2 * 3 * weights
    packed = pack_sequence([torch.zeros(3, 5), torch.zeros(1, 5)])
    assert count_flops(net, lambda: net(packed)).dense == 2 * 4 * weights


def test_what_does_not_run_does_not_count_and_no_hook_stays():
    net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert count_flops(net, lambda: net[0](torch.zeros(1, 2))).dense == 8
    with pytest.raises(ZeroDivisionError):
        count_flops(net, lambda: 1 / 0)
    assert all(not layer._forward_hooks for layer in net)


def test_dead_units_are_those_without_incoming_weights():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    Pruner(net, PruningConfig(sparsity=0.5, granularity="neuron")).prune_to()
    assert dead_units(net) == {"0": 2, "2": 1}
    lstm = nn.LSTM(3, 4)
    Pruner(lstm, PruningConfig(sparsity=0.5, granularity="neuron")).prune_to()
    assert dead_units(lstm) == {"": 2}
