"""Compaction of attention: whole heads, and the width inside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rayprune import compact, make_maskable
from rayprune.deploy.compaction.compact import Compacted
from rayprune.deploy.compaction.live import TrainedNetwork, plan_live, prove_live
from rayprune.deploy.compaction.plan import apply_plan
from rayprune.errors import InputError
from rayprune.pruning.layers.attention import NarrowAttention
from rayprune.pruning.layers.masked import MaskedNarrowAttention
from rayprune.pruning.layers.resizing import fit_to

WIDTH, HEADS = 16, 4


class Net(nn.Module):
    """Attention of a sequence to itself, or to another, between Linear layers."""

    def __init__(
        self, *, cross: bool = False, weights: bool = False, returned: bool = False, **form: Any
    ) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.k = nn.Linear(6, form.get("kdim", WIDTH)) if cross else None
        self.v = nn.Linear(6, form.get("vdim", WIDTH)) if cross else None
        self.m = nn.MultiheadAttention(WIDTH, HEADS, **form)
        self.weights, self.returned = weights, returned
        self.how: dict[str, Tensor] = {}
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, x: Tensor) -> Any:
        y = torch.relu(self.a(x))
        y = y if self.m.batch_first else y.transpose(0, 1)
        key = value = y
        if self.k is not None and self.v is not None:
            others = x[:, :4] if self.m.batch_first else x[:, :4].transpose(0, 1)
            key, value = self.k(others), self.v(others)
        how = {n: x if x.dtype == torch.bool else x.to(y.dtype) for n, x in self.how.items()}
        z, weights = self.m(y, key, value, need_weights=self.weights, **how)
        out = self.o(z if self.m.batch_first else z.transpose(0, 1))
        return (out, weights) if self.returned else out


def seeded(seed: int) -> torch.Generator:
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def kill(layer: nn.MultiheadAttention, rows: dict[str, Tensor], *, reads: bool = True) -> None:
    """Zero rows of queries, keys and values, their biases, and what reads those."""
    if layer.in_proj_weight is not None:
        layer.in_proj_weight[torch.cat([rows["q"], rows["k"], rows["v"]])] = 0
    else:
        for name, dead in rows.items():
            getattr(layer, f"{name}_proj_weight")[dead] = 0
    if layer.in_proj_bias is not None:
        layer.in_proj_bias[torch.cat([rows["q"], rows["k"], rows["v"]])] = 0
    if reads:
        layer.out_proj.weight[:, rows["v"]] = 0


def heads(*which: int) -> dict[str, Tensor]:
    dead = torch.tensor([head in which for head in range(HEADS)]).repeat_interleave(WIDTH // HEADS)
    return dict.fromkeys("qkv", dead)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def proven(small: Compacted) -> None:
    assert small.max_error < 1e-5
    assert not [left for left in small.left if "break" in left.reason or "aten" in left.reason]


FORMS: dict[str, dict[str, Any]] = {
    "batch first": {"batch_first": True},
    "time first": {},
    "weights asked for": {"weights": True},
    "no bias": {"bias": False},
    "cross": {"cross": True, "batch_first": True},
    "other widths": {"cross": True, "kdim": 5, "vdim": 7},
    "learned key": {"add_bias_kv": True},
    "zero key": {"add_zero_attn": True},
}


@pytest.mark.parametrize("name", FORMS)
def test_dead_heads_go_and_leave_a_layer_with_the_same_interface(name: str) -> None:
    seeded(0)
    net, x = Net(**FORMS[name]), torch.randn(3, 5, 6)
    kill(net.m, heads(0, 2))
    small = compact(net.eval(), x)
    proven(small)
    module = small.module.m
    assert isinstance(module, NarrowAttention)
    assert (module.num_heads, module.head_dim) == (2, 4)
    extra = sum(p.numel() for p in (net.m.bias_k, net.m.bias_v) if p is not None)
    biases = net.m.in_proj_bias
    # Half of all rows, half of what reads them, half of their biases.
    gone = sum(p.numel() for n, p in net.m.named_parameters() if n.endswith("proj_weight"))
    gone += net.m.out_proj.weight.numel() + (0 if biases is None else biases.numel()) + extra
    assert size(net) - size(small.module) == gone // 2
    assert [(r.layer, r.kind, r.units, r.of) for r in small.removed] == [("m", "head", 2, 4)]


@pytest.mark.parametrize("masked", ["padding", "causal", "both"])
def test_masks_of_keys_are_no_obstacle(masked: str) -> None:
    seeded(0)
    net, x = Net(batch_first=True), torch.randn(3, 5, 6)
    if masked != "causal":
        net.how["key_padding_mask"] = torch.arange(5).expand(3, 5) > 3
    if masked != "padding":
        net.how["attn_mask"] = torch.ones(5, 5).tril() == 0
    kill(net.m, heads(1))
    small = compact(net.eval(), x)
    proven(small)
    assert small.module.m.num_heads == 3


EINSUMS = {
    "heads after places": ("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd"),
    "heads after queries": ("bqhd,bkhd->bqhk", "bqhk,bkhd->bqhd"),
    "keys first": ("bkhd,bqhd->bkqh", "bkhd,bkqh->bqhd"),
}


class ByEinsum(nn.Module):
    """Attention without softmax, whose products are einsums; `matmul` is the same by hand."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, WIDTH) for _ in range(3))
        self.o, self.form = nn.Linear(WIDTH, 3), form

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)) for part in (self.q, self.k, self.v))
        if self.form == "matmul":
            scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
            return self.o((scores.tanh() @ v.transpose(1, 2)).transpose(1, 2).flatten(2))
        first, second = EINSUMS[self.form]
        swapped = self.form == "keys first"
        scores = torch.einsum(first, *((k, q) if swapped else (q, k))).tanh()
        return self.o(torch.einsum(second, *((v, scores) if swapped else (scores, v))).flatten(2))


