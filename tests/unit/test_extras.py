"""What extras bring is told in one line, wherever it is missing."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from rayprune.errors import InputError
from rayprune.extras import EXTRAS, extra_for, lacking, needs, require, unknown_env

ROOT = Path(__file__).parents[2]
OF_DEVELOPERS = {"bench", "dev", "docs"}


def test_the_table_has_every_extra_that_people_install():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - OF_DEVELOPERS


def test_no_other_file_writes_the_line_itself():
    sources = [path for path in (ROOT / "rayprune").rglob("*.py") if path.name != "extras.py"]
    written = re.compile(r"pip install '?rayprune\[")
    texts = {path.name: path.read_text() for path in sources}
    assert [n for n, text in texts.items() if written.search(text) and n != "refusals.py"] == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_package_is_refused_with_the_one_line(monkeypatch, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert lacking(extra) == [*EXTRAS[extra].modules]
    with pytest.raises(InputError, match=rf"This needs .*: pip install 'rayprune\[{extra}\]'\.$"):
        require("This", extra)


def test_a_folder_that_is_called_like_a_package_is_none(tmp_path, monkeypatch):
    (tmp_path / "envpool_of_nobody").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        EXTRAS, "made_up", EXTRAS["envpool"]._replace(modules=("envpool_of_nobody",))
    )
    assert needs("It", "made_up").startswith("It needs envpool_of_nobody: ")


def test_an_import_that_failed_deep_inside_names_its_extra():
    error = RuntimeError("can't make it")
    error.__cause__ = ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
    assert extra_for(error) == "mujoco"
    assert extra_for(ValueError("no import")) is None


def test_a_class_without_an_id_is_told_how_to_get_one(monkeypatch):
    module = types.ModuleType("envs_of_mine")
    module.Room = type("Room", (), {})
    monkeypatch.setitem(sys.modules, "envs_of_mine", module)
    told = unknown_env("envs_of_mine:Room", ValueError("Environment `Room` doesn't exist."))
    assert told == (
        "Environment `Room` doesn't exist. 'envs_of_mine:Room' is a class, which needs an id: "
        "`gymnasium.register('Room-v0', 'envs_of_mine:Room')` in 'envs_of_mine', and write "
        "'envs_of_mine:Room-v0'."
    )
    said = "Environment `Roon` doesn't exist. Did you mean: `Room`?"
    assert unknown_env("envs_of_mine:Roon", ValueError(said)) == said
