"""The packages that ONNX files need, which rayprune runs without."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from rayprune.errors import InputError


def require(packages: Sequence[str]) -> None:
    """Refuse where an extra package is missing.

    Raises:
        InputError: says which, and how to install it.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"This needs {' and '.join(missing)}: pip install 'rayprune[deploy]'. "
            "`--format torch` and `--format c` need neither."
        )
