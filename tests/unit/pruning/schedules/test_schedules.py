from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayprune.errors import ConfigError
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.schedules import (
    SCHEDULES,
    LinearSchedule,
    RiglSchedule,
    register_schedule,
)

BUILT_IN = ["one_shot", "linear", "cubic", "exponential"]


def build(kind, final=0.8, begin=100, end=300):
    settings = {"kind": kind, "begin": begin, "end": end}
    return PruningConfig(sparsity=final, schedule=settings).build_schedule(final)


def test_halfway_values_by_hand():
    halfway = {kind: build(kind, final=0.75).sparsity_at(200) for kind in BUILT_IN}
    assert halfway == pytest.approx(
        {"one_shot": 0.75, "linear": 0.375, "cubic": 0.75 * 7 / 8, "exponential": 0.5}
    )


@given(st.floats(0, 0.99), st.integers(1, 400))
def test_cubic_equals_zhu_and_gupta(final, step):
    # s_t = s_f + (s_i - s_f) * (1 - (t - t_0) / (n * dt))^3 with s_i = 0, t_0 = 100, n * dt = 200
    expected = final + (0 - final) * (1 - (min(max(step, 100), 300) - 100) / 200) ** 3
    assert build("cubic", final).sparsity_at(step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", BUILT_IN)
@given(final=st.floats(0, 0.99), steps=st.lists(st.integers(0, 500), min_size=2, max_size=8))
def test_sparsity_never_falls_and_ends_at_the_target(kind, final, steps):
    schedule = build(kind, final)
    values = [schedule.sparsity_at(step) for step in sorted(steps)]
    assert values == sorted(values)
    assert schedule.sparsity_at(99) == 0.0
    assert schedule.sparsity_at(300) == schedule.sparsity_at(10**9) == final


@pytest.mark.parametrize("kind", ["linear", "cubic", "exponential"])
def test_a_ramp_of_no_length_is_a_cut(kind):
    schedule = build(kind, begin=100, end=100)
    assert [schedule.sparsity_at(step) for step in (99, 100)] == [0.0, 0.8]


def test_fractions_are_of_the_horizon_and_steps_are_steps():
    config = PruningConfig(sparsity=0.5, schedule={"begin": 0.1, "end": 900}, horizon=1000)
    assert (config.build_schedule(0.5).begin, config.build_schedule(0.5).end) == (100, 900)
    assert config.build_schedule(0.5, horizon=2000).begin == 200


def test_every_fault_of_a_schedule_is_named():
    with pytest.raises(ConfigError) as caught:
        LinearSchedule(final=1.0, begin=-1, end=-2)
    assert len(caught.value.faults) == 3


def test_a_schedule_is_registered_once_and_takes_its_own_parameters():
    @dataclass(frozen=True, kw_only=True)
    class Stairs:
        final: float
        begin: float
        end: float
        steps: int = 2

        def sparsity_at(self, step):
            done = min(max((step - self.begin) / (self.end - self.begin), 0), 1)
            return self.final * int(done * self.steps) / self.steps

    register_schedule("stairs", Stairs)
    config = PruningConfig(
        sparsity=0.8, schedule={"kind": "stairs", "begin": 0, "end": 100, "steps": 4}
    )
    assert config.build_schedule(0.8).sparsity_at(30) == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="'stairs' exists already"):
        register_schedule("stairs", Stairs)
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        PruningConfig(sparsity=0.8, schedule={"kind": "stairs", "step": 4})
    with pytest.raises(ConfigError, match="lacks"):
        register_schedule("nothing", int)
    assert "nothing" not in SCHEDULES


def faults_of(kind, **values):
    schedule = {"kind": kind, **values.pop("schedule", {})}
    return PruningConfig.faults_of({"sparsity": 0.9, **values, "schedule": schedule})


def test_a_registered_kind_of_rigl_obeys_the_rules_of_rigl():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class MyRigl(RiglSchedule):
        """The same RigL under a name of one's own."""

    register_schedule("my_rigl", MyRigl)
    wrong = {
        "granularity": "neuron",
        "compact_every": 1000,
        "operation": {"scale": 0.5, "steps": 3},
        "distillation": {},
        "schedule": {"drop_fraction": 7, "minibatches": 0},
    }
    found = faults_of("my_rigl", **wrong)
    assert len(found) == 6
    assert [fault.replace("my_rigl", "rigl") for fault in found] == faults_of("rigl", **wrong)
    assert PruningConfig(sparsity=0.9, schedule={"kind": "my_rigl"}).schedule == {
        **PruningConfig(sparsity=0.9, schedule={"kind": "rigl"}).schedule,
        "kind": "my_rigl",
    }


@pytest.mark.parametrize(
    "wrong", [{"begin": -1}, {"end": "x"}, {"every": 0}, {"begin": {"retrun": 5}}, {"bgin": 3}]
)
def test_a_plain_class_of_a_users_own_is_checked_as_a_built_in_one(wrong):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Plain:
        final: float
        begin: float
        end: float

        def sparsity_at(self, step):
            return self.final

    register_schedule("plain", Plain)
    assert faults_of("plain", schedule=wrong) == faults_of("cubic", schedule=wrong) != []
    assert (
        type(PruningConfig(sparsity=0.9, schedule={"kind": "plain"}).build_schedule(0.9)) is Plain
    )


def test_a_registered_schedule_brings_its_own_faults_and_conflicts():
    @dataclass(frozen=True, kw_only=True)
    class Stairs(LinearSchedule):
        defaults: ClassVar = {"stairs": 4}
        stairs: int = 4

        @classmethod
        def own_faults(cls, field, block):
            if block.get("stairs", 4) < 1:
                yield f"`{field}.stairs` must be at least 1."

        @classmethod
        def conflicts(cls, prefix, chosen):
            if chosen.values.get("on_clone") == "regrow":
                yield f"`{prefix}on_clone` can't be 'regrow' on stairs."

    register_schedule("stairs", Stairs)
    assert PruningConfig(sparsity=0.9, schedule={"kind": "stairs"}).schedule["stairs"] == 4
    assert faults_of("stairs", schedule={"stairs": 0}, on_clone="regrow") == [
        "`pruning.schedule.stairs` must be at least 1.",
        "`pruning.on_clone` can't be 'regrow' on stairs.",
    ]


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"schedule": {"kind": "at_init", "minibatches": 0}}, "`schedule.minibatches`"),
        ({"schedule": {"kind": "at_init", "begin": 0.2}}, "`schedule.begin` must be left out"),
        ({"criterion": "movement"}, "is measured while a policy is trained"),
        ({"operation": {"scale": 0.5, "steps": 2}}, "`operation` must be 'zero'"),
        ({"penalty": {"kind": "l1", "strength": 0.1}}, "a at_init mask never changes"),
        ({"distillation": {"weight": 1.0}}, "distillation"),
    ],
)
def test_what_can_not_be_at_initialisation_is_refused(values, part):
    given = {"sparsity": 0.5, "schedule": {"kind": "at_init"}, "criterion": "snip", **values}
    (fault,) = PruningConfig.faults_of(given, prefix="")
    assert part in fault
