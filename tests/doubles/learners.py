"""Learners as users write them: they change gradients and weights wherever RLlib lets them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback


def with_noise(gradients: dict[Any, Any]) -> dict[Any, Any]:
    return {p: None if g is None else g + 1e-3 * torch.randn_like(g) for p, g in gradients.items()}


def trained(learner: Any) -> list[torch.nn.Parameter]:
    """Return the parameters that aren't frozen."""
    return [p for module in learner.module.values() for p in module.parameters() if p.requires_grad]


def perturb(learner: Any) -> None:
    """Shrink and perturb (arXiv:1910.08475)."""
    for parameter in trained(learner):
        parameter.data.mul_(0.999).add_(1e-4 * torch.randn_like(parameter))


class Plain(PPOTorchLearner):
    """Computes a loss of its own, and writes nothing."""

    def compute_loss_for_module(self, **kwargs: Any) -> Any:
        return 2.0 * super().compute_loss_for_module(**kwargs)


class NoiseAfterClipping(PPOTorchLearner):
    def postprocess_gradients(self, gradients_dict: Any) -> Any:
        return with_noise(super().postprocess_gradients(gradients_dict))


class NoiseOfEachRank(NoiseAfterClipping):
    """Two of it come apart."""

    def build(self) -> None:
        super().build()
        torch.manual_seed(os.getpid())


class NoiseBeforeClipping(PPOTorchLearner):
    def postprocess_gradients_for_module(self, *, module_gradients_dict: Any, **kw: Any) -> Any:
        noisy = with_noise(module_gradients_dict)
        return super().postprocess_gradients_for_module(module_gradients_dict=noisy, **kw)


class Centralising(PPOTorchLearner):
    def compute_gradients(self, loss_per_module: Any, **kwargs: Any) -> Any:
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        return {p: g - g.mean() for p, g in gradients.items()}


class Expanding(PPOTorchLearner):
    def compute_gradients(self, loss_per_module: Any, **kwargs: Any) -> Any:
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        return {p: g.mean().expand_as(g) for p, g in gradients.items()}


class Signs(PPOTorchLearner):
    """Computes gradients of its own kind."""

    def compute_gradients(self, loss_per_module: Any, **kwargs: Any) -> Any:
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        return {p: None if g is None else torch.sign(g) + 1e-4 for p, g in gradients.items()}


class CentralisingRows(PPOTorchLearner):
    """Takes each row's mean from its gradients, just before the step (arXiv:2004.01461)."""

    def apply_gradients(self, gradients_dict: Any) -> None:
        for gradient in gradients_dict.values():
            if gradient is not None and gradient.dim() > 1:
                gradient.sub_(gradient.mean(dim=1, keepdim=True))
        super().apply_gradients(gradients_dict)


class Replacing(PPOTorchLearner):
    def apply_gradients(self, gradients_dict: Any) -> None:
        super().apply_gradients({p: torch.ones_like(g) for p, g in gradients_dict.items()})


class StepByHand(PPOTorchLearner):
    def apply_gradients(self, gradients_dict: Any) -> None:
        for parameter, gradient in gradients_dict.items():
            parameter.data.sub_(1e-3 * (gradient + torch.randn_like(gradient)))


class ShrinkAndPerturb(PPOTorchLearner):
    def apply_gradients(self, gradients_dict: Any) -> None:
        super().apply_gradients(gradients_dict)
        perturb(self)


class PerturbedAfterwards(PPOTorchLearner):
    def after_gradient_based_update(self, *, timesteps: Any) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        perturb(self)


class PerturbedBefore(PPOTorchLearner):
    def before_gradient_based_update(self, *, timesteps: Any) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        perturb(self)


class PerturbedAround(PPOTorchLearner):
    def update(self, *args: Any, **kwargs: Any) -> Any:
        result = super().update(*args, **kwargs)
        perturb(self)
        return result


class TowardsItsStart(PPOTorchLearner):
    """L2 regularisation towards the initial weights (arXiv:2308.11958)."""

    def build(self) -> None:
        super().build()
        self.start = {p: p.detach().clone() for p in self._params}

    def apply_gradients(self, gradients_dict: Any) -> None:
        super().apply_gradients(gradients_dict)
        for parameter, start in self.start.items():
            parameter.data.lerp_(start, 0.01)


class Averaged(PPOTorchLearner):
    """Keeps copies of the weights and goes on from them."""

    def after_gradient_based_update(self, *, timesteps: Any) -> None:
        for parameter in trained(self):
            parameter.data.copy_(parameter.detach().clone() + 1e-3)
        super().after_gradient_based_update(timesteps=timesteps)


class OwnInnerUpdate(PPOTorchLearner):
    def _uncompiled_update(self, batch: Any, **kwargs: Any) -> Any:
        outputs = self.module.forward_train(batch)
        losses = self.compute_losses(fwd_out=outputs, batch=batch)
        self.apply_gradients(with_noise(self.compute_gradients(losses)))
        return outputs, losses, {}


class SharedOptimizer(PPOTorchLearner):
    """One optimizer for all modules, as RLlib's VPG example has it."""

    def configure_optimizers(self) -> None:
        parameters = [p for module in self.module.values() for p in module.parameters()]
        self.register_optimizer(
            optimizer_name="shared",
            optimizer=torch.optim.Adam(parameters),
            params=parameters,
            lr_or_lr_schedule=1e-3,
        )


