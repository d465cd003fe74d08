"""Policies in whole numbers: what they compute, what may go from them, and what they can't hold."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rayprune import QuantisationConfig, Quantiser
from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.whole_numbers import prove_bits
from rayprune.deploy.formats import open_artifact
from rayprune.deploy.formats.c.lowering.lower import lower
from rayprune.deploy.integer.policy import IntegerPolicy, integer_policy
from rayprune.deploy.policy.capture import capture
from rayprune.deploy.policy.runs import module_run
from rayprune.errors import InputError, InvariantError
from tests.doubles import policies

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler here"
)
ABOUT: dict[str, Any] = {"compacted_in_training": False}


def net(hidden: int = 12, function: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, hidden),
        function(),
        nn.Linear(hidden, hidden),
        function(),
        nn.Linear(hidden, 3),
    )


def pruned(layers: nn.Sequential, share: float = 0.7) -> nn.Sequential:
    """Most weights zero, some units cut off from what is before or after them."""
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Linear) and layer.in_features > 4:
                layer.weight.mul_(torch.rand_like(layer.weight) > share)
        layers[2].weight[1] = 0
        layers[2].weight[:, 5] = 0
        layers[0].weight[2] = 0
    return layers


def recorded(count: int = 64) -> list[np.ndarray[Any, Any]]:
    return [np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)]


def by_hand(made: IntegerPolicy, row: np.ndarray[Any, Any]) -> list[float]:
    """The logits of one observation, in Python's whole numbers, of what the graph holds."""
    numbers: Any = None
    for node in made.network.graph.nodes:  # type: ignore[union-attr]
        if node.op != "call_function":
            continue
        name, arguments = node.target._opname, node.args[1:]
        tensors = [
            getattr(made.network, str(x.target)).tolist()
            if hasattr(x, "target") and x.op == "get_attr"
            else x
            for x in arguments
        ]
        if name == "quantise":
            inverse, low, high = tensors
            scaled = [np.float32(x) * np.float32(inverse) for x in row]
            numbers = [
                max(low, min(high, int(x + np.float32(0.5) * (1 if x >= 0 else -1))))
                for x in scaled
            ]
        elif name == "integer_linear":
            weight, bias = tensors
            numbers = [
                b + sum(w * k for w, k in zip(ws, numbers, strict=True))
                for ws, b in zip(weight, bias, strict=True)
            ]
        elif name == "rescale":
            by, shift, low, high = tensors
            by = by * len(numbers) if len(by) == 1 else by
            numbers = [
                max(low, min(high, (k * m + 2 ** (shift - 1)) // 2**shift))
                for k, m in zip(numbers, by, strict=True)
            ]
        elif name == "dequantise":
            return [
                float(np.float32(k) * np.float32(s))
                for k, s in zip(numbers, tensors[0], strict=True)
            ]
    raise AssertionError("it gives nothing")


def test_relu_networks_compute_what_python_s_whole_numbers_do() -> None:
    given = recorded()
    found = integer_policy(policies.discrete(pruned(net(function=nn.ReLU))), given)
    logits = module_run(found.policy)(given)[1]
    for row in range(8):
        assert by_hand(found.policy, given[0][row]) == logits[row].tolist()
    assert found.calibrated
    assert [(layer["weights"], layer["reads"]) for layer in found.layers] == [
        (8, 16),
        (8, 8),
        (8, 8),
    ]


def test_what_is_left_of_a_policy_computes_the_same_to_the_bit() -> None:
    given = recorded()
    policy = policies.discrete(pruned(net()))
    whole = integer_policy(policy, given, compacted=False)
    small = integer_policy(policy, given)
    assert {gone["layer"]: gone["units"] > 0 for gone in small.removed} == {
        "network.layers.0": True, "network.layers.2": True,
    }  # fmt: skip
    far = [given[0] * 50]
    for inputs in (given, far):
        for one, other in zip(*(module_run(p.policy)(inputs) for p in (whole, small)), strict=True):
            assert np.array_equal(one, other)


class Twice(nn.Module):
    """A hidden layer that is called twice; some of its units are dead in one of its calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.tied, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.tied.weight[:, 1] = 0
            self.last.weight[:, 2] = 0
            self.first.weight[3] = 0
            self.tied.weight[4] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        for _ in range(2):
            hidden = torch.relu(self.tied(hidden))
        return self.last(hidden)


def test_units_of_a_layer_that_is_called_twice_stay() -> None:
    given = recorded()
    policy = policies.discrete(Twice())
    whole, small = (integer_policy(policy, given, compacted=c).policy for c in (False, True))
    for one, other in zip(*(module_run(p)(given) for p in (whole, small)), strict=True):
        assert np.array_equal(one, other)


def trained(layers: nn.Sequential, given: np.ndarray[Any, Any]) -> nn.Sequential:
    """As training leaves it that has met some observations."""
    quantiser = Quantiser(layers, QuantisationConfig(start=0, freeze=1))
    quantiser.update(0)
    layers.train()(torch.from_numpy(given))
    quantiser.update(1)
    return layers


@pytest.mark.parametrize("bias", [0.0, 0.7])
def test_what_lies_behind_a_layer_that_is_pruned_altogether_is_a_constant(bias: float) -> None:
    given, layers = recorded(), net(hidden=1)
    with torch.no_grad():
        layers[0].weight.zero_()
        layers[0].bias.fill_(bias)
    found = integer_policy(policies.discrete(trained(layers, given[0])), given)
    one, other = (module_run(p)(given)[1] for p in (found.policy, found.rounded))
    assert np.abs(one - other).max() < 0.01


def test_a_layer_that_has_observed_nothing_says_so() -> None:
    layers = net()
    Quantiser(layers, QuantisationConfig(start=0, freeze=0)).update(0)
    with pytest.raises(InputError, match=r"has observed no range.* beyond `quantise\.start`"):
        integer_policy(policies.discrete(layers), recorded())


class Alike(nn.Module):
    """Two layers whose names differ in a dot and an underscore alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pi, self.pi_0 = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.pi_0(self.pi(x))))


