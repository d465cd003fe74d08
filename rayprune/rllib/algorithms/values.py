"""What an RLModule's value outputs are, and what they should have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

# Below it, targets count as constant: an error can't be told as a share of their variance.
TINY_VARIANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Values:
    """Value outputs in one minibatch, with their targets."""

    outputs: list[Tensor]
    """One for each value net; each ``(rows,)``, or ``(rows, time)``."""
    targets: Tensor
    """Detached, likewise."""

    def error(self, valid: Tensor | None) -> Tensor:
        """Return half the mean squared error, as a share of the targets' variance; a scalar."""
        targets = _rows(self.targets, valid)
        spread = targets.var(unbiased=False).clamp(min=TINY_VARIANCE)
        errors = [(_rows(output, valid) - targets).square().mean() for output in self.outputs]
        return 0.5 * torch.stack(errors).sum() / spread


def values_by_api(
    module: Any, batch: dict[str, Any], config: Any, embeddings: Any = None
) -> Values:
    """Return what a module's `ValueFunctionAPI` gives, with targets.

    PPO's targets are its own (GAE); of APPO and IMPALA, whose targets lie within their loss, they
    are rewards plus the next value.

    Args:
        module: one with that API.
        batch: a minibatch as a Learner has it.
        config: the algorithm's.
        embeddings: what the policy's forward pass left for the value head.
    """
    values = module.compute_values(batch, embeddings=embeddings)
    if Postprocessing.VALUE_TARGETS in batch:
        return Values([values], batch[Postprocessing.VALUE_TARGETS].view_as(values))
    following = torch.cat([values.flatten()[1:], values.flatten()[-1:]]).view_as(values).detach()
    return Values([values], bootstrapped(batch, following, config.gamma))


def bootstrapped(batch: dict[str, Any], following: Tensor, gamma: float) -> Tensor:
    """Return rewards plus the discounted value of what follows."""
    goes_on = 1.0 - batch[Columns.TERMINATEDS].to(following.dtype).view_as(following)
    n_step = batch.get("n_step")
    discount: Any = gamma if n_step is None else gamma ** n_step.view_as(following)
    rewards = batch[Columns.REWARDS].to(following.dtype).view_as(following)
    targets: Tensor = rewards + discount * goes_on * following
    return targets.detach()


def of_actions(q: Any, batch: dict[str, Any]) -> Tensor:
    """Return the Q-values of the actions that were taken, shape ``(rows,)`` or ``(rows, time)``."""
    actions = batch[Columns.ACTIONS].long()
    chosen: Tensor = q.gather(-1, actions.view(*q.shape[:-1], 1)).squeeze(-1)
    return chosen


def side_by_side(outputs: Sequence[Tensor]) -> Tensor:
    """Return the outputs of several value nets as one tensor, ``(rows, nets)``."""
    return torch.stack([output.flatten() for output in outputs], dim=-1)


def _rows(values: Tensor, valid: Tensor | None) -> Tensor:
    return values.flatten() if valid is None else values.flatten()[valid]
