"""Hooks for activity: right of whatever a module does, and never in the way of it."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from rayprune.pruning.measures.activity_hooks import ActivityHooks, closed_parts
from rayprune.pruning.measures.plasticity import WINDOW, Plasticity


def features_of(net: nn.Module, layers: dict[str, nn.Module], *inputs: Any) -> dict[str, Tensor]:
    hooks = ActivityHooks(net, layers)
    for given in inputs:
        net(given)
        hooks.end_step()
    hooks.remove()
    return hooks.features()


def test_a_conv1d_is_measured_by_its_channels_whatever_the_length() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU())
    short, long = torch.randn(4, 2, 5), torch.randn(4, 2, 9)
    rows = features_of(net, {"0": net[0]}, short, long)["0"]
    expected = [net(x).detach().movedim(1, -1).reshape(-1, 3) for x in (short, long)]
    assert torch.equal(rows, torch.cat(expected))


@pytest.mark.parametrize(
    ("after", "shape"),
    [(nn.GLU(), (6,)), (nn.Unflatten(-1, (3, 2)), (6,)), (nn.Softmax(-1), (6,))],
    ids=["halved", "reshaped", "kept"],
)
def test_what_follows_is_an_activation_only_if_it_keeps_the_units(
    after: nn.Module, shape: tuple[int, ...]
) -> None:
    net = nn.Sequential(nn.Linear(4, 6), after)
    x = torch.randn(5, 4)
    rows = features_of(net, {"0": net[0]}, x)["0"]
    kept = isinstance(after, nn.Softmax)
    assert torch.equal(rows, (net(x) if kept else net[0](x)).detach())


def test_layers_without_a_row_or_with_one_that_is_not_finite_are_left_out() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    layers = {"0": net[0], "2": net[2]}
    assert features_of(net, layers, torch.randn(0, 4)) == {}
    assert set(features_of(net, layers, torch.randn(0, 4), torch.randn(3, 4))) == {"0", "2"}
    with torch.no_grad():
        net[2].bias[0] = torch.inf
    assert set(features_of(net, layers, torch.randn(3, 4))) == {"0"}
    wide = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    assert set(features_of(wide, {"0": wide[0]}, torch.randn(3, 4))) == {"0"}


def test_a_packed_sequence_gives_the_steps_that_are_there() -> None:
    net = nn.LSTM(3, 5)
    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    rows = features_of(net, {"": net}, packed)[""]
    assert torch.equal(rows, net(packed)[0].data.detach())


class Odd(nn.Module):
    def __init__(self, result: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.result = nn.Linear(4, 6), result

    def forward(self, x: Tensor) -> Any:
        return self.result(self.layer(x))


class Returns(nn.Module):
    def __init__(self, result: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> Any:
        return self.result(x)


@pytest.mark.parametrize(
    "result",
    [
        lambda y: None,
        lambda y: (),
        lambda y: {"a": y},
        lambda y: (None, y),
        lambda y: y > 0,
        lambda y: y.sum(),
        lambda y: y.long(),
        lambda y: "text",
    ],
    ids=["none", "empty", "dict", "tuple", "bool", "scalar", "integers", "text"],
)
def test_what_comes_after_a_layer_may_be_anything(result: Callable[[Tensor], Any]) -> None:
    net = nn.Sequential(nn.Linear(4, 6), Returns(result))
    x = torch.randn(5, 4)
    assert torch.equal(features_of(net, {"0": net[0]}, x)["0"], net[0](x).detach())


@pytest.mark.parametrize(
    "inside",
    [
        lambda layer, x: torch.func.vmap(layer)(x),
        lambda layer, x: torch.func.vmap(torch.func.jacrev(layer))(x),
        lambda layer, x: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False),
        lambda layer, x: torch.autocast("cpu")(layer)(x),
    ],
    ids=["vmap", "jacobian", "checkpoint", "autocast"],
)
def test_a_layer_inside_a_transform_disturbs_nothing(inside: Callable[..., Tensor]) -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(4, 6), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return inside(self.layer, x)

    net, x = Inside(), torch.randn(5, 4)
    plain = net(x)
    hooks = ActivityHooks(net, {"layer.0": net.layer[0]})
    for _ in range(2):
        watched = net(x)
        watched.sum().backward()
        hooks.end_step()
    hooks.remove()
    assert torch.equal(plain, watched)
    assert all(rows.dim() == 2 for rows in hooks.features().values())


def test_what_a_hook_meets_is_raised_at_the_steps_end_and_not_in_the_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    hooks = ActivityHooks(net, {"0": net[0]})

    def fail(*_: Any) -> None:
        raise OSError("broken")

    monkeypatch.setattr(hooks, "_note", fail)
    assert net(torch.randn(2, 4)).shape == (2, 6)
    with pytest.raises(OSError, match="broken"):
        hooks.end_step()


def test_a_module_is_copied_and_pickled_in_a_window_like_at_any_other_time() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    hooks = ActivityHooks(net, {"0": net[0]})
    net(torch.randn(2, 4))
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        made(torch.randn(3, 4)).sum().backward()
    hooks.end_step()
    assert hooks.features()["0"].shape == (2, 6)


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x)).tanh()


class Counting:
    """A backend of torch.compile that runs each graph as it is, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _: Any) -> Any:
        self.graphs += 1
        return graph.forward