@pytest.mark.parametrize("form", EINSUMS)
@pytest.mark.parametrize("gone", ["heads", "width"])
def test_an_einsum_of_activations_is_read_as_the_product_that_it_is(form: str, gone: str) -> None:
    x, found = torch.randn(3, 5, 6), []
    dead = torch.arange(WIDTH) % 4 == 1 if gone == "width" else heads(0, 2)["q"]
    for how in (form, "matmul"):
        seeded(0)
        net = ByEinsum(how).eval().requires_grad_(False)
        for layer in (net.q, net.k, net.v):
            layer.weight[dead] = layer.bias[dead] = 0
        small = compact(net, x)
        proven(small)
        found.append([(r.layer, r.units) for r in small.removed])
    assert found[0] == found[1] == [(name, int(dead.sum())) for name in "qkv"]


def test_heads_that_are_read_by_their_numbers_stay_and_it_is_said_why() -> None:
    for why in ("weights are read", "one for each head"):
        seeded(0)
        net, x = Net(batch_first=True), torch.randn(3, 5, 6)
        if why == "weights are read":
            net.weights = net.returned = True
        else:
            net.how["attn_mask"] = torch.randn(3 * HEADS, 5, 5)
        kill(net.m, {**heads(1), "v": heads(1)["v"] | heads(2)["v"]})
        small = compact(net.eval(), x)
        proven(small)
        assert small.module.m.num_heads == HEADS
        assert any(why in left.reason for left in small.left)


def test_a_head_that_nothing_reads_goes_though_its_weights_are_not_zero() -> None:
    seeded(0)
    net, x = Net(batch_first=True), torch.randn(3, 5, 6)
    with torch.no_grad():
        net.m.out_proj.weight[:, 4:8] = 0
    assert compact(net.eval(), x).module.m.num_heads == 3


def test_keys_that_are_constant_go_with_their_queries_and_values_fold_into_the_bias() -> None:
    seeded(0)
    net, x = Net(batch_first=True), torch.randn(3, 5, 6)
    first = torch.arange(WIDTH) % 4 == 0
    with torch.no_grad():  # biases stay
        net.m.in_proj_weight.view(3, WIDTH, WIDTH)[1:, first] = 0
    small = compact(net.eval(), x)
    proven(small)
    assert (small.module.m.num_heads, small.module.m.head_dim) == (HEADS, 3)
    assert small.module.m.out_proj.in_features == HEADS * 3
    # With a mask that may leave a query without keys, values' constants are none.
    net.how["key_padding_mask"] = torch.arange(5).expand(3, 5) > 3
    masked = compact(net, x)
    proven(masked)
    assert (masked.module.m.head_dim, masked.module.m.out_proj.in_features) == (3, WIDTH)


