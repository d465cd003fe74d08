import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from rayprune.pruning.evidence.batches import FISHER, INPUT_NORM, gather
from rayprune.pruning.evidence.evidence import GRADIENT
from rayprune.pruning.evidence.objectives import Objective
from rayprune.pruning.layers.attach import make_maskable, maskable_layers
from rayprune.pruning.layers.prunable import PrunableLayer
from rayprune.pruning.layers.recurrent import unroll


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.body = kind(3, 4, batch_first=True, **options)
        self.head = nn.Linear(4 * (2 if options.get("bidirectional") else 1), 2)

    def forward(self, x):
        return self.head(self.body(x)[0])


class Twice(nn.Module):
    """One layer that is called twice, and an activation that writes over its input."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu_(self.body(self.body(x).tanh())))


class Stepping(nn.Module):
    """A cell that is called step by step."""

    def __init__(self, kind):
        super().__init__()
        self.body, self.head = kind(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.body(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Table(nn.Module):
    """An Embedding with a padding index, looked up twice by what numbers say."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Embedding(6, 4, padding_idx=1), nn.Linear(4, 2)

    def forward(self, x):
        index = x.abs().mul(3).long().clamp(max=5)
        return self.head((self.body(index) * self.body(index.flip(-1))).tanh().sum(1))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Bilinear(4, 4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.body(x, x.flip(-1)).tanh())


def cnn(**options):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, **options),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 2, groups=2, bias=False),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


NETS = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), (7, 4)),
    "steps": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (7, 5, 4)),
    "twice": (Twice, (7, 4)),
    "conv2d": (lambda: cnn(padding=1, dilation=2), (6, 2, 9, 8)),
    "conv2d_same": (lambda: cnn(padding=1, padding_mode="circular"), (6, 2, 9, 8)),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding=2), nn.Flatten(), nn.LazyLinear(2)),
        (6, 2, 9),
    ),
    "conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, (2, 3, 1), stride=2, padding=1, groups=2),
            nn.Flatten(),
            nn.LazyLinear(2),
        ),
        (4, 2, 4, 5, 3),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(4, 6, (3, 2), 2, (2, 1), (1, 0), groups=2, dilation=2),
            nn.Tanh(),
            nn.ConvTranspose2d(6, 2, 2, padding=1),
            nn.Flatten(),
            nn.LazyLinear(2),
        ),
        (4, 4, 3, 4),
    ),
    "embedding": (Table, (5, 6)),
    "bilinear": (Both, (5, 4)),
    "gru_cell": (lambda: Stepping(nn.GRUCell), (4, 5, 3)),
    "lstm_cell": (lambda: Stepping(nn.LSTMCell), (4, 5, 3)),
    "rnn": (lambda: Recurrent(nn.RNN, num_layers=2, bidirectional=True), (4, 5, 3)),
    "lstm": (lambda: Recurrent(nn.LSTM), (5, 6, 3)),
    "lstm_deep": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), (5, 6, 3)),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2), (5, 6, 3)),
}


def built(case):
    make, shape = NETS[case]
    module, x = make(), torch.randn(shape)
    module(x)
    return make_maskable(module), x


def layers_of(module):
    return [PrunableLayer(name, layer, "all") for name, layer in maskable_layers(module).items()]


def mse(module, x):
    return module(x).square().sum(-1).mean()


def gathered(module, wanted, batches, loss=mse):
    return gather(module, layers_of(module), {wanted}, batches, Objective.of(loss)).tables[wanted]


@pytest.mark.parametrize("case", NETS)
def test_the_fisher_diagonal_equals_per_sample_gradients_by_torch_func(case):
    module, x = built(case)
    weights = {name: p.detach() for name, p in module.named_parameters()}

    def of_one(weights, sample):
        return functional_call(module, weights, (sample[None],)).square().sum(-1).mean()

    # Fused recurrent layers have no rule for vmap, so samples go one by one.
    each = [grad(of_one)(weights, sample) for sample in x]
    found = gathered(module, FISHER, x.split(3))
    assert set(found) == {name for name in weights if "weight" in name}
    for name, diagonal in found.items():
        exact = torch.stack([gradients[name].square() for gradients in each]).mean(0)
        torch.testing.assert_close(diagonal, exact, rtol=1e-4, atol=1e-8)


def test_vmapped_gradients_say_the_same_of_a_linear_net():
    module, x = built("linear")
    weights = {name: p.detach() for name, p in module.named_parameters()}
    per_sample = vmap(grad(lambda w, s: functional_call(module, w, (s,)).square().sum()), (None, 0))
    exact = per_sample(weights, x)
    for name, diagonal in gathered(module, FISHER, [x]).items():
        torch.testing.assert_close(diagonal, exact[name].square().mean(0))