def _wrapped(body: Body, backend: Any) -> Any:
    body.net = torch.compile(body.net, backend=backend)
    return body


def _part_in_place(body: Body, backend: Any) -> Any:
    body.net.compile(backend=backend)
    return body


def _in_place(body: Body, backend: Any) -> Any:
    body.compile(backend=backend)
    return body


def _method(body: Body, backend: Any) -> Any:
    body.forward = torch.compile(body.forward, backend=backend)  # type: ignore[method-assign]
    return body


def _function_around(body: Body, backend: Any) -> Any:
    return torch.compile(lambda x: body(x) * 2, backend=backend)


def _hidden_in_a_list(body: Body, backend: Any) -> Any:
    body.__dict__["kept"] = [torch.compile(body.net, backend=backend)]
    return lambda x: body.head(body.kept[0](x))


COMPILED = [_wrapped, _part_in_place, _in_place, _method, _function_around, _hidden_in_a_list]


def graphs_of(compiled: Callable[[Body, Any], Any], every: int | None) -> tuple[int, list[Tensor]]:
    """Train with a window now and then; return how much was compiled, and the weights."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    body, backend = Body(), Counting()
    run = compiled(body, backend)
    prefix = "net._orig_mod" if compiled is _wrapped else "net"
    names = [f"{prefix}.0", f"{prefix}.2", "head"]
    layers = {name: (f"{name}.weight",) for name in names}
    measured = Plasticity(body, layers, units=names[:2])
    optimizer = torch.optim.SGD(body.parameters(), lr=0.1)
    for step in range(3 * WINDOW):
        if every is not None:
            measured.begin_step(step, every)
        optimizer.zero_grad()
        run(torch.randn(16, 4)).square().mean().backward()
        measured.end_step({name: p.grad for name, p in body.named_parameters()})
        optimizer.step()
    if every is not None:
        assert measured.latest is not None
        assert set(measured.latest["gradient_snr"]) == set(names)
        assert measured.unhooked
    return backend.graphs, list(body.parameters())


@pytest.mark.parametrize("compiled", COMPILED)
def test_a_compiled_net_is_not_compiled_anew_for_hooks(compiled: Any) -> None:
    plain, weights = graphs_of(compiled, None)
    watched, same = graphs_of(compiled, 2 * WINDOW)
    assert watched == plain
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


def scripted(module: nn.Module, example: Tensor) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module) if example is None else torch.jit.trace(module, example)


@pytest.mark.parametrize("example", [None, torch.zeros(1, 4)], ids=["script", "trace"])
def test_a_scripted_part_is_passed_over_and_the_rest_is_measured(example: Tensor) -> None:
    body = Body()
    body.first = scripted(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), example)
    assert closed_parts(body) == {id(part) for part in body.first.modules()}
    layers = {name: (f"{name}.weight",) for name in ("net.0", "first.0", "head")}
    measured = Plasticity(body, layers, units=["net.0", "first.0"])
    measured.begin_step(0, 100)
    for _ in range(WINDOW):
        body.zero_grad()
        body(body.first(torch.randn(2, 4))).sum().backward()
        measured.end_step({name: p.grad for name, p in body.named_parameters()})
    figures = measured.take()
    assert figures is not None
    assert set(figures["dormant"]) == {"net.0"}
    assert set(figures["gradient_snr"]) == set(layers)
    assert "'first.0'" in measured.unhooked


def test_hooks_stay_where_a_method_is_only_kept_from_being_compiled() -> None:
    class Kept(nn.Linear):
        forward = torch.compiler.disable(nn.Linear.forward)

    assert closed_parts(nn.Sequential(Kept(2, 2))) == frozenset()
