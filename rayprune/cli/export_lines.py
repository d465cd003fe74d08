"""What ``rayprune export`` tells people of the file that it has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def export_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines, the file first.

    Args:
        result: the certificate, with ``out``.
    """
    yield f"File           {result['out']} ({result['bytes']:,} bytes), certificate beside it"
    held = result["parameters"]
    yield f"Parameters     {held['total']:,}; {held['zero_weights']:,} weights are zero"
    if not held["zero_weights"]:
        yield "               The checkpoint has no masks: this is the dense policy."
    for name, found in result["equivalence"].items():
        yield (
            f"{name.capitalize():<15}{found['observations']:,} observations: largest difference "
            f"{found['max_error']:.1e}, {found['differing_actions']} actions differ"
        )
