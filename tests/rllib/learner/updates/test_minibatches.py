"""Minibatches cut by index are those of RLlib's iterator, and ask NumPy for the same."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator

from rayprune.rllib.learner.updates.minibatches import (
    IndexedMinibatches,
    Minibatch,
    reason_against,
)


def rows(count: int, first: int = 0) -> SampleBatch:
    number = torch.arange(first, first + count)
    nested = {"image": torch.stack([number, -number], 1), "vector": number.float()}
    return SampleBatch({"obs": nested, "rewards": number.float(), "done": number % 3 == 0})


def sequences(count: int) -> SampleBatch:
    lengths = torch.arange(count) % 4 + 1
    batch = SampleBatch(
        {
            "obs": torch.arange(count * 4).reshape(count, 4),
            # One leaf, as many as there would be without nesting.
            "state_in": {"memory": torch.arange(count)},
            "seq_lens": lengths,
        },
        _zero_padded=True,
        _max_seq_len=4,
    )
    batch.enable_slicing_by_batch_id()
    return batch


def cut(batch: dict[str, SampleBatch], by_index: bool, **how: Any) -> tuple[list[Any], Any]:
    np.random.seed(0)  # noqa: NPY002 - RLlib's
    source = MiniBatchCyclicIterator(MultiAgentBatch(copy.deepcopy(batch), 7), **how)
    lasts: list[bool] = []
    found = list(IndexedMinibatches(source, lasts.append) if by_index else source)
    assert not by_index or lasts == [False] * (len(found) - 1) + [True]
    return found, np.random.random()  # noqa: NPY002


def check_alike(batch: dict[str, SampleBatch], **how: Any) -> int:
    (expected, then), (found, now) = cut(batch, False, **how), cut(batch, True, **how)
    assert now == then
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.env_steps() == other.env_steps() == 7
        assert list(one.policy_batches) == list(other.policy_batches)
        for module_id, columns in one.policy_batches.items():
            same_columns(columns, other.policy_batches[module_id])
    return len(found)


def same_columns(one: SampleBatch, other: SampleBatch) -> None:
    assert isinstance(one, SampleBatch)
    assert list(one) == list(other)
    assert (one.count, one.max_seq_len, one.zero_padded) == (
        other.count,
        other.max_seq_len,
        other.zero_padded,
    )
    for name, column in one.items():
        pairs = [(column, other[name])]
        if isinstance(column, dict):
            pairs = [(column[key], other[name][key]) for key in other[name]]
        for mine, theirs in pairs:
            assert torch.equal(mine, theirs)
            assert mine.dtype == theirs.dtype


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("count", "size"), [(12, 4), (13, 4), (10, 10), (3, 8), (7, 1)])
def test_rows_are_those_that_rllib_would_slice_and_join(
    count: int, size: int, shuffle: bool
) -> None:
    how = {"num_epochs": 3, "minibatch_size": size, "shuffle_batch_per_epoch": shuffle}
    assert check_alike({"a": rows(count)}, **how) >= 3 * count // size


def test_modules_with_other_numbers_of_rows_go_round_each_for_itself() -> None:
    how = {"num_epochs": 2, "minibatch_size": 5, "shuffle_batch_per_epoch": True}
    check_alike({"a": rows(11), "b": rows(23, first=100)}, **how)
    assert check_alike({"a": rows(11), "b": rows(23)}, **how, num_total_minibatches=9) == 9


@pytest.mark.parametrize("shuffle", [False, True])
def test_padded_sequences_are_cut_by_sequence(shuffle: bool) -> None:
    how = {"num_epochs": 2, "minibatch_size": 8, "shuffle_batch_per_epoch": shuffle}
    check_alike({"a": sequences(9)}, **how)


def test_a_minibatch_is_read_as_rllib_reads_batches() -> None:
    batch = Minibatch({"obs": torch.ones(2, 3), "terminateds": torch.ones(2)}, 2)
    assert batch.get("rewards") is None
    assert "obs" in batch
    assert len(batch) == 2
    assert torch.equal(batch["dones"], torch.ones(2))
    assert len(batch[0:1]) == 1
    again = pickle.loads(pickle.dumps(batch))
    assert type(again) is Minibatch
    assert torch.equal(again["obs"], batch["obs"])
    other = batch.copy()
    other["obs"] = torch.zeros(2, 3)
    assert batch["obs"].sum() == 6
    assert other.count == 2
    with pytest.raises(KeyError):
        batch["rewards"]


def reason_for(batch: SampleBatch) -> str:
    return reason_against(
        MiniBatchCyclicIterator(MultiAgentBatch({"a": batch}, 1), minibatch_size=2)
    )


def test_what_isn_t_rows_of_tensors_is_left_to_rllib() -> None:
    assert not reason_for(rows(3))
    assert not reason_for(sequences(3))
    assert "more than tensors" in reason_for(SampleBatch({"obs": np.ones(3)}))
    assert "more than tensors" in reason_for(SampleBatch({"a": torch.ones(3), "b": torch.ones(2)}))
    infos = SampleBatch({"obs": torch.ones(2), "infos": [{}, {}]})
    assert "more than tensors" in reason_for(infos)
    assert "empty" in reason_for(SampleBatch({"obs": torch.ones(0)}))
    unpadded = sequences(3)
    unpadded.zero_padded = False
    assert "different lengths" in reason_for(unpadded)
    by_step = sequences(3)
    by_step.disable_slicing_by_batch_id()
    assert "by sequence" in reason_for(by_step)
    major = rows(3)
    major.time_major = True
    assert "a way of its own" in reason_for(major)
    assert "list_iterator" in reason_against(iter([]))
