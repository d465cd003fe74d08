"""The masks, weights, moments and the Pruner's state after six updates, for each choice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune import Pruner, compact
from tests.golden import doors
from tests.golden.nets import BITS, bits, check, described, digest, digest_of_masks

EVERY = 100
STEPS = 6
RATE = 0.01
RAMP = {"kind": "cubic", "begin": 0, "end": 500, "every": EVERY}
AT = {"begin": 100, "end": 500, "every": EVERY}
SPARSE = {"begin": 0, "end": 900, "every": EVERY}


class Mlp(nn.Module):
    """Two hidden layers of one width, so that layers can go as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.second(x))
        return self.head(torch.tanh(self.third(x)))


class Cnn(nn.Module):
    """Two convolutions over an image, channels last, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * 4 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv0(x.permute(0, 3, 1, 2)))
        return self.head(torch.relu(self.conv1(x)).flatten(1))


class Lstm(nn.Module):
    """A memory and a head that reads its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x)[0][:, -1])


NETS = {"mlp": (Mlp, (8,)), "cnn": (Cnn, (6, 6, 2)), "lstm": (Lstm, (5, 8))}
L1, LASSO = {"kind": "l1", "strength": 0.05}, {"kind": "group_lasso", "strength": 0.05}


def schedule(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, **AT, **more}


def sparse(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, **SPARSE, **more}


