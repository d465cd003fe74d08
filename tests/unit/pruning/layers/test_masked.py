import copy
import ctypes
import io
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rayprune import Pruner, PruningConfig, make_maskable
from rayprune.pruning.layers.attach import maskable_layers, unmask
from rayprune.pruning.layers.masked import MASKABLE, MaskedGRU, MaskedLinear, MaskedLSTM

# torch says once per process that oneDNN has no projections.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

# What sample input each kind of layer takes.
CASES = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 2, 5)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, groups=2), (2, 2, 5, 5)),
    "lstm": (lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True), (5, 2, 4)),
    "lstm_proj": (lambda: nn.LSTM(4, 3, proj_size=2), (5, 2, 4)),
    "gru": (lambda: nn.GRU(4, 3, num_layers=2, bidirectional=True), (5, 2, 4)),
}
every_case = pytest.mark.parametrize("case", CASES)


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        out = self.layer(x)
        return out[0] if isinstance(out, tuple) else out


def build(case):
    make, shape = CASES[case]
    return Net(make()), torch.randn(shape)


def pruned(case, sparsity=0.5, **config):
    net, x = build(case)
    pruner = Pruner(net, PruningConfig(sparsity=sparsity, **config))
    pruner.prune_to()
    return net, x, pruner


@every_case
def test_swapping_keeps_parameters_names_and_outputs(case):
    net, x = build(case)
    parameters, names, out = list(net.parameters()), list(net.state_dict()), net(x)
    assert make_maskable(net) is net
    assert type(net.layer) in MASKABLE.values()
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    assert list(net.state_dict()) == names
    assert torch.equal(net(x), out)
    net.layer.masks["marker"] = torch.ones(1, dtype=torch.bool)
    make_maskable(net)
    assert "marker" in net.layer.masks


@every_case
def test_an_optimizer_goes_on_with_its_state(case):
    net, x = build(case)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    net(x).square().sum().backward()
    optimizer.step()
    moments = {p: optimizer.state[p]["exp_avg"].clone() for p in net.layer.parameters()}
    make_maskable(net)
    assert all(torch.equal(optimizer.state[p]["exp_avg"], m) for p, m in moments.items())
    before = net.layer.state_dict()[
        "bias" if "bias" in net.layer.state_dict() else "bias_ih_l0"
    ].clone()
    optimizer.step()
    after = net.layer.state_dict()["bias" if "bias" in net.layer.state_dict() else "bias_ih_l0"]
    assert not torch.equal(before, after)


def by_torch_save(net):
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def by_cloudpickle(net):
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(net))


@every_case
@pytest.mark.parametrize(
    "copier",
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), by_torch_save, by_cloudpickle],
)
def test_copies_have_the_masks_and_share_nothing(case, copier):
    net, x, _ = pruned(case)
    twin = copier(net)
    assert type(twin.layer) is type(net.layer)
    assert torch.equal(twin(x), net(x))
    for name, mask in net.layer.masks.items():
        assert torch.equal(twin.layer.masks[name], mask)
        assert twin.layer.masks[name].data_ptr() != mask.data_ptr()


@every_case
def test_compile_sees_an_ordinary_layer(case):
    net, x, pruner = pruned(case)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager")
    assert torch.allclose(compiled(x), net(x), atol=1e-6)
    pruner.prune_to(0.8)
    assert torch.allclose(compiled(x), net(x), atol=1e-6)


def test_ddp_wraps_and_keeps_gradients_maskable(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net, x, pruner = pruned("linear")
        wrapped = DistributedDataParallel(net, find_unused_parameters=True)
        # Its end would wait, with the interpreter's lock held, for gloo's threads, which may want
        # that lock: once in a hundred runs they hung. So it has no end.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(wrapped))
        wrapped(x).sum().backward()
        pruner.mask_gradients({p: p.grad for p in net.parameters()})
        assert not bool(net.layer.weight.grad[~pruner.masks["layer.weight"]].any())
        assert bool(net.layer.weight.grad[pruner.masks["layer.weight"]].all())
    finally:
        dist.destroy_process_group()


@every_case
def test_masks_follow_the_device_and_stay_bool(case):
    net, _, _ = pruned(case)
    net.double()
    assert all(mask.dtype == torch.bool for mask in net.layer.masks.values())
    net.to("meta")
    assert all(mask.device.type == "meta" for mask in net.layer.masks.values())


@every_case
def test_no_mask_is_in_the_state_dict_or_among_the_buffers(case):
    net, _, _ = pruned(case)
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}
    assert list(net.buffers()) == []


@every_case
def test_unmask_gives_the_classes_back_and_returns_the_masks(case):
    net, x, pruner = pruned(case)
    out, masks = net(x), pruner.masks
    returned = unmask(net)
    assert type(net.layer) in MASKABLE
    assert not hasattr(net.layer, "masks")
    assert {name: mask.data_ptr() for name, mask in returned.items()} == {
        name: mask.data_ptr() for name, mask in masks.items()
    }
    assert torch.equal(net(x), out)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_a_recurrent_neuron_goes_with_its_row_in_every_gate(kind, gates):
    net = kind(3, 4, num_layers=2, bidirectional=True)
    pruner = Pruner(net, PruningConfig(sparsity=0.5, granularity="neuron"))
    pruner.prune_to()
    assert set(pruner.held_masks) == {n for n, _ in net.named_parameters() if "weight" in n}
    dead = 0
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        rows = []
        for kind_of in ("ih", "hh"):
            mask = pruner.masks[f"weight_{kind_of}_{suffix}"].view(gates, 4, -1)
            assert bool((mask.all(-1) | ~mask.any(-1)).all())
            rows += list(mask.all(-1))
        assert all(torch.equal(row, rows[0]) for row in rows)
        dead += int((~rows[0]).sum())
    assert dead == 8


def test_a_projection_is_left_dense():
    net, _, pruner = pruned("lstm_proj")
    assert "layer.weight_hr_l0" not in pruner.parameters
    assert bool(net.layer.weight_hr_l0.all())


def test_excluded_modules_are_left_alone_by_object_and_by_name():
    net = nn.ModuleDict(
        {"pi": nn.Linear(2, 2), "target": nn.Sequential(nn.Linear(2, 2)), "vf": nn.Linear(2, 2)}
    )
    make_maskable(net, exclude=[net["target"], "v*"])
    assert list(maskable_layers(net)) == ["pi"]
    assert type(net["target"][0]) is nn.Linear


def test_tied_weights_count_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    pruner = Pruner(net, PruningConfig(sparsity=0.5))
    assert list(pruner.parameters) == ["0.weight"]


def test_maskable_classes_can_be_built_directly_and_show_their_sparsity():
    for layer in (MaskedLinear(2, 2), MaskedLSTM(2, 2), MaskedGRU(2, 2)):
        assert layer.masks == {}
        assert "sparsity" not in repr(layer)
        Pruner(layer, PruningConfig(sparsity=0.5)).prune_to()
        assert "sparsity=0.500" in repr(layer)
