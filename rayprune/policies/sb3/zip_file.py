"""A policy out of the zip that Stable-Baselines3's ``model.save`` writes."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import torch

from rayprune.errors import CheckpointError, InputError, first_line, shown
from rayprune.extras import require
from rayprune.import_path import search_here
from rayprune.policies.sb3.unpickling import class_of, load_inert, stands_for
from rayprune.policies.spaces import Space, leaves
from rayprune.reasons import RAISED, reason_of

_PICKLED: Final = ":serialized:"
_SPACES: Final = ("observation_space", "action_space")
_DICTS: Final = ("policy_kwargs",)
"""What of a zip's settings are mappings."""
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
    data, weights = _contents(path)
    policy = _built({key: _setting(key, data, path, trust=trust) for key in _needed(data)}, path)
    try:
        policy.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"The weights in {str(path)!r} don't fit its network: {first_line(error)}."
        ) from error
    policy.set_training_mode(False)
    return policy


def _contents(path: Path) -> tuple[dict[str, Any], Any]:
    """Return a zip's settings, some of them pickled, and its policy's weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
            missing = [key for key in ("policy_class", *_SPACES, *_DICTS) if key not in data]
            if missing:
                raise KeyError(f"its `data` lacks {missing}")
            return data, torch.load(
                io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True
            )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"`policy.pth` in {str(path)!r} holds more than tensors, or is broken. Nothing of it "
            "was run. Save the model once more with Stable-Baselines3's `model.save`."
        ) from error
    except Exception as error:  # zipfile, zlib, JSON and torch raise their own for a broken file
        told = error.args[0] if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(
            f"{str(path)!r} isn't what Stable-Baselines3's `model.save` writes: {told}. Save the "
            "model once more."
        ) from error


def _needed(data: Mapping[str, Any]) -> tuple[str, ...]:
    optional = ["use_sde"] if "use_sde" in data else []
    return ("policy_class", *_SPACES, *_DICTS, *optional)


def _setting(key: str, data: Mapping[str, Any], path: Path, *, trust: bool) -> Any:
    """Return one of a zip's settings.

    Raises:
        CheckpointError: it can't be read, or is of another kind.
    """
    held, what = data[key], f"`{key}` in {str(path)!r}"
    if isinstance(held, dict) and _PICKLED in held:
        held = _unpickled(held[_PICKLED], what, trust=trust)
    if key in _DICTS and not isinstance(held, dict):
        raise CheckpointError(
            f"{what} must be a dict, but is {stands_for(held) or shown(held)}. Save the model once "
            "more with Stable-Baselines3's `model.save`."
        )
    return held


def _unpickled(text: Any, what: str, *, trust: bool) -> Any:
    try:
        content = base64.b64decode(text)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{what} can't be read: {first_line(error)}.") from error
    if not trust:
        return load_inert(content, what)
    import cloudpickle

    search_here()
    try:
        return cloudpickle.loads(content)
    except RAISED as error:  # whatever its author's code does
        raise CheckpointError(
            f"{what} can't be loaded with `--trust`: {reason_of(error)}. What it was made with "
            "must be importable here: put its folder on PYTHONPATH."
        ) from error


def _built(settings: Mapping[str, Any], path: Path) -> Any:
    """Return a policy of a zip's settings, with new weights."""
    kind = _class("policy_class", settings["policy_class"], path)
    if not isinstance(kind, type):
        raise CheckpointError(
            f"`policy_class` in {str(path)!r} must be a class, but is {shown(kind)}. Save the "
            "model once more with Stable-Baselines3's `model.save`."
        )
    kwargs = {
        key: _known(f"policy_kwargs.{key}", value, path)
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


def _known(key: str, held: Any, path: Path) -> Any:
    """Return a setting with the classes that it names, however deep, looked up."""
    if isinstance(held, dict):
        return {name: _known(f"{key}.{name}", value, path) for name, value in held.items()}
    if isinstance(held, (list, tuple)):
        return type(held)(_known(key, value, path) for value in held)
    return _class(key, held, path)


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
