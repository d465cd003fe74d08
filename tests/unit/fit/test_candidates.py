from rayprune.fit.candidates import candidates_of
from rayprune.fit.config import FitConfig


def found(hiddens=(64, 32), *, from_dense=False, weight_bits=8, **block):
    config = FitConfig.from_raw({"flash": "1KB", **block})
    return candidates_of(
        config, hiddens, interval=100, from_dense=from_dense, weight_bits=weight_bits
    )


def test_each_width_is_tried_whole_and_at_each_granularity_and_sparsity():
    names = [one.name for one in found(widths=[1, 0.5], granularities=["weight"], sparsities=[0.5])]
    assert names == ["64x32-dense", "64x32-weight-50", "32x16-dense", "32x16-weight-50"]


def test_widths_are_shares_or_lists_and_never_too_small_to_act():
    names = [one.name for one in found(widths=[0.01, [10, 10]], sparsities=[0.5])]
    assert names[0] == "4x4-dense"
    assert "10x10-dense" in names


def test_a_network_without_settable_widths_is_tried_as_it_is():
    assert {one.hiddens for one in found(hiddens=None)} == {None}
    assert all("fcnet_hiddens" not in str(one.values) for one in found(hiddens=None))


def test_units_that_go_are_taken_out_while_it_trains():
    assert {one.compact_every for one in found() if one.chain.startswith("neuron")} == {100}
    assert {one.compact_every for one in found() if not one.chain.startswith("neuron")} == {None}


def test_each_network_is_tried_in_each_precision_the_most_welcome_first():
    names = [
        one.name for one in found(widths=[1], sparsities=[0.5], precisions=["float32", "int8"])
    ]
    assert names[:2] == ["64x32-dense", "64x32-dense-int8"]
    assert len(names) == 6


def test_pruned_networks_of_the_file_s_widths_begin_with_the_reference_others_anew():
    begun = [one.name for one in found(widths=[1, 0.5], from_dense=True) if one.from_dense]
    assert begun
    assert all(name.startswith("64x32-") and "dense" not in name for name in begun)
    assert len(begun) == 6
    assert not any(one.from_dense for one in found(widths=[1, 0.5]))
    own = found(hiddens=None, from_dense=True)
    assert [one.from_dense for one in own] == [one.sparsity > 0 for one in own]


def test_a_weight_counts_as_many_bits_as_it_is_rounded_to():
    bits = {one.precision: one.weight_bits for one in found(precisions=["float32", "int8"])}
    assert bits == {"float32": 32, "int8": 8}
    four = {one.weight_bits for one in found(precisions=["int8"], weight_bits=4)}
    assert four == {4}
