"""A policy out of the zip that Stable-Baselines3's ``model.save`` writes."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import torch

from rayprune.errors import CheckpointError, InputError, first_line
from rayprune.extras import require
from rayprune.policies.sb3.unpickling import class_of, load_inert, stands_for
from rayprune.policies.spaces import Space, leaves

_PICKLED: Final = ":serialized:"
_SPACES: Final = ("observation_space", "action_space")
_UNUSED: Final = ("optimizer_class", "optimizer_kwargs", "device")
"""Of ``policy_kwargs``: what only training has a use for."""
_KNOWN: Final = "those of PPO, A2C, SAC, TD3, DDPG and DQN"


def is_zip(path: Path) -> bool:
    """Whether a file is called as Stable-Baselines3 calls its own."""
    return path.suffix == ".zip" and path.is_file()


def load_sb3(path: str | Path, *, trust: bool = False) -> Any:
    """Return the policy that a zip holds, a `stable_baselines3.common.policies.BasePolicy`.

    Weights are loaded by torch with ``weights_only=True``, and of the zip's pickles only names that
    make spaces and arrays are looked up: no code of the file is run. A policy or an extractor of
    one's own is code; with ``trust`` it is loaded as Stable-Baselines3 does, and may do anything.

    Args:
        path: what ``model.save(path)`` wrote.
        trust: run the code that the zip's pickles name.

    Returns:
        The policy on the CPU, in eval mode, with its optimizer new.

    Raises:
        InputError: Stable-Baselines3 isn't installed, or the policy is of another library.
        CheckpointError: it is no such zip, or its weights don't fit.
    """
    path = Path(path)
    require(repr(str(path)), "sb3")
    settings, weights = _contents(path, trust=trust)
    policy = _built(settings, path)
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights in {str(path)!r} don't fit its network: {first_line(error)}."
        ) from error
    policy.set_training_mode(False)
    return policy


def _contents(path: Path, *, trust: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a zip's settings, and its policy's weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
            weights = torch.load(
                io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True
            )
        return {key: _setting(key, data[key], path, trust=trust) for key in _needed(data)}, weights
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{str(path)!r} isn't what Stable-Baselines3's `model.save` writes: "
            f"{first_line(error)}. Save the model once more."
        ) from error


def _needed(data: Mapping[str, Any]) -> tuple[str, ...]:
    return ("policy_class", *_SPACES, "policy_kwargs", *(["use_sde"] if "use_sde" in data else []))


def _setting(key: str, held: Any, path: Path, *, trust: bool) -> Any:
    if not (isinstance(held, dict) and _PICKLED in held):
        return held
    content = base64.b64decode(held[_PICKLED])
    if not trust:
        return load_inert(content, f"`{key}` in {str(path)!r}")
    import cloudpickle

    return cloudpickle.loads(content)


def _built(settings: Mapping[str, Any], path: Path) -> Any:
    """Return a policy of a zip's settings, with new weights."""
    kind = _class("policy_class", settings["policy_class"], path)
    kwargs = {
        key: _class(f"policy_kwargs.{key}", value, path) if stands_for(value) else value
        for key, value in settings["policy_kwargs"].items()
        if key not in _UNUSED
    }
    spaces = [_space(key, settings[key], path) for key in _SPACES]
    from stable_baselines3.common.policies import ActorCriticPolicy

    if issubclass(kind, ActorCriticPolicy):
        # Off policy it is among the keywords already.
        kwargs["use_sde"] = bool(settings.get("use_sde"))
    try:
        return kind(*spaces, lambda _: 0.0, **kwargs).cpu()
    except Exception as error:  # settings of another version, or made up
        raise CheckpointError(
            f"The policy in {str(path)!r} can't be made of its settings: {first_line(error)}."
        ) from error


def _class(key: str, held: Any, path: Path) -> Any:
    """Return the class that a setting names.

    Raises:
        InputError: it is none that is made without ``trust``.
    """
    name = stands_for(held)
    if name is None:
        return held
    found = class_of(held)
    if found is not None:
        return found
    if name.startswith(("sb3_contrib.", "stable_baselines3.")):
        raise InputError(
            f"`{key}` in {str(path)!r} is {name}, which rayprune doesn't know: it knows {_KNOWN}. "
            "Give its network as a module of your own: `nets.py:make@weights.pt`."
        )
    raise InputError(
        f"`{key}` in {str(path)!r} is {name}, code of its author's own. If you trust the file, "
        "load it with `--trust` (`trust=True`), which runs that code."
    )


def _space(key: str, held: Any, path: Path) -> Space:
    """Return a space that draws anew: its random numbers' generator wasn't looked up."""
    if not isinstance(held, gym.Space):
        told = stands_for(held) or f"a {type(held).__name__}"
        raise CheckpointError(
            f"`{key}` in {str(path)!r} is {told}, which isn't gymnasium's: load the model in "
            "Stable-Baselines3 2.0 or newer and save it once more."
        )
    for one in (held, *(leaf for _, leaf in leaves(held))):
        one._np_random = None
    return held
