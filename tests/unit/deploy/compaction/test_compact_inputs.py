"""Compaction of all that users bring: other types, pruned by torch, operators that nobody knows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

from rayprune import compact
from rayprune.deploy.compaction.compact import Compacted
from rayprune.errors import InputError

UNITS = 16
DEAD = torch.arange(0, UNITS, 2)


def kill(layer: nn.Module, units: Tensor = DEAD) -> Any:
    """Make units of a Linear or Conv constant zeros."""
    with torch.no_grad():
        layer.weight[units] = 0
        layer.bias[units] = 0
    return layer


def told(small: Compacted) -> dict[str, str]:
    return {left.layer: left.reason for left in small.left}


def removed(small: Compacted) -> dict[str, int]:
    return {item.layer: item.units for item in small.removed}


class Around(nn.Module):
    """Two layers, half of whose units between them are dead, and anything in between."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = kill(nn.Linear(6, UNITS)), nn.Linear(UNITS, 3)
        self.between = between
        self.scale = nn.Parameter(torch.ones(UNITS))
        self.register_buffer("chosen", DEAD.new_ones(UNITS, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.b(self.between(self, self.a(x)))
        return output


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_module_of_another_type_shrinks_and_keeps_it(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(6, UNITS), nn.Tanh(), nn.Linear(UNITS, 3))
    with torch.no_grad():
        net[0].weight[DEAD] = 0  # constants, which are folded into the next bias
    net = net.to(dtype)
    small = compact(net, torch.randn(4, 6, dtype=dtype))
    assert removed(small) == {"0": 8}
    assert {p.dtype for p in small.module.parameters()} == {dtype}
    x = torch.randn(9, 6, dtype=dtype)
    bound = {torch.float64: 1e-14, torch.float16: 5e-3, torch.bfloat16: 5e-2}[dtype]
    assert torch.allclose(net(x), small.module(x), rtol=0, atol=bound)
    assert small.certificate["errors"].keys() == small.certificate["bounds"].keys()
    assert small.certificate["errors"]["f64"] <= 1e-12


class Mixed(nn.Module):
    """Half precision inside, single outside."""

    def __init__(self, inside: torch.dtype) -> None:
        super().__init__()
        self.a, self.b = kill(nn.Linear(6, UNITS)).to(inside), nn.Linear(UNITS, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.a(x.to(self.a.weight.dtype))
        output: Tensor = self.b(inner.float())
        return output


@pytest.mark.parametrize("inside", [torch.bfloat16, torch.float16, torch.float64])
def test_a_module_of_several_types_is_fed_as_its_example_is(inside: torch.dtype) -> None:
    small = compact(Mixed(inside), torch.randn(4, 6))
    assert removed(small) == {"a": 8}
    assert small.module.a.weight.dtype == inside


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            nn.Linear(2, 2, dtype=torch.complex64),
            r"'weight' is torch.complex64. Convert the module",
        ),
        (nn.Linear(2, 2).to(torch.float8_e4m3fn), r"'weight' is torch.float8_e4m3fn"),
        (nn.Linear(2, 2, device="meta"), "'weight' has no values yet. Run the module once"),
        (nn.LazyLinear(2), "'weight' has no values yet"),
    ],
)
def test_a_type_that_compaction_does_not_read_is_refused(net: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compact(net, torch.zeros(2, 2))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_units_are_followed() -> None:
    net = nn.Sequential(
        nn.Linear(4, 8), nn.Linear(8, 0), nn.Tanh(), nn.Linear(0, 6), nn.Linear(6, 2)
    )
    small = compact(net, torch.randn(3, 4))
    assert small.left == ()
    # What an empty layer reads counts for nothing, and what is read of it is constant.
    assert [(gone.layer, gone.units) for gone in small.removed] == [("0", 7), ("3", 5)]


def test_a_forward_that_draws_by_chance_is_refused_in_a_sentence() -> None:
    net = Around(lambda s, y: y + torch.randn(UNITS))
    with pytest.raises(InputError, match="can't be proven for this forward: unchanged, it already"):
        compact(net, torch.zeros(2, 6))


def _structured(a: nn.Module) -> nn.Module:
    torch_prune.ln_structured(a, "weight", 0.5, 2, 0)
    return torch_prune.custom_from_mask(a, "bias", (a.weight_mask[:, 0] != 0).float())


def _twice(a: nn.Module) -> nn.Module:
    torch_prune.custom_from_mask(a, "weight", (torch.arange(UNITS) >= 4)[:, None].expand(-1, 6))
    torch_prune.custom_from_mask(a, "weight", (torch.arange(UNITS) < 12)[:, None].expand(-1, 6))
    return torch_prune.custom_from_mask(a, "bias", a.weight_mask[:, 0])


def _old_weight_norm(a: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        a = nn.utils.weight_norm(a)
    with torch.no_grad():
        a.weight_g[DEAD] = 0
        a.bias[DEAD] = 0
    return a


def _weight_norm(a: nn.Module) -> nn.Module:
    a = parametrizations.weight_norm(a)
    with torch.no_grad():
        a.parametrizations.weight.original0[DEAD] = 0
        a.bias[DEAD] = 0
    return a


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", (torch.arange(UNITS) % 2).float())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept.reshape(-1, *[1] * (x.dim() - 1))


def _own(a: nn.Module) -> nn.Module:
    for name in ("weight", "bias"):
        parametrize.register_parametrization(a, name, Masked())
    return a


COMPUTED = [
    _structured,
    _twice,
    _old_weight_norm,
    _weight_norm,
    lambda a: nn.utils.spectral_norm(kill(a)),
    lambda a: parametrizations.spectral_norm(kill(a)),
    _own,
]


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("computed", COMPUTED)
def test_weights_that_torch_computes_are_read_as_they_come_out(computed: Any, used: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(computed(nn.Linear(6, UNITS)), nn.ReLU(), nn.Linear(UNITS, 3))
    if used:  # leaves tensors of a graph in the module
        net(torch.randn(2, 6)).sum().backward()
    net.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    kind = type(net[0])
    small = compact(net, torch.randn(4, 6))
    assert removed(small) == {"0": 8}
    x = torch.randn(9, 6)
    assert torch.allclose(net(x), small.module(x), rtol=0, atol=1e-6)
    assert {name for name, _ in small.module.named_parameters()} == {
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    }
    assert type(net[0]) is kind
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_lstm_that_torch_pruned_shrinks() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.lstm(x)[0])
            return output

    net = Recurrent()
    torch_prune.custom_from_mask(net.head, "weight", (torch.arange(8) < 5).expand(2, -1))
    keep = (torch.arange(8) < 5).expand(32, -1)
    torch_prune.custom_from_mask(net.lstm, "weight_hh_l0", keep)
    assert removed(compact(net, torch.randn(2, 4, 3))) == {"lstm": 3}


def in_place(name: str, *arguments: Any) -> Callable[[Any, Tensor], Tensor]:
    def between(_: Any, y: Tensor) -> Tensor:
        getattr(y, name)(*arguments)
        return y

    return between


def _masked_in_place(_: Any, y: Tensor) -> Tensor:
    return y.masked_fill_(y < 0, 0.0)


FOLLOWED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "where": lambda s, y: torch.where(y > 0, y, y * 0.1),
    "where a number": lambda s, y: torch.where(y > 0, y, 0.0),
    "where a tensor": lambda s, y: torch.where(y > 0, y, torch.tensor(0.0)),
    "masked_fill": lambda s, y: y.masked_fill(y < 0, 0.0),
    "masked_fill with a tensor": lambda s, y: y.masked_fill(y < 0, torch.tensor(0.0)),
    "masked_fill_": _masked_in_place,
    "truths": lambda s, y: y * ((y > 0) & ~(y > 1)),
    "whole numbers": lambda s, y: ((y * 8).int() % 3 << 1).float(),
    "scalar tensor": lambda s, y: y * torch.tensor(2.0) + torch.tensor([1.0]),
    "numbers": lambda s, y: 2.0 - y / 3 + 2.0**y,
    "clamp by tensors": lambda s, y: y.clamp(torch.tensor(-1.0), torch.tensor(1.0)),
    "add_": in_place("add_", 1.0),
    "clamp_": in_place("clamp_", 0, 1),
    "sub_ a tensor": lambda s, y: y.sub_(torch.tensor(1.0)),
    "isnan": lambda s, y: torch.where(torch.isnan(y), torch.tensor(0.0), y),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_elementwise_operators_of_any_type_are_followed(name: str) -> None:
    net = Around(FOLLOWED[name])
    small = compact(net, torch.randn(4, 6))
    assert removed(small) == {"a": 8}
    x = torch.randn(9, 6)
    assert torch.allclose(net(x), small.module(x), rtol=0, atol=1e-6)


def _writes_into_a_view(_: Any, y: Tensor) -> Tensor:
    view = y.view(-1, UNITS)
    y.relu_()
    return view


def _writes_what_is_read_later(_: Any, y: Tensor) -> Tensor:
    doubled = y * 2
    y.add_(doubled)
    return y + doubled


def _writes_parts(_: Any, y: Tensor) -> Tensor:
    y[:, 0] = 1.0
    return y


HELD: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "view written through": _writes_into_a_view,
    "parts written": _writes_parts,
    "where with a buffer": lambda s, y: torch.where(s.chosen, y, y * 2),
    "masked by a buffer": lambda s, y: y.masked_fill(s.chosen, 0.0),
    "a parameter": lambda s, y: y * s.scale.exp(),
    "indexed": lambda s, y: y[:, y[0].argsort()],
    "by truths": lambda s, y: y[:, s.chosen],
    "sorted": lambda s, y: y.sort(1)[0],
    "topk": lambda s, y: y.topk(UNITS, 1)[0],
    "cumsum": lambda s, y: y.cumsum(1),
    "std": lambda s, y: y / (y.std(1, keepdim=True) + 1),
    "matmul": lambda s, y: y @ torch.eye(UNITS),
    "einsum": lambda s, y: torch.einsum("bi,ij->bj", y, torch.eye(UNITS)),
    "scatter": lambda s, y: y.scatter(1, torch.zeros(len(y), 1, dtype=torch.long), 1.0),
    "one hot": lambda s, y: y + functional.one_hot(y.argmax(1), UNITS),
    "fft": lambda s, y: torch.fft.fft(y).real,
    "complex": lambda s, y: torch.view_as_real(torch.view_as_complex(y.view(-1, 8, 2))).flatten(1),
    "vmap": lambda s, y: torch.vmap(lambda z: z.relu() * 2)(y),
    "a branch on values": lambda s, y: y if y.sum() > 0 else -y,
    "a value": lambda s, y: y * y.sum().item(),
    "random": lambda s, y: y + 0 * torch.rand_like(y),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_not_followed_holds_its_units_and_says_why(name: str) -> None:
    torch.manual_seed(0)
    net = Around(HELD[name])
    small = compact(net, torch.randn(4, 6))
    assert removed(small) == {}
    assert small.left
    assert all(left.reason for left in small.left)
    assert torch.equal(net(torch.ones(2, 6)), small.module(torch.ones(2, 6)))


def test_a_tensor_that_is_written_into_after_it_was_read_is_followed() -> None:
    small = compact(Around(_writes_what_is_read_later), torch.randn(4, 6))
    assert removed(small) == {"a": 8}


class Recurrent(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.cell = layer
        with torch.no_grad():
            for weight in layer.parameters():
                if weight.shape[0] % UNITS == 0:
                    weight.view(-1, UNITS, *weight.shape[1:])[:, DEAD] = 0

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.cell(x[:, None])[0]
        return output


class Functional(nn.Module):
    """Half of the units of a weight are dead that a forward reads in its own way."""

    def __init__(self, read: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.w, self.head = nn.Parameter(torch.randn(UNITS, 6)), nn.Linear(UNITS, 3)
        self.w.data[DEAD] = 0
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.read(self.w, x).relu())
        return output


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = kill(nn.Bilinear(6, 6, UNITS))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.cell(x, x)
        return output


UNREAD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "projected LSTM": (lambda: Recurrent(nn.LSTM(6, UNITS, proj_size=2)), "aten.lstm"),
    "bilinear": (Bilinear, "aten.bilinear"),
    "scaled": (lambda: Functional(lambda w, x: functional.linear(x, w * 2)), "aten.linear"),
    "in parts": (
        lambda: Functional(
            lambda w, x: torch.cat([functional.linear(x, part) for part in w.chunk(2)], dim=-1)
        ),
        "aten.chunk",
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("name", UNREAD)
def test_of_each_layer_with_dead_units_that_stay_it_is_said_why(name: str) -> None:
    make, operator = UNREAD[name]
    net = make().eval()
    small = compact(net, torch.randn(4, 6))
    layer = "cell" if hasattr(net, "cell") else ""
    assert layer not in removed(small)
    (found,) = [x for x in small.left if x.layer == layer and operator in x.reason]
    assert found.units >= len(DEAD)
    assert found.units == len(DEAD)


def test_a_weight_without_dead_units_is_not_told_of() -> None:
    net = Functional(lambda w, x: x @ w.T)
    nn.init.normal_(net.w)
    embedding = nn.Sequential(nn.Embedding(5, 4, padding_idx=0), nn.Linear(4, 2))
    assert compact(net, torch.randn(4, 6)).left == ()
    assert compact(embedding, torch.tensor([0, 1])).left == ()


def test_a_copy_is_not_changed_by_what_its_forward_left_in_the_module() -> None:
    layer = torch_prune.l1_unstructured(nn.Linear(6, 4), "weight", 0.5)
    net = nn.Sequential(layer, nn.Linear(4, 2))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(net)
    compact(net, torch.randn(2, 6))
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight_orig"]
