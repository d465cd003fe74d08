"""Our callbacks beside the user's: first, last, and where a replaced one would be missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils import force_list
from ray.rllib.utils.serialization import serialize_type

from rayprune.rllib.actors.learners import foreach_learner
from rayprune.rllib.callback import PruningCallback
from rayprune.rllib.settings.config_changes import check_composed
from rayprune.rllib.settings.foreign_code import callback_classes, unknown_callbacks


class Callbacks:
    """Makes one callback of several classes, in their order.

    A list would do for RLlib, but for `AlgorithmConfig.serialize`, which asks for a name.

    >>> from ray.rllib.utils.serialization import serialize_type
    >>> serialize_type(Callbacks([PruningCallback, RLlibCallback]))
    'rayprune.rllib.callback.PruningCallback, ray.rllib.callbacks.callbacks.RLlibCallback'
    """

    def __init__(self, classes: Iterable[Any]) -> None:
        self.classes = tuple(classes)
        names = ", ".join(map(_name_of, self.classes))
        self.__module__, _, self.__qualname__ = names.partition(".")

    def __call__(self) -> RLlibCallback:
        """Make one of each."""
        return _Several([cls() for cls in self.classes])


def _name_of(callback: Any) -> str:
    # Any callable will do that makes a callback: a functools.partial has no name.
    return serialize_type(callback if hasattr(callback, "__qualname__") else type(callback))


class _Several(RLlibCallback):
    """Passes every call on; its methods are made below."""

    def __init__(self, callbacks: Iterable[RLlibCallback]) -> None:
        self.callbacks = list(callbacks)


def _to_each(name: str) -> Callable[..., None]:
    def call_each(self: _Several, *args: Any, **kwargs: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(*args, **kwargs)

    return call_each


for _name in dir(RLlibCallback):
    if _name.startswith("on_"):
        setattr(_Several, _name, _to_each(_name))


def compose(config: AlgorithmConfig) -> None:
    """Set our callbacks beside those that a config has; doing it twice changes nothing."""
    classes = [cls for cls in callback_classes(config) if cls is not RLlibCallback]
    if not any(isinstance(cls, type) and issubclass(cls, PruningCallback) for cls in classes):
        # Ours first: the user's own then find our part in the result.
        classes = [PruningCallback, *classes]
    config.callbacks(
        # RLlib takes any callable that makes a callback.
        callbacks_class=classes[0] if len(classes) == 1 else Callbacks(classes),  # type: ignore[arg-type]
        # Functions run after all classes, and outlive a later `.callbacks(...)`.
        on_algorithm_init=_once(check_algorithm, config.callbacks_on_algorithm_init, last=False),
        on_train_result=_once(mask_after_callbacks, config.callbacks_on_train_result, last=True),
    )


def check_algorithm(*, algorithm: Algorithm, **_: Any) -> None:
    """Refuse an algorithm from whose config our parts have gone."""
    assert algorithm.config is not None
    check_composed(algorithm.config)


def mask_after_callbacks(*, algorithm: Algorithm, **_: Any) -> None:
    """Mask once more what the user's callbacks may have written, after the last of them."""
    assert algorithm.config is not None
    if unknown_callbacks(algorithm.config):
        foreach_learner(algorithm, lambda learner: learner.mask_weights())


def _once(ours: Callable[..., Any], held: Any, *, last: bool) -> list[Callable[..., Any]]:
    others = [function for function in force_list(held) if function is not ours]
    return [*others, ours] if last else [ours, *others]