# Name -> net, fields of the config. What they leave out is 80 % by l1, cubic over five updates.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("mlp", {}),
    "defaults on a cnn": ("cnn", {}),
    "defaults on an lstm": ("lstm", {}),
    "l2": ("mlp", {"criterion": "l2"}),
    "random": ("mlp", {"criterion": "random"}),
    "relative global": ("mlp", {"criterion": "relative", "distribution": "global"}),
    "normalised global": ("cnn", {"criterion": "normalised", "distribution": "global"}),
    "lamp global": ("cnn", {"criterion": "lamp", "distribution": "global"}),
    "lamp global on an lstm": ("lstm", {"criterion": "lamp", "distribution": "global"}),
    "snip": ("mlp", {"criterion": "snip"}),
    "taylor": ("mlp", {"criterion": "taylor"}),
    "taylor of the loss": ("mlp", {"criterion": "taylor", "evidence": {"objective": "loss"}}),
    "taylor of neurons": ("cnn", {"criterion": "taylor", "granularity": "neuron"}),
    "movement": ("mlp", {"criterion": "movement"}),
    "fisher": ("mlp", {"criterion": "fisher"}),
    "fisher of filters": ("cnn", {"criterion": "fisher", "granularity": "filter"}),
    "wanda": ("cnn", {"criterion": "wanda"}),
    "wanda rows": ("mlp", {"criterion": "wanda_rows"}),
    "dormant": ("mlp", {"criterion": "dormant", "granularity": "neuron"}),
    "information gain": ("mlp", {"criterion": "information_gain", "granularity": "neuron"}),
    "binned information gain": (
        "mlp",
        {
            "criterion": "information_gain",
            "granularity": "neuron",
            "evidence": {"estimator": "binned"},
        },
    ),
    "shapley": (
        "mlp",
        {"criterion": "shapley", "granularity": "neuron", "evidence": {"permutations": 4}},
    ),
    "return of layers": ("mlp", {"criterion": "return", "granularity": "layer", "sparsity": 0.4}),
    "erk": ("mlp", {"distribution": "erk"}),
    "erk of neurons": ("cnn", {"distribution": "erk", "granularity": "neuron", "sparsity": 0.5}),
    "global": ("mlp", {"distribution": "global"}),
    "global of neurons": ("mlp", {"distribution": "global", "granularity": "neuron"}),
    "by layer": ("mlp", {"distribution": {"first": 0.5, "second": 0.9}, "sparsity": 0.3}),
    "groups": ("mlp", {"groups": {"out": {"sparsity": 0.4}}}),
    "protected": ("mlp", {"protect": ["fir*"], "sparsity": 0.6}),
    "neuron, mean": ("mlp", {"granularity": "neuron"}),
    "neuron, sum": ("cnn", {"granularity": "neuron", "pooling": "sum"}),
    "neuron, l2": ("lstm", {"granularity": "neuron", "pooling": "l2"}),
    "neuron that waits for compaction": ("mlp", {"granularity": "neuron", "compact_every": 200}),
    "block": ("mlp", {"granularity": "block"}),
    "block on an lstm": ("lstm", {"granularity": "block", "pooling": "l2"}),
    "2:4": ("mlp", {"granularity": "2:4", "sparsity": None}),
    "1:4 on an lstm": ("lstm", {"granularity": "1:4", "sparsity": None}),
    "input": ("mlp", {"granularity": "input", "sparsity": 0.5}),
    "input on a cnn": ("cnn", {"granularity": "input", "sparsity": 0.5}),
    "layer": ("mlp", {"granularity": "layer", "sparsity": 0.4}),
    "hybrid": (
        "mlp",
        {"granularity": "hybrid", "hybrid": {"neuron": 0.4, "weight": 0.8}, "sparsity": None},
    ),
    "hybrid by taylor on a cnn": (
        "cnn",
        {
            "granularity": "hybrid",
            "hybrid": {"neuron": 0.3, "weight": 0.7},
            "sparsity": None,
            "criterion": "taylor",
        },
    ),
    "one shot": ("mlp", {"schedule": {"kind": "one_shot", "begin": 200, "every": EVERY}}),
    "linear": ("mlp", {"schedule": schedule("linear")}),
    "exponential": ("mlp", {"schedule": schedule("exponential")}),
    "iterative": ("mlp", {"schedule": schedule("iterative", share=0.4)}),
    "fractions of a horizon": (
        "mlp",
        {"schedule": {"begin": 0.1, "end": 0.8, "every": EVERY}, "horizon": 600},
    ),
    "after a return": (
        "mlp",
        {"schedule": {"kind": "linear", "begin": {"return": 5.0}, "end": 400, "every": EVERY}},
    ),
    "lottery": (
        "mlp",
        {"schedule": {"kind": "lottery", "rewind_to": 100, "rounds": 2, "round_steps": 200}},
    ),
    "gated": ("mlp", {"schedule": {"kind": "gated", "begin": 100}}),
    "gated of neurons": (
        "cnn",
        {"schedule": {"kind": "gated", "begin": 100}, "granularity": "neuron"},
    ),
    "static": ("mlp", {"schedule": sparse("static", end=0)}),
    "static erk": ("cnn", {"schedule": sparse("static", end=0), "distribution": "erk"}),
    "set": ("mlp", {"schedule": sparse("set")}),
    "set on an lstm": ("lstm", {"schedule": sparse("set", drop_fraction=0.5)}),
    "rigl": ("mlp", {"schedule": sparse("rigl", minibatches=2)}),
    "rigl erk": ("cnn", {"schedule": sparse("rigl", minibatches=3), "distribution": "erk"}),
    "rigl global": ("mlp", {"schedule": sparse("rigl"), "distribution": "global"}),
    "grow": ("mlp", {"schedule": sparse("grow", start=0.95, minibatches=2)}),
    "revive": ("mlp", {"schedule": {"kind": "revive", "begin": 250, "reserve": 0.2}}),
    "grow by chance": ("cnn", {"schedule": sparse("grow", start=0.9, regrow="random")}),
    "fading": ("mlp", {"operation": {"scale": 0.5, "steps": 3}}),
    "fading neurons": ("lstm", {"operation": {"scale": 0.7, "steps": 2}, "granularity": "neuron"}),
    "absolute threshold": ("mlp", {"threshold": {"absolute": 0.05}, "sparsity": None}),
    "percentile": (
        "mlp",
        {"threshold": {"percentile": 30}, "sparsity": None, "distribution": "global"},
    ),
    "mean fraction": (
        "cnn",
        {"threshold": {"mean_fraction": 0.9, "of_lowest": 80}, "sparsity": None},
    ),
    "l1 penalty": ("mlp", {"penalty": L1, "threshold": {"absolute": 0.02}, "sparsity": None}),
    "group lasso": ("cnn", {"penalty": LASSO, "granularity": "neuron"}),
    "rescale": ("mlp", {"remedies": {"rescale": True}}),
    "rescale neurons": ("cnn", {"remedies": {"rescale": True}, "granularity": "neuron"}),
    "regrow": ("mlp", {"on_clone": "regrow"}),
    "frozen in mid-run": ("mlp", {"frozen": "keep"}),
    "frozen and pruned": ("mlp", {"frozen": "prune"}),
    # Few different weights, and no learning: most of what is decided is a tie.
    "ties": ("mlp", {}),
    "ties over a net": ("cnn", {"distribution": "global"}),
    "ties of blocks": ("lstm", {"granularity": "block"}),
    "ties in 2:4": ("mlp", {"granularity": "2:4", "sparsity": None}),
    "ties of filters": ("cnn", {"granularity": "filter", "distribution": "global"}),
    "ties and regrowth": ("mlp", {"schedule": sparse("set")}),
}


