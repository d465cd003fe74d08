"""Which of the code that runs in a Learner's reach is neither RLlib's nor ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.utils import force_list

_KNOWN_PACKAGES: Final = frozenset(
    {"ray", "rayprune", "torch", "abc", "builtins", "typing", "collections"}
)

HARMLESS: Final = frozenset(
    {
        "compute_loss_for_module",
        "compute_losses",
        "configure_optimizers",
        "configure_optimizers_for_module",
        "rl_module_required_apis",
    }
)
"""Methods of a Learner that come before its gradients are known, or are seen by their result."""


def is_known(cls: type) -> bool:
    """Return whether a class is Ray's own, torch's or ours.

    RLlib's examples are what users' code looks like, and are taken for that.
    """
    module = cls.__module__
    return module.split(".")[0] in _KNOWN_PACKAGES and not module.startswith("ray.rllib.examples.")


def unknown_classes(cls: type) -> list[type]:
    """Return the classes of an MRO that aren't known and have a body."""
    return [base for base in _bases(cls) if not is_known(base) and _defined(base)]


def own_methods(learner_class: type) -> set[str]:
    """Return what a Learner's unknown classes define that may write gradients or weights.

    >>> from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
    >>> own_methods(PPOTorchLearner)
    set()
    """
    return users_methods(learner_class) - HARMLESS


def users_methods(learner_class: type) -> set[str]:
    """Return what a Learner's unknown classes define, whatever it does."""
    return {name for cls in unknown_classes(learner_class) for name in _defined(cls)}


def rllibs_own(learner_class: type, method: str) -> Any:
    """Return the method that a Learner has from RLlib, or from a user's class; never ours."""
    for cls in _bases(learner_class):
        if method in vars(cls) and cls.__module__.split(".")[0] != "rayprune":
            return vars(cls)[method]
    return None


def strangers(config: AlgorithmConfig, learner_class: type, modules: Iterable[Any]) -> list[str]:
    """Name all that may write a Learner's weights and can't be shown not to.

    Args:
        config: the algorithm's.
        learner_class: the pruning one.
        modules: its RLModules, not wrapped.
    """
    learners = [f"the Learner {c.__qualname__}" for c in unknown_classes(learner_class)]
    nets = [f"the RLModule {c.__qualname__}" for m in modules for c in unknown_classes(type(m))]
    algorithm = config.algo_class
    if isinstance(algorithm, type) and not is_known(algorithm):
        learners.append(f"the Algorithm {algorithm.__qualname__}")
    return list(dict.fromkeys([*learners, *nets, *unknown_callbacks(config)]))


def callback_classes(config: AlgorithmConfig) -> list[Any]:
    """Return a config's callback classes one by one, those that were composed into one too."""
    return [
        cls
        for held in force_list(config.callbacks_class)
        for cls in getattr(held, "classes", (held,))
    ]


def unknown_callbacks(config: AlgorithmConfig) -> list[str]:
    """Name the callbacks of a config that aren't ours."""
    classes = [cls for cls in callback_classes(config) if not _is_known_callback(cls)]
    functions = [
        function
        for slot, held in vars(config).items()
        if slot.startswith("callbacks_on_")
        for function in force_list(held)
        if not getattr(function, "__module__", "").startswith("rayprune.")
    ]
    return [f"the callback {_name_of(callback)}" for callback in [*classes, *functions]]


def _bases(cls: type) -> list[type]:
    # Ray makes a subclass of what becomes an actor, with all methods wrapped, and some of its own.
    return [base for base in cls.__mro__ if "__ray_actor_class__" not in vars(base)]


def _is_known_callback(callback: Any) -> bool:
    return isinstance(callback, type) and is_known(callback)


def _name_of(callback: Any) -> str:
    return str(getattr(callback, "__qualname__", callback))


def _defined(cls: type) -> list[str]:
    return list(_methods(cls))


def _methods(cls: type) -> Iterator[str]:
    for name, value in vars(cls).items():
        special = name.startswith("__") and name != "__init__"
        if not special and (
            callable(value) or isinstance(value, property | classmethod | staticmethod)
        ):
            yield name
