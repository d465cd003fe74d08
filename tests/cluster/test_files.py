"""What all files of cluster/ have in common: a header, and the versions of constraints.txt."""

from __future__ import annotations

import re
import sys
from itertools import chain

import pytest
from packaging.utils import canonicalize_name

from tests.cluster.files import CLUSTER, FILES, PYTHON, ROOT, header, pins

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
named = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
with_guide = pytest.mark.parametrize(
    "path", sorted(chain(FILES, CLUSTER.glob("*.md"))), ids=lambda path: path.name
)


def drifts(text: str) -> list[str]:
    """Return each version in a text that isn't the project's own."""
    held = pins()
    pinned = [
        (name, held.get(canonicalize_name(name)), version)
        for name, version in re.findall(
            r"([A-Za-z][A-Za-z0-9_.-]*)(?:\[[^\]]*\])?==([0-9][0-9a-z.]*)", text
        )
    ]
    ours = [
        ("ray", held["ray"], version)
        for version in re.findall(r"rayproject/ray:([0-9.]+)", text)
        + re.findall(r"rayVersion: \"?([0-9.]+)", text)
    ]
    ours += [
        ("rayprune", PROJECT["version"], version)
        for version in re.findall(r"rayprune:([0-9]+[0-9.]*)", text)
    ]
    ours += [
        ("python", PYTHON, version)
        for version in re.findall(r"python[:=]?([0-9]\.[0-9]+)", text)
        + [f"{one[0]}.{one[1:]}" for one in re.findall(r"-py([0-9]+)", text)]
    ]
    return [
        f"{name} is {version}, but {expected} in the project"
        for name, expected, version in pinned + ours
        if version != expected
    ]


@named
def test_a_file_opens_with_its_purpose_its_command_and_what_to_change(path):
    said = header(path)
    purpose = said.partition("\n\n")[0]
    assert purpose.endswith(".")
    assert len(purpose) > 30
    assert f"cluster/{path.name}" in said
    assert "Change:" in said


@with_guide
def test_versions_are_those_of_constraints(path):
    assert drifts(path.read_text(encoding="utf-8")) == []


def test_a_version_that_drifts_is_found_wherever_it_stands():
    text = """
    image: rayproject/ray:2.59.0-py310-gpu
    rayVersion: "2.58.0"
    image: rayprune:0.0.9-cuda
    FROM python:3.12-slim
    pip install "torch==2.12.0" ray[default]==2.57.0 nobody==1.0
    """
    assert sorted(drifts(text)) == [
        "nobody is 1.0, but None in the project",
        "python is 3.10, but 3.11 in the project",
        "python is 3.12, but 3.11 in the project",
        "ray is 2.57.0, but 2.60.0 in the project",
        "ray is 2.58.0, but 2.60.0 in the project",
        "ray is 2.59.0, but 2.60.0 in the project",
        f"rayprune is 0.0.9, but {PROJECT['version']} in the project",
        "torch is 2.12.0, but 2.13.0 in the project",
    ]


def test_ray_and_torch_are_named_where_they_are_installed():
    versions = pins()
    for name in ("Dockerfile", "environment.yml"):
        assert f"torch=={versions['torch']}" in (CLUSTER / name).read_text(encoding="utf-8")
    for name in ("aws.yaml", "gcp.yaml", "kuberay-cluster.yaml", "kuberay-job.yaml"):
        assert versions["ray"] in (CLUSTER / name).read_text(encoding="utf-8")


@named
def test_every_installation_goes_by_constraints(path):
    text = path.read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", " ", text)
    for command in re.findall(r"pip install (.*?)(?: && |$)", joined, re.MULTILINE):
        assert "constraints.txt" in command, command
    for extras in re.findall(r"(?:rayprune|\.)\[([a-z0-9,]+)\]|EXTRAS=([a-z0-9,]+)", text):
        unknown = set("".join(extras).split(",")) - set(PROJECT["optional-dependencies"])
        assert not unknown, f"{path.name} asks for extras that there aren't"


@with_guide
def test_no_file_holds_a_secret(path):
    text = path.read_text(encoding="utf-8")
    # A token or a key is a long word of letters and digits.
    assert re.findall(r"(?<![\w/.-])(?=\w*\d)(?=\w*[a-zA-Z])[A-Za-z0-9+]{32,}", text) == []
    assert re.findall(r"(?:TOKEN|API_KEY|password)=[A-Za-z0-9]", text) == []
