"""Actors that Tune keeps for trials which pause at an exploit, by Ray 2.60's own means."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial


def controller_of(tune_controller: Any) -> Any:
    """Return Tune's controller itself; schedulers are given a wrapper that warns of its insides."""
    return getattr(tune_controller, "_tune_controller", tune_controller)


class KeptActors:
    """Trials that are entered as waiting so that they get their own actors back."""

    def __init__(self) -> None:
        self._trials: set[Trial] = set()

    def waits_for_slot(self, tune_controller: Any, trial: Trial) -> bool:
        """Whether a trial could run if another made room for it.

        Upstream counts those as well whose actor is just starting, or being handed over. Each
        report then pauses its trial, the trial that starts takes over the actor and has its own
        stopped, and the population runs one at a time (tune_controller.py:962).
        """
        if trial.status not in (Trial.PENDING, Trial.PAUSED) or trial in self._trials:
            return False
        controller = controller_of(tune_controller)
        actor = controller._trial_to_actor.get(trial)
        return actor not in controller._actor_manager._live_actors_to_ray_actors_resources

    def keep(self, tune_controller: Any, trial: Trial) -> None:
        """Let Tune cache the actor of a trial that is about to pause, and give it back to it.

        With ``reuse_actors`` Tune caches an actor only while some trial waits for one, which none
        does when every trial has its slot: each exploit would stop an actor and start another. So
        the trial is entered as waiting before it pauses (Ray 2.60, tune_controller.py:1081).
        """
        controller = controller_of(tune_controller)
        if controller._reuse_actors and trial not in controller._staged_trials:
            controller._staged_trials.add(trial)
            controller._actor_cache.increase_max(trial.placement_group_factory)
            self._trials.add(trial)

    def release(self, tune_controller: Any) -> None:
        """Take kept trials out of the waiting ones where no cached actor is left for them.

        Tune starts no actor for a trial that is entered as waiting, so without this it would wait
        for ever where its actor went to another trial, or died.
        """
        controller = controller_of(tune_controller)
        for trial in list(self._trials):
            if trial not in controller._staged_trials:
                self._trials.discard(trial)
            elif trial.is_finished() or (
                trial.status == Trial.PAUSED
                and trial not in controller._trial_to_actor  # else it is being handed its actor
                and not controller._actor_cache.has_cached_object(trial.placement_group_factory)
            ):
                self.forget(tune_controller, trial)

    def forget(self, tune_controller: Any, trial: Trial) -> None:
        """Enter a trial as waiting no longer, if it was by `keep`."""
        if trial not in self._trials:
            return
        self._trials.discard(trial)
        controller = controller_of(tune_controller)
        if trial in controller._staged_trials:
            controller._staged_trials.discard(trial)
            controller._actor_cache.decrease_max(trial.placement_group_factory)
