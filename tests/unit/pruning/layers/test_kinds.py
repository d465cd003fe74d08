"""Layers whose units are no rows of one weight: masks, zeros, figures, heads."""

import copy
import io

import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig, make_maskable
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.granularity.sensors import find_sensors
from rayprune.pruning.layers.attach import maskable_layers, unmask
from rayprune.pruning.layers.kinds import axes_of
from rayprune.pruning.measures.counting import count_flops, dead_units
from rayprune.pruning.measures.plasticity import Plasticity
from rayprune.pruning.tracing.heads import find_heads

UNITS = 6
# Layer, its input, where its output has the units, and multiply-adds of one forward.
CASES = {
    "conv3d": (lambda: nn.Conv3d(4, UNITS, 2, groups=2), torch.randn(2, 4, 3, 3, 3), 1, 1536),
    "transposed1d": (
        lambda: nn.ConvTranspose1d(4, UNITS, 3, stride=2, groups=2),
        torch.randn(2, 4, 5),
        1,
        360,
    ),
    "transposed2d": (lambda: nn.ConvTranspose2d(4, UNITS, 3), torch.randn(2, 4, 3, 3), 1, 3888),
    "embedding": (lambda: nn.Embedding(8, UNITS), torch.tensor([[0, 5, 7], [1, 2, 3]]), -1, 0),
    "bilinear": (lambda: nn.Bilinear(4, 4, UNITS), torch.randn(2, 4), -1, 192),
    "gru_cell": (lambda: nn.GRUCell(4, UNITS), torch.randn(2, 4), -1, 360),
    "lstm_cell": (lambda: nn.LSTMCell(4, UNITS), torch.randn(2, 4), -1, 480),
    "rnn_cell": (lambda: nn.RNNCell(4, UNITS), torch.randn(2, 4), -1, 120),
    "rnn": (lambda: nn.RNN(4, UNITS, batch_first=True), torch.randn(2, 3, 4), -1, 360),
    "subclass": (lambda: Own(4, UNITS), torch.randn(2, 4), -1, 48),
}
every_case = pytest.mark.parametrize("case", CASES)


class Own(nn.Linear):
    def forward(self, x):
        return torch.tanh(super().forward(x))


class Net(nn.Module):
    """A layer, and a head that reads its units."""

    def __init__(self, layer, axis):
        super().__init__()
        self.layer, self.axis, self.head = layer, axis, nn.Linear(UNITS, 2)

    def units(self, x):
        out = self.layer(x, x) if isinstance(self.layer, nn.Bilinear) else self.layer(x)
        return (out[0] if isinstance(out, tuple) else out).movedim(self.axis, -1)

    def forward(self, x):
        return self.head(self.units(x))


def build(case):
    make, x, axis, _ = CASES[case]
    return Net(make(), axis), x


@every_case
def test_neurons_go_as_units_of_the_output_and_stay_gone_while_training(case):
    net, x = build(case)
    config = PruningConfig(sparsity=0.5, granularity="neuron")
    pruner = Pruner(net, config, heads=["head"])
    pruner.prune_to()
    assert dead_units(net) == {"layer": 3}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        pruner.mask_gradients({p: p.grad for p in net.parameters()})
        optimizer.step()
        pruner.mask_weights()
    assert pruner.violations() == {}
    rows = axes_of(net.layer).rows
    alive = torch.zeros(UNITS, dtype=torch.bool)
    for name, mask in net.layer.masks.items():
        assert torch.equal(net.layer.get_parameter(name) != 0, mask)
        whole = rows(mask).reshape(-1, UNITS, rows(mask)[0].numel())
        assert torch.equal(whole.all(-1), whole.any(-1))
        alive |= whole.any(-1).any(0)
    # The units that went say the same whatever they are given, the others don't.
    other = x.flip(0) if case == "embedding" else x + 1
    moves = (net.units(x) != net.units(other)).flatten(0, -2).any(0)
    assert torch.equal(moves, alive)


@every_case
def test_weights_go_anywhere_copies_keep_masks_and_unmask_gives_the_class_back(case):
    net, x = build(case)
    plain = type(net.layer)
    pruner = Pruner(net, PruningConfig(sparsity=0.5))
    pruner.prune_to()
    assert pruner.sparsity() == pytest.approx(0.5, abs=0.02)
    out = net(x)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for twin in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        assert type(twin.layer) is type(net.layer)
        assert torch.equal(twin(x), out)
        assert all(torch.equal(twin.layer.masks[n], m) for n, m in net.layer.masks.items())
    assert set(unmask(net)) == set(pruner.parameters)
    assert type(net.layer) is plain
    assert torch.equal(net(x), out)


