"""What stands around the network: the observation's way in, the action's way out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rayprune.deploy.policy.actions import Aim, Choose, Clip, Decide, Unsquash
from rayprune.deploy.policy.interface import Interface, Port
from rayprune.deploy.policy.policy import Flatten, Normalise
from rayprune.errors import InputError


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.floats(-5, 5))
def test_a_filter_in_float32_is_as_near_as_if_it_were_in_float64(mean, std, away):
    statistics = (torch.tensor([mean]).double() + 1e-9, torch.tensor([std]).double())
    x = np.float32(mean + away * std)
    expected = np.clip((float(x) - statistics[0].item()) / statistics[1].item(), -10, 10)
    (got,) = Normalise([statistics], clip=10.0)(torch.tensor([[x]]))
    assert abs(got.item() - expected) <= 1e-6 * max(1.0, abs(expected))


def test_leaves_without_statistics_pass_a_filter_unchanged():
    leaf = torch.tensor([[3]])
    assert Normalise([None], clip=1.0)(leaf)[0] is leaf


def test_flatten_makes_boxes_flat_and_numbers_one_hot():
    leaves = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([2]), torch.tensor([[1, 0]])
    (flat,) = Flatten([[], [3], [2, 3]])(*leaves)
    assert flat.tolist() == [[1, 2, 3, 4, 0, 0, 1, 0, 1, 1, 0, 0]]


def test_choices_are_the_argmax_of_each_part():
    logits = torch.tensor([[0.0, 1.0, 5.0, 2.0, 3.0]])
    assert Choose([2, 3], several=True)(logits).tolist() == [[1, 0]]
    assert Choose([5], several=False)(logits).tolist() == [2]
    assert Choose([5], several=True)(logits).tolist() == [[2]]


def test_gumbel_noise_makes_choices_as_frequent_as_their_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0])
    noise = np.random.default_rng(0).gumbel(size=(20_000, 3)).astype(np.float32)
    drawn = Choose([3], several=False)(logits.expand(20_000, 3), torch.from_numpy(noise))
    shares = torch.bincount(drawn) / 20_000
    assert torch.allclose(shares, logits.softmax(0), atol=0.012)


def test_gaussian_actions_are_the_mean_or_follow_the_noise():
    inputs = torch.tensor([[0.5, -1.0, np.log(2.0), 0.0]])
    assert Aim()(inputs).tolist() == [[0.5, -1.0]]
    drawn = Aim()(inputs, torch.tensor([[1.0, -3.0]]))
    assert drawn[0].tolist() == pytest.approx([2.5, -4.0])
    squashed = Aim(squashed=True)(inputs, torch.tensor([[1.0, -3.0]]))
    assert squashed[0].tolist() == pytest.approx([np.tanh(2.5), np.tanh(-4.0)])
    bounded = Aim(log_std_bounds=(-1.0, 0.0))(inputs, torch.tensor([[1.0, 0.0]]))
    assert bounded[0].tolist() == pytest.approx([1.5, -1.0])


def test_unsquashed_actions_reach_their_bounds_and_no_further():
    low, high = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0])
    decide = Decide(Aim(), Unsquash(low, high))
    inputs = torch.tensor([[0.0, 0.0], [1.0, -1.0], [7.0, -7.0]])
    actions = decide(torch.cat([inputs, torch.zeros(3, 2)], dim=1))
    assert actions.tolist() == [[0.0, 5.0], [2.0, 0.0], [2.0, 0.0]]


@pytest.mark.parametrize("module", [Unsquash, Clip])
@pytest.mark.parametrize("bound", [0.5, 3.0])
def test_bounds_that_are_alike_do_what_single_ones_do(module, bound):
    low, high = torch.tensor([-bound, -bound]), torch.tensor([bound, bound])
    alone = [module(low[:1], high[:1]), module(torch.tensor([-bound, -9.0]), high)]
    actions = torch.tensor([[-7.0], [-1.0], [-0.3], [0.7], [7.0]])
    both = module(low, high)(actions.expand(-1, 2))
    assert torch.equal(both[:, :1], alone[0](actions))
    assert torch.equal(both[:, :1], alone[1](actions.expand(-1, 2))[:, :1])
    assert both.abs().max() == bound


def test_clipped_actions_may_have_no_bound():
    clip = Clip(torch.tensor([-1.0, -np.inf]), torch.tensor([1.0, np.inf]))
    assert clip(torch.tensor([[9.0, 9.0]])).tolist() == [[1.0, 9.0]]


def interface() -> Interface:
    return Interface(
        observations=(Port("obs.camera", (2, 2, 1), "uint8"), Port("obs.parts.0", ())),
        action=Port("action", (), "int64"),
        dist_inputs=Port("dist_inputs", (3,)),
        noise=Port("noise", (3,)),
        noise_kind="gumbel",
        states=(Port("state.h", (8,)),),
    )


def test_an_interface_survives_json_and_orders_its_ports():
    ports = interface()
    assert Interface.from_dict(ports.to_dict()) == ports
    assert [p.name for p in ports.inputs] == ["obs.camera", "obs.parts.0", "noise", "state.h"]
    assert [p.name for p in ports.outputs] == ["action", "dist_inputs", "next_state.h"]


def test_nested_observations_become_leaves_of_the_ports_types():
    image = np.zeros((5, 2, 2, 1), np.int64)
    leaves = interface().leaves({"camera": image, "parts": (np.arange(5),)})
    assert [leaf.dtype for leaf in leaves] == [np.uint8, np.float32]


def test_observations_that_lack_a_part_or_the_batch_are_refused_by_name():
    image = np.zeros((1, 2, 2, 1))
    with pytest.raises(InputError, match=r"'obs\.parts\.0'"):
        interface().leaves({"camera": image})
    with pytest.raises(InputError, match=r"`obs\.camera` must have the shape"):
        interface().leaves({"camera": image[0], "parts": (np.zeros(1),)})
