"""One gradient step of one module by RLlib's own code, of which nobody else hears."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from rayprune.rllib.learner.updates.lean_updates import LeanUpdates


class _Unheard:
    """Takes whatever is logged, and forgets it."""

    def log_value(self, *args: Any, **how: Any) -> None:
        """Pass over a value."""

    def log_dict(self, *args: Any, **how: Any) -> None:
        """Pass over values."""


def rllibs_own_update(
    learner: Any,
    module_id: str,
    module: Any,
    batch: Any,
    on_gradients: Callable[[Mapping[Any, Tensor]], None],
    read: Callable[[Any], Tensor],
) -> Tensor:
    """Do one gradient step: RLlib's loss, gradients, clipping and optimizers, and no metrics.

    Args:
        learner: a Learner of ours.
        module_id: of the module.
        module: the RLModule, not wrapped.
        batch: the module's minibatch.
        on_gradients: may write the module's gradients, by parameter, before they are clipped.
        read: takes the loss as soon as it is computed, and returns what of it is wanted.

    Returns:
        What ``read`` has returned.
    """
    rllibs: Any = super(LeanUpdates, learner)
    config = learner.config.get_config_for_module(module_id)
    logged_to, learner.metrics = learner.metrics, _Unheard()
    try:
        loss = rllibs.compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=module.forward_train(batch)
        )
        wanted = read(loss)
        found = rllibs.compute_gradients({module_id: loss})
        gradients = {ref: gradient for ref, gradient in found.items() if gradient is not None}
        on_gradients(gradients)
        gradients = rllibs.postprocess_gradients_for_module(
            module_id=module_id, config=config, module_gradients_dict=gradients
        )
    finally:
        learner.metrics = logged_to
    for ref, gradient in gradients.items():
        learner._params[ref].grad = gradient
    for _, optimizer in learner.get_optimizers_for_module(module_id):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return wanted
