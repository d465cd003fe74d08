from rayprune.fit.candidates import candidates_of
from rayprune.fit.config import FitConfig


def found(hiddens=(64, 32), **block):
    config = FitConfig.from_raw({"flash": "1KB", **block})
    return candidates_of(config, hiddens, interval=100)


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
