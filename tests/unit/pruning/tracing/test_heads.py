"""Heads are found by running: whose units reach the outputs, each still by itself."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError
from rayprune.pruning.layers.attach import make_maskable, maskable_layers
from rayprune.pruning.tracing.heads import UNSURE, Runs, find_heads
from rayprune.pruning.tracing.replica import replica

ROWS, HIDDEN, UNITS = 3, 6, 10


def in_place(y: Tensor) -> Tensor:
    out = torch.zeros(len(y), 2 * UNITS)
    out[:, :UNITS] = y
    out[:, UNITS:].add_(1.0)
    return out


def attended(y: Tensor) -> Tensor:
    return torch.einsum("be,bea->ba", y.softmax(-1), torch.rand(ROWS, UNITS, 2))


KEPT: dict[str, Callable[[Tensor], Any]] = {
    "itself": lambda y: y,
    "elementwise": lambda y: 3 * torch.tanh(y) + 1,
    "gated": lambda y: functional.glu(y),
    "norm": lambda y: functional.layer_norm(y, (UNITS,)),
    "softmax": lambda y: y.softmax(-1),
    "sliced": lambda y: y[:, :2],
    "chunked": lambda y: {"mean": y.chunk(2, -1)[0], "std": [y.chunk(2, -1)[1].exp()]},
    "turned": lambda y: y.view(ROWS, 2, 5).transpose(1, 2).reshape(ROWS, UNITS).flip(-1),
    "beside": lambda y: torch.cat([torch.rand(ROWS, 2), y, torch.rand(ROWS, 1)], -1),
    "indexed": lambda y: y[:, torch.tensor([3, 1])],
    "dueling": lambda y: torch.rand(ROWS, 1) + y - y.mean(-1, keepdim=True),
    "residual": lambda y: torch.stack([y, torch.rand(ROWS, UNITS)]).sum(0),
    "over the batch": lambda y: y.mean(0),
    "masked": lambda y: y.masked_fill(torch.rand_like(y) > 0.9, -1e9),
    "where": lambda y: torch.where(torch.rand_like(y) > 0.9, y, -1e9),
    "written": in_place,
    "greedy": lambda y: y.argmax(-1),
    "one hot": lambda y: functional.one_hot(y.argmax(-1), UNITS),
    "drawn": lambda y: torch.distributions.Categorical(logits=y).sample(),
    "log probability": lambda y: y.log_softmax(-1).gather(-1, torch.zeros(ROWS, 1).long()),
    "maximum": lambda y: y.max(-1).values,
    "expected": lambda y: y.softmax(-1) @ torch.arange(float(UNITS)),
    "a gate": attended,
    "sorted": lambda y: y.sort().values,
}
MIXED: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda y: y.sum(-1),
    "mean": lambda y: y.mean(-1),
    "norm": lambda y: y.norm(dim=-1),
    "product": lambda y: y @ torch.rand(UNITS, UNITS),
    "attention": lambda y: torch.bmm(y[:, None], torch.rand(ROWS, UNITS, 1)),
    "shape alone": lambda y: torch.zeros_like(y) + len(y),
    "overwritten": lambda y: y.clone().zero_(),
}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, UNITS))


@pytest.mark.parametrize("inference", [False, True], ids=["grad", "inference"])
@pytest.mark.parametrize("case", KEPT)
def test_units_that_stay_apart_make_a_head(case: str, inference: bool) -> None:
    def run(module: nn.Module) -> Any:
        with torch.inference_mode(inference):
            return KEPT[case](module(torch.rand(ROWS, 4)))

    assert find_heads(net(), run) == {"2"}


@pytest.mark.parametrize("case", MIXED)
def test_units_that_are_mixed_make_none(case: str) -> None:
    assert find_heads(net(), lambda module: MIXED[case](module(torch.rand(ROWS, 4)))) == set()


class Odd(nn.Module):
    """Layers that no one calls as modules, tied ones, recurrent ones and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4)
        self.again.weight = self.first.weight
        self.unused = nn.Linear(4, 4)
        self.function = nn.Linear(4, 2)
        self.matrix = nn.Linear(4, 2, bias=False)
        self.cell = nn.LSTM(4, 3, 2, batch_first=True)
        self.gru = nn.GRU(4, 5, bidirectional=True, batch_first=True)
        self.below = nn.GRU(4, 4, batch_first=True)
        self.filters = nn.Conv2d(1, 3, 1)
        self.places = nn.Conv1d(1, 3, 1)
        self.log_std = nn.Parameter(torch.zeros(1, 2))


