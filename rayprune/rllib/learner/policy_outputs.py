"""What a module puts out in some minibatches, before its masks change, held against it after."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from rayprune.errors import InputError, RunError
from rayprune.pruning.evidence.reduce import Reduce
from rayprune.pruning.reports import PolicyChange
from rayprune.rllib.algorithms import family_of_module
from rayprune.rllib.algorithms.policy import Policy, kl_between
from rayprune.rllib.algorithms.values import TINY_VARIANCE
from rayprune.rllib.learner.module_objective import valid_rows

T = TypeVar("T")


class Outputs(NamedTuple):
    """What a module puts out in one minibatch."""

    policy: Policy | None
    """None where it acts by Q-values, or by a distribution that only itself knows."""
    distribution: Any
    """RLlib's, or the module's own; None where it acts by Q-values."""
    values: list[Tensor]
    """Of each value net, ``(rows, n)``; all of a row's Q-values where it acts by them."""


class ModuleOutputs:
    """A module's outputs in some minibatches, as they were when this was made.

    The KL is that of the old policy from the new one, KL(old || new), exact where the distribution
    has one (categorical, multi-categorical, Gaussian, squashed Gaussian, or a user's own with
    ``kl``); of any other it is estimated from the minibatches' actions as the mean of
    ``r - 1 - log r`` with ``r = new / old`` (Schulman's k3), which takes them for the old policy's.

    Args:
        module: an RLModule, not wrapped.
        batches: minibatches of the module, as a Learner has them.
        across: brings several Learners together: all of them end with the same figures.
    """

    def __init__(self, module: Any, batches: Sequence[Mapping[str, Any]], across: Reduce) -> None:
        self._module, self._across = module, across
        self._batches = [dict(batch) for batch in batches]
        self._family = family_of_module(module)
        self._failed: Exception | None = None
        self._before: list[Outputs] = self._tried(self._outputs, [])

    def compare(self) -> PolicyChange:
        """Return how far the module has moved since.

        Raises:
            RunError: another Learner couldn't tell.
            Exception: whatever the module raised here, now or when this was made. A Learner that
                can't tell takes part even so: the others would wait for it for ever.
        """
        nothing: tuple[list[float], bool] = ([], False)
        sums, estimated = self._tried(self._all_sums, nothing)
        failures, *means = self._summed([float(self._failed is not None), *sums])
        if failures:
            raise self._failed or RunError(
                "Another Learner couldn't tell how far a mask update moves the policy. Its own "
                "message says why."
            )
        return _change(means, estimated=estimated)

    def _tried(self, measure: Callable[[], T], otherwise: T) -> T:
        """Return what is measured, or note what it raises."""
        if self._failed is not None:
            return otherwise
        try:
            return measure()
        except Exception as error:  # a user's own module runs here
            self._failed = error
            return otherwise

    def _all_sums(self) -> tuple[list[float], bool]:
        """Return the sums over all minibatches' rows, and whether the KL is a guess."""
        after = self._outputs()
        sums: list[float] = []
        estimated = False
        for batch, old, new in zip(self._batches, self._before, after, strict=True):
            row, guessed = self._sums(batch, old, new)
            estimated |= guessed
            sums = row if not sums else [a + b for a, b in zip(sums, row, strict=True)]
        return sums, estimated

    def _summed(self, sums: list[float]) -> list[float]:
        """Return the means over Learners, of which only shares are looked at."""
        # A Learner whose queue was empty has nothing to add, and yet must take part.
        parameter = next(self._module.parameters())
        kind = torch.float32 if parameter.device.type == "mps" else torch.float64
        given = torch.tensor([*sums, *[0.0] * (1 + _MOST - len(sums))], dtype=kind)
        (mean,) = self._across.mean([given.to(parameter.device)])
        return [float(x) for x in mean.tolist()]

    def _outputs(self) -> list[Outputs]:
        with torch.no_grad(), left_alone(self._module):
            return [self._of(batch) for batch in self._batches]

    def _of(self, batch: dict[str, Any]) -> Outputs:
        family, module = self._family, self._module
        if family.acts_by_values:
            q = family.policy(module, batch).inputs
            return Outputs(None, None, [_in_rows(q)])
        policy: Policy | None = None
        try:
            policy = family.policy(module, batch)
            distribution = policy.distribution
        except InputError:
            distribution = _own_distribution(module, batch)
        values = family.value_outputs(module, batch) if family.has_values(module) else []
        return Outputs(policy, distribution, [v.reshape(-1, 1) for v in values])

    def _sums(self, batch: dict[str, Any], old: Outputs, new: Outputs) -> tuple[list[float], bool]:
        """Return sums over a minibatch's rows: see `_change`; and whether the KL is a guess."""
        valid, guessed = valid_rows(batch), False
        sums = [0.0] * _BEFORE_VALUES
        kl: Tensor | None = None
        if old.policy is not None and new.policy is not None:
            kl = old.policy.divergence(_exact(old.policy.inputs), _exact(new.policy.inputs))
        elif old.distribution is not None:
            kl, guessed = _kl_of(old.distribution, new.distribution, batch)
        if kl is not None:
            kl = _kept(kl.reshape(-1, 1), valid)
            sums[0], sums[1] = float(kl.numel()), float(kl.sum().clamp(min=0.0))
        for first, second in zip(old.values, new.values, strict=True):
            before, after = _kept(_exact(first), valid), _kept(_exact(second), valid)
            if self._family.acts_by_values:
                sums[2] += float(len(before))
                sums[3] += float((before.argmax(-1) != after.argmax(-1)).sum())
            moved = float((after - before).abs().sum())
            sums += [*_moments(before), moved, *_moments(_targets(batch, valid, before))]
        return sums, guessed


