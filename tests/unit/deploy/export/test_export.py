"""From a policy to a file: what is written acts as the policy, or nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rayprune.deploy.export import export as exporting
from rayprune.deploy.export.export import export_policy
from rayprune.deploy.formats import format_named, open_artifact
from rayprune.deploy.formats.base import ExportedFile, ExportJob, ExportOptions
from rayprune.deploy.formats.pt2 import TorchArtifact, TorchFormat
from rayprune.deploy.policy.actions import Aim, Decide, Unsquash
from rayprune.deploy.policy.agreement import agreement
from rayprune.deploy.policy.capture import capture, plain_copy
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.policy import DeployablePolicy, Observe
from rayprune.deploy.policy.runs import module_run, random_inputs
from rayprune.errors import InputError, InvariantError, StorageError
from rayprune.pruning.layers.attach import make_maskable
from tests.doubles import policies

POLICIES = {
    "mlp": policies.mlp,
    "sampled": lambda: policies.mlp(sample=True),
    "recurrent": policies.recurrent,
    "image": policies.image,
}


def seen(policy: Any, count: int = 50) -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [
        draw.normal(size=(count, *port.shape)).astype(port.dtype)
        for port in policy.interface.inputs
    ]


@pytest.fixture(scope="module")
def of_memory(tmp_path_factory) -> Any:
    """A recurrent policy, and its files by format: tests that only read one share it."""
    policy, folder = make_maskable(policies.recurrent()), tmp_path_factory.mktemp("recurrent")
    for name, kind in (("policy.onnx", "onnx"), ("policy.pt2", "torch")):
        export_policy(policy, folder / name, kind, recorded=seen(policy), about={})
    return policy, folder


class Streaming(nn.Module):
    """A residual block between norms, of whose stream half is constant and read by no one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.last = nn.Linear(4, 16), nn.LayerNorm(16), nn.RMSNorm(16)
        self.inner = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.back, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        with torch.no_grad():
            for layer in (self.embed, self.back):
                layer.weight[::2] = 0
            for layer in (self.inner[0], self.head):
                layer.weight[:, ::2] = 0

    def forward(self, x: Any) -> Any:
        x = self.embed(x)
        return self.head(self.last(x + self.back(self.inner(self.norm(x)))))


@pytest.mark.parametrize("kind", ["torch", "c", pytest.param("onnx", marks=pytest.mark.slow)])
def test_constants_that_norms_keep_are_in_the_file(kind, tmp_path):
    policy = plain_copy(policies.discrete(Streaming()))
    path = tmp_path / f"policy{format_named(kind).suffix}"
    certificate = export_policy(policy, path, kind, recorded=seen(policy), about={})
    gone = {removed["layer"]: removed["units"] for removed in certificate["compaction"]["removed"]}
    assert gone == {"network.layers.embed": 8, "network.layers.back": 8}
    inputs = seen(policy, 300)
    found = agreement(policy.interface, module_run(policy)(inputs), open_artifact(path).run(inputs))
    assert found.holds
    assert found.max_error < 5e-6


# Not all nine: an export to ONNX takes seconds, and the C files have tests of their own.
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("onnx", "sampled"),
        ("onnx", "recurrent"),
        ("onnx", "image"),
        ("torch", "mlp"),
        ("torch", "sampled"),
        ("c", "mlp"),
        ("c", "image"),
    ],
)
def test_an_opened_file_acts_as_the_policy_at_any_batch_size(kind, name, tmp_path):
    policy = make_maskable(POLICIES[name]())
    path = tmp_path / f"policy{format_named(kind).suffix}"
    certificate = export_policy(policy, path, kind, recorded=seen(policy), about={"env": "x"})
    assert certificate == json.loads((tmp_path / f"{path.name}.json").read_text())
    assert certificate["equivalence"]["random"]["observations"] == 1000
    artifact = open_artifact(path)
    assert artifact.interface == policy.interface
    assert artifact.metadata.about["env"] == "x"
    for batch in (1, 2, 33):
        inputs = seen(policy, batch)
        expected = module_run(plain_copy(policy))(inputs)
        assert agreement(policy.interface, expected, artifact.run(inputs)).holds
    assert isinstance(policy.network, nn.Module)
    assert policy.training, "the policy is left as it was"


