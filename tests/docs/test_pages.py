"""What README and the how-to pages say works: every block is checked, and on request run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayprune import yaml12
from tests.docs.pages import PAGES, ROOT, Reader, blocks, commands, name_of, spared
from tests.doubles.registrations import forgotten_registrations
from tools.docs.markdown import Fence

QUICK = ("docs/how-to/torch-loop.md", "docs/how-to/own-methods.md")
"""Pages that need no Ray, run here and now."""

LANGUAGES = {"python", "console", "yaml", "json", "c", "text", "cpp", "cmake"}

ALL_BLOCKS = [
    pytest.param(block, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page)
]
COMMANDS = [
    pytest.param(page, command, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "console"
    for command in commands(block)
    if "rayprune " in command
]


def pages_but(quick: tuple[str, ...]) -> list[Any]:
    slow = [page for page in PAGES if name_of(page) not in quick]
    return [pytest.param(page, id=name_of(page)) for page in slow if any(map(runs, blocks(page)))]


def runs(block: Fence) -> bool:
    return block.title is None and block.language in ("python", "console") and not spared(block)


def test_each_block_is_of_a_kind_that_is_checked() -> None:
    assert {b.values[0].language for b in ALL_BLOCKS} <= LANGUAGES
    notes = [b.values[0].note for b in ALL_BLOCKS]
    assert [
        note for note in notes if (note or "").startswith("not run:") and len(note or "") < 15
    ] == []


def test_each_python_block_compiles() -> None:
    wrong = [case.id for case in ALL_BLOCKS if not is_python(case.values[0])]
    assert wrong == []


def is_python(block: Fence) -> bool:
    try:
        compile(block.text if block.language == "python" else "", "block", "exec")
    except SyntaxError:
        return False
    return True


def test_each_yaml_block_is_a_file_or_a_part_of_one_that_is_accepted() -> None:
    wrong = {case.id: faults for case in ALL_BLOCKS if (faults := yaml_faults(case.values[0]))}
    assert wrong == {}


def yaml_faults(block: Fence) -> list[str]:
    from rayprune.config import experiment_faults
    from rayprune.fit.config import fit_faults
    from rayprune.search.config import search_faults

    if block.language != "yaml" or spared(block):
        return []
    given = yaml12.parse(block.text)
    whole = {"name": "x", "algorithm": "PPO", "env": "CartPole-v1", "pruning": {"sparsity": 0.5}}
    # Checkpoints that a file names are there once the page has been followed.
    faults, _ = experiment_faults({**whole, **given, "imports": []}, check_paths=False)
    if "search" in given:
        faults += search_faults(given["search"])[0]
    if "fit" in given:
        faults += fit_faults(given["fit"])[0]
    return faults


def test_each_command_has_only_options_that_exist() -> None:
    from tools.docs.commands import click_commands

    known = click_commands()
    for case in COMMANDS:
        _, command = case.values
        words = shlex.split(command.partition("rayprune ")[2].replace("\\\n", " "), comments=True)
        if words and words[0] in known and "|" not in words and ">" not in words:
            wanted = [word for word in words[1:] if word != "&"]
            try:
                known[words[0]].make_context(words[0], wanted)
            except Exception as error:
                raise AssertionError(f"{case.id}: {command}: {error}") from error
        elif words and not words[0].startswith("-"):
            assert words[0] in known, f"{case.id}: {command}"


def test_each_config_that_a_command_names_exists() -> None:
    from rayprune.presets import find_config

    for case in COMMANDS:
        page, command = case.values
        words = shlex.split(command.partition("rayprune ")[2].replace("\\\n", " "), comments=True)
        if len(words) > 1 and words[0] in ("train", "sweep", "fit", "submit"):
            written = [block.title for block in blocks(page)]
            config = words[1]
            if config not in written and not config.isupper():
                assert find_config(Path(config)).is_file(), f"{case.id}: {command}"


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a page registers: other tests hold the lists of names to the letter."""
    with forgotten_registrations(monkeypatch):
        yield


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("name", QUICK)
def test_a_page_without_ray_does_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Reader(ROOT / name, tmp_path).read() > 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", pages_but(QUICK))
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.docs.pages", str(page), str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stderr or done.stdout)[-4000:]
