"""Attention of any sizes, and what its projections read, against torch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rayprune import make_maskable
from rayprune.errors import InputError
from rayprune.pruning.evidence.layer_calls import recording
from rayprune.pruning.evidence.per_sample import samples_of, squared_inputs, summed_squares
from rayprune.pruning.layers.attach import maskable_layers, unmask
from rayprune.pruning.layers.attention import NarrowAttention, fit_attention, told_heads
from rayprune.pruning.layers.masked import MaskedMultiheadAttention, prunable_parameters
from rayprune.pruning.layers.resizing import fit_to
from rayprune.pruning.measures.counting import count_flops

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "learned key": {"add_bias_kv": True},
    "zero key": {"add_zero_attn": True},
    "other widths": {"kdim": 5, "vdim": 7},
}


def attention(**form: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 4, **form).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def inputs(form: dict[str, Any]) -> list[Tensor]:
    widths = 8, form.get("kdim", 8), form.get("vdim", 8)
    found = [
        torch.randn(3, n, w, dtype=torch.double) for n, w in zip((5, 6, 6), widths, strict=True)
    ]
    return found if form.get("batch_first") else [x.transpose(0, 1) for x in found]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_a_narrow_attention_of_torchs_own_sizes_computes_what_torchs_does(
    name: str, batch_first: bool
) -> None:
    form = {**FORMS[name], "batch_first": batch_first}
    layer, given = attention(**form), inputs(form)
    narrow = copy.deepcopy(layer)
    narrow.__class__ = NarrowAttention
    narrow.__dict__.update(dense=(4, 2), scale=2**-0.5)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[0, 4:] = True
    some = torch.zeros(5, 6, dtype=torch.bool)
    some[0, 3:] = True
    each = torch.randn(12, 5, 6, dtype=torch.double)
    for masks in (
        {},
        {"key_padding_mask": padding},
        {"attn_mask": some},
        {"attn_mask": each, "key_padding_mask": padding.double()},
    ):
        for wish in (
            {"need_weights": False},
            {"need_weights": True},
            {"average_attn_weights": False},
        ):
            for ours, theirs in zip(
                narrow(*given, **masks, **wish), layer(*given, **masks, **wish), strict=True
            ):
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_a_causal_hint_and_a_batch_that_is_left_out_are_taken_as_torch_takes_them() -> None:
    layer = attention()
    narrow = copy.deepcopy(layer)
    narrow.__class__ = NarrowAttention
    narrow.__dict__.update(dense=(4, 2), scale=2**-0.5)
    x = torch.randn(5, 8, dtype=torch.double)
    mask = nn.Transformer.generate_square_subsequent_mask(5).double()
    for wish in (True, False):
        ours, _ = narrow(x, x, x, attn_mask=mask, is_causal=True, need_weights=wish)
        theirs, _ = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=wish)
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    with pytest.raises(InputError, match="`attn_mask`"):
        narrow(x, x, x, is_causal=True)


def test_weights_of_fewer_or_narrower_heads_bring_the_heads_with_them() -> None:
    for rows, out, heads in ((4, 4, 2), (4, 8, 4)):  # two whole heads; four of narrower queries
        layer = make_maskable(nn.Sequential(nn.MultiheadAttention(8, 4, batch_first=True)))
        state = layer.state_dict()
        state["0.in_proj_weight"] = torch.randn(2 * rows + out, 8)
        state["0.in_proj_bias"] = torch.randn(2 * rows + out)
        state["0.out_proj.weight"] = torch.randn(8, out)
        if (rows, out) == (4, 4):
            assert told_heads(rows, out, 4, 2) == 2
        assert fit_to(layer, state)
        layer.load_state_dict(state)
        assert layer[0].num_heads == heads
        assert layer[0].out_proj.in_features == out
        assert list(maskable_layers(layer)) == ["0"]
        unmask(layer)
        assert type(layer[0]) is NarrowAttention
        x = torch.randn(2, 3, 8)
        assert layer[0](x, x, x)[0].shape == x.shape
    with pytest.raises(InputError, match="neither whole heads of 2 nor 4"):
        told_heads(5, 4, 4, 2)


def test_a_narrow_attention_in_an_encoder_layer_takes_the_same_way_in_evaluation() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 4, 8, batch_first=True, dropout=0.0)
    own = encoder.self_attn
    for name in ("in_proj_weight", "in_proj_bias"):
        kept = getattr(own, name).detach().unflatten(0, (3, 8))[:, :4].flatten(0, 1)
        setattr(own, name, nn.Parameter(kept))
    own.out_proj.weight = nn.Parameter(own.out_proj.weight.detach()[:, :4])
    fit_attention(own)
    x = torch.randn(2, 3, 8)
    trained = encoder(x)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x), trained)


def test_masks_of_an_attention_layer_are_of_its_projections_and_leave_it_as_it_was() -> None:
    net = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 4), "out": nn.Linear(8, 2)})
    names = [name for name, _ in net.named_parameters()]
    make_maskable(net)
    layer = net["attn"]
    assert isinstance(layer, MaskedMultiheadAttention)
    assert [name for name, _ in net.named_parameters()] == names
    assert list(maskable_layers(net)) == ["attn", "out"]
    assert list(prunable_parameters(layer)) == ["in_proj_weight", "out_proj.weight"]
    layer.masks["out_proj.weight"] = torch.zeros(8, 8, dtype=torch.bool)
    assert "sparsity=0.250" in repr(layer)
    net.double()
    assert list(unmask(net)) == ["attn.out_proj.weight"]
    assert type(layer) is nn.MultiheadAttention


class Attends(nn.Module):
    """One attention layer whose outputs, and weights, count."""

    def __init__(self, form: dict[str, Any], *, weights: bool) -> None:
        super().__init__()
        self.attn = attention(**form)
        self.weights = weights

    def forward(self, given: list[Tensor]) -> Tensor:
        out, weights = self.attn(*given, need_weights=self.weights)
        return out.square().sum() + (weights.square().sum() if self.weights else 0.0)


@pytest.mark.parametrize(("name", "weights"), [("plain", False), ("other widths", True)])
def test_gradients_of_single_samples_are_those_of_one_sample_at_a_time(
    name: str, weights: bool
) -> None:
    form = {**FORMS[name], "batch_first": True}
    net, given = Attends(form, weights=weights), inputs(form)
    make_maskable(net)
    layers = maskable_layers(net)
    with recording(net, layers, edges=True, activations=False) as record:
        loss = net(given)
    found = record.gradients(loss, {})
    (call,) = record.calls["attn"]
    rows = samples_of(layers["attn"], call.args, found.take(call), 3)
    for key, weight in prunable_parameters(net.attn).items():
        one_by_one = torch.stack(
            [
                torch.autograd.grad(net([x[i : i + 1] for x in given]), weight)[0].square()
                for i in range(3)
            ]
        ).sum(0)
        found_ones = summed_squares(rows[key]).view_as(weight)
        torch.testing.assert_close(found_ones, one_by_one.to(found_ones))
    if name == "plain":
        # Rows of queries read the queries, all others the keys.
        squares = squared_inputs(layers["attn"], call.args, 3)["in_proj_weight"]
        torch.testing.assert_close(squares[0], given[0].square().sum((0, 1)).to(squares))
        torch.testing.assert_close(squares[-1], given[2].square().sum((0, 1)).to(squares))


def test_operations_are_counted_where_queries_and_keys_differ_in_number() -> None:
    layer = attention(batch_first=True).float()
    query, key = torch.zeros(1, 5, 8), torch.zeros(1, 6, 8)
    flops = count_flops(layer, lambda: layer(query, key=key, value=key))
    assert flops.dense == 2 * (5 * 64 + 2 * 6 * 64 + 5 * 64)
