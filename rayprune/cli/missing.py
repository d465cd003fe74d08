"""Words a package that isn't installed; imports nothing that may be missing itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_EXTRAS: Final[Mapping[str, str]] = {
    "Box2D": "box2d",
    "aiohttp": "jobs",
    "gymnasium": "rllib",
    "minatar": "minatar",
    "mujoco": "mujoco",
    "ray": "rllib",
    "scipy": "rllib",
    "sklearn": "pb2",
    "starlette": "serve",
    "wandb": "wandb",
}
"""Module -> our extra that brings it."""


def missing_package(error: ModuleNotFoundError) -> str:
    """Return what to install, and where.

    >>> missing_package(ModuleNotFoundError("No module named 'ray.tune'", name="ray.tune"))
    "'ray' is not installed here: pip install 'rayprune[rllib]'. In a job, here is the image of ..."
    """
    module = (error.name or str(error)).partition(".")[0]
    extra = _EXTRAS.get(module)
    # The name of a module is the package's often enough, and where it isn't it is a place to start.
    wanted = f"'rayprune[{extra}]'" if extra else module
    return (
        f"{module!r} is not installed here: pip install {wanted}. In a job, here is the image of "
        "the cluster's nodes."
    )
