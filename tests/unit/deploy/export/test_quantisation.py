"""int8 stays close to float32, and is refused where it is slower."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rayprune.deploy.export import quantisation
from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.quantisation import closeness
from rayprune.deploy.formats import open_artifact
from rayprune.deploy.formats.onnx import onnx_format
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.errors import InputError
from tests.doubles import policies

pytest.importorskip("onnxruntime")


class Fixed:
    """A stopwatch whose verdict a test gives."""

    def __init__(self, ratio):
        self.ratio = ratio

    def __call__(self, *_):
        return {"ratio": self.ratio, "ci95": [self.ratio, self.ratio]}


def convolving():
    torch.manual_seed(0)
    layers = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten()]
    return policies.discrete(nn.Sequential(*layers, nn.Linear(288, 3)), size=64)


@pytest.mark.parametrize(
    ("make", "kind"), [(lambda: policies.mlp(64), "dynamic"), (convolving, "static")]
)
def test_an_int8_file_is_close_to_what_it_was_made_of(make, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(quantisation, "_gain", Fixed(2.0))
    policy, path = make(), tmp_path / "policy.onnx"
    size = policy.interface.observations[0].shape[0]
    recorded = [np.random.default_rng(0).normal(size=(200, size)).astype(np.float32)]
    told = export_policy(policy, path, "onnx", recorded=recorded, about={}, quantised=True)
    assert told["int8"]["kind"] == kind
    assert told["int8"]["closeness"]["agreement"] > 0.9
    assert 0 < told["int8"]["closeness"]["max_error"] < 0.2
    assert told["nan_and_infinity"]["nan"] >= size, "an int8 has no NaN, but the file has"
    artifact = open_artifact(path)
    assert artifact.interface == policy.interface
    exact = [x.numpy() for x in policy(torch.from_numpy(recorded[0]).clone())[:1]]
    assert (artifact.run(recorded)[0] == exact[0]).mean() == told["int8"]["closeness"]["agreement"]
    names = ["policy.onnx", "policy.onnx.json", "policy.onnx.manifest.json"]
    assert [file.name for file in sorted(tmp_path.iterdir())] == names


def test_convolutions_keep_their_form_for_int8(tmp_path, monkeypatch):
    monkeypatch.setattr(quantisation, "_gain", Fixed(2.0))
    policy, path = policies.image(), tmp_path / "policy.onnx"
    recorded = [np.random.default_rng(0).normal(size=(8, 84, 84, 4)).astype(np.float32)]
    monkeypatch.setattr(onnx_format, "_lanes_here", lambda: 16)
    told = export_policy(policy, path, "onnx", recorded=recorded, about={}, quantised=True)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert (kinds.count("Transpose"), kinds.count("Conv")) == (1, 2)
    assert told["lanes"] is None


def test_int8_is_refused_with_figures_where_it_is_slower(tmp_path, monkeypatch):
    monkeypatch.setattr(quantisation, "_gain", Fixed(0.8))
    policy, path = policies.mlp(), tmp_path / "policy.onnx"
    recorded = [np.zeros((4, 4), np.float32)]
    with pytest.raises(InputError, match=r"0\.80x at batch 1, 0\.80x at batch 32"):
        export_policy(policy, path, "onnx", recorded=recorded, about={}, quantised=True)
    assert list(tmp_path.iterdir()) == []


def test_int8_may_be_forced_with_its_figures_told(tmp_path, monkeypatch):
    monkeypatch.setattr(quantisation, "_gain", Fixed(0.8))
    recorded = [np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)]
    given = {"recorded": recorded, "about": {}, "quantised": True, "forced": True}
    told = export_policy(policies.mlp(), tmp_path / "policy.onnx", "onnx", **given)
    assert told["int8"]["speed_up"]["1"]["ratio"] == 0.8
    with pytest.raises(InputError, match="`--force` is for `--format onnx --int8`"):
        export_policy(policies.mlp(), tmp_path / "policy.c", "c", **given)


def test_torch_files_have_no_int8(tmp_path):
    with pytest.raises(InputError, match=r"`--int8` is for `--format onnx\|c`"):
        export_policy(
            policies.mlp(), tmp_path / "policy.pt2", "torch", recorded=[], about={}, quantised=True
        )


def test_closeness_by_hand():
    ports = Interface(
        observations=(Port("obs", (1,)),),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (2,)),
    )
    exact = [np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])]
    rounded = [np.array([0, 0]), np.array([[1.0, 0.5], [0.0, -1.0]])]
    found = closeness(ports, exact, rounded)
    assert found == {"observations": 2, "agreement": 0.5, "max_error": 2.0, "mean_error": 0.625}
