"""Agreement over the Learners of a group: the only door to `torch.distributed` in this folder.

Learners average their gradients, and must change their masks alike: at the same clock, by the same
evidence. An asynchronous group (APPO, IMPALA) gets batches and signals at any time, one rank before
the other (ADR 0016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from rayprune.pruning.evidence.reduce import Reduce, SingleProcess


def is_group() -> bool:
    """Whether this Learner is one of a group that averages its gradients."""
    return distributed.is_available() and distributed.is_initialized()


def is_first() -> bool:
    """Whether this Learner has rank 0, as one alone has."""
    return not is_group() or distributed.get_rank() == 0


def is_asynchronous(learner: Any) -> bool:
    """Whether a Learner updates in a thread of its own."""
    return hasattr(learner, "_learner_thread")


def latest(number: int, learner: Any) -> int:
    """Return the largest of an asynchronous group's numbers; of any other, its own."""
    return _reduced([number], learner, distributed.ReduceOp.MAX)[0] if _races(learner) else number


def earliest(number: int, learner: Any) -> int:
    """Return the smallest of an asynchronous group's numbers; of any other, its own."""
    return _reduced([number], learner, distributed.ReduceOp.MIN)[0] if _races(learner) else number


def same_everywhere(number: int, learner: Any) -> bool:
    """Whether all ranks hold the same number, and none a negative one."""
    if not is_group():
        return number >= 0
    least, most = _reduced([number, -number], learner, distributed.ReduceOp.MIN)
    return least == -most and number >= 0


def any_has(mine: bool, learner: Any) -> bool:
    """Whether a Learner of the group has something; asked by all of them."""
    if not is_group():
        return mine
    return _reduced([int(mine)], learner, distributed.ReduceOp.MAX)[0] > 0


def from_first(held: Any) -> Any:
    """Return what rank 0 holds, which can be pickled."""
    box = [held]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


class OverLearners(Reduce):
    """Brings the evidence of all Learners together: each ends with the same bits."""

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the means over the Learners."""
        totals = [tensor.clone() for tensor in tensors]
        for total in totals:
            distributed.all_reduce(total)
            total /= distributed.get_world_size()
        return totals

    def join(self, tensor: Tensor) -> Tensor:
        """Return the rows of all Learners, whose numbers may differ, in the order of ranks."""
        ranks = range(distributed.get_world_size())
        size = torch.tensor([len(tensor)], device=tensor.device)
        sizes = [torch.zeros_like(size) for _ in ranks]
        distributed.all_gather(sizes, size)
        most = max(int(rows) for rows in sizes)
        padded = tensor.new_zeros(most, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in ranks]
        distributed.all_gather(parts, padded)
        return torch.cat([part[: int(rows)] for part, rows in zip(parts, sizes, strict=True)])


def over_learners() -> Reduce:
    """Return what brings evidence together: over the group, or nothing for one Learner alone."""
    return OverLearners() if is_group() and distributed.get_world_size() > 1 else SingleProcess()


def _races(learner: Any) -> bool:
    return is_asynchronous(learner) and is_group()


def _reduced(numbers: list[int], learner: Any, how: Any) -> list[int]:
    held = torch.tensor(numbers, dtype=torch.int64, device=learner.device)
    distributed.all_reduce(held, op=how)
    return [int(number) for number in held.tolist()]
