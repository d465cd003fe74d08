"""Formats: those that are there, and one of a user's own that obeys the same rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayprune.deploy import export_policy, open_artifact, register_format, verify
from rayprune.deploy.formats import FORMATS, format_named, format_of, suffixes
from rayprune.deploy.formats.pt2 import TorchFormat
from rayprune.errors import ConfigError, InputError
from tests.doubles import policies


class Mine(TorchFormat):
    """The same archive under a name of one's own."""

    name, label, suffix = "mine", "my own form", ".mine"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FORMATS, "_entries", dict(FORMATS))
    register_format(Mine)


def exported(path: Path, **options: Any) -> dict[str, Any]:
    recorded = [np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)]
    return export_policy(policies.mlp(), path, "mine", recorded=recorded, about={}, **options)


def test_each_format_has_the_name_and_the_ending_it_is_found_by():
    assert {name: format_named(name).name for name in FORMATS} == {name: name for name in FORMATS}
    assert suffixes() == {".onnx": "onnx", ".pt2": "torch", ".c": "c"}


@pytest.mark.usefixtures("mine")
def test_a_format_of_ones_own_is_written_proven_opened_and_verified(tmp_path):
    certificate = exported(tmp_path / "policy.mine")
    assert certificate["format"] == "mine"
    assert certificate["equivalence"]["random"]["observations"] == 1000
    assert open_artifact(tmp_path / "policy.mine").interface == policies.mlp().interface
    assert (
        format_of(tmp_path / "policy.mine").name,
        verify(tmp_path / "policy.mine")["whole"],
    ) == (
        "mine",
        True,
    )


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"lanes": 8}, "`lanes` changes nothing in a file of format 'mine'. Leave it out."),
        ({"quantised": True}, "`--int8` is for `--format onnx|c`, but the format is 'mine'."),
        ({"name": "x"}, "`--name` is for `--format c`, but the format is 'mine'."),
    ],
)
def test_it_refuses_the_options_that_it_does_not_know(options, fault, tmp_path):
    with pytest.raises(InputError) as refused:
        exported(tmp_path / "policy.mine", **options)
    assert str(refused.value) == fault


@pytest.mark.usefixtures("mine")
def test_a_name_or_an_ending_is_taken_once():
    class Same(TorchFormat):
        name, suffix = "other", ".mine"

    with pytest.raises(InputError, match=r"'mine' end in '\.mine', too"):
        register_format(Same)
    Same.name, Same.suffix = "mine", ".other"
    with pytest.raises(ConfigError, match="'mine' exists already"):
        register_format(Same)


def test_the_formats_names_are_known_without_torch():
    code = (
        "import sys; from rayprune.deploy import register_format; "
        "from rayprune.deploy.formats import FORMATS; print(*FORMATS, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["onnx", "torch", "c", "False"]
