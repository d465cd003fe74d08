"""What needs validations, a dense policy or a driver is refused without it, with the way out."""

import pytest

from rayprune.config import experiment_faults
from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig

BASE = {"name": "x", "algorithm": "PPO", "env": "CartPole-v1"}


def faults(schedule, **changes):
    pruning = {"sparsity": 0.5, "schedule": schedule, **changes.pop("pruning", {})}
    found, _ = experiment_faults({**BASE, "pruning": pruning, **changes})
    return found


@pytest.mark.parametrize(
    "schedule", [{"kind": "gated"}, {"kind": "cubic", "begin": {"return": 300}}]
)
def test_what_waits_for_a_return_is_refused_without_validations(schedule):
    (fault,) = faults(schedule, evaluation={"every": None})
    assert "`evaluation.every` is null" in fault
    assert "such as 10000" in fault
    assert faults(schedule) == []


def test_a_gate_needs_no_target():
    found, experiment = experiment_faults({**BASE, "pruning": {"schedule": {"kind": "gated"}}})
    assert found == []
    assert experiment.pruning.sparsity is None
    with pytest.raises(ConfigError, match="One of `sparsity` and `threshold`"):
        PruningConfig(schedule={"kind": "cubic"})


def test_a_dense_reference_needs_a_dense_policy(tmp_path):
    gate = {"kind": "gated", "reference": "dense"}
    (fault,) = faults(gate)
    assert "there is no dense policy" in fault
    assert "reference: peak" in fault
    assert faults(gate, evaluation={"dense": "train"}) == []
    assert faults(gate, start_from=str(tmp_path)) == []
    assert faults(gate, pruning={"sparsity": 0.0}) == []


def test_a_teacher_from_the_start_needs_a_start(tmp_path):
    block = {"distillation": {"from": "start"}}
    (fault,) = faults({"kind": "cubic"}, pruning=block)
    assert "`start_from` is null" in fault
    assert faults({"kind": "cubic"}, pruning=block, start_from=str(tmp_path)) == []
    (fault,) = faults({"kind": "cubic"}, pruning={"distillation": {"from": "nowhere"}})
    assert "`pruning.distillation.from` must be a checkpoint's directory" in fault


def test_fractions_without_a_length_are_named():
    stop = {"return": 475}
    (fault,) = faults({"kind": "lottery", "rounds": 2, "rewind_to": 500}, stop=stop)
    assert "`round_steps` None" in fault
    (fault,) = faults({"kind": "gated", "begin": 0}, stop=stop)
    assert "`patience` 0.1" in fault
    assert faults({"kind": "gated", "begin": 0, "patience": 5000}, stop=stop) == []
