"""Every file in tune_configs/ is right, says what it is for, and how to run it."""

import importlib
from pathlib import Path

import pytest

from rayprune.algorithms import ALGORITHMS
from rayprune.config import load_experiment

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "tune_configs").rglob("*.yaml"))


def loaded(path, *overrides):
    """Load a config, with any folder in place of the run that it starts from."""
    starts = "start_from:" in path.read_text(encoding="utf-8")
    return load_experiment(path, [*([f"start_from={ROOT}"] if starts else []), *overrides])


def test_there_is_a_config_for_each_algorithm():
    # DreamerV3 takes hours to learn anything on two cores, and can't be exported.
    assert {loaded(path).algorithm for path in CONFIGS} == set(ALGORITHMS) - {"DreamerV3"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_has_no_faults_and_its_files_name(path):
    assert loaded(path).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_its_purpose_and_its_command(path):
    purpose, command, *_ = path.read_text(encoding="utf-8").splitlines()
    assert purpose.startswith("# ")
    assert purpose.endswith(".")
    experiment = loaded(path)
    verb = "fit" if experiment.fit else "train" if experiment.search is None else "sweep"
    assert command == f"#   rayprune {verb} {path.stem}"


def test_a_preset_is_found_by_its_name_alone():
    assert len({path.stem for path in CONFIGS}) == len(CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_dense_run_comes_from_the_same_file(path):
    assert loaded(path, "pruning.sparsity=0").pruning.sparsity == 0


def test_the_heads_say_what_the_rows_of_the_benchmark_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("preset_headers")
    rows = script.all_rows()
    for path in CONFIGS:
        text = path.read_text(encoding="utf-8")
        assert script.header(text, path.stem, rows) == text, "python benchmarks/preset_headers.py"
