"""``rayprune verify``."""

import json

from rayprune.deploy.export.export import export_policy
from tests.doubles import policies
from tests.unit.deploy.export.test_export import seen


def test_verify_tells_what_a_file_is_and_gates_on_it(rayprune, tmp_path):
    policy, path = policies.mlp(), tmp_path / "policy.pt2"
    about = {"env": "CartPole-v1", "checkpoint": "runs/a/checkpoints/7"}
    export_policy(policy, path, "torch", recorded=seen(policy), about=about)
    answer = rayprune("verify", path)
    assert answer.code == 0
    assert "Whole          policy.pt2" in answer.stderr
    assert "Checkpoint     runs/a/checkpoints/7" in answer.stderr
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    answer = rayprune("verify", path)
    assert answer.code == 1
    assert "CHANGED        policy.pt2" in answer.stderr
    answer = rayprune("verify", path, "--json")
    told = json.loads(answer.stdout)
    assert (answer.code, told["whole"], told["exit_code"]) == (1, False, 1)


def test_verify_refuses_what_is_no_exported_file(rayprune, tmp_path):
    answer = rayprune("verify", tmp_path / "none.onnx")
    assert answer.code == 2
    assert "There is no file" in answer.stderr
    assert "Example: rayprune verify policy.onnx" in rayprune("verify", "--help").stdout
