"""What torch.nn.utils.prune pruned is taken over exactly; torch itself is the oracle."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from rayprune import Pruner, PruningConfig, make_maskable
from rayprune.errors import CheckpointError, InputError
from rayprune.pruning.layers.torch_prune import is_torch_pruned, plain_state


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))


def pruned_by_torch(amount: float = 0.5) -> nn.Sequential:
    module = net()
    torch_prune.l1_unstructured(module[0], "weight", amount=amount)
    torch_prune.ln_structured(module[2], "weight", amount=0.25, n=2, dim=0)
    torch_prune.random_unstructured(module[2], "weight", amount=0.3)  # on top: a container
    return module


@settings(max_examples=20, deadline=None)
@given(amount=st.floats(0.1, 0.9))
def test_masks_and_outputs_are_those_that_torch_had(amount: float) -> None:
    module = pruned_by_torch(amount)
    x = torch.randn(3, 1, 4, 4)
    outputs = module(x)
    wanted = {f"{i}.weight": module[i].weight_mask.bool() for i in (0, 2)}
    pruner = Pruner(module, PruningConfig(sparsity=0.0))
    assert set(pruner.held_masks) == set(wanted)
    for name, mask in wanted.items():
        assert torch.equal(pruner.masks[name], mask)
    assert torch.equal(module(x), outputs)
    assert not pruner.violations()
    assert not is_torch_pruned(module)
    assert set(module.state_dict()) == set(net().state_dict())


def test_the_optimizers_parameter_stays_the_same_object_and_training_goes_on_sparse() -> None:
    module = pruned_by_torch()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    held = module[0].weight_orig
    pruner = Pruner(module, PruningConfig(sparsity=0.0))
    assert module[0].weight is held
    before = module[0].weight.detach().clone()
    module(torch.randn(3, 1, 4, 4)).square().mean().backward()
    pruner.mask_gradients({p: p.grad for p in module.parameters()})
    optimizer.step()
    mask = pruner.masks["0.weight"]
    assert torch.all(module[0].weight[~mask] == 0)
    assert torch.all(module[0].weight[mask] != before[mask])


def test_further_pruning_keeps_what_torch_pruned_and_reaches_its_own_target() -> None:
    module = pruned_by_torch()
    before = module[0].weight_mask.bool()
    pruner = Pruner(module, PruningConfig(sparsity=0.75))
    pruner.prune_to(0.75)
    assert not torch.any(pruner.masks["0.weight"] & ~before)
    assert pruner.sparsity() == pytest.approx(0.75, abs=0.02)


def test_an_lstm_is_taken_over_with_its_flat_weights() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 4, batch_first=True)
    torch_prune.l1_unstructured(lstm, "weight_hh_l0", amount=0.5)
    torch_prune.l1_unstructured(lstm, "weight_ih_l0", amount=0.25)
    masks = {key: getattr(lstm, f"{key}_mask").bool() for key in ("weight_hh_l0", "weight_ih_l0")}
    reference = nn.LSTM(3, 4, batch_first=True)
    weights = {key: getattr(lstm, f"{key}_orig") * masks[key] for key in masks}
    biases = {key: getattr(lstm, key) for key in ("bias_ih_l0", "bias_hh_l0")}
    reference.load_state_dict({key: v.detach() for key, v in {**weights, **biases}.items()})
    make_maskable(lstm)
    x = torch.randn(2, 5, 3)
    assert torch.allclose(lstm(x)[0], reference(x)[0], atol=1e-6)
    assert {key: mask.tolist() for key, mask in lstm.masks.items()} == {
        key: mask.tolist() for key, mask in masks.items()
    }
    assert lstm._flat_weights[1] is lstm.weight_hh_l0


def test_pruning_by_torch_after_make_maskable_is_added_to_the_masks() -> None:
    module = net()
    pruner = Pruner(module, PruningConfig(sparsity=0.5))
    pruner.prune_to(0.5)
    first = pruner.masks["3.weight"].clone()
    torch_prune.random_unstructured(module[3], "weight", amount=0.5)
    second = module[3].weight_mask.bool()
    make_maskable(module)
    assert torch.equal(module[3].masks["weight"], first & second)


def test_a_bias_that_torch_pruned_is_refused_and_nothing_is_changed() -> None:
    module = pruned_by_torch()
    torch_prune.l1_unstructured(module[3], "bias", amount=0.5)
    with pytest.raises(InputError, match=r"'3' has its 'bias' pruned.*prune.remove"):
        make_maskable(module)
    assert is_torch_pruned(module)
    assert type(module[0]) is nn.Conv2d


@pytest.mark.parametrize("as_numpy", [False, True])
def test_a_state_dict_in_torchs_form_becomes_plain(as_numpy: bool) -> None:
    module = pruned_by_torch()
    state: dict[str, Any] = copy.deepcopy(module.state_dict())
    if as_numpy:
        state = {name: value.numpy() for name, value in state.items()}
    plain, masks = plain_state(state)
    for layer, name in ((module[0], "weight"), (module[2], "weight")):
        torch_prune.remove(layer, name)
    wanted = module.state_dict()
    assert set(plain) == set(wanted)
    for name, value in plain.items():
        assert torch.equal(torch.as_tensor(value), wanted[name]), name
    fresh = net()
    pruner = Pruner(fresh, PruningConfig(sparsity=0.0))
    fresh.load_state_dict({name: torch.as_tensor(value) for name, value in plain.items()})
    pruner.take_masks(masks)
    assert {name: int(mask.sum()) for name, mask in pruner.held_masks.items()} == {
        name: int(mask.sum()) for name, mask in masks.items()
    }


def test_a_plain_state_dict_stays_as_it_is() -> None:
    state = net().state_dict()
    plain, masks = plain_state(state)
    assert list(plain) == list(state)
    assert masks == {}


def test_a_mask_of_another_shape_is_refused() -> None:
    state = {"w_orig": torch.ones(2), "w_mask": torch.ones(3)}
    with pytest.raises(CheckpointError, match="state is broken"):
        plain_state(state)
    pruner = Pruner(net(), PruningConfig(sparsity=0.0))
    with pytest.raises(CheckpointError, match="as it was pruned"):
        pruner.take_masks({"0.weight": torch.ones(2, dtype=torch.bool)})
    assert pruner.held_masks == {}