@pytest.mark.parametrize(("lanes", "convolutions"), [(8, 2), (16, 3)])
def test_an_onnx_file_has_the_convolutions_that_its_machine_wants(lanes, convolutions, tmp_path):
    policy = policies.image()
    path = tmp_path / "policy.onnx"
    told = export_policy(policy, path, "onnx", recorded=seen(policy), about={}, lanes=lanes)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Conv") == convolutions
    assert operators[0] == "Reshape", "the image is read as it lies"
    assert told["lanes"] == lanes
    assert told["parameters"]["total"] == sum(x.numel() for x in policy.parameters())


def test_a_lane_width_that_no_register_has_is_refused(tmp_path):
    policy = policies.mlp()
    with pytest.raises(InputError, match=r"`lanes` must be one of \[4, 8, 16\], but is 5"):
        export_policy(policy, tmp_path / "a.c", "c", recorded=seen(policy), about={}, lanes=5)


@pytest.mark.parametrize(
    ("kind", "options", "what"),
    [("torch", {}, "format 'torch'"), ("onnx", {"quantised": True}, "int8")],
)
def test_a_lane_width_that_would_change_nothing_is_refused(kind, options, what, tmp_path):
    policy, path = policies.mlp(), tmp_path / f"a{format_named(kind).suffix}"
    with pytest.raises(InputError, match=f"changes nothing in a file of {what}"):
        export_policy(policy, path, kind, recorded=seen(policy), about={}, lanes=16, **options)


def test_inputs_of_unequal_batch_sizes_are_refused(of_memory):
    artifact = open_artifact(of_memory[1] / "policy.onnx")
    with pytest.raises(InputError, match=r"one batch size, but have .*'obs': 4, 'state.h': 1"):
        artifact.act(np.zeros((4, 4), np.float32), artifact.initial_state(1))


def test_more_batch_sizes_than_memory_is_kept_for(tmp_path):
    policy = policies.mlp()
    export_policy(policy, tmp_path / "p.onnx", "onnx", recorded=seen(policy), about={})
    artifact, run = open_artifact(tmp_path / "p.onnx"), module_run(plain_copy(policy))
    for batch in [*range(1, 20), *range(1, 20)]:
        given = [x[:batch] for x in seen(policy)]
        np.testing.assert_allclose(artifact.run(given)[1], run(given)[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["onnx", "c"])
def test_actions_of_wide_bounds_are_as_exact_as_their_size_allows(kind, tmp_path):
    torch.manual_seed(0)
    interface = Interface(
        observations=(Port("obs", (4,)),),
        action=Port("action", (2,)),
        dist_inputs=Port("dist_inputs", (4,)),
    )
    layers = [nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)]
    decide = Decide(Aim(), Unsquash(torch.tensor([-1e3, -0.1]), torch.tensor([1e3, 0.1])))
    network = policies.Plain(nn.Sequential(*layers))
    policy = DeployablePolicy(Observe(), network, decide, interface)
    path = tmp_path / f"policy.{kind}"
    told = export_policy(policy, path, kind, recorded=seen(policy), about={})
    assert told["equivalence"]["random"]["holds"]
    given = seen(policy)
    found, expected = open_artifact(path).run(given)[0], module_run(plain_copy(policy))(given)[0]
    # The narrow one isn't measured by its neighbour's width.
    for place, allowed in enumerate((1e-2, 1e-6)):
        np.testing.assert_allclose(found[:, place], expected[:, place], atol=allowed, rtol=0)


def test_what_an_onnx_file_returned_stays_as_it_was_whoever_else_calls_it(of_memory):
    policy, folder = of_memory
    artifact = open_artifact(folder / "policy.onnx")
    given = [[x[n : n + size] for x in seen(policy)] for size in (1, 4) for n in range(40)]
    expected = [[x.copy() for x in artifact.run(inputs)] for inputs in given]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(artifact.run, given * 20))
    for outputs, wanted in zip(found, expected * 20, strict=True):
        for output, right in zip(outputs, wanted, strict=True):
            np.testing.assert_allclose(output, right, rtol=1e-5, atol=1e-6)


def test_a_recurrent_file_goes_on_from_the_state_it_returned(of_memory):
    policy, folder = of_memory
    artifact, run = open_artifact(folder / "policy.pt2"), module_run(plain_copy(policy))
    observations = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
    state, states = None, [np.zeros((2, 1, 8), np.float32)] * 2
    for given in observations:
        step = artifact.act(given, state)
        action, _, *states = run([given, *states])
        np.testing.assert_allclose(step.actions, action, atol=1e-6)
        state = step.state
    assert set(state) == {"state.h", "state.c"}


