"""What callers of `Pruner` hand over: by name or parameter, in half precision, and wrongly."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from rayprune import Pruner, PruningConfig, make_maskable
from rayprune.errors import CheckpointError, ConfigError, InputError
from rayprune.pruning.masks.topk import keep_top

NOW = {"kind": "one_shot", "begin": 0}


def net(*, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)


def pruner_of(module=None, **config):
    return Pruner(net() if module is None else module, PruningConfig(**{"sparsity": 0.5, **config}))


def refused(call, *told, kind=InputError):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in told:
        assert part in message
    return message


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype):
    layer = nn.Linear(4, 1, bias=False).to(dtype)
    # Squares of these are zero in float16, and the first two are one in bfloat16.
    values = torch.tensor([[1e-4, 1.003e-4, 3e-5, 2e-5]])
    with torch.no_grad():
        layer.weight.copy_(values)
    pruner = Pruner(layer, PruningConfig(sparsity=0.5, criterion="l2"))
    assert pruner.scores()["weight"].dtype == torch.float32
    assert torch.equal(pruner.scores()["weight"], layer.weight.detach().float().square())
    pruner.prune_to(0.5)
    assert pruner.masks["weight"].tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("criterion", ["l1", "l2", "lamp", "relative", "snip", "fisher", "wanda"])
def test_masks_in_half_precision_are_those_of_the_same_weights_in_float32(dtype, criterion):
    half = net(dtype=dtype)
    whole = net()
    whole.load_state_dict(half.state_dict())
    x = torch.randn(32, 8).to(dtype)
    config = PruningConfig(sparsity=0.6, criterion=criterion)
    pruners = [Pruner(half, config), Pruner(whole, config)]

    def loss(module, batch):
        return module(batch).square().mean()

    for pruner, batch in zip(pruners, (x, x.float()), strict=True):
        found = pruner.scores(batch=batch, loss=loss)
        assert all(scores.dtype == torch.float32 for scores in found.values())
        pruner.prune_to(0.6, batch=batch, loss=loss)
    agree = [
        float((mask == pruners[1].masks[name]).float().mean())
        for name, mask in pruners[0].masks.items()
    ]
    exact = criterion in ("l1", "l2", "lamp", "relative")
    assert min(agree) == 1.0 if exact else min(agree) > 0.95


def test_a_long_sum_of_half_gradients_goes_on_growing():
    layer = nn.Linear(2, 1, bias=False).bfloat16()
    config = PruningConfig(sparsity=0.5, criterion="movement", evidence={"objective": "loss"})
    pruner = Pruner(layer, config)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for _ in range(600):
        pruner.observe_gradients({layer.weight: torch.full_like(layer.weight, -1.0)})
    assert pruner.accumulated.movement()["weight"].tolist() == [[600.0, 600.0]]


def test_a_sampled_cut_of_half_scores_is_exact():
    scores = torch.rand(1 << 21).bfloat16()
    (kept,) = keep_top([scores], keep=1 << 20)
    assert int(kept.sum()) == 1 << 20
    assert float(scores[kept].min()) >= float(scores[~kept].max())


# Layers without weights


@pytest.mark.parametrize("sizes", [(4, 0), (0, 4), (0, 0)])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_layer_is_passed_over(sizes):
    module = nn.ModuleDict({"full": nn.Linear(4, 4), "empty": nn.Linear(*sizes)})
    for distribution in ("uniform", "erk", "global"):
        pruner = Pruner(module, PruningConfig(sparsity=0.5, distribution=distribution))
        pruner.prune_to()
    assert list(pruner.masks) == ["full.weight"]
    assert pruner.sparsity() == 0.5
    assert [layer.name for layer in pruner.layer_counts()] == ["full"]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_module_of_empty_layers_has_nothing_to_prune():
    refused(lambda: pruner_of(nn.Sequential(nn.Linear(4, 0))), "no layer to prune")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_weights_that_cannot_be_ranked_are_refused(dtype):
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).to(dtype))
    refused(lambda: pruner_of(module), "'1.weight'", str(dtype), "`exclude`")
    assert Pruner(module, {"sparsity": 0.5}, exclude=["1"]).masks.keys() == {"0.weight"}


# State


@pytest.mark.parametrize(
    "config",
    [
        {"operation": {"scale": 0.5, "steps": 3}},
        {"schedule": {"kind": "rigl", "drop_fraction": 0.3, "every": 10, "end": 100}},
        {"criterion": "snip", "evidence": {"objective": "loss"}},
        {"granularity": "layer", "criterion": "l1"},
    ],
)
def test_a_saved_state_is_loaded_by_torch_as_it_is(config, tmp_path):
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    base = {"sparsity": 0.5, "schedule": {"kind": "linear", "begin": 0, "end": 100, "every": 10}}
    config = PruningConfig(**{**base, **config})
    pruner = Pruner(module, config)
    pruner.start()
    gradients = {p: torch.randn_like(p) for p in module.parameters()}
    pruner.observe_gradients(gradients)
    pruner.gather_gradients(gradients)
    pruner.update(50)
    pruner.returns = {"0": 1.5}
    path = tmp_path / "state.pt"
    torch.save(pruner.state_dict(), path)
    state = torch.load(path)
    torch.manual_seed(9)
    twin = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    twin.load_state_dict(module.state_dict())
    other = Pruner(twin, config)
    other.load_state_dict(state)
    torch.save(other.state_dict(), tmp_path / "again.pt")
    assert str(torch.load(tmp_path / "again.pt")) == str(state)


def test_a_state_with_numpy_arrays_is_taken_as_before():
    pruner = pruner_of()
    pruner.prune_to(0.5)
    state = pruner.state_dict()
    state["masks"] = {name: mask.numpy() for name, mask in state["masks"].items()}
    for array in state["masks"].values():
        array.setflags(write=False)  # as Ray's object store gives them
    other = pruner_of()
    other.load_state_dict(state)
    assert torch.equal(other.masks["0.weight"], pruner.masks["0.weight"])


@pytest.mark.parametrize("state", [None, [], "x", {}, {"version": 1}])
def test_what_is_no_state_is_refused(state):
    refused(lambda: pruner_of().load_state_dict(state), "is broken", kind=CheckpointError)


@pytest.mark.parametrize(
    "broken",
    [
        {"dynamics": {"x": 1}},
        {"accumulated": {"sums": {"movement": {"0.weight": torch.ones(3)}}}},
        {"bypassed": ["nowhere"]},
        {"returns": {"0": "x"}},
        {"origins": {"parameters": {"0.weight": {}}}},
    ],
)
def test_a_state_that_is_broken_anywhere_is_refused_and_nothing_is_changed(broken):
    pruner = pruner_of()
    pruner.prune_to(0.5)
    other = pruner_of(criterion="movement", evidence={"objective": "loss"})
    state = {**pruner.state_dict(), **broken}
    refused(lambda: other.load_state_dict(state), "is broken", kind=CheckpointError)
    assert other.held_masks == {}


# By name or by parameter


def test_gradients_by_name_are_masked_as_by_parameter():
    pruner = pruner_of()
    pruner.prune_to(0.5)
    gradients = {name: torch.ones_like(p) for name, p in pruner.module.named_parameters()}
    pruner.mask_gradients(gradients)
    assert torch.equal(gradients["0.weight"], pruner.masks["0.weight"].float())
    assert bool(gradients["0.bias"].all())


def test_dense_gradients_by_name_are_gathered_and_observed():
    for criterion in ("snip", "movement"):
        pruner = pruner_of(criterion=criterion, evidence={"objective": "loss"})
        gradients = {n: torch.ones_like(p) for n, p in pruner.module.named_parameters()}
        pruner.observe_gradients(gradients)
        kind = {"snip": "gradient", "movement": "movement"}[criterion]
        assert set(pruner.accumulated.state_dict()["sums"][kind]) == {"0.weight", "2.weight"}


def test_tensors_by_parameter_are_masked_as_by_name():
    pruner = pruner_of()
    pruner.prune_to(0.5)
    weight = pruner.parameters["2.weight"]
    moment = torch.ones_like(weight)
    pruner.mask_tensors({weight: moment})
    assert torch.equal(moment, pruner.masks["2.weight"].float())


def test_the_other_name_of_a_tied_weight_is_known():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    pruner = pruner_of(module)
    pruner.prune_to(0.5)
    moment = torch.ones(4, 4)
    pruner.mask_tensors({"1.weight": moment})
    assert torch.equal(moment, pruner.masks["0.weight"].float())


@pytest.mark.parametrize(
    "method", ["mask_gradients", "gather_gradients", "observe_gradients", "mask_tensors"]
)
def test_a_name_that_is_nobodys_is_refused_with_the_nearest(method):
    pruner = pruner_of(criterion="snip", evidence={"objective": "loss"})
    call = getattr(pruner, method)
    refused(lambda: call({"0.wieght": torch.ones(16, 8)}), "'0.wieght'", "mean '0.weight'?")
    refused(lambda: call({3: torch.ones(16, 8)}), "a key is 3 (int)")
    refused(lambda: call([torch.ones(16, 8)]), "must be a mapping")
    refused(lambda: call(None), "must be a mapping")


def test_a_tensor_of_another_shape_is_refused_and_nothing_is_changed():
    pruner = pruner_of()
    pruner.prune_to(0.5)
    good, bad = torch.ones(16, 8), torch.ones(16, 4)
    for call in (pruner.mask_gradients, pruner.mask_tensors):
        told = ("'2.weight' is (4, 16)", "(16, 4)")
        refused(lambda call=call: call({"0.weight": good, "2.weight": bad}), *told)
        for wrong in ("x", np.ones((4, 16), np.float32)):
            given = {"0.weight": good, "2.weight": wrong}
            refused(lambda call=call, x=given: call(x), "must hold tensors", type(wrong).__name__)
    assert bool(good.all())


# Arguments


def test_a_plain_mapping_is_a_config():
    pruner = Pruner(net(), {"sparsity": 0.75, "distribution": "global"})
    assert pruner.config == PruningConfig(sparsity=0.75, distribution="global")
    pruner.config = {"sparsity": 0.5}
    assert pruner.config.sparsity == 0.5
    refused(
        lambda: Pruner(net(), {"sparsity": 0.5, "criterium": "l1"}),
        "Did you mean 'criterion'?",
        kind=ConfigError,
    )


@pytest.mark.parametrize("config", [None, 0.5, "l1", [("sparsity", 0.5)], PruningConfig])
def test_what_is_no_config_is_refused(config):
    refused(lambda: Pruner(net(), config), "`config` must be a PruningConfig", kind=ConfigError)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"groups": {"0": "policy"}}, "`groups` must be a function"),
        ({"exempt": "0"}, "`exempt` must be a list of glob patterns"),
        ({"heads": 2}, "`heads` must be a list of glob patterns"),
        ({"exempt": [0]}, "`exempt` must be a list of glob patterns"),
        ({"exclude": "0"}, "`exclude` must be a list of modules"),
        ({"exclude": ["tagret*"]}, "'tagret*' matches no module"),
        ({"seed": "7"}, "`seed` must be a finite number"),
    ],
)
def test_an_argument_of_a_wrong_type_is_refused(arguments, told):
    refused(lambda: Pruner(net(), PruningConfig(sparsity=0.5), **arguments), told)


@pytest.mark.parametrize("module", [nn.Linear, None, [nn.Linear(2, 2)], "net"])
def test_what_is_no_module_is_refused(module):
    refused(lambda: Pruner(module, PruningConfig(sparsity=0.5)), "`module` must be a torch.nn.Mod")


def test_generators_of_patterns_are_patterns():
    pruner = Pruner(net(), PruningConfig(sparsity=0.5), exempt=(name for name in ["0"]))
    assert list(pruner.parameters) == ["2.weight"]


@pytest.mark.parametrize("value", ["0.5", None, float("nan"), True, [0.5]])
def test_what_is_no_number_is_refused(value):
    pruner = pruner_of(schedule=NOW)
    refused(lambda: pruner.update(value), "`step` must be a finite number")
    if value is not None:
        refused(lambda: pruner.prune_to(value), "`sparsity` must be a finite number")
    assert pruner.sparsity() == 0


def test_a_loss_and_rates_of_a_wrong_kind_are_refused():
    pruner = pruner_of(criterion="snip")
    refused(
        lambda: pruner.prune_to(0.5, batch=torch.ones(2, 8), loss="mse"), "`loss` must be a fun"
    )
    penalty = {"kind": "l1", "strength": 0.1}
    shrinking = pruner_of(penalty=penalty, schedule={"kind": "linear", "begin": 0, "end": 100})
    refused(lambda: shrinking.penalise(1, {}), "`rates` must hold", "'0.weight'")


def test_a_gated_pruner_without_a_driver_says_so():
    pruner = pruner_of(sparsity=None, schedule={"kind": "gated"}, horizon=1000)
    refused(
        lambda: pruner.update(500), "'gated' needs a driver", "rayprune train", kind=ConfigError
    )
    driven = Pruner(net(), pruner.config, driven=True)
    assert driven.update(500) is not None
    assert driven.sparsity() == 0


def test_a_wait_for_a_return_is_told_once(caplog):
    schedule = {"kind": "linear", "begin": {"return": 100}, "end": 0.5}
    pruner = pruner_of(schedule=schedule, horizon=1000)
    with caplog.at_level(logging.WARNING):
        assert pruner.update(10) is None
        assert pruner.update(20) is None
    assert [record.message for record in caplog.records if "waits for a return" in record.message]
    assert len(caplog.records) == 1


# What is really zero


def test_sparsity_counts_real_zeros():
    module = net()
    pruner = pruner_of(module, sparsity=0.8)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    pruner.prune_to(0.8)
    assert pruner.sparsity() == pytest.approx(0.8, abs=0.01)
    module(torch.randn(64, 8)).square().mean().backward()
    optimizer.step()  # and no mask_gradients, no mask_weights
    zeros = sum(int((p == 0).sum()) for p in pruner.parameters.values())
    total = sum(p.numel() for p in pruner.parameters.values())
    assert pruner.sparsity() == zeros / total < 0.5
    assert pruner.masked() == pytest.approx(0.8, abs=0.01)
    pruner.mask_weights()
    assert pruner.sparsity() == pruner.masked()


def test_exclusions_of_make_maskable_stay_what_they_were():
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "target": nn.Linear(2, 2)})
    make_maskable(module, exclude=["target"])
    assert type(module["target"]) is nn.Linear
    assert np.isfinite(pruner_of(module).sparsity())
