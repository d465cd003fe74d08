"""``rayprune doctor``: what is here, what is missing, and the way out."""

from __future__ import annotations

import json
import socket

import pytest

from rayprune.cli.setup import machine_checks
from rayprune.cli.setup.check import ABSENT, BROKEN, DOUBTFUL, OK
from rayprune.cli.setup.packages import Requirements, package_checks
from rayprune.extras import EXTRAS


@pytest.fixture
def quick(monkeypatch):
    """Ask no compiler for its library: those are slow, and not what is tested here."""
    monkeypatch.setattr(machine_checks, "_compilers", lambda: iter(()))


def found(checks):
    return {check.name: check for check in checks}


def test_a_sound_machine_exits_with_0_and_tells_each_part(rayprune, quick):
    answer = rayprune("doctor", "--json")
    told = json.loads(answer.stdout)
    assert (answer.code, told["healthy"]) == (0, True)
    names = {check["name"] for check in told["checks"]}
    extras = {f"rayprune[{name}]" for name in EXTRAS}
    assert {"python", "torch", "cores", "gpu", "cluster", "login", "runs", *extras} <= names


def test_without_any_extra_it_tells_the_lines_and_exits_with_1(rayprune, quick, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    answer = rayprune("doctor")
    assert answer.code == 1
    assert "A default run lacks: rayprune[rllib]." in answer.stderr
    told = found(package_checks())
    lines = {name: told[f"rayprune[{name}]"].way_out for name in EXTRAS}
    assert lines == {name: f"pip install 'rayprune[{name}]'" for name in EXTRAS}


def test_a_version_that_is_not_allowed_is_broken_with_the_line_that_mends_it(monkeypatch):
    monkeypatch.setattr("rayprune.cli.setup.packages.installed_version", lambda _name: "0.0.1")
    checks = found(package_checks())
    assert checks["numpy"].status == BROKEN
    assert checks["numpy"].way_out.startswith("pip install 'numpy>=")
    assert (checks["rayprune[rllib]"].status, checks["rayprune[wandb]"].status) == (
        BROKEN,
        DOUBTFUL,
    )


def test_an_extras_packages_are_those_of_the_project():
    names = [one.name for one in Requirements.read().of("deploy")]
    assert names == ["onnx", "onnxscript", "onnxruntime"]
    assert "torch" in [one.name for one in Requirements.read().of(None)]


def test_a_cluster_that_answers_nobody_is_broken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (check,) = machine_checks._ray(f"127.0.0.1:{port}", start_ray=False)
        assert check.status == OK
    (check,) = machine_checks._ray(f"ray://127.0.0.1:{port}", start_ray=False)
    assert check.status == BROKEN
    assert "ray start --head" in check.way_out


def test_an_address_that_is_none_is_broken_and_auto_is_not_called_sound():
    (check,) = machine_checks._ray("head:port", start_ray=False)
    assert check.status == BROKEN
    (check,) = machine_checks._ray("auto", start_ray=False)
    assert (check.status, "--start-ray" in check.way_out) == (DOUBTFUL, True)


def test_memory_is_no_more_than_the_containers_and_a_full_disk_is_rays_own(monkeypatch, tmp_path):
    (tmp_path / "max").write_text("1048576\n")
    (tmp_path / "none").write_text("max\n")
    places = (tmp_path / "none", tmp_path / "max", tmp_path / "nowhere")
    monkeypatch.setattr(machine_checks, "_LIMITS", places)
    assert machine_checks._available_memory() == 2**20
    monkeypatch.setattr(machine_checks, "_FULL", 0.0)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert str(tmp_path) in {check.name for check in machine_checks._disks()}


def test_a_login_is_seen_and_never_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (check,) = machine_checks._wandb()
    assert (check.status, "wandb login" in check.way_out) == (ABSENT, True)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    (check,) = machine_checks._wandb()
    assert (check.status, "secret" in check.found) == (OK, False)


def test_a_check_that_fails_ends_no_other(monkeypatch, quick):
    def broken():
        raise OSError("no such disk")
        yield

    monkeypatch.setattr(machine_checks, "_disks", broken)
    checks = found(machine_checks.machine_checks(None, start_ray=False))
    assert checks["disk"].status == DOUBTFUL
    assert "no such disk" in checks["disk"].found
