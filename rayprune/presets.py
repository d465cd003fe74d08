"""Presets: the experiments that rayprune ships, each a YAML file that is found by its name.

They stand in ``tune_configs/``, one folder a field: beside the package in a checkout, inside it
when it is installed. Names are unique over all folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rayprune.errors import ConfigError, did_you_mean

FOLDER: Final = "tune_configs"
SUFFIX: Final = ".yaml"


def shipped(folder: str) -> Path:
    """Return a folder that comes with rayprune: beside the package, or inside an installed one."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def presets() -> Mapping[str, Path]:
    """Return the file of each preset by its name, in the order of folders and names.

    A folder ``tune_configs`` in the working directory adds to them, and wins where names meet.
    """
    places = shipped(FOLDER), Path(FOLDER)
    found = {path.stem: path for place in places for path in place.glob(f"**/*{SUFFIX}")}
    ordered = sorted(found.values(), key=lambda path: (path.parent.name, path.stem))
    return {path.stem: path for path in ordered}


def find_config(path: str | Path) -> Path:
    """Return the YAML file that is meant: a file that is there, or else the preset of that name.

    A preset is named ``ppo_cartpole``; its folder, the suffix and ``tune_configs/`` may be written
    too, so that a path of the repository works wherever rayprune is installed.

    Args:
        path: of a file, or a preset's name.

    Raises:
        ConfigError: there is neither, or a file beside goes by the preset's name.
    """
    path = Path(path)
    if path.exists():
        # A run's directory may be called as its preset is; no experiment is a directory.
        preset = presets().get(str(path)) if path.is_dir() else None
        return preset or path
    preset = _preset(path)
    if preset is None:
        raise ConfigError(
            f"There is no file {str(path)!r}. `rayprune list configs` shows those at hand."
            f"{did_you_mean(path.stem, presets())}"
        )
    beside = path.with_name(path.name + SUFFIX)
    if beside.is_file():
        raise ConfigError(
            f"{str(path)!r} may be the file {str(beside)!r} or the preset {str(preset)!r}. "
            "Write the one that is meant as a path."
        )
    return preset


def _preset(path: Path) -> Path | None:
    """Return the preset that a path names: its last part, and its folder unless it says none.

    Raises:
        ConfigError: a user's own folders hold several of that name.
    """
    name = path.stem if path.suffix == SUFFIX else path.name
    folders = [part for part in path.parts[:-1] if part not in (FOLDER, ".")]
    for place in (Path(FOLDER), shipped(FOLDER)):
        named = [file for file in place.glob(f"**/*{SUFFIX}") if file.stem == name]
        found = [file for file in named if folders in ([], [file.parent.name])]
        if len(found) > 1:
            raise ConfigError(
                f"{str(path)!r} names several files: {sorted(map(str, found))}. Write the one that "
                "is meant as a path."
            )
        if found:
            return found[0]
    return None
