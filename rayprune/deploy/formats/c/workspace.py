"""Buffers that are not needed at the same time share their memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rayprune.deploy.formats.c.program import SIZES, Buffer, Program


@dataclass(slots=True)
class Slot:
    """Memory that one buffer has after another."""

    name: str
    ctype: str
    size: int
    free_from: int
    """The statement from which on it is free."""


def slots_of(program: Program) -> tuple[list[Slot], dict[str, str]]:
    """Return the memory that a program needs, and each buffer's place in it: name -> slot's name.

    A buffer lives from the first statement that mentions it to the last. One that is computed
    element by element takes the place of what it is computed of.
    """
    lives = _lives(program)
    slots: list[Slot] = []
    places: dict[str, Slot] = {}
    used = [buffer for buffer in program.buffers if buffer.name in lives]
    for buffer in sorted(used, key=lambda each: lives[each.name][0]):
        begin, end = lives[buffer.name]
        free = [slot for slot in slots if _fits(program, slot, buffer, begin, places)]
        # The least that has to grow, then the least that is too large.
        free.sort(key=lambda slot: (max(0, buffer.size - slot.size), slot.size))
        if not free:
            slots.append(Slot(f"f{len(slots)}", buffer.ctype, 0, 0))
        slot = free[0] if free else slots[-1]
        slot.size, slot.free_from = max(slot.size, buffer.size), end + 1
        places[buffer.name] = slot
    return slots, {name: slot.name for name, slot in places.items()}


def workspace_bytes(program: Program) -> int:
    """Return the size of the memory that a program works in."""
    return sum(SIZES[slot.ctype] * slot.size for slot in slots_of(program)[0])


def _fits(
    program: Program, slot: Slot, buffer: Buffer, begin: int, places: dict[str, Slot]
) -> bool:
    if slot.ctype != buffer.ctype:
        return False
    sources = {source for result, source in program.in_place if result == buffer.name}
    over = any(places.get(source) is slot for source in sources)
    return slot.free_from <= begin + over


def _lives(program: Program) -> dict[str, tuple[int, int]]:
    """Return the first and the last statement that mentions each buffer."""
    found: dict[str, tuple[int, int]] = {}
    names = {buffer.name for buffer in program.buffers}
    for at, statement in enumerate(program.statements):
        for name in names.intersection(re.findall(r"\bb\d+\b", statement)):
            found[name] = (found.get(name, (at, at))[0], at)
    return found
