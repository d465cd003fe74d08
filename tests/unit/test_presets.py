"""A preset's name works wherever the path of a config does."""

from pathlib import Path

import pytest

import rayprune as package
from rayprune.cli.printing.preset_table import preset_rows
from rayprune.config import load_experiment
from rayprune.errors import ConfigError
from rayprune.jobs.package import make_job
from rayprune.presets import find_config

FILE = Path(__file__).parents[2] / "tune_configs" / "classic" / "ppo_cartpole.yaml"


@pytest.mark.parametrize(
    "written",
    [
        "ppo_cartpole",
        "ppo_cartpole.yaml",
        "classic/ppo_cartpole",
        "tune_configs/ppo_cartpole.yaml",
        "./tune_configs/classic/ppo_cartpole.yaml",
        str(FILE),
    ],
)
def test_a_preset_is_found_however_it_is_written(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo_cartpole").mkdir()  # a run's directory of the same name
    assert find_config(written).samefile(FILE)
    assert load_experiment(written, ["seed=3"]).seed == 3


@pytest.mark.parametrize("written", ["ppo_cartpol", "games/ppo_cartpole", "a/classic/ppo_cartpole"])
def test_what_is_neither_file_nor_preset_is_refused(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"list configs.*Did you mean 'ppo_cartpole'\?"):
        find_config(written)


def test_a_file_beside_with_the_presets_name_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo_cartpole.yaml").touch()
    with pytest.raises(ConfigError, match=r"may be the file 'ppo_cartpole\.yaml' or the preset"):
        find_config("ppo_cartpole")
    assert find_config("ppo_cartpole.yaml") == Path("ppo_cartpole.yaml")


def test_the_working_directorys_own_presets_stand_beside_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune_configs").mkdir()
    for name in ("mine", "ppo_cartpole"):
        (tmp_path / "tune_configs" / f"{name}.yaml").touch()
        assert find_config(name).parent == Path("tune_configs")
    assert find_config("pbt_cartpole").is_file()


def test_of_several_of_ones_own_none_is_taken_in_silence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / "tune_configs" / folder).mkdir(parents=True)
        (tmp_path / "tune_configs" / folder / "ppo_cartpole.yaml").touch()
    with pytest.raises(ConfigError, match=r"names several files: .*a/ppo_cartpole.*b/ppo_cartpole"):
        find_config("ppo_cartpole")
    assert find_config("a/ppo_cartpole") == Path("tune_configs/a/ppo_cartpole.yaml")
    assert find_config("classic/ppo_cartpole").samefile(FILE)


def test_a_preset_that_cannot_be_read_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune_configs").mkdir()
    (tmp_path / "tune_configs" / "latin.yaml").write_bytes(b"# for a caf\xe9\n")
    (tmp_path / "tune_configs" / "folder.yaml").mkdir()
    rows = {row["name"]: row["description"] for row in preset_rows()}
    assert rows["latin"].startswith("for a caf")
    assert "can't be read" in rows["folder"]
    assert "ppo_cartpole" in rows


def test_an_installed_preset_travels_with_the_code(tmp_path, monkeypatch):
    inside = tmp_path / "site" / "rayprune"
    preset = inside / "tune_configs" / "classic" / "ppo_cartpole.yaml"
    preset.parent.mkdir(parents=True)
    preset.touch()
    monkeypatch.setattr(package, "__file__", str(inside / "__init__.py"))
    (tmp_path / "work").mkdir()
    job = make_job(preset, {"name": "x"}, {}, tmp_path / "work", None)
    assert job.entrypoint == "python -m rayprune train ppo_cartpole"