def run(name: str) -> dict[str, Any]:
    """Train and prune one net by one config; return what came of it."""
    net, pruner, data = _begin(name)
    adam = torch.optim.Adam(net.parameters(), lr=RATE, eps=1e-3)
    rewinding = {n: p.detach().clone() for n, p in net.named_parameters()}
    history: list[Any] = [_told(pruner, pruner.start())]
    for step, (x, y) in enumerate(data, start=1):
        clock = step * EVERY
        _post(name, pruner, net, step)
        if not name.startswith("ties"):
            _learn(pruner, net, adam, clock, x, y)
        if name == "return of layers":
            units = pruner.awaited_units(clock)
            pruner.returns = {u.name: 3.0 * n + 1.0 for n, u in enumerate(reversed(units))}
        change = pruner.update(clock, evidence=lambda x=x, y=y: pruner.measure(x, _loss(y)))
        _follow(pruner, adam, change)
        if name == "lottery" and change is not None:
            with torch.no_grad():
                for key, parameter in net.named_parameters():
                    parameter.copy_(rewinding[key])
            pruner.mask_weights()
        history.append([*_told(pruner, change), pruner.compaction_due(clock)])
    return _found(net, pruner, adam, history, data[0][0])


def _begin(name: str) -> tuple[nn.Module, Pruner, list[tuple[Tensor, Tensor]]]:
    kind, fields = CASES[name]
    make, shape = NETS[kind]
    torch.manual_seed(7)
    net = make()
    data = [(torch.randn(16, *shape), torch.randn(16, 4)) for _ in range(STEPS)]
    config = {"sparsity": 0.8, "schedule": RAMP, "horizon": 1000, **fields}
    if name.startswith("ties"):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_((parameter * 16).round() / 16)
    unit = config.get("granularity") in ("neuron", "filter", "hybrid")
    pruner = Pruner(
        net,
        config,
        groups=lambda layer: "out" if layer == "head" else "body",
        heads=["head"] if unit else (),
        sensors=lambda: doors.sensors_of(net, shape),
        seed=3,
        driven=True,
    )
    return net, pruner, data


def _post(name: str, pruner: Pruner, net: nn.Module, step: int) -> None:
    """Do what a driver does."""
    given = pruner.config.schedule
    if given["kind"] == "gated":
        level = [0.0, 0.3, 0.3, 0.6, 0.45, 0.7][step - 1]
        pruner.config = pruner.config.replace(schedule={**given, "level": level})
    if name == "after a return" and step == 2:
        pruner.config = pruner.config.replace(schedule={**given, "began": 200})
    if name == "regrow" and step == 5:
        pruner.config = pruner.config.replace(sparsity=0.5)
    if name.startswith("frozen"):
        net.second.weight.requires_grad_(step not in (3, 4))


def _loss(y: Tensor) -> Any:
    def loss(module: nn.Module, x: Tensor) -> Tensor:
        out = module(x)
        return (out - y[: len(out)]).square().mean()

    return loss