_BEFORE_VALUES = 4
"""Sums over rows: how many have a KL, the KL, how many are judged by Q, and act otherwise."""
_VALUES = 7
"""Sums of each value net: numbers, their sum, sum of squares, sum of absolute changes; then the
first three of the targets that it is trained towards, zeros where a minibatch has none."""
_MOST = _BEFORE_VALUES + 64 * _VALUES
"""As many sums as every Learner hands over, one without rows too."""


def _change(sums: Sequence[float], *, estimated: bool) -> PolicyChange:
    """Return a change by its sums."""
    rows, kl, judged, other = sums[:_BEFORE_VALUES]
    values = sums[_BEFORE_VALUES:]
    shares = []
    for start in range(0, len(values), _VALUES):
        *own, moved = values[start : start + 4]
        if own[0]:
            # A young critic's own values hardly differ yet: any change would be a large share.
            variances = _variance(*own), _variance(*values[start + 4 : start + _VALUES])
            shares.append(moved / own[0] / math.sqrt(max(*variances, TINY_VARIANCE)))
    return PolicyChange(
        kl=kl / rows if rows else None,
        value_change=max(shares, default=None),
        greedy_changed=other / judged if judged else None,
        estimated=estimated,
    )


def _moments(numbers: Tensor | None) -> list[float]:
    """Return how many numbers there are, their sum and the sum of their squares."""
    if numbers is None:
        return [0.0, 0.0, 0.0]
    return [float(numbers.numel()), float(numbers.sum()), float(numbers.square().sum())]


def _variance(numbers: float, total: float, squares: float) -> float:
    return squares / numbers - (total / numbers) ** 2 if numbers else 0.0


def _targets(batch: Mapping[str, Any], valid: Tensor | None, values: Tensor) -> Tensor | None:
    """Return what a value net is trained towards in a minibatch; None where that isn't told."""
    held = batch.get(Columns.VALUE_TARGETS)
    if held is None or values.shape[-1] != 1:
        return None
    return _kept(_exact(held.reshape(-1, 1)), valid)


def _kl_of(old: Any, new: Any, batch: Mapping[str, Any]) -> tuple[Tensor | None, bool]:
    """Return KL(old || new) by row and whether it is estimated; None where nothing tells it."""
    try:
        return kl_between(old, new), False
    except (NotImplementedError, AttributeError, TypeError):
        pass
    try:
        log_ratio = new.logp(batch[Columns.ACTIONS]) - old.logp(batch[Columns.ACTIONS])
    except (NotImplementedError, AttributeError, TypeError, KeyError):
        return None, False
    return log_ratio.exp() - 1.0 - log_ratio, True


def _own_distribution(module: Any, batch: dict[str, Any]) -> Any:
    """Return the distribution of a user's own module; None where it gives none."""
    inputs = module.forward_train(batch).get(Columns.ACTION_DIST_INPUTS)
    return None if inputs is None else module.get_train_action_dist_cls().from_logits(inputs)


def _in_rows(q: Tensor) -> Tensor:
    return q.reshape(-1, q.shape[-1])


def _exact(tensor: Tensor) -> Tensor:
    """Return it in double precision, where the device has that: a KL of 1e-6 must be told."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def _kept(rows: Tensor, valid: Tensor | None) -> Tensor:
    return rows if valid is None else rows[valid]


@contextmanager
def left_alone(module: nn.Module) -> Iterator[None]:
    """Give running statistics, modes and torch's generator back as they were.

    Every forward under it draws the same numbers, so that policies differ by their weights alone.
    """
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices]):
        torch.manual_seed(0)
        try:
            yield
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)
            for part, mode in modes:
                part.training = mode