def test_the_widest_head_says_how_wide_all_are() -> None:
    seeded(0)
    net, x = Net(batch_first=True), torch.randn(3, 5, 6)
    rows = heads(3)["q"].clone()
    rows[[0, 1, 5]] = True
    kill(net.m, dict.fromkeys("qkv", rows))
    small = compact(net.eval(), x)
    proven(small)
    assert (small.module.m.num_heads, small.module.m.head_dim) == (3, 4)
    rows[[9, 10]] = True
    kill(net.m, dict.fromkeys("qkv", rows))
    small = compact(net, x)
    proven(small)
    assert (small.module.m.num_heads, small.module.m.head_dim) == (3, 3)
    assert any("as wide as the widest" in left.reason for left in small.left)
    again = compact(small.module, x)
    proven(again)
    assert size(again.module) == size(small.module)


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layers_lose_heads_hidden_units_and_parts_of_their_stream(norm_first: bool) -> None:
    seeded(0)
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 32, batch_first=True, norm_first=norm_first, dropout=0.0
    )
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net, x = nn.Sequential(nn.Linear(6, WIDTH), encoder, nn.Linear(WIDTH, 3)), torch.randn(3, 5, 6)
    kill(encoder.layers[0].self_attn, heads(0, 2))
    with torch.no_grad():
        encoder.layers[1].linear1.weight[:20] = 0
        encoder.layers[1].linear1.bias[:20] = 0
        dead = torch.arange(WIDTH) < 5  # of the stream: nothing writes to it, and nothing reads it
        for block in encoder.layers:
            for writer in (block.self_attn.out_proj, block.linear2):
                writer.weight[dead], writer.bias[dead] = 0, 0
            for norm in (block.norm1, block.norm2):
                norm.weight[dead], norm.bias[dead] = 0, 0
        net[0].weight[dead], net[0].bias[dead] = 0, 0
        net[2].weight[:, dead] = 0
    small = compact(net.eval(), x)
    proven(small)
    blocks = small.module[1].layers
    assert [block.self_attn.num_heads for block in blocks] == [2, HEADS]
    assert blocks[1].linear1.out_features == 12
    assert [block.self_attn.embed_dim for block in blocks] == [WIDTH - 5] * 2
    assert small.module[0].out_features == WIDTH - 5


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_heads_can_not_be_taken_from_stays_whole_and_says_so() -> None:
    class Own(nn.MultiheadAttention):
        """Whose forward may be another."""

    class Padded(nn.Module):
        """In evaluation torch makes padding zero by nested tensors, which only its own can."""

        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 8, batch_first=True)
            self.a, self.e = nn.Linear(6, WIDTH), nn.TransformerEncoder(layer, 1)

        def forward(self, x: Tensor) -> Tensor:
            padding = torch.arange(x.shape[1]).expand(x.shape[:2]) > 3
            out: Tensor = self.e(self.a(x), src_key_padding_mask=padding)
            return out

    seeded(0)
    own, padded, x = Net(batch_first=True), Padded(), torch.randn(3, 5, 6)
    own.m.__class__ = Own
    for net, layer in ((own, own.m), (padded, padded.e.layers[0].self_attn)):
        kill(layer, heads(0, 2))
        small = compact(net.eval(), x)
        assert size(small.module) == size(net)
        assert small.left
    nested = torch.nested.nested_tensor([torch.randn(2, 8), torch.randn(3, 8)])
    narrow = nn.MultiheadAttention(8, 4, batch_first=True)
    narrow.__class__ = NarrowAttention
    with pytest.raises(InputError, match="enable_nested_tensor=False"):
        narrow(nested, nested, nested)