def test_gradients_are_the_mean_over_minibatches_and_leave_the_module_alone():
    module, x = built("conv2d")
    exact = torch.autograd.grad(mse(module, x), list(module.parameters()))
    named = dict(zip(dict(module.named_parameters()), exact, strict=True))
    for name, gradient in gathered(module, GRADIENT, x.split(2)).items():
        torch.testing.assert_close(gradient, named[name])
    assert all(p.grad is None for p in module.parameters())
    assert all(not layer.module._forward_hooks for layer in layers_of(module))


def test_input_norms_equal_a_slow_loop():
    module, x = built("linear")
    found = gathered(module, INPUT_NORM, x.split(2))
    seen = {"0.weight": x, "2.weight": module[1](module[0](x)).detach()}
    for name, inputs in seen.items():
        slow = [sum(float(v) ** 2 for v in column) ** 0.5 for column in inputs.T]
        assert found[name].flatten().tolist() == pytest.approx(slow, rel=1e-5)


def test_a_convolutions_input_norm_is_that_of_what_each_weight_sees():
    module, x = built("conv2d")
    found = gathered(module, INPUT_NORM, [x])["0.weight"]
    (layer,) = [module[0]]
    for channel, row, column in ((0, 0, 0), (1, 2, 1)):
        only = torch.zeros_like(layer.weight[:1])
        only[0, channel, row, column] = 1.0
        seen = nn.functional.conv2d(x, only, stride=2, padding=1, dilation=2)
        assert float(found[0, channel, row, column]) == pytest.approx(float(seen.norm()), rel=1e-4)
    grouped = gathered(module, INPUT_NORM, [x])["2.weight"]
    assert grouped.shape == module[2].weight.shape


def test_a_transposed_convolutions_input_norm_leaves_out_what_padding_cuts_off():
    module, x = built("transposed")
    layer, found = module[0], gathered(module, INPUT_NORM, [x])["0.weight"]
    assert found.shape == layer.weight.shape
    for channel, unit, row, column in ((0, 0, 0, 0), (3, 2, 2, 1), (1, 1, 0, 1)):
        only = torch.zeros_like(layer.weight)
        only[channel, unit, row, column] = 1.0
        options = (None, layer.stride, layer.padding, layer.output_padding, 2, layer.dilation)
        seen = nn.functional.conv_transpose2d(x, only, *options)
        slow = float(seen.norm())
        assert float(found[channel, unit, row, column]) == pytest.approx(slow, rel=1e-4)


def test_an_embeddings_input_norm_counts_how_often_each_row_is_looked_up():
    module, x = built("embedding")
    found = gathered(module, INPUT_NORM, x.split(2))["body.weight"]
    index = x.abs().mul(3).long().clamp(max=5).flatten().tolist()
    slow = [(2 * index.count(row)) ** 0.5 if row != 1 else 0.0 for row in range(6)]
    assert found.flatten().tolist() == pytest.approx(slow)


def test_a_layer_with_a_forward_of_its_own_has_no_per_sample_gradients():
    class Scaled(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight / self.weight.norm())

    module = make_maskable(nn.Sequential(Scaled(4, 3), nn.Linear(3, 2)))
    assert list(gathered(module, FISHER, [torch.randn(5, 4)])) == ["1.weight"]
    assert set(gathered(module, GRADIENT, [torch.randn(5, 4)])) == {"0.weight", "1.weight"}


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("shape", [(5, 3), (3,)])
def test_an_unrolled_cell_computes_what_torch_does(kind, shape):
    layer, x = kind(3, 4), torch.randn(shape)
    states = layer(x)
    states = states if isinstance(states, tuple) else (states,)
    torch.testing.assert_close(unroll(layer, x).output, states[0])
    again = layer(x, states if kind is nn.LSTMCell else states[0])
    torch.testing.assert_close(
        unroll(layer, x, states).output, again[0] if isinstance(again, tuple) else again
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_an_unrolled_layer_computes_what_torch_does(kind, batch_first, batched):
    layer = kind(3, 4, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = torch.randn(5, 6, 3) if batched else torch.randn(6, 3)
    output, states = layer(x)
    ours = unroll(layer, x)
    torch.testing.assert_close(ours.output, output)
    states = states if isinstance(states, tuple) else (states,)
    for one, other in zip(ours.finals, states, strict=True):
        torch.testing.assert_close(one, other)
    again = unroll(layer, x, states)
    given = states if kind is nn.LSTM else states[0]
    torch.testing.assert_close(again.output, layer(x, given)[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_a_projected_lstm_unrolls_too():
    layer, x = nn.LSTM(3, 6, proj_size=2, batch_first=True), torch.randn(2, 5, 3)
    torch.testing.assert_close(unroll(layer, x).output, layer(x)[0])
