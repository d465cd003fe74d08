"""Learners and callbacks as users of RLlib write them, none of them with rayprune in mind."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.callbacks.callbacks import RLlibCallback


def _parameters(learner: Any) -> list[torch.nn.Parameter]:
    return [p for module in learner.module.values() for p in module.parameters() if p.requires_grad]


class Noise(PPOTorchLearner):
    """Adds noise to gradients."""

    def postprocess_gradients(self, gradients_dict: Any) -> Any:
        gradients = super().postprocess_gradients(gradients_dict)
        return {key: g + 1e-3 * torch.randn_like(g) for key, g in gradients.items()}


class NoiseInModule(PPOTorchLearner):
    """Adds noise module by module."""

    def postprocess_gradients_for_module(self, **kwargs: Any) -> Any:
        gradients = super().postprocess_gradients_for_module(**kwargs)
        return {k: None if g is None else g + 1e-3 for k, g in gradients.items()}


class Centralised(PPOTorchLearner):
    """Takes each row's mean from its gradients (Yong et al. 2020), just before the step."""

    def apply_gradients(self, gradients_dict: Any) -> None:
        for gradient in gradients_dict.values():
            if gradient is not None and gradient.dim() > 1:
                gradient.sub_(gradient.mean(dim=1, keepdim=True))
        super().apply_gradients(gradients_dict)


class OtherGradients(PPOTorchLearner):
    """Computes gradients of its own kind: their signs."""

    def compute_gradients(self, loss_per_module: Any, **kwargs: Any) -> Any:
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        return {k: None if g is None else torch.sign(g) + 1e-4 for k, g in gradients.items()}


class ShrinkAndPerturb(PPOTorchLearner):
    """Ash & Adams 2020: weights shrink and are perturbed after each step."""

    def apply_gradients(self, gradients_dict: Any) -> None:
        super().apply_gradients(gradients_dict)
        with torch.no_grad():
            for parameter in _parameters(self):
                parameter.mul_(0.999).add_(1e-4 * torch.randn_like(parameter))


class TowardsStart(PPOTorchLearner):
    """L2-init (Kumar et al. 2023) as a step of its own at the end of an update."""

    def build(self) -> None:
        super().build()
        self.first = [p.detach().clone() for p in _parameters(self)]

    def after_gradient_based_update(self, *, timesteps: Any) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        with torch.no_grad():
            for parameter, first in zip(_parameters(self), self.first, strict=True):
                parameter.lerp_(first, 0.01)


class Averaged(PPOTorchLearner):
    """Keeps an exponential average of the weights and goes on from it."""

    def after_gradient_based_update(self, *, timesteps: Any) -> None:
        mean = [p.detach().clone() + 1e-3 for p in _parameters(self)]
        with torch.no_grad():
            for parameter, held in zip(_parameters(self), mean, strict=True):
                parameter.copy_(held)
        super().after_gradient_based_update(timesteps=timesteps)


class SharedOptimizer(PPOTorchLearner):
    """One Adam for all modules."""

    def configure_optimizers(self) -> None:
        parameters = [p for m in self.module.values() for p in m.parameters()]
        self.register_optimizer(
            optimizer_name="shared",
            optimizer=torch.optim.Adam(parameters),
            params=parameters,
            lr_or_lr_schedule=1e-3,
        )


class _OwnOptimizer(PPOTorchLearner):
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        parameters = list(self.module[module_id].parameters())
        self.register_optimizer(
            module_id=module_id,
            optimizer=self.make(parameters),
            params=parameters,
            lr_or_lr_schedule=1e-3,
        )

    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        raise NotImplementedError


class Momentum(_OwnOptimizer):
    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)


class RMSprop(_OwnOptimizer):
    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, 1e-3, momentum=0.9, centered=True)


class NAdam(_OwnOptimizer):
    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.NAdam(parameters, 1e-3)


class Adafactor(_OwnOptimizer):
    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(parameters, 1e-3)


class Stepwise(_OwnOptimizer):
    """An optimizer class of the user's own."""

    class Signs(torch.optim.Optimizer):
        def __init__(self, parameters: Any, lr: float) -> None:
            super().__init__(parameters, {"lr": lr})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.sub_(group["lr"] * (parameter.grad.sign() + 0.1))

    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return self.Signs(parameters, 1e-3)


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


class NoisyDQN(DQNTorchLearner):
    def postprocess_gradients(self, gradients_dict: Any) -> Any:
        gradients = super().postprocess_gradients(gradients_dict)
        return {k: None if g is None else g + 1e-3 for k, g in gradients.items()}


class PerturbedSAC(SACTorchLearner):
    def after_gradient_based_update(self, *, timesteps: Any) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        with torch.no_grad():
            for parameter in _parameters(self):
                parameter.add_(1e-4)


class WeightEdits(RLlibCallback):
    """Changes the Learners' weights between two iterations."""

    def on_train_result(self, *, algorithm: Any, result: Any, **kwargs: Any) -> None:
        def edit(learner: Any) -> None:
            with torch.no_grad():
                for parameter in _parameters(learner):
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
