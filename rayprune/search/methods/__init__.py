"""Search methods: what `search.method` may be, each with its rules and its parts in Ray Tune."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Final

from rayprune.search.methods.base import SearchFields, SearchMethod, SearchTask
from rayprune.search.methods.copying import MultiObjectivePBTMethod, PB2Method, PBTMethod
from rayprune.search.methods.halving import ASHAMethod, MultiObjectiveASHAMethod
from rayprune.search.methods.independent import GridMethod, ListedMethod, RandomMethod
from rayprune.search.methods.suggesting import NSGA2Method, TPEMethod

__all__ = ["METHODS", "SearchFields", "SearchMethod", "SearchTask"]

METHODS: Final[Mapping[str, SearchMethod]] = types.MappingProxyType(
    {
        "mo_pbt": MultiObjectivePBTMethod(),
        "pbt": PBTMethod(),
        "pb2": PB2Method(),
        "mo_asha": MultiObjectiveASHAMethod(),
        "asha": ASHAMethod(),
        "nsga2": NSGA2Method(),
        "tpe": TPEMethod(),
        "random": RandomMethod(),
        "grid": GridMethod(),
        "listed": ListedMethod(),
    }
)
"""In the order in which one would try them."""
