import copy
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest

from rayprune import PruningConfig
from rayprune.errors import ConfigError


def faults(**values):
    return PruningConfig.faults_of(values, prefix="")


def test_all_faults_come_at_once_with_field_constraint_value_and_way_out():
    with pytest.raises(ConfigError) as caught:
        PruningConfig(sparsity=1.0, criterion="l_1", granulrity="weight", horizon=0)
    assert caught.value.faults == (
        "`granulrity` is not a known key. Did you mean 'granularity'?",
        "`sparsity` must be in [0, 1), but is 1.0.",
        caught.value.faults[2],
        "`horizon` must be an integer of at least 1 (env steps), but is 0.",
    )
    assert caught.value.faults[2].startswith("`criterion` must be one of [")
    assert caught.value.faults[2].endswith("but is 'l_1'. Did you mean 'l1'?")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sparsity": -0.1}, "`sparsity` must be in [0, 1), but is -0.1."),
        ({"sparsity": "0.9"}, "`sparsity` must be a number in [0, 1), but is '0.9'."),
        ({"sparsity": True}, "`sparsity` must be a number"),
        ({"sparsity": float("nan")}, "`sparsity` must be a number"),
        ({}, "One of `sparsity` and `threshold` must be given."),
        ({"threshold": {"absolute": -1}}, "`threshold.absolute` must be finite and at least 0"),
        ({"threshold": {"percentile": 0}}, "`threshold.percentile` must be in (0, 100), but is 0."),
        ({"threshold": {"percentile": 100}}, "must be in (0, 100), but is 100."),
        ({"threshold": {"absolute": 1, "percentile": 2}}, "`threshold` must be one of"),
        ({"threshold": {"absolute": 1, "of_lowest": 2}}, "`threshold.of_lowest` is not a known"),
        ({"threshold": 3}, "`threshold` must be one of"),
        ({"granularity": "4:2"}, "but is '4:2'. Of n:m, 0 < n < m, such as '2:4'."),
        ({"criterion": "fischer"}, "'l1', 'l2', 'lamp', 'movement', 'normalised', 'random'"),
        ({"criterion": ["l1"]}, "but is ['l1']."),
        ({"distribution": "erkk"}, "Did you mean 'erk'?"),
        ({"distribution": {"pi": 1.5}}, "`distribution.pi` must be in [0, 1), but is 1.5."),
        ({"operation": "scale"}, "`operation` must be 'zero' or {scale: c, steps: k}"),
        ({"operation": {"scale": 1.0, "steps": 2}}, "`operation.scale` must be in (0, 1)"),
        ({"operation": {"scale": 0.5, "steps": 0}}, "`operation.steps` must be an integer in [1,"),
        ({"operation": {"scale": 0.5, "steps": 2.5}}, "`operation.steps` must be an integer"),
        ({"operation": {"scale": 0.5, "steps": float("inf")}}, "`operation.steps` must be"),
        ({"schedule": {"kind": "sudden"}}, "`schedule.kind` must be one of ['adaptive', "),
        (
            {"schedule": {"kidn": "cubic"}},
            "`schedule.kidn` is not a known key. Did you mean 'kind'",
        ),
        ({"schedule": {"every": 0}}, "`schedule.every` must be an integer of at least 1"),
        ({"schedule": {"every": 1.5}}, "`schedule.every` must be an integer"),
        ({"schedule": {"begin": 0.9, "end": 0.5}}, "`schedule.end` must not be less than `begin`"),
        ({"schedule": {"begin": -1}}, "`schedule.begin` must be a number of at least 0"),
        ({"schedule": "cubic"}, "`schedule` must be a mapping"),
        ({"protect": "pi"}, "`protect` must be a list of glob patterns, but is 'pi'."),
        ({"protect": [3]}, "`protect` must hold strings, but one is 3."),
        ({"groups": {"pi": 0.5}}, "`groups.pi` must be {sparsity: s}, or with granularity"),
        ({"groups": {"pi": {"sparsity": 1}}}, "`groups.pi.sparsity` must be in [0, 1)"),
        ({"on_clone": "grow"}, "`on_clone` must be one of ['hold', 'regrow'], but is 'grow'."),
        (
            {"compact_every": 0, "granularity": "neuron"},
            "`compact_every` must be an integer of at least 1 (env steps)",
        ),
        ({"compact_every": "often", "granularity": "neuron"}, "null, but is 'often'."),
        ({"compact_every": 10}, "`compact_every` needs a `granularity` that removes whole units"),
        (
            {"compact_every": 10, "granularity": "2:4", "sparsity": None},
            "'neuron', 'head' or 'hybrid', but it is '2:4'",
        ),
        (
            {"compact_every": 10, "granularity": "neuron", "schedule": {"kind": "gated"}},
            "`schedule.kind` 'gated' rolls back to denser masks",
        ),
        (
            {"compact_every": 10, "granularity": "neuron", "threshold": {"percentile": 50}},
            "`threshold` {'percentile': 50} counts what is pruned already",
        ),
        ({"fused_optimizer": "yes"}, "`fused_optimizer` must be true or false"),
        ({"pooling": "max"}, "`pooling` must be one of ['l2', 'mean', 'sum'], but is 'max'."),
        ({"horizon": 1.5}, "`horizon` must be an integer"),
    ],
)
def test_each_fault_is_worded(values, words):
    given = (
        values
        if {"sparsity", "threshold"} & set(values) or not values
        else {"sparsity": 0.5, **values}
    )
    found = faults(**given)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("value", [None, 3, [1], "x"])
