"""Narrow recurrent layers compute what whole ones with dead units do, of states as wide."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune import make_maskable, unmask
from rayprune.pruning.layers.narrow_recurrent import NARROW, narrow, states_by_literals
from rayprune.pruning.layers.resizing import fit_to, put, tell_sizes

WIDE, KEPT = 6, torch.tensor([1, 2, 5])
FORMS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "two": {"num_layers": 2, "bidirectional": True},
}


def made(kind: type[nn.RNNBase], form: str) -> tuple[nn.Module, nn.Module]:
    """Return a layer with dead units, and what is left of it."""
    torch.manual_seed(0)
    whole = kind(3, WIDE, **FORMS[form])
    gone = torch.ones(WIDE, dtype=torch.bool).index_fill(0, KEPT, False)
    small, new = copy.deepcopy(whole), {}
    with torch.no_grad():
        for name, weight in whole.named_parameters():
            weight.view(-1, WIDE, *weight.shape[1:])[:, gone] = 0
            left = weight.view(-1, WIDE, *weight.shape[1:])[:, KEPT].flatten(0, 1)
            if weight.dim() > 1 and weight.shape[1] % WIDE == 0:
                weight.view(len(weight), -1, WIDE)[:, :, gone] = 0
                left = left.view(len(left), -1, WIDE)[:, :, KEPT].flatten(1)
            new[id(small.get_parameter(name))] = nn.Parameter(left)
    narrow(small, KEPT)
    put(small, new)
    tell_sizes(small)
    return whole, small


def states(layer: Any, batch: int = 2) -> Any:
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    state = torch.zeros(rows, batch, WIDE)
    state[..., KEPT] = torch.randn(rows, batch, len(KEPT))
    return (state, state.flip(0)) if isinstance(layer, nn.LSTM) else state


def each(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NARROW)
def test_a_narrow_layer_does_what_is_left_of_a_whole_one(kind: type[nn.RNNBase], form: str) -> None:
    whole, small = made(kind, form)
    x, state = torch.randn(2, 2, 3), states(whole)
    (wanted, last), (found, ours) = whole(x, state), small(x, state)
    sides = wanted.unflatten(-1, (-1, WIDE))[..., KEPT].flatten(-2)
    assert torch.allclose(found, sides, atol=1e-6)
    for one, other in zip(each(last), each(ours), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    with states_by_literals(small):
        again = small(x, state)[1]
    assert all(torch.equal(a, b) for a, b in zip(each(ours), each(again), strict=True))


def test_what_a_wide_state_holds_of_units_that_are_gone_is_not_read_and_comes_back_as_zero() -> (
    None
):
    whole, small = made(nn.GRU, "plain")
    x, state = torch.randn(4, 2, 3), states(whole)
    other = state.clone()
    other[..., 0] = 9.0
    assert torch.equal(small(x, state)[0], small(x, other)[0])
    assert small(x, other)[1][..., 0].abs().max() == 0


def test_a_state_of_its_own_width_or_none_is_taken_as_torchs_layer_takes_it() -> None:
    whole, small = made(nn.LSTM, "plain")
    x, state = torch.randn(4, 2, 3), states(whole)
    own = tuple(part[..., KEPT] for part in state)
    output, last = small(x, own)
    assert torch.equal(output, small(x, state)[0])
    assert [part.shape[-1] for part in last] == [len(KEPT)] * 2
    none, zeros = small(x), small(x, tuple(torch.zeros_like(part) for part in state))
    assert torch.equal(none[0], zeros[0])
    assert none[1][0].shape[-1] == len(KEPT)


@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_becomes_as_narrow_as_weights_that_arrive_and_whole_again(masked: bool) -> None:
    whole, small = made(nn.LSTM, "two")
    net = nn.Sequential(nn.LSTM(3, WIDE, **FORMS["two"]))
    if masked:
        make_maskable(net)
    given, x = {f"0.{name}": value for name, value in small.state_dict().items()}, states(whole)
    assert fit_to(net, given)
    net.load_state_dict(given)
    obs = torch.randn(4, 2, 3)
    assert torch.equal(net[0](obs, x)[0], small(obs, x)[0])
    assert not fit_to(net, given)
    back = {f"0.{name}": value for name, value in whole.state_dict().items()}
    assert fit_to(net, back)
    net.load_state_dict(back)
    unmask(net)
    assert type(net[0]) is nn.LSTM
    assert torch.equal(net[0](obs, x)[0], whole(obs, x)[0])


def test_one_that_is_narrow_already_counts_places_among_those_that_it_has() -> None:
    _, small = made(nn.RNN, "plain")
    assert narrow(small, torch.tensor([0, 2])).state_places.tolist() == [1, 5]
