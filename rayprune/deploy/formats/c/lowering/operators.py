"""The registry of torch operators that C takes, beside the elementwise ones without parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rayprune.deploy.formats.c.lowering import (
    activations,
    attention,
    images,
    integers,
    norms,
    products,
    recurrent,
    reductions,
    shapes,
)
from rayprune.deploy.formats.c.lowering.nodes import Operator

OPERATORS: Final[Mapping[str, Operator]] = {
    **activations.OPERATORS,
    **attention.OPERATORS,
    **images.OPERATORS,
    **integers.OPERATORS,
    **norms.OPERATORS,
    **products.OPERATORS,
    **recurrent.OPERATORS,
    **reductions.OPERATORS,
    **shapes.OPERATORS,
}
"""Operator's name -> what adds it to a program."""
