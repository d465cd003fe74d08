"""What a shell completes by name, once ``rayprune --install-completion`` was run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rayprune.deploy.formats import FORMATS
from rayprune.deploy.targets import TARGETS
from rayprune.extras import installed
from rayprune.presets import presets


def configs(incomplete: str) -> list[str]:
    """Return presets, by their folders too, and YAML files here, that begin so."""
    folder = Path(incomplete).parent if "/" in incomplete else Path()
    # What can't be read completes to nothing: an error would stand in the middle of a line.
    try:
        here = [str(path) for path in folder.glob("*.yaml")]
    except OSError:
        here = []
    shipped = presets()
    by_folder = [f"{path.parent.name}/{name}" for name, path in shipped.items()]
    return _beginning([*here, *shipped, *(by_folder if "/" in incomplete else ())], incomplete)


def formats(incomplete: str) -> list[str]:
    """Return kinds of exported files that begin so."""
    return _beginning(FORMATS, incomplete)


def targets(incomplete: str) -> list[str]:
    """Return targets that begin so."""
    return _beginning(TARGETS, incomplete)


def algorithms(incomplete: str) -> list[str]:
    """Return algorithms of a first config that begin so."""
    names = ["DQN", "PPO", "SAC"]
    # A shell takes only what goes on as it was begun; `init` takes either case.
    return _beginning(map(str.lower, names) if incomplete.islower() else names, incomplete)


def criteria(incomplete: str) -> list[str]:
    """Return criteria that begin so."""
    if not installed("torch"):
        return []
    from rayprune.pruning.criteria import CRITERIA

    return _beginning(CRITERIA, incomplete)


def environments(incomplete: str) -> list[str]:
    """Return ids of environments that begin so: gymnasium's, and rayprune's own behind its name."""
    if not installed("gymnasium"):
        return []
    import gymnasium as gym

    if not incomplete.startswith("rayprune"):
        return _beginning(gym.registry, incomplete)
    from rayprune import envs

    entries = {name: str(spec.entry_point) for name, spec in gym.registry.items()}
    own = [name for name, entry in entries.items() if entry.startswith(f"{envs.__name__}.")]
    return _beginning([f"{envs.__name__}:{name}" for name in own], incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