def test_what_is_no_mapping_is_one_fault(value):
    assert PruningConfig.faults_of(value) == [f"`pruning` must be a mapping, but is {value!r}."]


def test_the_prefix_leads_every_field():
    found = PruningConfig.faults_of({"sparsity": 2, "schedule": {"every": 0}, "x": 1})
    assert all(fault.startswith("`pruning.") for fault in found)


def test_the_dict_is_complete_plain_and_goes_both_ways():
    config = PruningConfig(
        sparsity=0.9,
        protect=["pi*"],
        operation={"scale": 0.5, "steps": 4},
        schedule={"begin": 0.1},
        groups={"policy": {"sparsity": 0.95}},
        distribution={"pi.0": 0.3},
    )
    plain = config.to_dict()
    assert plain == json.loads(json.dumps(plain))
    assert set(plain) == set(PruningConfig.names())
    assert plain["schedule"] == {"kind": "cubic", "begin": 0.1, "end": 0.8, "every": 1000}
    assert plain["operation"] == {"scale": 0.5, "steps": 4}
    assert isinstance(plain["operation"]["steps"], int)
    assert PruningConfig.from_dict(plain) == config
    for twin in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert twin == config


def test_numpy_numbers_as_tune_samples_them_become_plain():
    config = PruningConfig(
        sparsity=np.float64(0.5), horizon=np.int64(10), schedule={"begin": np.float32(0.5)}
    )
    assert json.dumps(config.to_dict())
    assert config.sparsity == 0.5


def test_shares_become_floats_whichever_number_they_were_given_as():
    config = PruningConfig(sparsity=0, distribution={"pi": Fraction(1, 2)})
    held = (config.sparsity, config.distribution["pi"])
    assert held == (0.0, 0.5)
    assert list(map(type, held)) == [float, float]


def test_defaults_are_nobody_elses():
    PruningConfig(sparsity=0.5).schedule["kind"] = "linear"
    assert PruningConfig(sparsity=0.5).schedule["kind"] == "cubic"


def test_filter_is_an_alias_of_neuron():
    assert PruningConfig(sparsity=0.5, granularity="filter").granularity == "neuron"


def test_it_is_frozen_and_its_copies_are_checked():
    config = PruningConfig(sparsity=0.5)
    with pytest.raises(AttributeError, match="cannot assign to field 'sparsity'"):
        config.sparsity = 0.6
    with pytest.raises(ConfigError):
        config.replace(sparsity=3)
    assert config.replace(sparsity=0.6).sparsity == 0.6


def test_sparsity_may_be_left_out_where_groups_or_layers_have_theirs():
    assert faults(groups={"policy": {"sparsity": 0.5}}) == []
    assert faults(distribution={"pi": 0.5}) == []


def test_one_shot_may_keep_an_end_that_it_does_not_use():
    schedule = {"kind": "one_shot", "begin": 0.9, "end": 0.8}
    assert PruningConfig(sparsity=0.5, schedule=schedule, horizon=100).build_schedule(0.5).end == 90


def test_all_that_a_network_that_shrinks_can_not_follow_is_told_at_once():
    given = {"sparsity": 0.5, "compact_every": 10, "on_clone": "regrow"}
    found = "\n".join(faults(**given, schedule={"kind": "rigl"}))
    assert "`compact_every` needs a `granularity` that removes whole units" in found
    assert "`on_clone` 'regrow' needs weights that are gone" in found
    assert "`schedule.kind` 'rigl' is sparse from the start or lets weights grow back" in found
    assert found.count("or leave `compact_every` out") == 3
    rewound = "\n".join(faults(**given, schedule={"kind": "lottery", "rounds": 2}))
    assert "`schedule.kind` 'lottery' rewinds to weights of the whole network" in rewound


def test_live_compaction_goes_with_units_and_schedules_that_only_prune():
    for values in ({"granularity": "filter"}, {"granularity": "neuron", "operation": FADING}):
        assert faults(sparsity=0.5, compact_every=10, **values) == []


FADING = {"scale": 0.5, "steps": 3}
