"""Installed packages against what rayprune allows: Python, what it needs, and each extra."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rayprune.cli.setup.check import ABSENT, BROKEN, DOUBTFUL, OK, Check, Status
from rayprune.extras import EXTRAS, lacking, pip_line

_NEEDED_EXTRA = "rllib"
"""What a default run trains with."""


class Requirements(NamedTuple):
    """What rayprune says of itself, installed or as a source tree."""

    python: str
    packages: tuple[Requirement, ...]
    """With a marker where they are of an extra."""

    @classmethod
    def read(cls) -> Requirements:
        """Read them of a source tree's pyproject.toml, or else of the installed package."""
        project = Path(__file__).parents[3] / "pyproject.toml"
        # Python 3.10 has no tomllib; what was installed from the tree says the same.
        if project.is_file() and sys.version_info >= (3, 11):
            import tomllib

            held = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
            own: list[tuple[str | None, str]] = [(None, text) for text in held["dependencies"]]
            extras = held["optional-dependencies"]
            own += [(name, text) for name in EXTRAS for text in extras[name]]
            return cls(held["requires-python"], tuple(_marked(text, name) for name, text in own))
        about = importlib.metadata.metadata("rayprune")
        texts = importlib.metadata.requires("rayprune") or []
        return cls(str(about["Requires-Python"] or ""), tuple(map(Requirement, texts)))

    def of(self, extra: str | None) -> Iterator[Requirement]:
        """Yield what an extra adds here, or for None what is always needed."""
        for one in self.packages:
            always = _holds(one, "")
            if always if extra is None else _holds(one, extra) and not always:
                yield one


def package_checks() -> Iterator[Check]:
    """Yield our own version, and a check of Python, of each package needed, of each extra."""
    wanted = Requirements.read()
    own = installed_version("rayprune") or "a source tree that isn't installed"
    yield Check("packages", "rayprune", OK, own)
    yield _python(wanted.python)
    for one in wanted.of(None):
        yield _package(one, BROKEN)
    for extra in EXTRAS:
        yield _extra(extra, [*wanted.of(extra)])


def _python(allowed: str) -> Check:
    version = platform.python_version()
    fits = SpecifierSet(allowed).contains(version, prereleases=True)
    way_out = "" if fits else f"make an environment with Python {allowed}"
    return Check("packages", "python", OK if fits else BROKEN, f"{version} ({allowed})", way_out)


def _package(wanted: Requirement, otherwise: Status) -> Check:
    version = installed_version(wanted.name)
    if version is not None and _fits(wanted, version):
        return Check("packages", wanted.name, OK, f"{version} ({_allowed(wanted)})")
    found = f"{version or 'missing'} ({_allowed(wanted)})"
    line = f"pip install '{wanted.name}{wanted.specifier}'"
    return Check("packages", wanted.name, otherwise, found, line)


def _extra(name: str, wanted: list[Requirement]) -> Check:
    held = EXTRAS[name]
    label = f"rayprune[{name}]"
    absent = lacking(name)
    if absent:
        status = BROKEN if name == _NEEDED_EXTRA else ABSENT
        found = f"lacks {', '.join(absent)}: {held.line}"
        return Check("extras", label, status, found, pip_line(name))
    versions = {one.name: installed_version(one.name) for one in wanted}
    told = ", ".join(
        f"{package} {version or '(by another name)'}" for package, version in versions.items()
    )
    odd = [one for one in wanted if not _fits(one, versions[one.name])]
    if not odd:
        return Check("extras", label, OK, told)
    status = BROKEN if name == _NEEDED_EXTRA else DOUBTFUL
    allowed = ", ".join(f"{one.name} {_allowed(one)}" for one in odd)
    return Check("extras", label, status, f"{told}; allowed: {allowed}", pip_line(name))


def _fits(wanted: Requirement, version: str | None) -> bool:
    # What is imported under its name may have been installed by another, as pygame-ce is.
    return version is None or wanted.specifier.contains(version, prereleases=True)


def _allowed(wanted: Requirement) -> str:
    return str(wanted.specifier) or "any"


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, None where it isn't installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _marked(text: str, extra: str | None) -> Requirement:
    if extra is None:
        return Requirement(text)
    package, _, marker = text.partition(";")
    both = f"({marker.strip()}) and " if marker else ""
    return Requirement(f"{package}; {both}extra == '{extra}'")


def _holds(wanted: Requirement, extra: str) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})