class TwoOptimizers(PPOTorchLearner):
    """Halves of one module's parameters in optimizers of their own."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        parameters = list(self.module[module_id].parameters())
        half = len(parameters) // 2
        for name, part in (("one", parameters[:half]), ("two", parameters[half:])):
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(part, eps=1e-5),
                params=part,
                lr_or_lr_schedule=1e-3,
            )


class UnregisteredOptimizer(PPOTorchLearner):
    def build(self) -> None:
        super().build()
        self.mine = torch.optim.SGD(list(self._params), lr=1e-3, momentum=0.9)

    def apply_gradients(self, gradients_dict: Any) -> None:
        for parameter, gradient in with_noise(gradients_dict).items():
            parameter.grad = gradient
        self.mine.step()


def stepping_with(
    make: Callable[[list[Any]], torch.optim.Optimizer], base: type = PPOTorchLearner
) -> type:
    """A Learner with an optimizer of its own."""

    class Own(base):  # type: ignore[misc]
        def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
            parameters = list(self.module[module_id].parameters())
            self.register_optimizer(
                module_id=module_id,
                optimizer=make(parameters),
                params=parameters,
                lr_or_lr_schedule=1e-3,
            )

    return Own


class Lion(torch.optim.Optimizer):
    """Steps by the sign of a momentum (arXiv:2302.06675)."""

    def __init__(self, parameters: Any, lr: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.add_(torch.sign(0.9 * momentum + 0.1 * p.grad), alpha=-group["lr"])
                momentum.lerp_(p.grad, 0.01)


class Orthogonal(torch.optim.Optimizer):
    """Steps by an orthogonalised momentum, as Muon does: each weight moves by all others."""

    def __init__(self, parameters: Any, lr: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(0.9).add_(p.grad)
                if p.dim() == 2:
                    left, _, right = torch.linalg.svd(momentum, full_matrices=False)
                    p.add_(left @ right, alpha=-group["lr"])
                else:
                    p.add_(momentum, alpha=-group["lr"])


class ByLbfgs(stepping_with(lambda ps: torch.optim.LBFGS(ps, lr=0.1, max_iter=2))):  # type: ignore[misc]
    """Steps with a closure, which computes gradients that nobody masks."""

    def _uncompiled_update(self, batch: Any, **kwargs: Any) -> Any:
        self._batch = batch
        return super()._uncompiled_update(batch, **kwargs)

    def apply_gradients(self, gradients_dict: Any) -> None:
        for optimizer in self._optimizer_parameters:
            optimizer.step(self._closure)

    def _closure(self) -> Any:
        for optimizer in self._optimizer_parameters:
            optimizer.zero_grad()
        outputs = self.module.forward_train(self._batch)
        loss = sum(self.compute_losses(fwd_out=outputs, batch=self._batch).values())
        loss.backward()
        return loss


class NoisyDQN(DQNTorchLearner):
    def postprocess_gradients(self, gradients_dict: Any) -> Any:
        return with_noise(super().postprocess_gradients(gradients_dict))


class PerturbedSAC(SACTorchLearner):
    def after_gradient_based_update(self, *, timesteps: Any) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        perturb(self)


class WeightEdits(RLlibCallback):
    """Changes the Learners' weights between two iterations."""

    def on_train_result(self, *, algorithm: Any, result: Any, **kwargs: Any) -> None:
        def edit(learner: Any) -> None:
            with torch.no_grad():
                for parameter in trained(learner):
                    parameter.add_(1e-3)

        algorithm.learner_group.foreach_learner(edit)


class Unfreezes(RLlibCallback):
    """Thaws a frozen body after the first iteration."""

    def on_train_result(self, *, algorithm: Any, result: Any, **kwargs: Any) -> None:
        def thaw(learner: Any) -> None:
            learner.module["default_policy"].unwrapped().net.requires_grad_(True)

        algorithm.learner_group.foreach_learner(thaw)


class Freezes(RLlibCallback):
    """Freezes the body after the second iteration."""

    def on_train_result(self, *, algorithm: Any, result: Any, **kwargs: Any) -> None:
        def freeze(learner: Any) -> None:
            learner.module["default_policy"].unwrapped().net.requires_grad_(False)

        if result["training_iteration"] >= 2:
            algorithm.learner_group.foreach_learner(freeze)


WRITING: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        NoiseAfterClipping,
        NoiseBeforeClipping,
        Centralising,
        CentralisingRows,
        Signs,
        Expanding,
        Replacing,
        StepByHand,
        ShrinkAndPerturb,
        PerturbedAfterwards,
        PerturbedBefore,
        PerturbedAround,
        TowardsItsStart,
        Averaged,
        OwnInnerUpdate,
        UnregisteredOptimizer,
        ByLbfgs,
    )
} | {
    "OrthogonalAndNoise": stepping_with(Orthogonal, NoiseAfterClipping),
    "LionAndNoise": stepping_with(Lion, NoiseAfterClipping),
}
"""Learners that write gradients or weights, by name."""

STEPPING: dict[str, type] = {
    "SharedOptimizer": SharedOptimizer,
    "RMSprop": stepping_with(lambda ps: torch.optim.RMSprop(ps, momentum=0.9)),
    "decaying SGD": stepping_with(
        lambda ps: torch.optim.SGD(ps, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=0.01)
    ),
    "Lion": stepping_with(Lion),
    "Orthogonal": stepping_with(Orthogonal),
    "Adagrad": stepping_with(torch.optim.Adagrad),
    "NAdam": stepping_with(torch.optim.NAdam),
    "Adafactor": stepping_with(torch.optim.Adafactor),
    "TwoOptimizers": TwoOptimizers,
}
"""Learners that differ by their optimizers."""
