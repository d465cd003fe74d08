"""Examples: a policy in C in three programs, which are built in the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
"""Where they lie; README.md tells how each is built."""
EXAMPLES: Final[Mapping[str, str]] = {
    "cmake": "A policy as a library with its self-test, and a program that acts, in CMake.",
    "control-loop": "A loop of 1 kHz on Linux that watches its deadline and has a safe action.",
    "cortex-m": "A bare Cortex-M: start-up code, linker script, SysTick, overruns counted.",
}
"""Folder -> what it shows."""
