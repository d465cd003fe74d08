"""What stands beside a file for the program that loads it, and in it for whoever reads ONNX."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from rayprune.deploy import export_policy, open_artifact, verify
from rayprune.deploy.export.manifest import manifest_path, require_manifest
from rayprune.errors import InputError
from tests.doubles import policies
from tests.unit.deploy.export.test_export import seen

THREADS = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
ABOUT = {
    "env": "CartPole-v1",
    "weights_sha256": "ab" * 32,
    "versions": {"torch": "2.9"},
    "inputs": {"obs": {"names": ["x", "v", "angle", "spin"], "low": [-4.8, None, -0.4, None]}},
    "outputs": {"action": {"names": ["push"], "low": 0, "high": 2}},
}


def exported(path: Path, kind: str, **more: Any) -> dict[str, Any]:
    policy = policies.mlp(8)
    export_policy(policy, path, kind, recorded=seen(policy), about=ABOUT, **more)
    return json.loads(manifest_path(path).read_text())


def fact(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"file": path.name, "bytes": len(content), "sha256": digest}


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "policy.onnx"
    exported(path, "onnx")
    return path


def test_a_manifest_says_what_goes_in_and_what_comes_out_element_by_element(onnx_file):
    told = json.loads(manifest_path(onnx_file).read_text())
    obs, action, logits = *told["inputs"], *told["outputs"]
    assert [obs[key] for key in ("name", "role", "shape", "dtype")] == [
        *("obs", "observation", ["batch", 4], "float32"),
    ]
    held = seen(policies.mlp(8))[0]
    assert obs["elements"]["names"] == ["x", "v", "angle", "spin"]
    assert obs["elements"]["low"] == [-4.8, None, -0.4, None]
    assert obs["elements"]["mean"] == pytest.approx(held.mean(0).tolist(), rel=1e-5)
    assert obs["elements"]["std"] == pytest.approx(held.std(0).tolist(), rel=1e-5)
    assert [action[key] for key in ("role", "shape", "dtype")] == ["action", ["batch"], "int64"]
    assert (action["elements"]["low"], action["elements"]["high"]) == (0, 2)
    chosen = open_artifact(onnx_file).act(held).actions
    assert action["elements"]["mean"] == pytest.approx(chosen.mean())
    assert (logits["role"], "elements" in logits) == ("distribution", False)


def test_a_manifest_names_files_runtime_versions_and_provenance(onnx_file):
    told = json.loads(manifest_path(onnx_file).read_text())
    assert told["files"] == [fact(onnx_file)]
    assert (told["name"], told["format"], told["proven"]) == ("policy", "onnx", True)
    assert told["certificate"] == "policy.onnx.json"
    assert told["runtime"] == {"name": "onnxruntime", **THREADS}
    assert set(told["versions"]) == {"rayprune", "torch"}
    assert told["provenance"] == {"env": "CartPole-v1", "weights_sha256": "ab" * 32}


def test_the_onnx_file_itself_has_elements_and_the_sessions_threads(onnx_file, monkeypatch):
    graph = onnx.load(onnx_file).graph
    (obs,), (action, _) = graph.input, graph.output
    facts = {prop.key: json.loads(prop.value) for prop in obs.metadata_props}
    assert facts["rayprune.names"] == ["x", "v", "angle", "spin"]
    assert {"rayprune.low", "rayprune.mean", "rayprune.std"} < set(facts)
    assert {prop.key: prop.value for prop in action.metadata_props}["rayprune.high"] == "2"
    options = open_artifact(onnx_file).session.get_session_options()
    assert {name: getattr(options, name) for name in THREADS} == THREADS
    # Whoever opens it without rayprune may have them, too.
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    plain = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    told = json.loads(plain.get_modelmeta().custom_metadata_map["ort_config"])
    assert told == {"session_options": THREADS}
    assert plain.run(None, {"obs": np.zeros((1, 4), np.float32)})[0].shape == (1,)


def test_a_c_files_manifest_has_its_header_and_what_to_call(tmp_path):
    told = exported(tmp_path / "policy.c", "c", name="walk")
    assert told["files"] == [fact(tmp_path / "policy.c"), fact(tmp_path / "policy.h")]
    assert told["runtime"]["function"] == "walk_act_in"
    assert "int walk_act_in(walk_workspace *" in (tmp_path / "policy.h").read_text()


def test_states_and_noise_have_their_roles(tmp_path):
    policy, path = policies.recurrent(), tmp_path / "policy.pt2"
    export_policy(policy, path, "torch", recorded=seen(policy), about={})
    told = json.loads(manifest_path(path).read_text())
    assert {one["role"] for one in told["inputs"]} == {"observation", "state"}
    assert {one["role"] for one in told["outputs"]} == {"action", "distribution", "state"}


def test_another_files_manifest_is_refused_and_no_manifest_is_not(tmp_path):
    path = tmp_path / "policy.pt2"
    told = exported(path, "torch")
    assert verify(path)["manifest"] == "policy.pt2.manifest.json"
    require_manifest(path)
    told["files"][0]["sha256"] = 64 * "0"
    manifest_path(path).write_text(json.dumps(told))
    (fault,) = verify(path)["faults"]
    assert "is of another file: it names another SHA-256" in fault
    with pytest.raises(InputError, match=r"Copy 'policy\.pt2' anew with what lies beside it"):
        require_manifest(path)
    manifest_path(path).write_text('{"files": ')
    with pytest.raises(InputError, match="can't be read"):
        require_manifest(path)
    manifest_path(path).unlink()
    require_manifest(path)
    assert verify(path)["manifest"] is None


def test_a_manifest_in_the_way_is_not_overwritten_unasked(tmp_path):
    manifest_path(tmp_path / "policy.pt2").write_text("mine")
    with pytest.raises(InputError, match="manifest"):
        exported(tmp_path / "policy.pt2", "torch")
    assert exported(tmp_path / "policy.pt2", "torch", overwrite=True)["format"] == "torch"
