"""A step of fused Adam without what torch's optimizers do around the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer


@torch.no_grad()
def step(optimizer: Optimizer) -> None:
    """Do an optimizer's step; anything but plain fused Adam does it itself."""
    groups = [_Group(group, optimizer.state) for group in optimizer.param_groups]
    if not _is_plain(optimizer) or not all(group.is_plain for group in groups):
        optimizer.step()
        return
    for group in groups:
        group.step()


class _Group:
    """A param group of Adam.

    Args:
        options: the group as the optimizer has it.
        state: the optimizer's, by parameter.
    """

    def __init__(self, options: Mapping[str, Any], state: Mapping[Tensor, Any]) -> None:
        self._options = options
        self._parameters = [p for p in options["params"] if p.grad is not None]
        self._states: list[Any] = [state.get(parameter) for parameter in self._parameters]

    @property
    def is_plain(self) -> bool:
        """Whether there is state already, and nothing to decide."""
        options = self._options
        if not options.get("fused") or options["amsgrad"] or not all(self._states):
            return False
        numbers = (options["lr"], *options["betas"])
        alike = {(p.device, p.dtype, p.grad.is_sparse) for p in self._parameters}
        return all(isinstance(number, float) for number in numbers) and len(alike) <= 1

    def step(self) -> None:
        """Call the kernel."""
        if not self._parameters:
            return
        options, states = self._options, self._states
        steps = [held["step"] for held in states]
        torch._foreach_add_(steps, 1)
        decoupled = options.get("decoupled_weight_decay", False)
        kernel: Any = torch._fused_adamw_ if decoupled else torch._fused_adam_
        kernel(
            self._parameters,
            [parameter.grad for parameter in self._parameters],
            [held["exp_avg"] for held in states],
            [held["exp_avg_sq"] for held in states],
            [],
            steps,
            amsgrad=False,
            lr=options["lr"],
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            weight_decay=options["weight_decay"],
            eps=options["eps"],
            maximize=options["maximize"],
            grad_scale=None,
            found_inf=None,
        )


def _is_plain(optimizer: Optimizer) -> bool:
    """Whether nobody has changed or watches how an optimizer steps."""
    return (
        type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        and "step" not in vars(optimizer)
        and not optimizer._optimizer_step_pre_hooks
        and not optimizer._optimizer_step_post_hooks
        and not torch_optimizer._global_optimizer_pre_hooks
        and not torch_optimizer._global_optimizer_post_hooks
        # GradScaler's, and closures' of a differentiable step.
        and not hasattr(optimizer, "grad_scale")
    )
