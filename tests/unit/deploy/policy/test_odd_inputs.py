"""NaN and infinities: what is fed, and what a file may make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rayprune.deploy.export.export import export_policy
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.odd_inputs import Odd, odd_cases, odd_inputs, prove_odd
from rayprune.deploy.policy.policy import DeployablePolicy, Observe
from rayprune.deploy.policy.runs import module_run
from rayprune.errors import InvariantError
from tests.doubles import policies
from tests.unit.deploy.export.test_export import seen


def test_every_element_is_tried_with_each_value_and_whole_numbers_are_not():
    interface = Interface(
        observations=(Port("obs.x", (2,)), Port("obs.n", (3,), "int64")),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (3,)),
        states=(Port("state.h", (1,)),),
    )
    cases = odd_cases(interface, seed=0)
    assert [(case.place, case.element) for case in cases[::3]] == [(0, 0), (0, 1), (2, 0)]
    assert np.isnan(cases[0].value)
    x, n, h = odd_inputs([np.ones((5, 2)), np.zeros((5, 3), int), np.zeros((5, 1))], cases[1:3])
    np.testing.assert_array_equal(x, [[np.inf, 1], [-np.inf, 1]])
    assert (n.shape, h.tolist()) == ((2, 3), [[0], [0]])


def test_of_a_large_image_some_pixels_are_tried():
    cases = odd_cases(policies.image().interface, seed=0)
    assert 3 * 16 <= len(cases) < 1000
    assert len({case.element for case in cases}) == len(cases) / 3


@pytest.mark.parametrize(
    ("hide", "value"),
    [
        (lambda x: np.nan_to_num(x), "nan"),
        (lambda x: np.where(np.isinf(x), 1, x), "inf"),
        (lambda x: np.where(x == 0, x, x), None),
        (lambda x: np.where(np.isinf(x), np.nan, x), None),
    ],
)
def test_a_file_may_be_more_careful_than_torch_but_not_less(hide, value):
    policy = plain_copy(policies.discrete(nn.Sequential(nn.ReLU(), nn.Linear(4, 3))))
    run = module_run(policy)

    def file(inputs):
        return run([hide(inputs[0]).astype(np.float32)])

    if value is None:
        assert prove_odd(policy, file, seen(policy), seed=0)["inputs"] == 12
        return
    with pytest.raises(InvariantError, match=rf"makes of {value} in element 0 of `obs` something"):
        prove_odd(policy, file, seen(policy), seed=0)


class Imputing(nn.Module):
    """A policy that knows what to do without a sensor."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x.nan_to_num(0.5, 1.0, -1.0))


@pytest.mark.parametrize("kind", ["onnx", "torch", "c"])
def test_a_policy_that_replaces_nans_itself_does_so_in_its_file(kind, tmp_path):
    policy = policies.discrete(Imputing())
    path = tmp_path / f"policy.{'pt2' if kind == 'torch' else kind}"
    told = export_policy(policy, path, kind, recorded=seen(policy), about={})
    assert told["nan_and_infinity"] == {"inputs": 12, "nan": 0}


@pytest.mark.parametrize("kind", ["onnx", "c"])
def test_bounds_and_recurrent_states_hide_no_nan(kind, tmp_path):
    policy, path = policies.recurrent(), tmp_path / f"policy.{kind}"
    told = export_policy(policy, path, kind, recorded=seen(policy), about={})
    # Each NaN of 4 observations and 8 hidden units; one in the cell reaches its own unit alone.
    assert told["nan_and_infinity"] == {"inputs": 60, "nan": 12}


def test_a_nan_shows_in_what_a_choice_was_made_of():
    policy = plain_copy(policies.mlp())
    (given,) = odd_inputs([np.zeros((1, 4), np.float32)], [Odd(0, 2, np.nan)])
    action, dist_inputs = module_run(policy)([given])
    assert np.isnan(dist_inputs).all()
    assert action.tolist() == [0], "torch's argmax of NaNs is the first of them"


def test_a_policy_of_whole_numbers_has_nothing_to_hide():
    plain = policies.mlp()
    interface = Interface(
        observations=(Port("obs", (4,), "int64"),),
        action=plain.interface.action,
        dist_inputs=plain.interface.dist_inputs,
    )

    class Cast(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x.float(),)

    policy = DeployablePolicy(Observe([Cast()]), plain.network, plain.decide, interface)
    given = [np.zeros((1, 4), np.int64)]
    assert prove_odd(policy, module_run(policy), given, seed=0) == {"inputs": 0, "nan": 0}
