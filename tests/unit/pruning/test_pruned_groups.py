"""Groups with choices of their own: each is pruned as if it were all that there is."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import CheckpointError, ConfigError, InputError
from rayprune.pruning.group_pruner import GroupPruner

AT = {"begin": 0, "end": 300, "every": 100}
STEPS = (0, 100, 200, 300)


def net(seed=0):
    torch.manual_seed(seed)
    parts = {name: nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for name in "ab"}
    return nn.ModuleDict({**parts, "c": nn.Linear(8, 4)})


def group_of(name):
    return name[0]


def pruner_of(module=None, **config):
    config = {"sparsity": 0.5, "plasticity": None, "schedule": {"kind": "linear", **AT}, **config}
    return Pruner(module or net(), PruningConfig(**config), groups=group_of)


def train(pruner, steps=STEPS, seed=1):
    """Take steps with gradients that the weights don't decide, so that groups can't meet."""
    generator = torch.Generator().manual_seed(seed)
    changes = [pruner.start()]
    for step in steps:
        gradients = {
            name: torch.randn(p.shape, generator=generator)
            for name, p in pruner.module.named_parameters()
        }
        pruner.observe_gradients(gradients)
        if pruner.awaits_growth(step, 10):
            pruner.gather_gradients(gradients)
        pruner.mask_gradients(gradients)
        with torch.no_grad():
            for name, p in pruner.module.named_parameters():
                p.sub_(0.01 * gradients[name])
        pruner.penalise(step, dict.fromkeys(pruner.module.parameters(), 0.01))
        pruner.mask_weights()
        changes.append(pruner.update(step))
    return [change for change in changes if change is not None]


OWN = {
    "static": {"schedule": {"kind": "static", **AT}},
    "rigl": {"schedule": {"kind": "rigl", **AT}, "sparsity": 0.8},
    "movement": {"criterion": "movement"},
    "neurons": {"granularity": "neuron", "pooling": "l2", "criterion": "l2"},
    "n of m": {"granularity": "1:4"},
    "hybrid": {"granularity": "hybrid", "hybrid": {"neuron": 0.25, "weight": 0.7}},
    "penalty": {"penalty": {"kind": "l1", "strength": 0.1}, "threshold": {"absolute": 0.05}},
    "fades": {"operation": {"scale": 0.5, "steps": 2}, "distribution": "global"},
    "later": {"schedule": {"end": 100}},
}


@pytest.mark.parametrize("own", OWN)
def test_a_group_is_pruned_as_if_it_were_all_that_there_is(own):
    both, alone = pruner_of(groups={"a": OWN[own], "b": OWN["rigl"]}), net()
    # The slow way: a Pruner to which nothing else belongs, under the config that the group has.
    config = both.config.of_group("a")
    single = Pruner(alone, config, groups=group_of, exclude=["b", "c"])
    train(both), train(single)
    assert set(single.held_masks) <= {n for n in both.held_masks if n[0] == "a"}
    for name, mask in single.held_masks.items():
        torch.testing.assert_close(both.held_masks[name], mask)
    assert both.sparsity("a") == single.sparsity() > 0
    assert both.sparsity("c") == pytest.approx(0.5)
    assert both.violations() == {}


def test_all_is_counted_over_the_groups_and_each_has_its_own_schedule():
    pruner = pruner_of(
        groups={
            "a": {"schedule": {"kind": "static", **AT}},
            "b": {"schedule": {"kind": "linear", "begin": 100, "end": 300, "every": 100}},
            "c": {"sparsity": 0},
        }
    )
    changes = train(pruner)
    assert [change.step for change in changes] == [None, 0, 100, 200, 300]
    assert [round(change.pruned) for change in changes] == [64, 0, 0, 32, 32]
    assert [change.churn for change in changes] == [64 / 288, 0, 0, 32 / 288, 32 / 288]
    assert changes[-1].sparsity == pruner.sparsity() == pruner.masked() == 128 / 288
    assert [pruner.sparsity(x) for x in "abc"] == [0.5, 0.5, 0.0]
    assert pruner.finished(300)
    assert not pruner.finished(200)
    assert pruner.arrived
    assert pruner.coverage()["layers"]["a.0"] == 0.5
    assert pruner.coverage()["layers"]["b.0"] == 1.0
    assert [count.name for count in pruner.layer_counts()] == list(pruner.layers)
    with pytest.raises(InputError, match="must be one of"):
        pruner.sparsity("d")


def test_whatever_a_group_pruner_tells_a_pruner_tells_of_all():
    public = {name for name in dir(GroupPruner) if not name.startswith("_")}
    inner = {"decide", "decide_at_once", "decide_start", "carry_out", "unpack", "restore"}
    inner |= {"note", "tell_of_emptied", "rests"}
    assert public - inner - {"grows_by_gradients"} <= set(dir(Pruner))


def test_resuming_gives_the_masks_of_not_stopping():
    groups = {"a": OWN["rigl"], "b": {**OWN["movement"], **OWN["later"]}}
    whole, half = pruner_of(groups=groups), pruner_of(groups=groups)
    train(whole, STEPS[:2]), train(half, STEPS[:2])
    state = copy.deepcopy(half.state_dict())
    resumed = pruner_of(copy.deepcopy(half.module), groups=groups)
    resumed.load_state_dict(state)
    train(whole, STEPS[2:], seed=2), train(resumed, STEPS[2:], seed=2)
    assert all(torch.equal(mask, resumed.masks[name]) for name, mask in whole.masks.items())
    assert resumed.coverage() == whole.coverage()


def test_a_state_of_other_groups_is_refused_and_a_broken_one_changes_nothing():
    pruner = pruner_of(groups={"a": OWN["rigl"]})
    train(pruner)
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    for state in (pruner_of().state_dict(), pruner_of(groups={"b": OWN["rigl"]}).state_dict()):
        with pytest.raises(CheckpointError, match="had choices of their own"):
            pruner.load_state_dict(state)
    broken = pruner.state_dict()
    broken["groups"]["a"]["dynamics"] = {"ever": 3}
    with pytest.raises(CheckpointError, match="broken"):
        pruner.load_state_dict(broken)
    assert all(torch.equal(mask, pruner.masks[name]) for name, mask in before.items())


def test_masks_of_a_dense_policy_are_taken_by_all_groups():
    pruner, masks = pruner_of(groups={"a": OWN["rigl"]}), pruner_of().masks
    half = torch.arange(64).view(8, 8) % 2 == 0
    pruner.take_masks({**masks, "a.0.weight": half, "b.0.weight": half})
    assert torch.equal(pruner.masks["a.0.weight"], half)
    assert pruner.sparsity("b") == 0.25


def test_nothing_is_changed_where_one_group_cannot_decide():
    pruner = pruner_of(groups={"b": {"criterion": "taylor"}})
    with pytest.raises(InputError, match="taylor"):
        pruner.prune_to()
    assert pruner.held_masks == {}
    x = torch.randn(16, 8)
    pruner.prune_to(batch=x, loss=lambda module, batch: module["b"](batch).square().mean())
    assert [pruner.sparsity(group) for group in "abc"] == [0.5, 0.5, 0.5]


def test_what_was_gathered_for_one_group_takes_no_place_of_what_another_has_summed_up():
    groups = {
        "a": {"criterion": "taylor", "evidence": {"objective": "loss"}},
        "b": {"criterion": "taylor"},
    }
    pruner, x = (
        pruner_of(groups=groups, schedule={"kind": "one_shot", "begin": 0}),
        torch.ones(4, 8),
    )
    own = pruner.own_groups
    assert (own["a"].measures, own["a"].accumulates) == (frozenset(), frozenset({"gradient"}))
    gradients = {name: torch.rand(p.shape) for name, p in pruner.module.named_parameters()}
    pruner.observe_gradients(gradients)
    scores = {n: (w * gradients[n]).square() for n, w in own["a"].parameters.items()}
    pruner.update(0, evidence=lambda: own["b"].measure(x, lambda m, batch: m["b"](batch).mean()))
    for name, score in scores.items():
        kept = pruner.masks[name]
        assert score[kept].min() >= score[~kept].max()
    assert pruner.sparsity("b") == 0.5


def test_a_changed_target_acts_in_its_group_alone_and_a_wrong_one_changes_nothing():
    groups = {"a": {"schedule": {"kind": "one_shot", "begin": 0}}, "b": {"criterion": "l2"}}
    pruner = pruner_of(groups=groups)
    train(pruner, (0,))
    assert pruner.sparsity("a") == 0.5
    held = pruner.config
    pruner.config = held.replace(groups={**groups, "a": {**groups["a"], "sparsity": 0.75}})
    assert pruner.update(1).pruned == 32
    assert pruner.sparsity("a") == 0.75
    taken = [member.config for member in pruner.members]
    for wrong, told in {
        "c": "must give the same groups",
        "b": r"`pruning.groups.b.granularity` '2:3' needs layers whose inputs 3 divides",
    }.items():
        with pytest.raises(ConfigError, match=told):
            pruner.config = held.replace(groups={**groups, wrong: {"granularity": "2:3"}})
    assert [member.config for member in pruner.members] == taken


def test_faults_of_the_network_name_the_field_that_was_given():
    module = net()
    for config, told in [
        (
            {"sparsity": 0.9, "protect": ["a.*"], "groups": {"a": {"criterion": "l2"}}},
            "`pruning.sparsity` 0.9 cannot be met: 'a.0' and 'a.2' are protected, so at most 0.0 "
            "is reachable. Lower it, or unprotect a layer. That is so in group 'a'.",
        ),
        (
            {"groups": {"a": {"criterion": "l2", "distribution": {"b.0": 0.5}}}},
            "`pruning.groups.a.distribution` must be one of ['a.0', 'a.2'], but is 'b.0'.",
        ),
        ({"groups": {"aa": {"criterion": "l2"}}}, "`pruning.groups` must be one of"),
        ({"protect": ["d*"], "groups": {"a": {"criterion": "l2"}}}, "matches no layer"),
        (
            {"groups": {"a": {"schedule": {"kind": "linear", "begin": 0.9, "end": 5}}}},
            "`pruning.groups.a.schedule.end` must not be less than `begin`",
        ),
    ]:
        with pytest.raises(ConfigError) as error:
            Pruner(module, {"sparsity": 0.5, "horizon": 100, **config}, groups=group_of)
        assert told in str(error.value)


def test_names_of_layers_go_to_the_groups_that_have_them():
    pruner = pruner_of(
        protect=["a.0", "b.0"],
        distribution={"a.2": 0.25, "b.2": 0.75},
        sparsity=None,
        groups={"a": {"schedule": {"kind": "one_shot", "begin": 0}}},
    )
    train(pruner)
    sparsities = {count.name: count.sparsity for count in pruner.layer_counts()}
    assert sparsities == {"a.0": 0, "a.2": 0.25, "b.0": 0, "b.2": 0.75, "c": 0}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(OWN)), st.sampled_from(sorted(OWN)))
def test_a_config_with_groups_reads_back_the_same(one, other):
    config = pruner_of(groups={"a": OWN[one], "b": OWN[other], "c": {"sparsity": 0}}).config
    assert PruningConfig.from_dict(config.to_dict()) == config
    assert config.own_groups == ("a", "b")
    assert not config.dense


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"groups": {"a": {"schedul": {}}}}, "schedul` is not a known key. Did you mean 'schedule"),
        ({"groups": {"a": {"remedies": {}}}}, "remedies` can't be a group's own"),
        ({"groups": {"a": {"neuron": 0.5, "criterion": "l2"}}}, "Give the group `hybrid:"),
        ({"groups": {"a": {}}}, "or fields of its own"),
        ({"groups": {"a": {"criterion": "l3"}}}, "`groups.a.criterion` must be one of"),
        (
            {"penalty": {"kind": "l1", "strength": 1}, "groups": {"a": OWN["static"]}},
            "`penalty` shrinks what a mask update shall take, but a static mask never changes. "
            "Leave it out, or take another `groups.a.schedule.kind`.",
        ),
        (
            {"distillation": {}, "groups": {"a": OWN["static"]}},
            "which never has a dense policy of its own. That is so in group 'a'.",
        ),
        (
            {"schedule": {"kind": "gated"}, "groups": {"a": OWN["static"]}},
            "`groups.a.schedule` can't be given beside `schedule.kind` 'gated'",
        ),
        (
            {"groups": {"a": {"schedule": {"kind": "lottery", "rounds": 2, "rewind_to": 0}}}},
            "`groups.a.schedule.kind` can't be 'lottery'",
        ),
        (
            {"groups": {"a": {"schedule": {"kind": "adaptive"}}}},
            "`groups.a.schedule.kind` can't be 'adaptive', which trains several copies",
        ),
        (
            {"groups": {"a": {"penalty": {"kind": "gates", "strength": 0.1}}}},
            "`groups.a.penalty.kind` 'gates' shrinks output units, so `groups.a.granularity` must",
        ),
        (
            {"groups": {"a": {"schedule": {"begin": {"return": 3}}}}},
            "`groups.a.schedule.begin` can't wait for a return",
        ),
        (
            {"granularity": "neuron", "compact_every": 100, "groups": {"a": OWN["hybrid"]}},
            "`groups.a.granularity` can't be 'hybrid' beside `granularity` 'neuron'",
        ),
        (
            {"granularity": "neuron", "compact_every": 100, "groups": {"a": OWN["rigl"]}},
            "`groups.a.schedule.kind` 'rigl' is sparse from the start",
        ),
        (
            {"on_clone": "regrow", "groups": {"a": {"granularity": "neuron"}}},
            "`on_clone` 'regrow' grows single weights, so `groups.a.granularity` must be",
        ),
        (
            {"sparsity": None, "granularity": "2:4", "groups": {"a": {"granularity": "weight"}}},
            "One of `groups.a.sparsity` and `groups.a.threshold` must be given.",
        ),
    ],
)
def test_parts_that_contradict_are_refused_by_their_fields(config, told):
    assert told in "\n".join(PruningConfig.faults_of({"sparsity": 0.5, **config}, prefix=""))