WAYS: dict[str, tuple[Callable[[Odd, Tensor], Any], set[str]]] = {
    "tied": (lambda m, x: m.again(m.first(x)), {"first"}),
    "a function": (
        lambda m, x: functional.linear(m.first(x), m.function.weight, m.function.bias),
        {"function"},
    ),
    "a product": (lambda m, x: m.first(x) @ m.matrix.weight.T, {"matrix"}),
    "a column": (lambda m, x: m.function(x) @ m.function.weight, set()),
    "beside a parameter": (
        lambda m, x: torch.cat([m.function(x) * m.log_std.exp(), m.log_std.expand(ROWS, 2)], -1),
        {"function"},
    ),
    "states": (lambda m, x: m.cell(m.first(x)[:, None])[0], {"cell"}),
    "both ways": (lambda m, x: m.gru(m.below(x[:, None])[0])[0], {"gru"}),
    "last state": (lambda m, x: m.cell(x[:, None])[1][0], {"cell"}),
    "pooled": (
        lambda m, x: functional.max_pool2d(m.filters(x.view(ROWS, 1, 2, 2)), 2).flatten(1),
        {"filters"},
    ),
    "over places": (lambda m, x: m.filters(x.view(ROWS, 1, 2, 2)).mean((2, 3)), {"filters"}),
    "padded": (lambda m, x: functional.pad(m.places(x[:, None]), (1, 1)).amax(-1), {"places"}),
    "experts": (
        lambda m, x: torch.stack([m.function(x), m.matrix(x)], 1).mean(1),
        {"function", "matrix"},
    ),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_weights_are_followed_however_they_are_used(way: str, grad: bool) -> None:
    run, heads = WAYS[way]
    with torch.set_grad_enabled(grad):
        assert find_heads(Odd(), lambda module: run(module, torch.rand(ROWS, 4))) == heads


class Busy(nn.Module):
    """A forward that leaves traces wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout()
        self.register_buffer("steps", torch.zeros(()))
        self.count, self.seen, self.lock = 0, [], threading.Lock()
        self.generator = torch.Generator().manual_seed(0)
        self.old = nn.utils.weight_norm(nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.steps += 1
        self.seen.append(x)
        for parameter in self.layer.parameters():
            parameter.requires_grad = False
        self.layer.requires_grad_(True)
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        torch.rand(1, generator=self.generator)
        return self.norm(self.drop(self.old(self.layer(x).relu()))).view(-1)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_run_leaves_module_and_generators_as_they_were() -> None:
    module = make_maskable(Busy())
    module.layer.bias.requires_grad_(False)
    module.layer.eval()
    state = {name: value.clone() for name, value in module.state_dict().items()}

    def everything() -> tuple[Any, ...]:
        drawn = torch.get_rng_state(), module.generator.get_state()
        return (
            [value.tolist() for value in (*state, *drawn) if isinstance(value, Tensor)],
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002
            [inner.training for inner in module.modules()],
            [parameter.requires_grad for parameter in module.parameters()],
            (module.count, module.seen, module.layer.bias.grad),
        )

    before = everything()
    find_heads(module, lambda copied: copied(torch.rand(ROWS, 4)))
    assert everything() == before
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_a_replica_holds_no_second_copy_of_the_weights() -> None:
    module = net()
    copied = replica(module, [module])
    for one, other in zip(module.parameters(), copied.parameters(), strict=True):
        assert one is not other
        assert one.data_ptr() == other.data_ptr()


def test_what_may_be_hidden_units_is_if_a_weight_reads_it() -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.action_head, self.aux = (nn.Linear(4, 4) for _ in range(3))

    module = make_maskable(Features())
    runs = Runs(maskable_layers(module), replica(module, [module]))

    def run(copied: Any) -> dict[str, Any]:
        features = copied.trunk(torch.rand(ROWS, 4)).relu()
        return {"policy": copied.action_head(features), UNSURE: [features, copied.aux(features)]}

    runs.add(run)
    assert runs.heads == {"action_head", "aux"}
    assert runs.unreached == set()


def test_a_network_of_heads_alone_has_no_neuron_to_prune() -> None:
    module = nn.Sequential(nn.Linear(4, 2))
    heads = find_heads(module, lambda copied: copied(torch.rand(ROWS, 4)))
    config = PruningConfig(sparsity=0.5, granularity="neuron")
    with pytest.raises(ConfigError, match=r"can't be 'neuron': the units of '0' are .* Choose"):
        Pruner(module, config, heads=heads)
    assert Pruner(module, config.replace(granularity="weight"), heads=heads).heads == {"0"}
