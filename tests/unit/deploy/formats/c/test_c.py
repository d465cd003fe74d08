"""Generated C computes what torch computes, whatever compiles it."""

from __future__ import annotations

import ctypes
import subprocess

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats.base import Examples
from rayprune.deploy.formats.c.compiler import CArtifact, run_self_test
from rayprune.deploy.formats.c.lowering.lower import lower
from rayprune.deploy.policy.agreement import agreement
from rayprune.deploy.policy.capture import capture, plain_copy
from rayprune.deploy.policy.odd_inputs import Odd, prove_odd
from rayprune.deploy.policy.runs import module_run
from rayprune.errors import InputError
from rayprune.policies import policy_of
from tests.doubles import policies
from tests.unit.deploy.formats.c.networks import (
    COMPILERS,
    LAYOUTS,
    NETWORKS,
    inputs_of,
    needs_compiler,
    seeing,
    sparse,
    written,
)


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_the_compiled_file_computes_what_torch_does(name, tmp_path):
    torch.manual_seed(0)
    policy = NETWORKS[name]()
    path, told, (given, expected) = written(policy, tmp_path, env="a*/b")
    assert told["self_test"]["passed"]
    artifact = CArtifact(path)
    assert artifact.metadata.about["env"] == "a*/b"
    found = agreement(policy.interface, expected, artifact.run(given))
    assert found.holds
    assert found.max_error < 2e-6
    if name in LAYOUTS:
        assert [layout["layout"] for layout in told["layouts"]] == LAYOUTS[name]


@needs_compiler
@pytest.mark.parametrize("name", ["thinned", "seeing"])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_other_lane_widths_compute_the_same(lanes, name, tmp_path):
    policy = NETWORKS[name]()
    path, _, (given, expected) = written(policy, tmp_path, lanes)
    assert path.read_text().count(f"#define policy_LANES {lanes}") == 1
    assert agreement(policy.interface, expected, CArtifact(path).run(given)).holds


@needs_compiler
def test_a_machine_without_vectors_gets_lists_where_others_get_all_weights(tmp_path):
    path, told, _ = written(sparse(), tmp_path)
    assert told["layouts"][1]["layout_without_vectors"] == "linear_rows"
    text = path.read_text()
    assert text.count("#if policy_LANES > 1\nstatic const float") == 1
    assert text.count("#if !(policy_LANES > 1)\nstatic const") == 3
    assert told["self_test"]["without_vectors"]["passed"]
    # A number that only the lists hold.
    begin = text.index("#if !(policy_LANES > 1)\nstatic const float")
    first = text.index("{\n", begin) + 2
    path.write_text(f"{text[:first]}9.0f+{text[first:]}")
    found = run_self_test(path)
    assert (found["passed"], found["without_vectors"]["passed"]) == (False, False)
    assert found["said"] == found["without_vectors"]["said"], "what failed is what is told"


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_nan_and_infinity_come_out_as_they_do_of_torch(name, tmp_path):
    torch.manual_seed(0)
    plain = plain_copy(NETWORKS[name]())
    path, _, (given, _) = written(plain, tmp_path)
    told = prove_odd(plain, CArtifact(path).run, given, seed=0)
    if name == "seeing":
        assert told == {"inputs": 0, "nan": 0}, "whole numbers have no NaN"
    else:
        floats = sum(x[0].size for x in given)
        assert told["inputs"] == 3 * floats
        # An infinite observation is a number again behind a tanh.
        assert told["nan"] >= given[0][0].size