@every_case
def test_flops_count_each_weight_as_often_as_it_is_multiplied(case):
    net, x = build(case)
    adds = CASES[case][3]
    assert count_flops(net.layer, lambda: net.units(x)).dense == 2 * adds


@every_case
def test_units_that_are_outputs_are_heads_and_units_that_are_read_are_none(case):
    net, x = build(case)
    assert find_heads(net, lambda net: net(x)) == {"head"}
    assert find_heads(net, lambda net: net.units(x).tanh()) >= {"layer"}


@every_case
def test_plasticity_sees_as_many_units_as_there_are(case):
    net, x = build(case)
    make_maskable(net)
    names = {"layer": ("layer.weight",)}
    measured = Plasticity(net, names, ["layer"])
    measured.begin_step(0, 1)
    net(x).sum().backward()
    assert measured._hooks is not None
    measured._hooks.end_step()
    (features,) = measured._hooks.features().values()
    assert features.shape[1] == UNITS
    measured.drop()


@pytest.mark.parametrize(
    "config", [{"granularity": "2:4"}, {"granularity": "block", "sparsity": 0.2}]
)
@pytest.mark.parametrize("layer", [nn.Embedding(4, 8), nn.Bilinear(4, 4, 8)])
def test_what_matrix_products_know_is_refused_where_there_is_none(config, layer):
    net = nn.ModuleDict({"layer": layer, "head": nn.Linear(8, 32)})
    with pytest.raises(ConfigError, match=r"'layer', which no matrix product computes"):
        Pruner(net, config)
    pruner = Pruner(net, {**config, "protect": ["layer"]})
    pruner.prune_to()
    assert set(pruner.held_masks) == {"head.weight"}


def test_n_of_m_lies_along_the_inputs_of_a_transposed_convolution():
    net = nn.Sequential(nn.ConvTranspose1d(8, 4, 3, groups=2), nn.Conv1d(4, 2, 1))
    pruner = Pruner(net, PruningConfig(granularity="2:4"))
    pruner.prune_to()
    kept = axes_of(net[0]).rows(net[0].masks["weight"])
    assert kept.shape == (4, 4, 3)
    assert bool((kept.sum(1) == 2).all())


def test_blocks_lie_along_the_units_of_a_transposed_convolution():
    net = nn.ConvTranspose1d(4, 32, 1)
    Pruner(net, PruningConfig(granularity="block", sparsity=0.5)).prune_to()
    blocks = axes_of(net).rows(net.masks["weight"]).reshape(2, 16, 4)
    assert torch.equal(blocks.all(1), blocks.any(1))
    assert int(blocks.all(1).sum()) == 4


def test_sensors_are_found_at_a_cell_and_refused_at_a_table():
    cell = make_maskable(nn.GRUCell(3, 2))
    assert find_sensors({"": cell}, [torch.zeros(1, 3)], lambda x: cell(*x)).columns == {
        "": (0, 1, 2)
    }
    pruner = Pruner(
        cell,
        PruningConfig(granularity="input", sparsity=0.5),
        sensors=lambda: find_sensors({"": cell}, [torch.zeros(1, 3)], lambda x: cell(*x)),
    )
    pruner.prune_to()
    assert set(pruner.held_masks) == {"weight_ih"}
    table = nn.Embedding(9, 2)
    with pytest.raises(InputError, match="an Embedding looks its inputs up"):
        find_sensors({"table": table}, [torch.zeros(1, 3)], lambda x: table(x[0].long()))


def test_a_units_bias_goes_with_it_in_cells_too():
    cell = nn.LSTMCell(3, 4)
    pruner = Pruner(cell, PruningConfig(sparsity=0.5, granularity="neuron"))
    pruner.prune_to()
    alive = cell.masks["weight_ih"].any(1)
    assert torch.equal(cell.bias_ih != 0, alive)
    assert torch.equal(cell.bias_hh != 0, alive)


def test_layers_before_they_have_weights_and_sparse_tables_are_left_alone():
    net = nn.Sequential(nn.LazyLinear(2), nn.Embedding(3, 2, sparse=True), nn.Linear(2, 2))
    assert list(maskable_layers(make_maskable(net))) == ["2"]