def test_a_torch_file_loads_without_rayprune_and_without_what_the_action_does_not_need(
    of_memory, tmp_path
):
    path = of_memory[1] / "policy.pt2"
    code = (
        "import sys\n"
        "for name in ('ray', 'rayprune', 'gymnasium', 'onnx'): sys.modules[name] = None\n"
        "import torch\n"
        f"program = torch.export.load({str(path)!r})\n"
        "print(sum('critic' in name for name in program.state_dict))\n"
        "x = torch.zeros(1, 4), torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)\n"
        "print(tuple(program.module()(*x)[0].shape))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[:2] == ["0", "(1, 2)"]


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    policy = policies.mlp()

    class Wrong(TorchFormat):
        def write(self, job: ExportJob, path: Any) -> ExportedFile:
            with torch.no_grad():
                job.policy.network.layers[0].weight[0, 0] += 0.01
            return super().write(job, path)

    monkeypatch.setattr(exporting, "format_named", lambda _: Wrong())
    with pytest.raises(InvariantError, match=r"recorded observations `dist_inputs` differs by"):
        export_policy(policy, tmp_path / "policy.pt2", "torch", recorded=seen(policy), about={})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_runtime_cannot_run_is_not_written(tmp_path, monkeypatch):
    def run(self, inputs):
        raise RuntimeError("no such kernel.")

    monkeypatch.setattr(TorchArtifact, "run", run)
    policy = policies.mlp()
    with pytest.raises(InputError, match=r"can't be run: no such kernel\. Nothing was written"):
        export_policy(policy, tmp_path / "policy.pt2", "torch", recorded=seen(policy), about={})
    assert list(tmp_path.iterdir()) == []


def test_what_float32_rounds_too_much_is_told_from_what_is_wrong(tmp_path, monkeypatch):
    policy = policies.discrete(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3)))
    first, last = policy.network.layers[0], policy.network.layers[2]
    with torch.no_grad():
        # Large numbers whose difference is small.
        first.weight[1::2] = first.weight[::2] * 3e4 + torch.rand(32, 4)
        first.weight[::2] *= 3e4
        last.weight[:, 1::2] = -last.weight[:, ::2]

    class Wrong(TorchFormat):
        def write(self, job: ExportJob, path: Any) -> ExportedFile:
            with torch.no_grad():
                job.policy.network.layers[2].bias[0] += 0.001
            return super().write(job, path)

    monkeypatch.setattr(exporting, "format_named", lambda _: Wrong())
    with pytest.raises(InputError, match=r"in float32 its own outputs are .* normalise its obs"):
        export_policy(policy, tmp_path / "policy.pt2", "torch", recorded=seen(policy), about={})
    assert list(tmp_path.iterdir()) == []


def test_files_in_the_way_are_kept_unless_told(tmp_path):
    policy, path = policies.mlp(), tmp_path / "policy.pt2"
    path.write_text("mine")
    with pytest.raises(StorageError, match="--overwrite"):
        export_policy(policy, path, "torch", recorded=seen(policy), about={})
    assert path.read_text() == "mine"
    export_policy(policy, path, "torch", recorded=seen(policy), about={}, overwrite=True)
    assert open_artifact(path).interface == policy.interface


def test_a_name_of_another_format_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in '\.onnx'"):
        exporting.check_export(tmp_path / "policy.pt2", "onnx", ExportOptions(), overwrite=False)
    with pytest.raises(StorageError, match="no folder"):
        exporting.check_export(
            tmp_path / "no" / "policy.onnx", "onnx", ExportOptions(), overwrite=False
        )


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3] if x.sum() > 0 else -x[:, :3]


def test_a_missing_package_is_told_before_any_work_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("rayprune.deploy.formats.onnx.packages.installed", "onnxscript".__ne__)
    with pytest.raises(InputError, match=r"rayprune\[deploy\]'\. `--format torch`"):
        exporting.check_export(tmp_path / "policy.onnx", "onnx", ExportOptions(), overwrite=False)


def test_a_module_that_branches_on_its_values_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"can't be traced.*free of branches"):
        capture(plain_copy(policies.discrete(Branching())))


def test_what_is_no_exported_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no exported file"):
        open_artifact(tmp_path / "none.onnx")
    for name in ("a.onnx", "a.pt2", "a.txt"):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(InputError, match="a\\."):
            open_artifact(tmp_path / name)
    other = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(other, tmp_path / "other.pt2")
    with pytest.raises(InputError, match="wasn't exported by rayprune"):
        open_artifact(tmp_path / "other.pt2")


