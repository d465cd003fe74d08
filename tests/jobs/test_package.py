"""What travels to the cluster, and the command there."""

import shlex
from pathlib import Path

import pytest

import rayprune
from rayprune.errors import ConfigError, InputError
from rayprune.jobs.package import make_job, require_lasting


def job(directory, raw=None, **options):
    return make_job(directory / "c.yaml", raw or {"name": "tiny"}, options, directory, None)


def test_a_config_with_a_search_is_swept_one_with_a_fit_is_fitted_others_trained(tmp_path):
    assert "rayprune fit c.yaml" in job(tmp_path, {"name": "x", "fit": {}}).entrypoint
    assert "rayprune train c.yaml" in job(tmp_path).entrypoint
    assert "rayprune train c.yaml" in job(tmp_path, {"name": "x", "search": None}).entrypoint
    assert "rayprune sweep c.yaml" in job(tmp_path, {"name": "x", "search": {}}).entrypoint


def test_options_reach_the_cluster_as_they_were_typed(tmp_path):
    override = "pruning.distribution={'pi.0': 0.5}; rm -rf $HOME"
    entrypoint = job(tmp_path, set=[override, "a=1"], seed=0, out="/x y", resume=True).entrypoint
    assert shlex.split(entrypoint)[5:] == [
        *("--set", override, "--set", "a=1", "--seed", "0", "--out", "/x y", "--resume")
    ]


def test_two_jobs_of_one_config_have_different_names(tmp_path):
    assert job(tmp_path).name != job(tmp_path).name


def test_a_config_outside_of_what_travels_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    with pytest.raises(InputError, match="--working-dir"):
        make_job(tmp_path / "c.yaml", {"name": "x"}, {}, tmp_path / "inside", None)


def test_our_code_travels_unless_it_lies_in_the_working_directory(tmp_path):
    package = Path(rayprune.__file__).parent
    assert job(tmp_path).runtime_env["py_modules"] == [str(package)]
    assert "py_modules" not in job(package.parent).runtime_env


def test_the_users_environment_is_kept_and_stopping_may_take_a_checkpoint(tmp_path):
    path = tmp_path / "env.yaml"
    path.write_text("env_vars: {AWS_ENDPOINT_URL: 'http://s3', N: 3}\nexcludes: [/data/]\n")
    held = make_job(tmp_path / "c.yaml", {"name": "x"}, {}, tmp_path, path).runtime_env
    assert held["excludes"] == ["/data/"]
    assert held["env_vars"] == {
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "AWS_ENDPOINT_URL": "http://s3",
        "N": "3",
    }


def test_all_faults_of_the_environment_are_told(tmp_path):
    path = tmp_path / "env.yaml"
    path.write_text("{working_dir: ., py_modules: [x], env_vars: [1]}")
    with pytest.raises(ConfigError) as told:
        make_job(tmp_path / "c.yaml", {"name": "x"}, {}, tmp_path, path)
    assert len(told.value.faults) == 3


def test_results_go_where_they_last():
    for out in ("/shared/x", "s3://bucket/x", "gs://bucket/x?scheme=http"):
        assert require_lasting(out) == out


@pytest.mark.parametrize("out", [None, "", "runs/x"])
def test_results_in_the_jobs_own_directory_are_refused(out):
    with pytest.raises(InputError, match="share"):
        require_lasting(out)


@pytest.mark.parametrize("out", ["s4://bucket/x", "s3://bucket", "s3://key:secret@bucket/x"])
def test_results_at_a_url_that_can_be_no_place_are_refused_before_the_job_is_sent(out):
    with pytest.raises(InputError, match="://"):
        require_lasting(out)