class Bounded(nn.Module):
    """Every way to lose a NaN: a pooling, a ReLU, bounds of numbers and of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("high", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(x.reshape(-1, 1, 2, 2), (1, 2)).flatten(1)
        x = torch.relu(torch.cat([x, x[:, :1]], dim=1)).clamp(-0.5, 0.5)
        return torch.minimum(torch.maximum(x, -self.high), self.high)


@pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")
@pytest.mark.parametrize("options", [["-O3", "-march=native"], ["-Os"], ["-O2", "-DPOLICY_PLAIN"]])
def test_each_operator_lets_a_nan_through_whatever_compiles_it(options, tmp_path):
    plain = plain_copy(policies.discrete(Bounded()))
    given = inputs_of(plain)
    path, _, _ = written(plain, tmp_path)
    for compiler in COMPILERS:
        library = tmp_path / f"{compiler}.so"
        command = [compiler, *options, "-shared", "-fPIC", path, "-o", library, "-lm"]
        subprocess.run(command, check=True)
        act = ctypes.CDLL(str(library)).policy_act
        for element in range(4):
            x, action, logits = given[0][0].copy(), np.zeros(1, np.int32), np.zeros(3, np.float32)
            assert act(*(a.ctypes.data_as(ctypes.c_void_p) for a in (x, action, logits))) == 0
            x[element] = np.nan
            assert act(*(a.ctypes.data_as(ctypes.c_void_p) for a in (x, action, logits))) == 1
            wanted = module_run(plain)([x[None]])
            np.testing.assert_array_equal(np.isnan(logits), np.isnan(wanted[1][0]))
            assert action[0] == wanted[0][0], "torch's argmax is the first NaN"


@needs_compiler
@pytest.mark.parametrize(
    ("lost", "kept"),
    [
        ("< 0.0f ? 0.0f : b0[i]", "> 0.0f ? b0[i] : 0.0f"),
        ("(v < low, low, v)", "(v > low, v, low)"),
    ],
)
def test_the_self_test_notices_a_nan_that_is_lost(lost, kept, tmp_path):
    layers = [nn.Linear(4, 16), nn.ReLU() if "0.0f" in lost else nn.ELU(), nn.Linear(16, 3)]
    path, _, (given, expected) = written(policies.discrete(nn.Sequential(*layers)), tmp_path)
    odd = [Odd(0, element, np.nan) for element in range(4)]
    path, told, _ = written(
        policies.discrete(nn.Sequential(*layers)), tmp_path, examples=Examples(given, expected, odd)
    )
    assert told["self_test"]["said"].endswith("; 4 with NaN or infinity, 0 hidden")
    text = path.read_text()
    assert lost in text
    path.write_text(text.replace(lost, kept))
    assert run_self_test(path)["passed"] is False
    assert run_self_test(path)["said"].endswith("; 4 with NaN or infinity, 4 hidden")


@needs_compiler
def test_nan_in_what_pruning_has_left_out_is_nan_all_the_same(tmp_path):
    policy = policies.discrete(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3)))
    with torch.no_grad():
        policy.network.layers[0].weight[:, 2] = 0  # a sensor that can be unplugged
        policy.network.layers[0].weight[16:, :2] = 0
    plain = plain_copy(policy)
    path, told, (given, _) = written(plain, tmp_path)
    assert told["layouts"][0]["layout"] == "linear_blocks"
    assert prove_odd(plain, CArtifact(path).run, given, seed=0) == {"inputs": 12, "nan": 12}


@needs_compiler
def test_negative_padding_cuts_off_and_bounds_may_be_tensors(tmp_path):
    class Cutting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bound", torch.tensor([0.5]))
            self.out = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.clamp(x, -self.bound, self.bound)
            return self.out(nn.functional.pad(x, (-1, 2), value=0.25))

    path, told, (given, expected) = written(policies.discrete(Cutting()), tmp_path)
    assert told["self_test"]["passed"]
    assert agreement(policies.mlp().interface, expected, CArtifact(path).run(given)).holds


@needs_compiler
def test_the_self_test_notices_a_wrong_weight(tmp_path):
    path, _, _ = written(policies.mlp(), tmp_path)
    text = path.read_text()
    begin = text.index("static const float policy_c0")
    first = text.index("{\n", begin) + 2
    end = text.index("f,", first)
    path.write_text(text[:first] + str(float(text[first:end]) + 0.01) + text[end:])
    told = run_self_test(path)
    assert told["passed"] is False
    assert told["said"].startswith("30 observations, 30 wrong")


class Strange(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(torch.erfinv(x[:, :3]), dim=1)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, counts):
        return self.last(counts.float() / 2.0**40)


@needs_compiler
@pytest.mark.parametrize("count", [2**31, -(2**31) - 1])
def test_whole_numbers_that_c_would_take_for_others_are_refused(count, tmp_path):
    space = gym.spaces.Box(-(2**40), 2**40, (3,), np.int64)
    policy = policy_of(Counting(), space, gym.spaces.Discrete(2))
    seen = np.arange(-48, 48).reshape(32, 3)
    export_policy(policy, tmp_path / "a.c", "c", recorded=[seen], about={})
    artifact = CArtifact(tmp_path / "a.c")
    seen[5, 1] = count
    with pytest.raises(InputError, match=f"`obs` must hold whole numbers of 32 bits.*{count:,}"):
        artifact.run([seen])
    with pytest.raises(InputError, match="`obs` must hold whole numbers of 32 bits"):
        export_policy(policy, tmp_path / "b.c", "c", recorded=[seen], about={})


def test_operators_that_c_does_not_have_are_named_with_what_to_do():
    policy = plain_copy(policies.discrete(Strange()))
    with pytest.raises(InputError, match=r"\['cumsum', 'erfinv'\].*--format onnx"):
        lower(capture(policy, batch=1), policy.interface, 8)


@needs_compiler
@pytest.mark.parametrize(("filters", "lanes"), [(3, 8), (9, 8), (24, 4), (24, 16), (5, 16)])
def test_any_number_of_filters_fits_into_any_registers(filters, lanes, tmp_path):
    torch.manual_seed(0)
    policy = seeing()
    policy.network.layers.conv0 = nn.Conv2d(2, filters, 3, padding=1)
    policy.network.layers.convs[1] = nn.Conv2d(filters, 17, (3, 2), stride=2)
    path, told, (given, expected) = written(policy, tmp_path, lanes)
    assert told["self_test"]["passed"]
    first = [layout for layout in told["layouts"] if layout.get("channels") == 2]
    assert [(layout["layout"], layout["filters"]) for layout in first] == [("convolve", filters)]
    assert agreement(policy.interface, expected, CArtifact(path).run(given)).holds
