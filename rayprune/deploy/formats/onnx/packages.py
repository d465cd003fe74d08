"""What ONNX files are run with: packages that rayprune does without, and a session's options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rayprune.errors import InputError
from rayprune.extras import installed, needs

SESSION: Final = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
"""ONNX Runtime's options for a control loop: handing a small network to threads takes longer."""


def require(packages: Sequence[str]) -> None:
    """Refuse where an extra package is missing.

    Raises:
        InputError: says which, and how to install it.
    """
    if not all(map(installed, packages)):
        raise InputError(
            f"{needs('An ONNX file', 'deploy')}. "
            "`--format torch` and `--format c` need none of them."
        )
