"""Tune's driver without Ray: trials that run in the driver's own process.

`InProcess` takes the place of the ``RayActorManager`` of Ray 2.60's TuneController, so that a
population of any size is driven by Tune's and rayprune's own code, on one core and without a
cluster. What the trials take is counted, to be taken off; what Ray's messages take is not in it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest import mock

import ray
from ray import cloudpickle, tune
from ray.air.execution._internal import TrackedActor
from ray.train._internal import storage
from ray.train._internal.session import _FutureTrainingResult
from ray.tune.execution import tune_controller


def replace_actors(stack: contextlib.ExitStack, session: str) -> None:
    """Let Tune run without Ray until the stack is left.

    Args:
        stack: holds the patches.
        session: where Tune puts what Ray's session directory would hold.
    """
    for place, name, instead in (
        (tune_controller, "RayActorManager", InProcess),
        (tune_controller, "_ActorClassCache", lambda: mock.Mock(get=lambda cls: cls)),
        (_FutureTrainingResult, "resolve", lambda self, block=True: self.future),
        (tune.tune, "_ray_auto_init", lambda entrypoint: None),
        (storage, "_get_ray_train_session_dir", lambda: session),
        (ray, "cluster_resources", lambda: {"CPU": float(InProcess.slots)}),
    ):
        stack.enter_context(mock.patch.object(place, name, instead))


class Handle:
    """What Tune takes for an actor."""

    def __init__(self, trainable: Any) -> None:
        self.trainable = trainable
        self.get_auto_filled_metrics = mock.Mock(remote=trainable.get_auto_filled_metrics)


class InProcess:
    """Starts trials where they are asked for, and tells Tune of their results one by one.

    A method runs when it is asked for; its result waits until all that was there before has been
    told, so that no trial is ahead of the others by more than one.
    """

    slots = 8
    """How many live at once."""
    trials_s = 0.0
    """CPU time of the trials themselves, and of copying what they are sent and send."""

    def __init__(self, resource_manager: object) -> None:
        del resource_manager
        self._waiting: deque[tuple[TrackedActor, type, dict[str, Any]]] = deque()
        self._events: deque[tuple[TrackedActor, Callable[[], object]]] = deque()
        self._started: set[TrackedActor] = set()
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Handle, None]] = {}

    def next(self, timeout: float | None = None) -> bool:
        """Start what there is room for; tell of one event."""
        while self._waiting and self.num_live_actors < self.slots:
            actor, cls, kwargs = self._waiting.popleft()
            handle = Handle(_timed(lambda cls=cls, kwargs=kwargs: cls(**_copied(kwargs))))
            self._live_actors_to_ray_actors_resources[actor] = (handle, None)
            self._events.append((actor, lambda actor=actor: self._start(actor)))
        if not self._events:
            time.sleep(timeout or 0)
            return False
        self._events.popleft()[1]()
        return True

    def _start(self, actor: TrackedActor) -> None:
        self._started.add(actor)
        actor._on_start(actor)

    def add_actor(
        self, cls: type, kwargs: dict[str, Any], resource_request: object, **callbacks: Any
    ) -> TrackedActor:
        """Start one as soon as there is room."""
        actor = TrackedActor(uuid.uuid4().int, **callbacks)
        self._waiting.append((actor, cls, kwargs))
        return actor

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        on_result: Callable[[TrackedActor, Any], None] | None = None,
        **options: object,
    ) -> Any:
        """Run a method of one; return its result where Tune expects a future."""
        handle, _ = self._live_actors_to_ray_actors_resources[tracked_actor]

        def work() -> Any:
            given, named = _copied((args or (), kwargs or {}))
            return _copied(getattr(handle.trainable, method_name)(*given, **named))

        result = _timed(work)
        if on_result is not None:
            self._events.append((tracked_actor, lambda: on_result(tracked_actor, result)))
        return result

    def remove_actor(self, tracked_actor: TrackedActor, **options: object) -> bool:
        """End one; return whether it lived."""
        lived = self._live_actors_to_ray_actors_resources.pop(tracked_actor, None) is not None
        self.clear_actor_task_futures(tracked_actor)
        self._waiting = deque(held for held in self._waiting if held[0] != tracked_actor)
        if tracked_actor in self._started and tracked_actor._on_stop is not None:
            self._events.append((tracked_actor, lambda: tracked_actor._on_stop(tracked_actor)))
        return lived

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """Forget what one has to tell."""
        self._events = deque(held for held in self._events if held[0] != tracked_actor)

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Whether it lives."""
        return tracked_actor in self._live_actors_to_ray_actors_resources

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """None does."""
        return False

    @property
    def num_live_actors(self) -> int:
        """How many live."""
        return len(self._live_actors_to_ray_actors_resources)

    @property
    def num_pending_actors(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    @property
    def num_total_actors(self) -> int:
        """Both."""
        return self.num_live_actors + self.num_pending_actors

    @property
    def num_actor_tasks(self) -> int:
        """How many events wait to be told."""
        return len(self._events)

    def get_live_actors_resources(self) -> dict[str, float]:
        """What the living ones hold."""
        return {"CPU": float(self.num_live_actors)}

    def cleanup(self) -> None:
        """Forget all."""
        self._events.clear()
        self._live_actors_to_ray_actors_resources.clear()


def _copied(value: Any) -> Any:
    """Return a copy, which is what an actor gets and gives."""
    return cloudpickle.loads(cloudpickle.dumps(value))


def _timed(work: Callable[[], Any]) -> Any:
    begun = time.process_time()
    try:
        return work()
    finally:
        InProcess.trials_s += time.process_time() - begun
