"""The files of cluster/, and how the tests read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
FILES = sorted(path for path in CLUSTER.iterdir() if path.suffix != ".md")
LAUNCHERS = [CLUSTER / name for name in ("aws.yaml", "gcp.yaml", "onprem.yaml")]
PYTHON = "3.11"
"""The Python of every image and environment."""


def header(path: Path) -> str:
    """Return the comment that a file opens with, without its marks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = lines[1:] if lines[0].startswith("#!") else lines
    taken = []
    for line in lines:
        if not line.startswith("#") or line.startswith("#SBATCH"):
            break
        taken.append(line.removeprefix("#").strip())
    return "\n".join(taken)


def documents(path: Path) -> list[dict[str, Any]]:
    """Return what a YAML file holds, as kubectl and Ray read it: YAML 1.1."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def pins(python: str = PYTHON) -> dict[str, str]:
    """Return the version of each package in constraints.txt, for one Python."""
    held = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            held[canonicalize_name(requirement.name)] = str(requirement.specifier).lstrip("=")
    return held


@dataclass(frozen=True)
class Instruction:
    """One of a Dockerfile's, with the stage that it is in."""

    stage: str
    keyword: str
    value: str


def instructions(text: str) -> Iterator[Instruction]:
    """Read a Dockerfile: continued lines joined, comments left out."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stage = ""
    for line in re.sub(r"\s*\\\n\s*", " ", kept).splitlines():
        if not line.strip():
            continue
        keyword, _, value = line.strip().partition(" ")
        if keyword == "FROM":
            stage = value.split()[-1]
        yield Instruction(stage, keyword, value.strip())


def arguments(found: list[Instruction], stage: str) -> dict[str, str]:
    """Return the defaults of a stage's build arguments."""
    pairs = [
        part
        for one in found
        if one.stage == stage and one.keyword == "ARG"
        for part in shlex.split(one.value)
    ]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