def test_layers_with_names_alike_keep_their_own_weights() -> None:
    given = recorded()
    found = integer_policy(policies.discrete(Alike()), given)
    one, other = (module_run(p)(given)[1] for p in (found.policy, found.rounded))
    assert np.abs(one - other).max() < 0.01


def test_what_was_recorded_has_to_have_a_range() -> None:
    given = recorded()
    given[0][3, 1] = np.inf
    with pytest.raises(InputError, match=r"layers\.0' reads NaN or infinity on the recorded"):
        integer_policy(policies.discrete(net()), given)


@needs_compiler
@pytest.mark.parametrize(
    ("function", "bits"),
    [
        (nn.Tanh, 4),
        pytest.param(nn.ReLU, 8, marks=pytest.mark.slow),
        pytest.param(nn.ReLU, 2, marks=pytest.mark.slow),
        pytest.param(nn.Tanh, 8, marks=pytest.mark.slow),
    ],
)
def test_the_c_file_of_a_trained_policy_equals_its_model_to_the_bit(
    function: type[nn.Module], bits: int, tmp_path: Path
) -> None:
    policy, given = policies.discrete(pruned(net(40, function))), recorded()
    quantiser = Quantiser(policy, QuantisationConfig(weights=bits, start=0, freeze=1000))
    quantiser.update(0)
    policy.train()(torch.from_numpy(given[0]))
    quantiser.update(1000)
    path = tmp_path / "policy.c"
    told = export_policy(policy.eval(), path, "c", recorded=given, about=ABOUT, quantised=True)
    whole = told["whole_numbers"]
    assert not whole["calibrated"]
    assert {layer["weights"] for layer in whole["layers"]} == {bits}
    assert whole["equal_to_the_bit"] == {"recorded": 64, "random": 4000, "far": 4000, "odd": 60}
    assert whole["as_trained"]["agreement"] > 0.9
    layouts = {layout["layout"] for layout in told["layouts"]}
    assert layouts == ({"dense"} if bits == 2 else {"dense", "sparse rows"})
    artifact = open_artifact(path)
    nan = np.zeros((1, 4), np.float32)
    nan[0, 1] = np.nan
    assert np.isnan(artifact.run([nan])[1]).all()
    assert "float" not in path.read_text().split("total = ")[1].split("total * ")[0]
    other = integer_policy(policies.discrete(net(40, function)), given).policy
    with pytest.raises(InvariantError, match=r"`(dist_inputs|action)` differs"):
        prove_bits(other, artifact, given, 0)


def test_what_whole_numbers_can_t_hold_is_named_with_a_way_out() -> None:
    with pytest.raises(InputError, match="can't hold `leaky_relu` between layers"):
        integer_policy(policies.discrete(net(function=nn.LeakyReLU)), recorded())
    normed = nn.Sequential(nn.Linear(4, 3), nn.Conv1d(1, 1, 1))
    with pytest.raises(InputError, match=r"layers\.1', a Conv1d"):
        integer_policy(policies.discrete(_Unfolded(normed)), recorded())
    policy = policies.discrete(net())
    config = QuantisationConfig(start=0, freeze=0, skip=("network.layers.0",))
    Quantiser(policy, config).update(0)
    with pytest.raises(InputError, match=r"'network\.layers\.0' was left in floating point"):
        integer_policy(policy, recorded())


class _Unfolded(nn.Module):
    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers0, self.layers = layers[0], nn.ModuleDict({"1": layers[1]})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers["1"](self.layers0(x).unsqueeze(1)).squeeze(1)


def test_a_sum_that_32_bits_can_t_hold_is_refused() -> None:
    policy = policies.discrete(nn.Sequential(nn.Linear(4, 3)))
    with torch.no_grad():
        policy.network.layers[0].weight.fill_(1.0)
    wide = policies.discrete(nn.Sequential(nn.Linear(400, 3)), size=400)
    with torch.no_grad():
        wide.network.layers[0].weight.fill_(1.0)
    given = [np.random.default_rng(0).standard_normal((8, 400)).astype(np.float32)]
    with pytest.raises(InputError, match=r"may reach .* and 32 bits hold"):
        integer_policy(wide, given)


def test_lowering_lays_numbers_down_in_as_many_bits_as_they_need() -> None:
    found = integer_policy(policies.discrete(net()), recorded())
    program = lower(capture(found.policy, batch=1), found.policy.interface, 8)
    kinds = [buffer[1] if isinstance(buffer, tuple) else buffer.ctype for buffer in program.buffers]
    assert kinds[:3] == ["int16_t", "int8_t", "int8_t"]
