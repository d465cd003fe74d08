"""References to parameters, the optimizers' and DDP's too, when others take their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchDDPRLModule
from torch import Tensor, nn
from torch.optim import Optimizer

from rayprune.rllib.learner.optimizers import optimizers_of

Pick = Callable[[str, Tensor], Tensor]
"""Takes what is left out of a tensor shaped like the parameter of that name."""


def swap_parameters(
    learner: Any, module_id: str, before: Mapping[str, nn.Parameter], pick: Pick | None = None
) -> None:
    """Give optimizers, the Learner and DDP a module's parameters of now for those of before.

    Args:
        learner: any torch Learner of RLlib.
        module_id: whose parameters.
        before: them by full name, as the books have them.
        pick: for the optimizers' state; None forgets it, because another is to be loaded.
    """
    module = learner.module[module_id].unwrapped()
    after = dict(module.named_parameters())
    new = {old: (name, after[name]) for name, old in before.items() if after[name] is not old}
    if not new:
        return
    for optimizer in optimizers_of(learner, module_id, before.values()):
        _swap_in_optimizer(optimizer, new, pick)
        if optimizer in learner._optimizer_parameters:
            # What RLlib's own registration writes, for parameters are their own references.
            learner._optimizer_parameters[optimizer] = _swapped(
                learner._optimizer_parameters[optimizer], new
            )
    learner._params = {ref: ref for ref in _swapped(learner._params, new)}
    if isinstance(learner.module[module_id], TorchDDPRLModule):
        # DDP's buckets and hooks are those of the parameters that it was made with.
        wrapped = TorchDDPRLModule(module, **learner.config.torch_ddp_kwargs)
        learner.module.add_module(module_id, wrapped, override=True)


def _swap_in_optimizer(
    optimizer: Optimizer, new: Mapping[Any, tuple[str, nn.Parameter]], pick: Pick | None
) -> None:
    for group in optimizer.param_groups:
        group["params"] = _swapped(group["params"], new)
    if isinstance(optimizer, torch.optim.LBFGS):
        # Its curvature is of all parameters together, and so is where it keeps it.
        optimizer.state.clear()
        optimizer._params, optimizer._numel_cache = optimizer.param_groups[0]["params"], None
    for old, (name, parameter) in new.items():
        held = optimizer.state.pop(old, None)
        if held is not None and pick is not None:
            optimizer.state[parameter] = {
                key: pick(name, value) if _is_like(value, old) else value
                for key, value in held.items()
            }


def _is_like(value: Any, parameter: Tensor) -> bool:
    # A parameter of one element is told apart from a count of steps by its number of dimensions.
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def _swapped(parameters: Iterable[Any], new: Mapping[Any, tuple[str, nn.Parameter]]) -> list[Any]:
    return [new[ref][1] if ref in new else ref for ref in parameters]
