"""The examples in C, built against an exported policy and run."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rayprune.deploy import export_policy, open_artifact
from rayprune.deploy.examples import EXAMPLES, FOLDER
from rayprune.deploy.formats.c.compiler import find_compiler
from rayprune.deploy.targets import target_of
from tests.doubles import policies

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples, with a policy beside the folders."""
    folder = tmp_path_factory.mktemp("examples") / "a folder"
    shutil.copytree(FOLDER, folder)
    recorded = [np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)]
    export_policy(policies.mlp(8), folder / "policy.c", "c", recorded=recorded, about={})
    return folder


def needing(*programs: str) -> None:
    lacking = [name for name in programs if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"needs {' and '.join(lacking)}")


def run(*command: object, within: Path, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=within, input=said, capture_output=True, text=True
    )


def test_each_example_is_listed_and_told_of():
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(EXAMPLES)
    told = (FOLDER / "README.md").read_text()
    assert all(f"| `{name}` |" in told for name in EXAMPLES)


def test_a_cmake_project_tests_the_policy_and_acts_as_it_does(place):
    needing("cmake", "make")
    cmake = place / "cmake"
    assert run("cmake", "-B", "build", within=cmake).returncode != 0  # no policy there
    shutil.rmtree(cmake / "build")
    made = run("cmake", "-B", "build", f"-DPOLICY_DIR={place}", within=cmake)
    assert made.returncode == 0, made.stderr
    built = run("cmake", "--build", "build", within=cmake)
    assert (built.returncode, "warning" in built.stdout + built.stderr) == (0, False), built.stderr
    assert run("ctest", "--test-dir", "build", within=cmake).returncode == 0
    seen = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    lines = "\n".join(" ".join(map(str, row)) for row in seen)
    acted = run("build/act", within=cmake, said=lines)
    wanted = open_artifact(place / "policy.c").act(seen).actions
    assert [int(line) for line in acted.stdout.split()] == wanted.tolist()
    assert run("build/act", within=cmake, said="nan 0 0 0").returncode == 1
    assert run("build/act", within=cmake, said="1 2 three").returncode == 2


def test_a_control_loop_counts_its_periods_and_what_was_late(place):
    needing("make", "cc")
    loop = place / "control-loop"
    made = run("make", "POLICY_DIR=..", "CFLAGS=-O2 -Wall -Wextra -Werror", within=loop)
    assert made.returncode == 0, made.stderr
    held = run("./loop", "0.2", "1000", "1000", within=loop)
    periods, skipped = (int(held.stdout.split(word)[0].split()[-1]) for word in (" per", " skip"))
    assert periods + skipped == 200
    assert held.returncode == int(" 0 later" not in held.stdout or skipped > 0)
    assert run("./loop", "0.1", "1000", "2000", within=loop).returncode == 2
    # No action is made of nothing in a microsecond after it is due.
    assert run("./loop", "0.02", "1000", "1", within=loop).returncode == 1


def test_an_action_of_another_type_does_not_compile(place):
    needing("make", "cc")
    made = run("make", "-B", "POLICY_DIR=..", "ACTION_TYPE=float", within=place / "control-loop")
    assert made.returncode != 0
    assert "incompatible" in made.stderr


@pytest.mark.parametrize(
    "core",
    ["cortex-m4", *(pytest.param(f"cortex-m{n}", marks=pytest.mark.slow) for n in (0, 3, 7))],
)
def test_a_bare_cortex_m_acts_each_millisecond(place, core):
    needing("make")
    lacking = target_of(core).missing()
    if lacking:
        pytest.skip(f"needs {' '.join(lacking)}")
    board = place / "cortex-m"
    made = run("make", "-B", "POLICY_DIR=..", f"CORE={core}", within=board)
    assert (made.returncode, "warning" in made.stderr) == (0, False), made.stderr
    acted = run("make", "run", f"CORE={core}", "POLICY_DIR=..", within=board)
    assert "periods 200, late 0, of a NaN 0;" in acted.stdout + acted.stderr
    assert acted.returncode == 0
    small = run("make", "-B", "POLICY_DIR=..", f"CORE={core}", "FLASH_BYTES=1000", within=board)
    assert "region `FLASH' overflowed" in small.stderr


@pytest.mark.slow
def test_a_wheel_has_the_examples_and_the_firmware(tmp_path):
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    root = FOLDER.parents[2]
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path))
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (*FOLDER.rglob("*"), *(FOLDER.parent / "targets" / "firmware").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(root).as_posix() in names
