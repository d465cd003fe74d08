"""``rayprune list``."""

import json
from pathlib import Path

import pytest

from rayprune.algorithms import ALGORITHMS
from rayprune.pruning.blocks.groups import OWN
from rayprune.pruning.criteria import CRITERIA
from rayprune.pruning.distributions import DISTRIBUTIONS
from rayprune.pruning.evidence.objectives import OBJECTIVES
from rayprune.pruning.granularity import GRANULARITIES
from rayprune.pruning.penalties import PENALTIES
from rayprune.pruning.remedies import remedy_options
from rayprune.pruning.schedules import SCHEDULES


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("criteria", CRITERIA),
        ("schedules", SCHEDULES),
        ("distributions", DISTRIBUTIONS),
        ("granularities", GRANULARITIES),
        ("groups", OWN),
        ("objectives", OBJECTIVES),
        ("algorithms", ALGORITHMS),
        ("penalties", PENALTIES),
        ("remedies", remedy_options()),
    ],
)
def test_list_names_all_there_are_with_a_description(rayprune, kind, names):
    entries = json.loads(rayprune("list", kind, "--json").stdout)[kind]
    assert [entry["name"] for entry in entries] == list(names)
    assert all(entry["description"] for entry in entries)


def test_people_read_the_list_on_standard_error(rayprune):
    answer = rayprune("list", "criteria")
    assert (answer.code, answer.stdout) == (0, "")
    assert all(name in answer.stderr for name in CRITERIA)


def test_configs_are_found_from_anywhere(rayprune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = json.loads(rayprune("list", "configs", "--json").stdout)["configs"]
    assert {"ppo_cartpole", "pbt_cartpole"} <= {entry["name"] for entry in entries}
    assert all(entry["description"].endswith(".") for entry in entries)
    assert all(Path(entry["path"]).is_file() for entry in entries)


def test_presets_are_read_at_any_width(monkeypatch, rayprune):
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        *lines, _ = rayprune("list", "configs").stderr.splitlines()
        assert "  ppo_cartpole_lottery " in "\n".join(lines)
        assert max(map(len, lines)) <= int(columns)


def test_an_unknown_kind_says_which_there_are(rayprune):
    answer = rayprune("list", "criteri")
    assert answer.code == 2
    assert "Did you mean 'criteria'?" in answer.stderr


def test_the_files_for_clusters_are_found_by_their_purpose(rayprune):
    entries = json.loads(rayprune("list", "cluster", "--json").stdout)["cluster"]
    found = {Path(entry["name"]).name: entry["description"] for entry in entries}
    assert found["slurm.sh"].startswith("A sweep on Slurm: ")
    assert found["aws.yaml"].endswith(".")
    places = rayprune("list", "cluster").stderr.splitlines()[::2]
    assert places == [entry["name"] for entry in entries]


def test_targets_are_listed_with_what_they_need(rayprune):
    entries = json.loads(rayprune("list", "targets", "--json").stdout)["targets"]
    assert [entry["name"] for entry in entries][::7] == ["host", "command: ..."]
