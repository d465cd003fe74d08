"""Sparse storage gives the same bits back, and is as small as it claims."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayprune.deploy.storage import dumps, pack, rewrite_sparsely, unpack
from rayprune.pruning.config import PruningConfig
from rayprune.pruning.layers.attach import make_maskable
from rayprune.pruning.masks.topk import keep_only
from rayprune.pruning.pruner import Pruner

KINDS = ["float32", "float64", "float16", "int64", "uint8"]


def sparse(shape, density, kind="float32", seed=0):
    draw = np.random.default_rng(seed)
    values = (100 * draw.normal(size=shape)).astype(kind)
    return np.where(draw.random(shape) < density, values, values.dtype.type(0))


def test_a_small_matrix_by_hand():
    weight = np.zeros((8, 64), np.float32)
    weight[1, 3], weight[7, 63] = 2.5, -1.0
    layout, dtype, shape, (counts, columns, values) = pack(weight)
    assert (layout, dtype, shape) == ("rows", "<f4", (8, 64))
    assert np.frombuffer(counts, np.uint16).tolist() == [0, 1, 0, 0, 0, 0, 0, 1]
    assert np.frombuffer(columns, np.uint16).tolist() == [3, 63]
    assert np.frombuffer(values, np.float32).tolist() == [2.5, -1.0]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(200,), (40, 30), (8, 3, 5, 5), (1, 70000), (70000, 1)]),
    st.floats(0, 1),
    st.sampled_from(KINDS),
    st.integers(0, 5),
)
def test_every_bit_comes_back(shape, density, kind, seed):
    weight = sparse(shape, density, kind, seed)
    if weight.dtype.kind == "f":
        weight.flat[::7], weight.flat[1::11], weight.flat[2::13] = -0.0, np.nan, np.inf
    back = pickle.loads(dumps({"a": [weight]}))["a"][0]
    assert back.tobytes() == weight.tobytes()
    assert (back.dtype, back.shape) == (weight.dtype, weight.shape)
    back.flat[0] = 1
    assert back.flags.owndata or back.base is not None


def test_what_is_dense_or_small_or_no_number_stays_as_it_is():
    assert pack(sparse((50, 50), 1.0)) is None
    assert pack(np.zeros((2, 2), np.float32)) is None
    assert pack(np.array([None] * 100)) is None
    dense = np.ones((50, 50), np.float32)
    assert len(dumps(dense)) <= len(pickle.dumps(dense, protocol=5))


def test_arrays_that_are_not_contiguous_come_back_too():
    weight = sparse((64, 32), 0.1).T
    assert (unpack(*pack(weight)) == weight).all()


@pytest.mark.parametrize(
    ("sparsity", "times"), [(0.5, 1.8), (0.75, 3.4), (0.9, 7.2), (0.95, 11), (0.99, 40)]
)
def test_a_large_mlp_is_so_many_times_smaller(sparsity, times):
    sizes = [376, 1024, 1024, 17]
    state = {}
    for place, (columns, rows) in enumerate(itertools.pairwise(sizes)):
        state[f"{place}.weight"] = sparse((rows, columns), 1 - sparsity, seed=place)
        state[f"{place}.bias"] = sparse((rows,), 1.0, seed=place)
    dense = len(pickle.dumps(state, protocol=5))
    assert dense / len(dumps(state)) >= times


def test_only_files_of_the_name_are_rewritten_and_only_if_smaller(tmp_path):
    state = {"weight": sparse((100, 100), 0.1)}
    inner = tmp_path / "learner" / "module"
    inner.mkdir(parents=True)
    files = [inner / "state.pkl", inner / "other.pkl", tmp_path / "state.pkl"]
    for file in files:
        file.write_bytes(pickle.dumps(state if file.parent == inner else [1, 2]))
    sizes = [file.stat().st_size for file in files]
    rewrite_sparsely(tmp_path, "state.pkl")
    assert files[0].stat().st_size < sizes[0] / 5
    assert [file.stat().st_size for file in files[1:]] == sizes[1:]
    assert pickle.loads(files[0].read_bytes())["weight"].tobytes() == state["weight"].tobytes()


def test_what_a_mask_zeroes_has_no_sign_that_would_have_to_be_stored():
    weight = torch.tensor([-1.0, 2.0, -3.0])
    keep_only(weight, torch.tensor([False, True, True]))
    assert weight.tolist() == [0.0, 2.0, -3.0]
    assert not torch.signbit(weight[0])
    half = torch.tensor([-1.0, 2.0], dtype=torch.bfloat16)
    keep_only(half, torch.tensor([False, True]))
    assert not torch.signbit(half[0])


def test_masked_moments_have_no_sign_either():
    layer = torch.nn.Linear(2, 2, bias=False)
    make_maskable(layer)
    pruner = Pruner(layer, PruningConfig(sparsity=0.5))
    pruner.prune_to(0.5)
    (name,) = pruner.masks
    moment = -torch.ones(2, 2)
    pruner.mask_tensors({name: moment})
    assert (moment == 0).sum() == 2
    assert torch.equal(torch.signbit(moment), pruner.masks[name])


def test_a_state_that_pickle_cannot_write_stays_as_it_is(tmp_path):
    import cloudpickle

    path = tmp_path / "state.pkl"
    path.write_bytes(cloudpickle.dumps({"f": lambda: 7, "zeros": np.zeros(10_000)}))
    held = path.read_bytes()
    rewrite_sparsely(tmp_path, "state.pkl")
    assert path.read_bytes() == held
