"""VecNormalize's statistics, which Stable-Baselines3 saves in a file beside a policy's zip."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayprune.deploy.policy.interface import Array
from rayprune.errors import CheckpointError, InputError, first_line
from rayprune.policies.sb3.unpickling import load_inert, stands_for

KIND: Final = "stable_baselines3.common.vec_env.vec_normalize.VecNormalize"
_STATISTICS: Final = "stable_baselines3.common.running_mean_std.RunningMeanStd"
_NAMES: Final = (
    "{stem}_vecnormalize.pkl",
    "{stem}.vecnormalize.pkl",
    "{stem}/vecnormalize.pkl",  # rl-zoo3
    "vecnormalize.pkl",
    "vec_normalize.pkl",  # Stable-Baselines3's own examples
)
"""Where statistics are looked for, beside a zip."""
_CHECKPOINT: Final = re.compile(r"(?P<name>.+)_(?P<steps>\d+)_steps")
"""How Stable-Baselines3's ``CheckpointCallback`` calls a zip."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How observations are centred and scaled: ``clip((x - mean) / std)``."""

    statistics: Mapping[str | None, tuple[Array, Array]]
    """By key of a Dict observation, or None for any other: float64 mean and std."""
    clip: float | None

    def apply(self, observations: Any) -> Any:
        """Normalise a batch of observations in NumPy, as Stable-Baselines3 does."""
        if isinstance(observations, Mapping):
            return {key: self._one(key, values) for key, values in observations.items()}
        return self._one(None, observations)

    def _one(self, key: str | None, values: Array) -> Array:
        held = self.statistics.get(key)
        if held is None:
            return values
        mean, std = held
        scaled: Array = (values - mean) / std
        scaled = scaled if self.clip is None else np.clip(scaled, -self.clip, self.clip)
        return scaled.astype(np.float32)


def beside(policy: Path) -> Path | None:
    """Return the file of statistics that lies beside a policy's, None if there is none."""
    names = [name.format(stem=policy.stem) for name in _NAMES]
    checkpoint = _CHECKPOINT.fullmatch(policy.stem)
    if checkpoint is not None:
        names.insert(0, "{name}_vecnormalize_{steps}_steps.pkl".format(**checkpoint.groupdict()))
    places = (policy.parent / name for name in names)
    return next((place for place in places if place.is_file()), None)


def load_normalisation(path: Path) -> Normalisation | None:
    """Read what ``VecNormalize.save`` wrote; no code of the file is run.

    Args:
        path: the file.

    Returns:
        None where it normalises rewards alone.

    Raises:
        InputError: there is no such file.
        CheckpointError: it isn't VecNormalize's, or lacks something.
    """
    if not path.is_file():
        raise InputError(f"There is no file of VecNormalize {str(path)!r}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{str(path)!r} can't be read: {first_line(error)}.") from error
    odd = (
        f"{str(path)!r} isn't what `VecNormalize.save` writes. Give that as `--normalise`, or "
        "`none`."
    )
    try:
        held = load_inert(content, f"VecNormalize's file {str(path)!r}")
    except CheckpointError as error:
        raise CheckpointError(odd) from error
    if stands_for(held) != KIND:
        raise CheckpointError(odd)
    state = vars(held)
    if not state.get("norm_obs"):
        return None
    try:
        clip = float(state["clip_obs"])
        statistics = dict(_statistics(state))
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{str(path)!r} lacks what VecNormalize normalises by: {first_line(error)}. Save it "
            "once more by `VecNormalize.save`."
        ) from error
    return Normalisation(statistics, clip if np.isfinite(clip) else None)


def _statistics(state: Mapping[str, Any]) -> Iterator[tuple[str | None, tuple[Array, Array]]]:
    held = state["obs_rms"]
    for key, one in held.items() if isinstance(held, dict) else ((None, held),):
        if stands_for(one) != _STATISTICS:
            raise CheckpointError(f"VecNormalize's file lacks the statistics of {key or 'obs'!r}.")
        mean, var = (np.asarray(vars(one)[name], np.float64) for name in ("mean", "var"))
        yield key, (mean, np.sqrt(var + float(state["epsilon"])))
