"""Exit codes, errors and what is printed where."""

import json
import subprocess
import sys

import pytest

from rayprune.errors import CheckpointError, ConfigError, InputError, NonFiniteError


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, *code, *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["one", "two"]), 2),
        (CheckpointError("another network"), 2),
        (NonFiniteError("a NaN loss"), 1),
        (ZeroDivisionError("division by zero"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_has_its_exit_code_and_no_traceback(rayprune, adaptor, config, error, code):
    adaptor.error = error
    answer = rayprune("train", config)
    assert answer.code == code
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    told = json.loads(rayprune("train", config, "--json").stdout)["error"]
    assert told["exit_code"] == code
    assert told["message"]


def test_every_fault_is_told_to_people_and_to_programs(rayprune, adaptor, config):
    adaptor.error = ConfigError(["`a` is wrong.", "`b` must be one of ['x'], but is [red]."])
    assert rayprune("train", config).stderr == "\n".join([*adaptor.error.faults, ""])
    answer = rayprune("train", config, "--json")
    assert json.loads(answer.stdout)["error"]["faults"] == list(adaptor.error.faults)


def test_an_unforeseen_error_says_how_to_see_more(rayprune, adaptor, config):
    adaptor.error = ZeroDivisionError("division by zero\nsecond line")
    answer = rayprune("train", config)
    assert answer.stderr.startswith("ZeroDivisionError: division by zero (conftest.py:")
    assert answer.stderr.endswith("). Rerun with --debug for the traceback.\n")


def test_an_interruption_says_how_to_go_on(rayprune, adaptor, config):
    adaptor.error = KeyboardInterrupt("Stopped at step 5. Go on with --resume.")
    assert rayprune("train", config).stderr == "Stopped at step 5. Go on with --resume.\n"
    told = json.loads(rayprune("train", config, "--json").stdout)["error"]
    assert "--resume" in told["message"]


def test_debug_shows_the_traceback(rayprune, adaptor, config):
    adaptor.error = InputError("wrong")
    answer = rayprune("train", config, "--debug")
    assert "Traceback" in answer.stderr
    assert answer.code == 2


def test_an_error_that_ray_wrapped_is_told_as_our_own(rayprune, adaptor, config):
    wrapped = RuntimeError("a page of traceback")
    wrapped.cause = NonFiniteError("The loss is NaN.")
    adaptor.error = wrapped
    assert rayprune("train", config).stderr == "The loss is NaN.\n"


def test_a_missing_extra_says_what_to_install(rayprune, adaptor, config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    answer = rayprune("train", config)
    assert answer.code == 2
    assert "pip install 'rayprune[rllib]'" in answer.stderr
    assert adaptor.calls == []


def test_an_unknown_command_says_which_there_are(rayprune):
    answer = rayprune("exprot", "x")
    assert answer.code == 2
    assert "No such command 'exprot'." in answer.stderr
    assert "'certify', 'doctor', 'evaluate', 'export', " in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("fit", "x", "--trials", "0"),
            "`--trials` must be greater than or equal to 1, but is '0'.",
        ),
        (("train", "x", "--seed", "q"), "`--seed` must be a valid integer, but is 'q'."),
        (("train", "x", "--sed", "1"), "No such option: --sed. Did you mean '--seed'?"),
        (("schema", "x"), "Got unexpected extra argument(s) (x)."),
    ],
)
def test_wrong_usage_names_the_option_and_the_value_given(rayprune, arguments, told):
    answer = rayprune(*arguments)
    assert answer.code == 2
    assert answer.stderr == f"{told} Try `rayprune {arguments[0]} --help`.\n"


def test_a_missing_argument_says_what_it_may_be(rayprune):
    assert "'KIND'. One of: criteria, schedules, " in rayprune("list").stderr
    assert "'POLICY'. A checkpoint or run" in rayprune("export").stderr


def test_the_version_is_told(rayprune):
    answer = rayprune("--version")
    assert (answer.code, answer.stdout.partition(" ")[0]) == (0, "rayprune")
    assert answer.stdout.strip()[-1].isdigit()


def test_a_help_s_paragraph_is_no_narrower_than_the_terminal(rayprune, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    said = rayprune("doctor", "--help").stdout
    assert "1: it lacks something, which is told with the way out. Nothing is started" in said


def test_wrong_usage_is_told_as_json_too(rayprune):
    answer = rayprune("train", "--json")
    assert answer.code == 2
    assert "CONFIG" in json.loads(answer.stdout)["error"]["message"]


@pytest.mark.parametrize("command", ["train", "evaluate", "prune", "export", "list"])
def test_each_help_has_an_example(rayprune, command):
    answer = rayprune(command, "--help")
    assert answer.code == 0
    assert f"Example: rayprune {command}" in answer.stdout


def test_the_bare_command_shows_the_help(rayprune):
    answer = rayprune()
    said = answer.stdout + answer.stderr
    assert "train" in said
    assert "Try `rayprune --help`" not in said


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from rayprune.cli.app import run; run(['--help'], sys.stdout); "
        "print('heavy:', sorted({'ray', 'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    assert run_python(["-c", code]).stdout.splitlines()[-1] == "heavy: []"


def test_ray_is_not_imported_for_lists_and_missing_files():
    for arguments in (
        ["list", "criteria"],
        ["train", "missing.yaml"],
        ["prune", "x", "--out", "y"],
    ):
        code = (
            f"import sys; from rayprune.cli.app import run; run({arguments}, sys.stdout); "
            "print('ray' in sys.modules)"
        )
        assert run_python(["-c", code]).stdout.strip() == "False"


def test_only_json_reaches_standard_output_of_the_process():
    code = (
        "import os, sys; from rayprune.cli import app, list, main\n"
        "def noisy(): print('python'); os.write(1, b'native'); return {'a': 'b'}\n"
        "list._SOURCES['criteria'] = noisy\n"
        "sys.argv = ['rayprune', 'list', 'criteria', '--json']; main()"
    )
    answer = run_python(["-c", code])
    assert json.loads(answer.stdout) == {"criteria": [{"name": "a", "description": "b"}]}
    assert "native" in answer.stderr
    assert "python" in answer.stderr


def test_the_module_is_the_command():
    answer = run_python(["-m", "rayprune"], "list", "nothing", "--json")
    assert answer.returncode == 2
    assert json.loads(answer.stdout)["error"]["type"] == "ConfigError"
