import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rayprune import Pruner, PruningConfig
from rayprune.pruning.granularity.block import BlockGranularity


def pruned(module, sparsity=0.5, **config):
    pruner = Pruner(module, PruningConfig(granularity="block", sparsity=sparsity, **config))
    pruner.prune_to()
    return pruner


def blocks_by_loop(tensor, gates=1):
    """Every 16 rows of a column of a gate, found by an obvious loop."""
    found = []
    for gate in tensor.reshape(gates, tensor.shape[0] // gates, -1):
        for start in range(0, gate.shape[0], 16):
            found += [gate[start : start + 16, column] for column in range(gate.shape[1])]
    return found


def test_the_block_with_the_lowest_mean_goes():
    layer = nn.Linear(2, 32)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[16:, 1] = 0.5
    pruned(layer, 0.25)
    assert not bool(layer.weight[16:, 1].any())
    assert int(torch.count_nonzero(layer.weight)) == 48


def test_a_smaller_block_at_the_edge_is_judged_by_its_own_rows():
    layer = nn.Linear(1, 18)
    with torch.no_grad():
        layer.weight[:16] = 0.9
        layer.weight[16:] = 1.0  # a mean of 1, though the sum is only 2
    pruner = pruned(layer, 0.5)
    assert pruner.masks["weight"][:, 0].tolist() == [False] * 16 + [True] * 2


@pytest.mark.parametrize("pooling", ["mean", "sum", "l2"])
@pytest.mark.parametrize(
    ("layer", "gates"),
    [
        (nn.Linear(7, 40), 1),
        (nn.Linear(3, 5), 1),
        (nn.Conv2d(3, 20, 2), 1),
        (nn.LSTM(3, 20), 4),
        (nn.GRU(3, 8), 3),
    ],
)
def test_scores_pool_over_the_blocks_that_a_loop_finds(layer, gates, pooling):
    for name, weight in layer.named_parameters():
        if "bias" in name:
            continue
        (part,) = BlockGranularity("block").split(layer, {name: weight})
        by_hand = {
            "mean": lambda block: block.mean(),
            "sum": lambda block: block.sum(),
            "l2": lambda block: block.square().sum().sqrt(),
        }[pooling]
        expected = torch.stack([by_hand(b) for b in blocks_by_loop(weight.detach(), gates)])
        pooled = part.pool({name: weight.detach()}, pooling)
        torch.testing.assert_close(pooled.reshape(-1), expected)
        assert part.count == len(expected)


@given(
    st.integers(1, 70),
    st.lists(st.floats(0, 0.98), min_size=1, max_size=4),
    st.sampled_from(["uniform", "global", "erk"]),
)
def test_masks_nest_and_hold_an_exact_number_of_whole_blocks(rows, sparsities, distribution):
    module = nn.Sequential(nn.Linear(6, rows), nn.Linear(rows, 16))
    pruner = Pruner(
        module,
        PruningConfig(
            granularity="block", sparsity=0.5, distribution=distribution, criterion="random"
        ),
    )
    gone = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in pruner.parameters.items()}
    for sparsity in sparsities:
        pruner.prune_to(sparsity)
        for name, mask in pruner.masks.items():
            assert not bool((mask & gone[name]).any())
            gone[name] = ~mask
    total = cut = 0
    for name, weight in pruner.parameters.items():
        blocks = blocks_by_loop(gone[name])
        assert all(bool(block.all()) or not bool(block.any()) for block in blocks)
        total += len(blocks)
        cut += sum(bool(block.all()) for block in blocks)
        assert gone[name].shape == weight.shape
    slack = 0.51 if distribution == "global" else 1.02
    assert abs(cut - max(sparsities) * total) <= slack


def test_a_threshold_takes_every_block_up_to_it():
    layer = nn.Linear(2, 32)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[:16, 0] = 0.2
    config = PruningConfig(granularity="block", threshold={"absolute": 0.3})
    Pruner(layer, config).prune_to()
    assert int(torch.count_nonzero(layer.weight)) == 48
