"""ExperimentConfig: YAML 1.2, overrides, and all faults of a file in one report."""

import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune import yaml12
from rayprune.config import (
    ExperimentConfig,
    StopConfig,
    experiment_faults,
    load_experiment,
    load_raw,
    to_yaml,
)
from rayprune.errors import ConfigError
from rayprune.pruning.criteria import CRITERIA

SMALLEST = """
    algorithm: PPO
    env: CartPole-v1
    pruning: {sparsity: 0.5}
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="tiny.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return to_file


def faults(path, *overrides, seed=None):
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides, seed)
    return list(caught.value.faults)


def one_fault(path, *overrides, seed=None):
    found = faults(path, *overrides, seed=seed)
    assert len(found) == 1, found
    return found[0]


def test_defaults_are_those_of_the_contract(write):
    experiment = load_experiment(write(SMALLEST))
    assert experiment.name == "tiny"
    assert experiment.seed == 0
    assert experiment.stop == StopConfig(env_steps=200_000)
    assert experiment.evaluation.every == 20_000
    assert experiment.evaluation.episodes == 20
    assert experiment.evaluation.validation_seed == 10_000
    assert experiment.evaluation.test_seed == 20_000
    assert experiment.evaluation.dense is None
    assert experiment.tracking.wandb == "offline"
    assert experiment.horizon == 200_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"),  # 124 to YAML 1.1
        ("off", "off"),  # False to YAML 1.1
        ("no", "no"),
        ("3e-4", 3e-4),  # text to YAML 1.1
        ("1.0e-4", 1e-4),
        ("0o17", 15),
        ("017", 17),
        ("1:30", "1:30"),
    ],
)
def test_values_are_read_by_the_rules_of_yaml_1_2(text, value):
    read = yaml12.parse(f"key: {text}")["key"]
    assert read == value
    assert type(read) is type(value)


def test_tracking_can_be_off_without_quotes(write):
    experiment = load_experiment(write(SMALLEST + "    tracking: {wandb: off}\n"))
    assert experiment.tracking.wandb == "off"


def test_faults_of_all_sections_come_together(write):
    found = faults(
        write(
            """
            algorithm: ppo
            env: CartPole-v1
            sed: 3
            rllib: {training: fast}
            pruning: {sparsity: 1.0, criterium: l1}
            stop: {env_steps: -5}
            evaluation: {episodes: many}
            tracking: {wandb: onlin}
            """
        )
    )
    assert found == [
        "`algorithm` must be one of ['PPO', 'APPO', 'IMPALA', 'DQN', 'SAC', 'TQC', "
        "'DreamerV3', 'BC', 'MARWIL', 'CQL', 'IQL'], but is 'ppo'. Did you mean 'PPO'?",
        "`rllib.training` must be a mapping, but is 'fast'.",
        "`stop.env_steps` must be greater than 0, but is -5.",
        "`evaluation.episodes` must be an integer, but is 'many'.",
        "`tracking.wandb` must be one of ['online', 'offline', 'off'], but is 'onlin'. "
        "Did you mean 'online'?",
        "`sed` is not a known key. Did you mean 'seed'?",
        "`pruning.criterium` is not a known key. Did you mean 'criterion'?",
        "`pruning.sparsity` must be in [0, 1), but is 1.0.",
    ]


def test_a_fault_between_keys_comes_with_the_faults_of_others(write):
    found = faults(write(SMALLEST), "stop.env_steps=0", "evaluation.test_seed=10010")
    assert found[0] == "`stop.env_steps` must be greater than 0, but is 0."
    assert found[1].startswith("`evaluation.test_seed` must be at least `evaluation.episodes` (20)")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env=", "`env` is missing: give a gymnasium id, such as CartPole-v1."),
        ("env=''", "`env` must be text of at least 1 character(s), but is ''."),
        ("seed=true", "`seed` must be an integer, but is True."),
        ("seed=-1", "`seed` must be at least 0, but is -1."),
        ("seed=0.5", "`seed` must be an integer, but is 0.5."),
        ("seed='5'", "`seed` must be an integer, but is '5'."),
        ("stop.return=.nan", "`stop.return` must be a finite number, but is nan."),
        ("stop.retrun=3", "`stop.retrun` is not a known key. Did you mean 'return'?"),
        ("evaluation=3", "`evaluation` must be a mapping, but is 3."),
        ("rllib={1: {}}", "`rllib` must have text for its keys, but one is 1."),
        ("search=fast", "`search` must be a mapping, but is 'fast'."),
        ("pruning=0.9", "`pruning` must be a mapping, but is 0.9."),
        (
            "stop={updates: null}",
            "`stop` must give at least one of `env_steps`, `return` and `updates`.",
        ),
        (
            "start_from=no/such",
            "`start_from` must be a checkpoint's directory, but there is no 'no/such'.",
        ),
        (
            "evaluation.dense=trian",
            "`evaluation.dense` must be a checkpoint's directory, 'train' or null, but there is no "
            "'trian'.",
        ),
    ],
)
def test_a_fault_names_field_constraint_and_value(write, override, message):
    assert one_fault(write(SMALLEST), override) == message


def test_a_key_that_is_no_text_is_refused(write):
    assert "`7` is not a known key." in one_fault(write(SMALLEST + "    7: 3\n"))


def test_a_name_that_would_leave_the_directory_is_refused(write):
    assert "letters, digits" in one_fault(write(SMALLEST), "name=../other")


def test_the_training_seed_may_not_be_an_evaluation_seed(write):
    path = write(SMALLEST)
    assert "validation_seed" in one_fault(path, seed=10_019)
    assert load_experiment(path, seed=10_020).seed == 10_020


def test_fractions_of_a_run_without_a_length_are_refused(write):
    path = write(SMALLEST + "    stop: {return: 475}\n")
    assert "`stop.env_steps`, which isn't given" in one_fault(path)
    whole = load_experiment(path, ["pruning.schedule={begin: 2, end: 3000}"])
    assert whole.stop.return_ == 475
    assert load_experiment(path, ["stop.env_steps=1000"]).horizon == 1000


def test_a_whole_float_is_a_count(write):
    steps = load_experiment(write(SMALLEST), ["stop.env_steps=2e5"]).stop.env_steps
    assert steps == 200_000
    assert isinstance(steps, int)


def test_an_empty_block_means_its_defaults(write):
    experiment = load_experiment(write(SMALLEST + "    rllib:\n    evaluation:\n"))
    assert experiment.rllib == {}
    assert experiment.evaluation.episodes == 20


def test_a_dense_run_comes_from_the_same_file(write):
    assert load_experiment(write(SMALLEST), ["pruning.sparsity=0"]).pruning.sparsity == 0


def test_later_overrides_win_and_the_seed_option_beats_them(write):
    path = write(SMALLEST)
    overrides = ["seed=1", "seed=2", "rllib.training.lr=3e-4", "env_config.wind=0.5"]
    experiment = load_experiment(path, overrides)
    assert (experiment.seed, experiment.rllib) == (2, {"training": {"lr": 3e-4}})
    assert experiment.env_config == {"wind": 0.5}
    assert load_experiment(path, overrides, seed=3).seed == 3


def test_a_quoted_segment_keeps_its_dots(write):
    override = 'pruning.distribution."pi.encoder.0"=0.25'
    experiment = load_experiment(write(SMALLEST), ["pruning.distribution=", override])
    assert experiment.pruning.distribution == {"pi.encoder.0": 0.25}


def test_an_override_below_a_value_is_refused(write):
    message = one_fault(write(SMALLEST), "pruning.sparsity.policy=0.5")
    assert "`pruning.sparsity` is 0.5, not a mapping" in message


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", ".a=1", 'a."b=1', "a b.=2"])
def test_an_override_without_key_or_value_is_refused(write, override):
    assert "needs KEY=VALUE" in one_fault(write(SMALLEST), override)


def test_faults_of_overrides_and_file_come_together(write):
    found = faults(write(SMALLEST), "seed", "stop.env_steps=-1", "env=[1")
    assert len(found) == 3
    assert "The value of `--set env=[1`" in found[1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed: 1\nenv: a\nseed: 2\n", ["line 3", 'duplicate key "seed"']),
        ("seed: [1\nenv: a\n", ["line 2", "expected ',' or ']'"]),
        ("stop:\n\t- b\n", ["line 2", "'\\t'"]),
        ("a: b: c\n", ["line 1", "mapping values are not allowed here"]),
        ("a: !!python/object:os.system x\n", ["line 1", "could not determine a constructor"]),
        ("", ["is empty"]),
        ("- PPO\n", ["holds ['PPO']"]),
    ],
)
def test_broken_yaml_is_told_with_its_place(write, text, parts):
    message = one_fault(write(text))
    assert all(part in message for part in ["tiny.yaml", *parts]), message
    assert "\n" not in message


def test_files_that_cannot_be_read_are_told(tmp_path):
    assert "There is no file" in one_fault(tmp_path / "missing.yaml")
    assert "can't be read" in one_fault(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    assert "is not UTF-8" in one_fault(tmp_path / "latin.yaml")


def test_own_modules_are_imported_before_names_are_checked(write, tmp_path, monkeypatch):
    (tmp_path / "own_criteria_for_test.py").write_text(
        "from rayprune import register_criterion\n"
        "register_criterion('own_for_test', lambda weight: weight)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    # A registry only grows, so this test's criterion goes into a copy.
    monkeypatch.setattr(CRITERIA, "_entries", dict(CRITERIA))
    path = write(SMALLEST)
    assert "but is 'own_for_test'" in one_fault(path, "pruning.criterion=own_for_test")
    overrides = ["pruning.criterion=own_for_test", "imports=[own_criteria_for_test]"]
    assert load_experiment(path, overrides).pruning.criterion == "own_for_test"
    assert "No module named 'not_there'" in one_fault(path, "imports=[not_there]")


def test_an_experiment_is_frozen(write):
    experiment = load_experiment(write(SMALLEST))
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 3


def test_the_resolved_yaml_reads_back_the_same(write, tmp_path):
    experiment = load_experiment(
        write(SMALLEST + "    search: {method: grid, space: {pruning.granularity: [2:4, off]}}\n"),
        [
            "stop={return: 475, env_steps: 1000}",
            "rllib.training.lr=3e-4",
            "evaluation.shifts=[{gravity: 11}]",
        ],
    )
    text = to_yaml(experiment, {"ray": "2.60.0"})
    again = write(text, "config.yaml")
    assert load_experiment(again) == experiment
    assert yaml12.parse(text)["versions"] == {"ray": "2.60.0"}
    assert list(yaml12.parse(text))[:3] == ["name", "algorithm", "env"]


def test_a_finished_run_is_read_without_the_checkpoint_it_started_from(write):
    path = write(SMALLEST + "    start_from: gone/away\n")
    assert load_experiment(path, check_paths=False).start_from == "gone/away"


def test_faults_and_experiment_exclude_each_other(write):
    raw, overrides_faults = load_raw(write(SMALLEST))
    found, experiment = experiment_faults(raw)
    assert (found, overrides_faults) == ([], [])
    assert isinstance(experiment, ExperimentConfig)
    found, experiment = experiment_faults({**raw, "seed": -1})
    assert len(found) == 1
    assert experiment is None


@given(
    st.dictionaries(
        st.sampled_from([*ExperimentConfig.model_fields, "other", "versions"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.sampled_from(["", "PPO", "2:4"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["env_steps", "return", "every", "dense", "wandb", "sparsity", 3]
                    ),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=5,
        ),
    )
)
def test_whatever_a_file_holds_gives_faults_or_an_experiment(raw):
    found, experiment = experiment_faults({**raw, "imports": []})
    assert bool(found) != (experiment is not None)
    assert all(isinstance(fault, str) and "\n" not in fault for fault in found)


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ({"start": 5000, "freeze": 6000}, "`quantise.start` must lie before the end of the run"),
        ({"start": 1.0, "freeze": 1.0}, "nothing would ever be rounded"),
        ({"start": 0.5, "freeze": 300}, "`quantise.freeze` must not lie before `quantise.start`"),
    ],
)
def test_rounding_that_would_never_come_is_a_fault(times, told):
    raw = {"name": "x", "algorithm": "PPO", "env": "CartPole-v1", "stop": {"env_steps": 1000}}
    found, _ = experiment_faults({**raw, "pruning": {"sparsity": 0.5}, "quantise": times})
    assert len(found) == 1
    assert told in found[0]


def test_a_name_that_was_left_empty_is_the_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name:\nalgorithm: PPO\nenv: A\npruning: {sparsity: 0.5}\nstop: {env_steps: 1}\n"
    )
    assert load_experiment(path, check_paths=False).name == "mine"