def random_net(seed: int) -> Net:
    """Return a net of random form with random dead rows."""
    generator = seeded(seed)

    def chance(share: float) -> bool:
        return bool(torch.rand((), generator=generator) < share)

    cross, weights = chance(0.5), chance(0.5)
    form: dict[str, Any] = {"kdim": 8, "vdim": 12} if cross and chance(0.5) else {}
    net = Net(
        cross=cross,
        weights=weights,
        returned=weights and chance(0.3),
        batch_first=chance(0.5),
        bias=chance(0.7),
        add_bias_kv=chance(0.25),
        add_zero_attn=chance(0.25),
        **form,
    )
    keys = 4 if cross else 5
    if chance(0.3):
        # In floats, which torch wants to be alike in both masks.
        net.how["key_padding_mask"] = -9.0 * (torch.arange(keys).expand(3, keys) >= keys - 1)
    if chance(0.3):
        net.how["attn_mask"] = torch.randn(3 * HEADS, 5, keys)
    elif chance(0.3):
        net.how["attn_mask"] = torch.randn(5, keys)
    share = float(torch.rand((), generator=generator)) * 0.7 + 0.3
    gone = torch.rand(HEADS, generator=generator) < share / 2

    def dead(rows: int) -> Tensor:
        return torch.rand(rows, generator=generator) < share

    rows = {kind: dead(WIDTH) | gone.repeat_interleave(WIDTH // HEADS) for kind in "qkv"}
    biases = None if chance(0.5) or net.m.in_proj_bias is None else net.m.in_proj_bias.clone()
    kill(net.m, rows, reads=chance(0.5))
    with torch.no_grad():
        if biases is not None:
            net.m.in_proj_bias.copy_(biases)
        if chance(0.5):
            net.a.weight[dead(WIDTH)] = 0
        if chance(0.5):
            net.m.out_proj.weight[dead(WIDTH)] = 0
        if chance(0.5):
            net.o.weight[:, dead(WIDTH)] = 0
    return net.eval()


@pytest.mark.parametrize("seed", [*range(6), pytest.param(None, marks=pytest.mark.slow)])
def test_whatever_rows_are_dead_what_is_left_computes_the_same(seed: int | None) -> None:
    for each in range(6, 400) if seed is None else [seed]:
        net = random_net(each)
        small = compact(net, torch.randn(3, 5, 6))
        proven(small)
        assert size(small.module) < size(net) or small.left


class ByHand(nn.Module):
    """Attention of one head without a layer for it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, WIDTH) for _ in range(3))
        self.o, self.form = nn.Linear(WIDTH, 3), form

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.form == "product":
            mixed = torch.softmax(q @ k.transpose(1, 2) * 0.3, -1) @ v
        elif self.form == "other way round":
            mixed = (v.mT @ torch.softmax(k @ q.mT, 1)).mT
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, scale=0.3)
        out: Tensor = self.o(mixed)
        return out


@pytest.mark.parametrize("form", ["product", "other way round", "one operator"])
def test_attention_written_by_hand_loses_pairs_of_queries_and_keys(form: str) -> None:
    seeded(0)
    net, x = ByHand(form), torch.randn(4, 5, 6)
    dead = torch.arange(0, WIDTH, 2)
    with torch.no_grad():
        for layer in (net.q, net.v):
            layer.weight[dead], layer.bias[dead] = 0, 0
        net.o.weight[:, dead[:4]] = 0
    small = compact(net.eval(), x)
    proven(small)
    # Keys are alive themselves: it is the queries that they meet that are not.
    assert size(small.module) == 3 * 7 * 8 + 8 * 3 + 3
    assert small.left == ()


def test_a_unit_is_held_where_a_product_mixes_it_in_a_way_that_is_not_known() -> None:
    class Mixes(ByHand):
        def forward(self, x: Tensor) -> Tensor:
            units = self.q(x).mT @ self.k(x)  # each unit with each
            return self.o(self.v(x) @ units)

    seeded(0)
    net, x = Mixes("none"), torch.randn(4, 5, 6)
    with torch.no_grad():
        net.q.weight[:4], net.q.bias[:4] = 0, 0
    small = compact(net.eval(), x)
    assert small.max_error < 1e-5
    assert any(left.layer == "q" for left in small.left)


def masks_of(net: nn.Module, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    inner = torch.cat([~rows["q"], ~rows["k"], ~rows["v"]])[:, None].expand(3 * WIDTH, WIDTH)
    return {
        "m.in_proj_weight": inner.contiguous(),
        "m.out_proj.weight": (~rows["v"])[None].expand(WIDTH, WIDTH).contiguous(),
    }


@pytest.mark.parametrize("what", ["heads", "width", "both"])
def test_a_network_in_training_loses_what_is_masked_and_its_shapes_tell_the_heads(
    what: str,
) -> None:
    seeded(0)
    net, x = Net(batch_first=True), torch.randn(3, 5, 6)
    make_maskable(net)
    rows = heads(0, 2) if what != "width" else heads()
    if what != "heads":
        rows = {kind: dead | (torch.arange(WIDTH) % 4 < 2) for kind, dead in rows.items()}
    kill(net.m, rows)
    masks = masks_of(net, rows)
    net.m.masks.update(
        {"in_proj_weight": masks["m.in_proj_weight"], "out_proj.weight": masks["m.out_proj.weight"]}
    )
    training = TrainedNetwork(net, x, lambda net, x: net(x), masks)
    plan = plan_live(training)
    prove_live(training, plan)
    whole = net(x)
    dense = make_maskable(Net(batch_first=True))
    apply_plan(net, plan)
    torch.testing.assert_close(net(x), whole)
    # Two whole heads; or four, whose rows of values tell that none is missing.
    expected = {"heads": (2, 4, 8), "width": (4, 2, 12), "both": (2, 4, 8)}[what]
    assert (net.m.num_heads, net.m.head_dim, net.m.out_proj.in_features) == expected
    assert type(net.m) is MaskedNarrowAttention
    assert net.m.masks["out_proj.weight"].shape == net.m.out_proj.weight.shape
    fit_to(dense, net.state_dict())
    dense.load_state_dict(net.state_dict())
    torch.testing.assert_close(dense(x), net(x))
