"""Minibatches cut by index from tensors, in the order in which RLlib's iterator would cut them.

RLlib shuffles every column of a batch each epoch, slices it and joins the slices again, through
nested maps over dictionaries. Here only the order of the rows is shuffled, and each column is
gathered once a minibatch. NumPy's global generator is asked for the same permutations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten


class Minibatch(SampleBatch):
    """A batch of tensors that are read and never changed: columns are found as in a dict.

    Args:
        columns: tensors, or nested dicts of them, by name.
        count: time steps, those of padding left out; None has them counted as RLlib does.
        max_seq_len: of its longest sequence; None where there are no sequences.
    """

    def __init__(
        self, columns: Any, count: int | None = None, max_seq_len: int | None = None
    ) -> None:
        if count is None:  # by a map over a batch's columns
            super().__init__(columns)  # type: ignore[no-untyped-call]
            return
        dict.__init__(self, columns)
        self.time_major = None
        self.max_seq_len = max_seq_len
        self.zero_padded = False
        self._is_training = False
        self.num_grad_updates = 0.0
        self._slice_seq_lens_in_B = False
        self.accessed_keys: set[str] = set()
        self.added_keys: set[str] = set()
        self.deleted_keys: set[str] = set()
        self.intercepted_values: dict[str, Any] = {}
        self.get_interceptor = None
        self._slice_map: list[tuple[int, int]] = []
        self.count = count

    def __getitem__(self, key: Any) -> Any:
        """Return a column; what else RLlib takes for a key, it is asked for."""
        if isinstance(key, str) and dict.__contains__(self, key):
            return dict.__getitem__(self, key)
        return super().__getitem__(key)

    def copy(self, shallow: bool = False) -> Minibatch:
        """Return another with the same tensors."""
        return Minibatch(tree_map(lambda tensor: tensor, dict(self)), self.count, self.max_seq_len)

    def __reduce__(self) -> Any:
        """Pickle as what its arguments make of it."""
        return type(self), (dict(self), self.count, self.max_seq_len)


class IndexedMinibatches:
    """What RLlib's cyclic iterator yields, row for row.

    Args:
        source: RLlib's, not yet begun; see `reason_against`.
        on_minibatch: is told before each minibatch whether it is the last.
    """

    def __init__(
        self, source: MiniBatchCyclicIterator, on_minibatch: Callable[[bool], None]
    ) -> None:
        self._epochs: int = source._num_epochs
        self._total: int = source._num_total_minibatches
        self._env_steps = len(source._batch)
        self._on_minibatch = on_minibatch
        self._modules = {
            module_id: _Rows(batch, source._minibatch_size, source._shuffle_batch_per_epoch)
            for module_id, batch in source._batch.policy_batches.items()
        }

    def __iter__(self) -> Iterator[MultiAgentBatch]:
        """Yield minibatches until every row was in as many as there are epochs."""
        count = 0
        while not self._ends_after(count):
            found: dict[str, SampleBatch] = {
                module_id: rows.take() for module_id, rows in self._modules.items()
            }
            count += 1
            self._on_minibatch(self._ends_after(count))
            yield MultiAgentBatch(found, self._env_steps)

    def _ends_after(self, count: int) -> bool:
        if self._total > 0:
            return count >= self._total
        return min(rows.epochs for rows in self._modules.values()) >= self._epochs


def reason_against(source: Any) -> str:
    """Return why minibatches can't be cut by index, in words; empty where they can."""
    if type(source) is not MiniBatchCyclicIterator:
        return f"a {type(source).__name__} yields its minibatches"
    for batch in source._batch.policy_batches.values():
        if batch.time_major or batch.get_interceptor is not None:
            return "its batch is read in a way of its own"
        if not len(batch):
            return "it is empty"
        in_sequences = batch.get(SampleBatch.SEQ_LENS) is not None
        if in_sequences != bool(batch._slice_seq_lens_in_B):
            return "its sequences aren't cut by sequence"
        if in_sequences and not batch.zero_padded:
            return "its sequences are of different lengths"
        if Columns.INFOS in batch or not _are_rows(dict(batch)):
            return "it holds more than tensors of one length"
    return ""


def _are_rows(columns: dict[str, Any]) -> bool:
    leaves, _ = tree_flatten(columns)
    tensors = all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves)
    return tensors and len({len(leaf) for leaf in leaves}) == 1


class _Rows:
    """One module's rows: time steps, or padded sequences of them.

    Args:
        batch: whose columns all have as many rows.
        minibatch_size: in time steps.
        shuffles: whether the rows are shuffled after each epoch.
    """

    def __init__(self, batch: SampleBatch, minibatch_size: int, shuffles: bool) -> None:
        columns = dict(batch)
        lengths: Any = columns.get(SampleBatch.SEQ_LENS)
        self._lengths = None if lengths is None else lengths.cpu().numpy()
        self._leaves, self._spec = tree_flatten(columns)
        flat = all(isinstance(column, Tensor) for column in columns.values())
        self._names = list(columns) if flat else []
        self._count = len(self._leaves[0])
        steps = len(batch)
        in_steps = self._lengths is None
        # In a batch of sequences RLlib takes as many as a share of the steps comes to.
        self._size = minibatch_size if in_steps else int(self._count * (minibatch_size / steps))
        self._shuffles = shuffles
        self._order = np.arange(self._count)
        self._start = 0
        self.epochs = 0

    def take(self) -> Minibatch:
        """Return the next minibatch."""
        chosen = self._next_indices()
        index = torch.from_numpy(chosen).to(self._leaves[0].device)
        leaves = [leaf.index_select(0, index) for leaf in self._leaves]
        columns = (
            dict(zip(self._names, leaves, strict=True))
            if self._names
            else tree_unflatten(leaves, self._spec)
        )
        if self._lengths is None:
            return Minibatch(columns, len(chosen))
        lengths = self._lengths[chosen]
        # RLlib joins lengths as floats.
        columns[SampleBatch.SEQ_LENS] = columns[SampleBatch.SEQ_LENS].float()
        return Minibatch(columns, int(lengths.sum()), int(lengths.max()))

    def _next_indices(self) -> Any:
        wanted, pieces = self._size, []
        while self._start + wanted >= self._count:
            pieces.append(self._order[self._start :])
            wanted -= self._count - self._start
            self._start = 0
            self.epochs += 1
            if self._shuffles:
                self._order = self._order[_permutation(self._count)]
        if wanted > 0:
            pieces.append(self._order[self._start : self._start + wanted])
            self._start += wanted
        return np.concatenate(pieces)


def _permutation(count: int) -> Any:
    # RLlib shuffles with NumPy's global generator, which others go on with.
    return np.random.permutation(count)  # noqa: NPY002
