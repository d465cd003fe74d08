"""What a replay buffer counts, as plain numbers until its metrics are asked for."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
from ray.rllib.core import DEFAULT_AGENT_ID, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ACTUAL_N_STEP,
    AGENT_ACTUAL_N_STEP,
    AGENT_STEP_UTILIZATION,
    ENV_STEP_UTILIZATION,
    MODULE_ACTUAL_N_STEP,
    MODULE_STEP_UTILIZATION,
    NUM_ENV_STEPS_STORED,
    NUM_EPISODES_STORED,
)

_PATHS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "episodes stored": ((NUM_EPISODES_STORED,),),
    "steps stored": ((NUM_ENV_STEPS_STORED,),),
    "utilization": (
        (ENV_STEP_UTILIZATION,),
        (AGENT_STEP_UTILIZATION, DEFAULT_AGENT_ID),
        (MODULE_STEP_UTILIZATION, DEFAULT_MODULE_ID),
    ),
    "n-step": (
        (ACTUAL_N_STEP,),
        (AGENT_ACTUAL_N_STEP, DEFAULT_AGENT_ID),
        (MODULE_ACTUAL_N_STEP, DEFAULT_MODULE_ID),
    ),
}
"""Where RLlib's results have the means, by what is averaged."""
_STORED: Final = ("episodes stored", "steps stored")


class Tally:
    """Counts of one buffer since its metrics were last asked for.

    RLlib asks after each sample, and its results then average over samples. Asked once after many
    samples, this gives the same: sums over all of them, and the mean of each for itself.

    Args:
        window: how many additions a mean over additions without a sample goes back.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._stored: deque[tuple[int, int]] = deque(maxlen=window)
        """Episodes and steps stored after each addition since the last sample."""
        self._added: tuple[int, int]
        self._evicted: tuple[int, int]
        self._sampled: tuple[int, int, int, int]
        self._means: dict[str, list[Any]]
        self._clear()

    def note_added(
        self,
        *,
        stored: tuple[int, int],
        added: tuple[int, int],
        evicted: tuple[int, int],
    ) -> None:
        """Count one addition; each pair is of episodes and of steps."""
        self._stored.append(stored)
        self._additions += 1
        self._added = (self._added[0] + added[0], self._added[1] + added[1])
        self._evicted = (self._evicted[0] + evicted[0], self._evicted[1] + evicted[1])

    def note_sampled(
        self, *, items: int, episodes: int, steps: int, n_step: float, resamples: int
    ) -> None:
        """Count one sample.

        Args:
            items: transitions asked for.
            episodes: different ones among them.
            steps: different ones among them.
            n_step: mean of the steps between observations.
            resamples: transitions that lay too near to an episode's end, and were drawn again.
        """
        held = self._sampled
        self._sampled = (
            held[0] + items,
            held[1] + episodes,
            held[2] + steps,
            held[3] + resamples,
        )
        self._close()
        self._means["utilization"].append(np.float64(steps / items))
        self._means["n-step"].append(np.float64(n_step))

    def results(self, buffer: Any) -> Any:
        """Return a buffer's metrics as its ``get_metrics`` does, and begin anew."""
        if self._stored:
            self._close()
        self._log(buffer)
        results = buffer.metrics.reduce()
        for stats, means in self._stats(results):
            stats.values = means
        self._clear()
        return results

    def hand_over(self, buffer: Any) -> None:
        """Log what is counted with the buffer's own metrics, and begin anew."""
        self._log(buffer)
        for name, values in zip(_STORED, zip(*self._stored, strict=True), strict=False):
            self._means[name].extend(values)
        for stats, means in self._stats(buffer.metrics.stats):
            stats._set_values(means)
        self._clear()

    def take_over(self, buffer: Any) -> None:
        """Go on from what a buffer's own metrics have logged; its sums are added to later."""
        logged = {
            name: list(buffer.metrics.stats[path[0]].values)
            for name, (path, *_) in _PATHS.items()
            if path[0] in buffer.metrics.stats
        }
        stored = [logged.pop(name, []) for name in _STORED]
        self._stored.extend(zip(*stored, strict=True))
        self._means.update(logged)

    def _clear(self) -> None:
        self._additions = 0
        self._added = self._evicted = (0, 0)
        self._sampled = (0, 0, 0, 0)
        self._means = {name: [] for name in _PATHS}

    def _close(self) -> None:
        """Take the means of additions up to a sample; RLlib has NaN where there was none."""
        stored = np.array(self._stored or [(np.nan, np.nan)], np.float64)
        means = stored[0] if len(stored) == 1 else np.array([np.nanmean(own) for own in stored.T])
        for name, mean in zip(_STORED, means, strict=True):
            self._means[name].append(mean)
        self._stored.clear()

    def _log(self, buffer: Any) -> None:
        """Log sums; the means are put right afterwards."""
        if self._additions:
            buffer._update_add_metrics(**_named("added", self._added, "evicted", self._evicted))
        items, episodes, steps, resamples = self._sampled
        if items:
            buffer._update_sample_metrics(
                num_env_steps_sampled=items,
                num_episodes_per_sample=episodes,
                num_env_steps_per_sample=steps,
                sampled_n_step=self._means["n-step"][-1],
                num_resamples=resamples,
                **{
                    f"{whose}_to_{what}": {name: value}
                    for whose, name in _WHOSE
                    for what, value in (
                        ("num_steps_sampled", items),
                        ("num_episodes_per_sample", episodes),
                        ("num_steps_per_sample", steps),
                        ("sampled_n_step", self._means["n-step"][-1]),
                        ("num_resamples", resamples),
                    )
                },
            )

    def _stats(self, tree: Any) -> Any:
        """Yield RLlib's statistics that are means, each with what it is to average."""
        for name, paths in _PATHS.items():
            for path in paths if self._means[name] else ():
                stats = tree
                for key in path:
                    stats = stats[key]
                yield stats, list(self._means[name])


_WHOSE: Final = (("agent", DEFAULT_AGENT_ID), ("module", DEFAULT_MODULE_ID))


def _named(*pairs: Any) -> dict[str, Any]:
    """Return RLlib's arguments for counts of episodes and steps.

    >>> _named("added", (1, 5))["num_env_steps_added"]
    5
    """
    named: dict[str, Any] = {}
    for what, (episodes, steps) in zip(pairs[::2], pairs[1::2], strict=True):
        named[f"num_episodes_{what}"] = episodes
        named[f"num_env_steps_{what}"] = steps
        for whose, name in _WHOSE:
            named[f"{whose}_to_num_episodes_{what}"] = {name: episodes}
            named[f"{whose}_to_num_steps_{what}"] = {name: steps}
    return named
