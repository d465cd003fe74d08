"""The YAML's JSON Schema: made of the code, fits every preset, refuses what the checks refuse."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from rayprune import yaml12
from rayprune.cli.setup.schema import fresh_text, schema_file
from rayprune.presets import presets

ROOT = Path(__file__).parents[4]
LINE = "# yaml-language-server: $schema=../schema.json"
SOUND = {"algorithm": "PPO", "env": "CartPole-v1", "pruning": {"sparsity": 0.9}}
WRONG = [
    {"algorithm": "PPPO"},
    {"algorithm": None},
    {"prunning": {}},
    {"env": 5},
    {"seed": -1},
    {"stop": {"env_step": 5}},
    {"stop": {"env_steps": 0}},
    {"evaluation": {"episodes": "5"}},
    {"rllib": {"trainig": {}}},
    {"rllib": {"training": {"learning_rate": 1}}},
    {"tracking": {"wandb": "on"}},
    {"pruning": {"sparsity": 1.0}},
    {"pruning": {"sparsity": "high"}},
    {"pruning": {"criterion": "fischer"}},
    {"pruning": {"granularity": "2-4"}},
    {"pruning": {"pooling": "max"}},
    {"pruning": {"schedule": {"kind": "cubik"}}},
    {"pruning": {"schedule": {"kind": "cubic", "drop_fraction": 0.3}}},
    {"pruning": {"penalty": {"kind": "l3"}}},
    {"pruning": {"remedies": {"n_steps": 3}}},
    {"quantise": {"weights": 5}},
    {"search": {"method": "pbtt", "space": {}}},
    {"search": {"populaton": 8, "space": {}}},
    {"fit": {"flahs": "16KB"}},
]


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(schema_file().read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_is_that_of_the_code():
    assert schema_file() == ROOT / "tune_configs" / "schema.json"
    assert schema_file().read_text() == fresh_text(), (
        "rayprune schema --fresh --out tune_configs/schema.json"
    )


@pytest.mark.parametrize("name", presets())
def test_every_preset_fits_and_names_it(validator, name):
    text = presets()[name].read_text()
    held = yaml12.plain(yaml12.read_mapping(presets()[name]))
    assert [error.message for error in validator.iter_errors(held)] == []
    assert LINE in text.splitlines()


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_files_do_not_fit(validator, wrong):
    assert validator.is_valid(SOUND)
    assert not validator.is_valid({**SOUND, **wrong})


def test_names_of_a_users_own_fit_where_a_module_registers_them(validator):
    own = {**SOUND, "pruning": {"sparsity": 0.9, "criterion": "mine"}}
    assert not validator.is_valid(own)
    assert validator.is_valid({**own, "imports": ["my_criteria"]})


def test_it_is_printed_and_written(rayprune, tmp_path):
    answer = rayprune("schema", "--out", tmp_path / "s.json")
    assert answer.code == 0
    assert "yaml-language-server: $schema=" in answer.stderr
    assert (tmp_path / "s.json").read_text() == schema_file().read_text()
