"""Trust regions: a mask update takes as much of its step as keeps the policy close, and no more."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune import Pruner, PruningConfig
from rayprune.errors import ConfigError, InputError
from rayprune.pruning.reports import PolicyChange
from rayprune.pruning.update import trust_region

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
RAMP = {"kind": "linear", "begin": 0, "end": 400, "every": 100}
KINDS: dict[str, dict[str, Any]] = {
    "weight": {"sparsity": 0.8},
    "weight global": {"sparsity": 0.8, "distribution": "global"},
    "neuron": {"sparsity": 0.5, "granularity": "neuron", "protect": ["2"]},
    "2:4": {"granularity": "2:4", "protect": ["0"]},
    "hybrid": {
        "granularity": "hybrid",
        "hybrid": {"neuron": 0.25, "weight": 0.6},
        "protect": ["2"],
    },
    "threshold": {"threshold": {"percentile": 80}},
    "budgets": {"sparsity": 0.8, "groups": {"a": {"sparsity": 0.5}}},
    "groups": {"sparsity": 0.8, "groups": {"a": {"criterion": "random"}}},
    "rescaled": {"sparsity": 0.8, "remedies": {"rescale": True}},
}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def pruner_of(module: nn.Module | None = None, **config: Any) -> Pruner:
    fields = {"schedule": RAMP, "horizon": 1000, **config}
    groups = (lambda name: {"0": "a", "2": "b"}[name]) if "groups" in config else None
    return Pruner(module or net(), PruningConfig(**fields), groups=groups)


def kl_of(module: nn.Module) -> trust_region.Divergence:
    """Return a user's divergence: of the softmax of the outputs."""

    def look() -> trust_region.Compare:
        before = module(X).log_softmax(-1)
        return lambda: float((before.exp() * (before - module(X).log_softmax(-1))).sum(-1).mean())

    return look


def weights_of(pruner: Pruner) -> list[Tensor]:
    return [p.detach().clone() for p in pruner.module.parameters()]


def taken_by_brute_force(make: Callable[[], Pruner], bound: float) -> tuple[int, list[bool]]:
    """Return which shares hold, each taken by a Pruner of its own, and the largest that does."""
    held = []
    for parts in range(trust_region.STEPS + 1):
        pruner = make()
        compare = kl_of(pruner.module)()
        decided = [m.decide(200, None, parts / trust_region.STEPS) for m in pruner.members]
        with torch.no_grad():
            pruner._put_in_force(decided)
            held.append(compare() <= bound)
    return max(n for n, holds in enumerate(held) if holds), held


@pytest.mark.parametrize("kind", ["weight", "neuron", "2:4", "hybrid", "threshold", "rescaled"])
def test_the_step_is_the_one_that_trying_each_size_finds(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_region, "STEPS", 16)
    whole = pruner_of(**KINDS[kind])
    moved = whole.update(200, divergence=kl_of(whole.module)).policy
    bound = 0.4 * moved.kl
    best, held = taken_by_brute_force(lambda: pruner_of(**KINDS[kind]), bound)
    pruner = pruner_of(**KINDS[kind], max_kl=bound)
    change = pruner.update(200, divergence=kl_of(pruner.module))
    parts = round(change.taken * 16)
    assert held[parts]
    assert not held[parts + 1]
    assert change.policy.kl <= bound
    if held == sorted(held, reverse=True):
        assert parts == best


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_a_smaller_step_contain_those_of_a_larger(kind: str) -> None:
    before: dict[str, Tensor] = {}
    for share in (1.0, 0.75, 0.5, 0.25, 0.0):
        pruner = pruner_of(**KINDS[kind])
        with torch.no_grad():
            pruner._put_in_force([m.decide(300, None, share) for m in pruner.members])
        masks = pruner.masks
        assert all(bool((before[name] <= masks[name]).all()) for name in before)
        before = masks
    assert all(bool(mask.all()) for mask in before.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_not_taken_leaves_every_bit(kind: str) -> None:
    pruner = pruner_of(**KINDS[kind], max_kl=1e-12)
    before, masks = weights_of(pruner), {n: m.clone() for n, m in pruner.masks.items()}
    change = pruner.update(200, divergence=kl_of(pruner.module))
    # A share that comes to less than one weight of each layer drops nothing.
    assert change.taken < 0.4
    assert change.pruned == change.policy.kl == 0
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(pruner), strict=True))
    assert all(torch.equal(mask, pruner.masks[name]) for name, mask in masks.items())
    assert pruner.behind
    assert not pruner.due(250)
    assert pruner.due(300)


