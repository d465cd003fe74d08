"""Norms over what is left of their inputs give what torch's own give of all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rayprune.pruning.layers.partial_norm import complete, merged, shorten
from rayprune.pruning.layers.resizing import fit_to

KINDS = [nn.LayerNorm, nn.RMSNorm]


def halves(kind: type[nn.Module], constants: Tensor) -> tuple[nn.Module, nn.Module]:
    """Return a norm of random weights, and what is left of it behind ``constants``."""
    torch.manual_seed(0)
    whole = kind(8)
    for parameter in whole.parameters():
        nn.init.normal_(parameter)
    small = copy.deepcopy(whole)
    for name, parameter in whole.named_parameters():
        setattr(small, name, nn.Parameter(parameter.detach()[len(constants) :].clone()))
    return whole, shorten(small, merged(whole, constants).float())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_partial_norm_gives_what_the_whole_one_does(kind, offset):
    constants = offset + torch.randn(5)
    whole, small = halves(kind, constants)
    x = offset + torch.randn(4, 3)
    wanted = whole(torch.cat([constants.expand(4, 5), x], -1).requires_grad_())[:, 5:]
    # Single precision has seven digits, of which an offset of a thousand takes three.
    torch.testing.assert_close(small(x), wanted, rtol=0, atol=1e-6 * max(1.0, offset))


@pytest.mark.parametrize("kind", KINDS)
def test_its_gradients_are_those_of_the_whole_one(kind):
    constants = torch.randn(5)
    whole, small = halves(kind, constants)
    x = torch.randn(4, 3, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    whole(torch.cat([constants.expand(4, 5), x], -1))[:, 5:].square().sum().backward()
    small(other).square().sum().backward()
    torch.testing.assert_close(other.grad, x.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(small.weight.grad, whole.weight.grad[5:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_constants_that_go_one_after_the_other_add_up(kind):
    constants = torch.randn(5).double()
    at_once = merged(kind(8), constants)
    first = shorten(kind(8), merged(kind(8), constants[:2]))
    first.normalized_shape = (6,)
    torch.testing.assert_close(merged(first, constants[2:]), at_once)


def test_halves_are_added_up_in_single_precision_as_torch_does():
    norm = shorten(nn.RMSNorm(300, elementwise_affine=False), torch.tensor([0.5, 1.0]))
    assert bool(norm.half()(torch.full((1, 150), 300.0).half()).isfinite().all())


@pytest.mark.parametrize("affine", [True, False])
def test_a_module_becomes_partial_or_whole_as_the_weights_that_arrive(affine):
    def net() -> nn.Sequential:
        return nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8, elementwise_affine=affine))

    small = net()
    small[0] = nn.Linear(2, 3)
    if affine:
        small[1] = nn.LayerNorm(3)
    shorten(small[1], merged(nn.LayerNorm(8), torch.ones(5)).float())
    arriving = net()
    assert fit_to(arriving, small.state_dict())
    arriving.load_state_dict(small.state_dict())
    x = torch.randn(4, 2)
    torch.testing.assert_close(arriving(x), small(x))
    assert arriving[1].normalized_shape == (3,)
    whole = net()
    assert fit_to(arriving, whole.state_dict())
    arriving.load_state_dict(whole.state_dict())
    assert type(arriving[1]) is nn.LayerNorm
    torch.testing.assert_close(arriving(x), whole(x))


def test_a_partial_norm_can_be_made_whole_again():
    norm = shorten(nn.LayerNorm(3), torch.tensor([0.5, 1.0, 2.0]))
    complete(norm)
    assert type(norm) is nn.LayerNorm
    assert sorted(norm.state_dict()) == ["bias", "weight"]
