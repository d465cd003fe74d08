"""``rayprune train``."""

import json
from pathlib import Path

import pytest


def test_train_hands_the_experiment_to_the_adaptor(rayprune, adaptor, config):
    answer = rayprune("train", config, "--set", "pruning.sparsity=0.5", "--seed", 3, "--resume")
    assert answer.code == 0
    ((_, (experiment, out), keywords),) = adaptor.calls
    assert (experiment.seed, experiment.pruning.sparsity) == (3, 0.5)
    assert out == Path("runs/tiny-seed3")
    assert keywords["resume"] is True
    assert keywords["address"] is None


def test_train_shows_the_result_to_people_on_standard_error(rayprune, config, tmp_path):
    answer = rayprune("train", config, "--out", tmp_path / "out")
    assert answer.stdout == ""
    for part in ("487.1 [470.0, 500.0]", "499.5 [470.0, 500.0]", "90.0 %", "14,012", "134,659"):
        assert part in answer.stderr
    assert f"rayprune evaluate {tmp_path / 'out' / 'checkpoints/000200000'}" in answer.stderr


def test_json_is_the_summary_and_nothing_else(rayprune, config):
    answer = rayprune("train", config, "--json")
    assert json.loads(answer.stdout)["checkpoint"] == "checkpoints/000200000"
    assert answer.stdout.count("\n") == 1
    assert "487.1" not in answer.stderr


def test_a_missing_file_is_told_before_anything_starts(rayprune, adaptor):
    answer = rayprune("train", "missing.yaml")
    assert answer.code == 2
    assert "There is no file 'missing.yaml'" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert adaptor.calls == []


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize(
    ("url", "why"), [("ftp://a/b", "of the kind 'ftp'"), ("s3://bucket", "names no directory")]
)
def test_a_url_of_no_storage_is_told_before_ray_is_imported(
    command, url, why, rayprune, adaptor, config, monkeypatch
):
    monkeypatch.setattr(f"rayprune.cli.{command}.load_rllib", lambda: pytest.fail("too late"))
    answer = rayprune(command, config, "--out", url)
    assert answer.code == 2
    assert why in answer.stderr
    assert adaptor.calls == []


def test_all_faults_of_a_config_are_told(rayprune, adaptor, config):
    answer = rayprune("train", config, "--set", "pruning.sparsity=1.0", "--set", "sed=3")
    assert answer.code == 2
    assert "`pruning.sparsity` must be in [0, 1), but is 1.0." in answer.stderr
    assert "`sed` is not a known key. Did you mean 'seed'?" in answer.stderr
    assert adaptor.calls == []


def test_a_run_in_a_bucket_is_told_by_its_url(rayprune, adaptor, config):
    answer = rayprune("train", config, "--out", "s3://bucket/tiny?scheme=http")
    assert answer.code == 0
    assert "Run directory  s3://bucket/tiny?scheme=http" in answer.stderr
    checkpoint = "'s3://bucket/tiny/checkpoints/000200000?scheme=http'"
    assert f"rayprune evaluate {checkpoint}" in answer.stderr


def test_a_plan_tells_what_would_run_and_starts_nothing(rayprune, adaptor, config):
    answer = rayprune("train", config, "--plan", "--json")
    assert answer.code == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["algorithm"], told["env"], told["unit"]) == ("PPO", "CartPole-v1", "env steps")
    assert adaptor.calls == []
    assert "Nothing was started." in rayprune("train", config, "--plan").stderr