def test_what_was_held_back_is_caught_up_after_the_end() -> None:
    pruner = pruner_of(sparsity=0.8, max_kl=0.01)
    pruner.update(400, divergence=kl_of(pruner.module))
    assert pruner.behind
    assert not pruner.finished(400)
    assert not pruner.due(499)
    clock = 400
    while pruner.behind and clock < 10_000:
        clock += 100
        change = pruner.update(clock, divergence=kl_of(pruner.module))
        assert change.policy.kl <= 0.01
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.01)
    assert pruner.finished(clock)
    assert not pruner.due(clock + 1000)


def test_resuming_in_the_middle_gives_the_bits_of_not_stopping() -> None:
    whole = pruner_of(sparsity=0.8, max_kl=0.002)
    whole.update(400, divergence=kl_of(whole.module))
    again = pruner_of(copy.deepcopy(whole.module), sparsity=0.8, max_kl=0.002)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    for pruner in (whole, again):
        for clock in (500, 600, 700):
            pruner.update(clock, divergence=kl_of(pruner.module))
    assert again.state_dict()["progress"] == whole.state_dict()["progress"]
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(again), strict=True))


def test_without_a_bound_the_change_is_told_and_the_masks_are_the_same() -> None:
    told, plain = pruner_of(sparsity=0.8), pruner_of(sparsity=0.8)
    with torch.no_grad():
        compare = kl_of(told.module)()
    change = told.update(200, divergence=kl_of(told.module))
    plain.update(200)
    with torch.no_grad():
        assert change.policy == PolicyChange(kl=compare())
    assert (change.taken, told.behind) == (1.0, False)
    assert all(torch.equal(mask, plain.masks[name]) for name, mask in told.masks.items())
    assert "behind" not in told.state_dict()["progress"]


def test_nobody_is_asked_where_no_mask_update_is_due() -> None:
    pruner = pruner_of(sparsity=0.8, max_kl=0.01)
    pruner.update(200, divergence=kl_of(pruner.module))

    def never() -> None:
        raise AssertionError

    assert pruner.update(250, divergence=never) is None


def test_a_bound_waits_for_who_can_tell_and_asks_for_what_it_bounds() -> None:
    pruner = pruner_of(sparsity=0.8, max_value_change=0.1)
    assert pruner.update(200, divergence=lambda: None) is None
    assert pruner.due(200)
    with pytest.raises(InputError, match="Pass `divergence=` to"):
        pruner.update(200)
    before = weights_of(pruner)
    with pytest.raises(InputError, match="`value_change` of a mask update, but"):
        pruner.update(200, divergence=kl_of(pruner.module))
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(pruner), strict=True))
    assert pruner.due(200)
    change = pruner.update(200, divergence=lambda: lambda: PolicyChange(value_change=math.nan))
    assert change.pruned == 0


def test_what_is_no_divergence_is_told_and_undone() -> None:
    pruner = pruner_of(sparsity=0.8, max_kl=0.1)
    before = weights_of(pruner)
    with pytest.raises(InputError, match="must return a KL in nats or a PolicyChange, but"):
        pruner.update(200, divergence=lambda: lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(pruner), strict=True))


def test_rigl_exchanges_fewer_weights_and_is_not_behind() -> None:
    rigl = {"kind": "set", "begin": 0, "end": 400, "every": 100, "drop_fraction": 0.5}
    counts = []
    for bound in (None, 0.002):
        pruner = pruner_of(sparsity=0.5, schedule=rigl, max_kl=bound)
        pruner.start()
        counts.append(pruner.update(100, divergence=kl_of(pruner.module)))
    assert 0 < counts[1].pruned < counts[0].pruned
    assert counts[1].sparsity == counts[0].sparsity == pytest.approx(0.5, abs=0.01)
    assert not pruner.behind


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"max_kl": 0}, "must be a number above 0 (nats) or null, but is 0"),
        ({"max_kl": 0.01, "schedule": {"kind": "static"}}, "whose masks never change"),
        ({"max_kl": 0.01, "operation": {"scale": 0.5, "steps": 2}}, "what has begun to fade"),
        ({"max_value_change": 0.1, "schedule": {"kind": "lottery"}}, "goes back to early weights"),
        ({"groups": {"a": {"max_kl": 0.1}}}, "it is of the whole network"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        PruningConfig(sparsity=0.5, **config)
    assert says in str(error.value)