def test_sampled_files_ask_for_their_noise(tmp_path):
    policy, path = policies.mlp(sample=True), tmp_path / "policy.pt2"
    export_policy(policy, path, "torch", recorded=seen(policy), about={})
    artifact = open_artifact(path)
    with pytest.raises(InputError, match="gumbel, of shape"):
        artifact.act(np.zeros((1, 4)))
    noise = np.array([[0.0, 1e6, 0.0]])
    assert artifact.act(np.zeros((1, 4)), noise=noise).actions.tolist() == [1]


def ports(choices: int = 3) -> Interface:
    return Interface(
        observations=(Port("obs", (2,)),),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (choices,)),
    )


def test_equal_choices_may_be_told_apart_either_way_and_others_may_not():
    logits = np.array([[1.0, 1.0 + 1e-6, 0.0], [0.0, 1.0, 0.5]])
    found = agreement(ports(), [np.array([1, 1]), logits], [np.array([0, 1]), logits])
    assert (found.ties, found.differing_actions, found.holds) == (1, 0, True)
    found = agreement(ports(), [np.array([1, 1]), logits], [np.array([1, 2]), logits])
    assert (found.ties, found.differing_actions, found.holds) == (0, 1, False)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.1e-5])
def test_a_difference_that_is_not_a_number_is_no_agreement(wrong):
    logits, actions = np.zeros((1, 3)), np.zeros(1, np.int64)
    other = logits + np.array([0, wrong, 0])
    assert not agreement(ports(), [actions, logits], [actions, other]).holds
    assert agreement(ports(), [actions, logits], [actions, logits + 0.9e-5]).holds


def test_large_values_may_differ_by_their_last_bits():
    logits, actions = np.full((1, 3), 1e4), np.zeros(1, np.int64)
    assert agreement(ports(), [actions, logits], [actions, logits * (1 + 9e-6)]).holds
    assert not agreement(ports(), [actions, logits], [actions, logits * (1 + 2e-5)]).holds


def test_random_inputs_have_the_recorded_spread_and_only_recorded_numbers():
    interface = Interface(
        observations=(Port("obs.x", (2,)), Port("obs.n", (), "int64")),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (3,)),
    )
    draw = np.random.default_rng(0)
    recorded = [draw.normal([0, 100], [1, 5], size=(500, 2)), np.array([0, 4] * 250)]
    x, n = random_inputs(interface, recorded, 2000, seed=0)
    np.testing.assert_allclose(x.std(axis=0), [3, 15], rtol=0.1)
    np.testing.assert_allclose(x.mean(axis=0), [0, 100], atol=1.5)
    assert set(n.tolist()) == {0, 4}


def dying(policy: Any) -> Any:
    """Let half of the units of every hidden layer be read by nobody."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.endswith(("layers.2.weight", "out.weight")):
                parameter[:, ::2] = 0
            if "_hh_" in name and parameter.dim() > 1:
                parameter[:, ::2] = 0
    return policy


@pytest.mark.parametrize("name", ["mlp", "recurrent"])
def test_dead_units_go_and_the_file_still_acts_as_the_masked_policy(name, tmp_path):
    policy, path = dying(POLICIES[name]()), tmp_path / "policy.pt2"
    small = export_policy(policy, path, "torch", recorded=seen(policy), about={})
    assert small["parameters"]["total"] < 0.6 * small["parameters"]["given"]
    # The critic's memory goes too, but for the one unit that a layer keeps.
    gone = [gone["units"] / gone["of"] for gone in small["compaction"]["removed"]]
    assert gone in ([0.5], [7 / 8, 0.5])
    assert small["compaction"]["errors"]["f64"] < 1e-12
    assert small["compaction"]["observations"]["recorded"] == 50
    for port in open_artifact(path).interface.states:
        assert port.shape == (1, 4), "half of the memory is gone, and the ports say so"
    whole = export_policy(
        policy, path, "torch", recorded=seen(policy), about={}, compacted=False, overwrite=True
    )
    assert whole["compaction"]["removed"] == []
    assert whole["parameters"]["total"] > small["parameters"]["total"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_policy_of_another_type_is_refused_with_the_way_out(dtype, tmp_path):
    policy = policies.mlp()
    policy.network.to(dtype)
    message = rf"Exported policies take and give float32, but '.*' is {dtype}\. Convert"
    with pytest.raises(InputError, match=message):
        export_policy(
            policy, tmp_path / "p.pt2", "torch", recorded=seen(policy), about={"env": "x"}
        )
    assert list(tmp_path.iterdir()) == []