def _learn(pruner: Pruner, net: nn.Module, adam: Any, clock: int, x: Tensor, y: Tensor) -> None:
    adam.zero_grad()
    _loss(y)(net, x).backward()
    gradients = {parameter: parameter.grad for parameter in net.parameters()}
    pruner.observe_gradients(gradients)
    if pruner.awaits_growth(clock, EVERY):
        pruner.gather_gradients(gradients)
    pruner.mask_gradients(gradients)
    adam.step()
    pruner.penalise(clock, dict.fromkeys(net.parameters(), RATE))
    pruner.mask_weights()


def _follow(pruner: Pruner, adam: Any, change: Any) -> None:
    if change is None:
        return
    for name, parameter in pruner.masked_parameters.items():
        for key in ("exp_avg", "exp_avg_sq"):
            moment = adam.state.get(parameter, {}).get(key)
            if moment is not None:
                pruner.mask_tensors({parameter: moment})
                if name in change.regrown:
                    moment.masked_fill_(change.regrown[name], 0)


def _told(pruner: Pruner, change: Any) -> list[Any]:
    masks = digest_of_masks(pruner.masks)
    if change is None:
        return [masks, None]
    return [
        masks,
        [change.step, change.pruned, change.grown, change.sparsity, change.churn],
        list(change.changed),
        digest_of_masks(change.regrown),
        dict(change.scales),
    ]


def _found(
    net: nn.Module, pruner: Pruner, adam: Any, history: list[Any], x: Tensor
) -> dict[str, Any]:
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    moments = {
        name: {key: adam.state[parameter][key] for key in ("exp_avg", "exp_avg_sq")}
        for name, parameter in net.named_parameters()
        if parameter in adam.state
    }
    state = pruner.state_dict()
    small = None
    if pruner.config.granularity in ("neuron", "hybrid") and isinstance(net, (Mlp, Cnn)):
        small = {n: list(p.shape) for n, p in compact(net, x).module.named_parameters()}
    counts = [
        [c.name, c.total, c.nonzero, c.sparsity, c.protected, c.group, c.exempt, c.frozen]
        for c in pruner.layer_counts()
    ]
    return {
        "masks": {name: digest(mask) for name, mask in pruner.masks.items()},
        "history": described(history),
        "layers": described(counts),
        "weights": described(weights),
        "moments": described(moments),
        "state": described(state),
        "coverage": described(pruner.coverage()),
        "violations": pruner.violations(),
        "compact": small,
        BITS: {"weights": bits(weights), "moments": bits(moments), "state": bits(state)},
    }


@pytest.mark.filterwarnings("ignore:.*RNN module weights.*:UserWarning")
def test_masks_weights_moments_and_state_are_those_of_the_golden_file() -> None:
    torch.set_num_threads(1)
    check("masks.json", {name: run(name) for name in CASES})


def test_a_state_that_was_loaded_goes_on_as_the_one_that_was_saved() -> None:
    found = {}
    for name in ("rigl", "fading", "movement", "hybrid", "layer"):
        _, pruner, data = _begin(name)
        adam = torch.optim.Adam(pruner.module.parameters(), lr=RATE, eps=1e-3)
        pruner.start()
        _, heir, _ = _begin(name)
        for step, (x, y) in enumerate(data, start=1):
            if step == 4:
                heir.module.load_state_dict(pruner.module.state_dict())
                heir.load_state_dict(pruner.state_dict())
                pruner = heir
                adam = torch.optim.Adam(pruner.module.parameters(), lr=RATE, eps=1e-3)
            _learn(pruner, pruner.module, adam, step * EVERY, x, y)
            source = lambda p=pruner, x=x, y=y: p.measure(x, _loss(y))  # noqa: E731
            _follow(pruner, adam, pruner.update(step * EVERY, evidence=source))
        found[name] = {n: digest(mask) for n, mask in pruner.masks.items()}
    check("masks_resumed.json", found)
