"""A layer with its place: its names, its shape before any compaction, what protects it."""

import torch

from rayprune.pruning.layers.masked import MaskedGRU, MaskedLinear
from rayprune.pruning.layers.original_shapes import OriginalShapes
from rayprune.pruning.layers.prunable import PrunableLayer, protected_names


def test_a_layer_knows_its_parameters_by_their_names_in_the_module():
    layer = PrunableLayer("pi.0", MaskedLinear(3, 2), "policy")
    assert list(layer.named) == ["pi.0.weight"]
    assert layer.named["pi.0.weight"] is layer.module.weight
    assert (layer.dims, layer.total, layer.pruned) == ((2, 3), 6, 0)


def test_a_gru_counts_as_one_matrix():
    layer = PrunableLayer("memory", MaskedGRU(5, 4), "all")
    assert layer.dims == (12, 9)
    assert layer.total == 12 * 5 + 12 * 4


def test_what_is_spared_is_no_parameter_of_the_layer():
    layer = PrunableLayer("memory", MaskedGRU(5, 4), "all", spared=frozenset({"weight_hh_l0"}))
    assert list(layer.parameters) == ["weight_ih_l0"]
    assert layer.total == 12 * 5


def test_counts_and_shape_are_those_before_compaction():
    layer, origins = MaskedLinear(3, 1), OriginalShapes()
    origins.narrow(
        {"0.weight": (4, 3)}, {"0.weight": (torch.tensor([2]), torch.arange(3))}, by_unit=True
    )
    narrowed = PrunableLayer("0", layer, "all", origins=origins)
    assert narrowed.dims == (4, 3)
    assert (narrowed.total, narrowed.pruned) == (12, 9)


def test_a_pattern_protects_what_it_matches():
    layers = [PrunableLayer(name, MaskedLinear(1, 1), "all") for name in ("pi.0", "pi.1", "vf.0")]
    assert protected_names(layers, ["pi.*", "nothing"]) == {"pi.0", "pi.1"}
    assert protected_names(layers, []) == frozenset()
