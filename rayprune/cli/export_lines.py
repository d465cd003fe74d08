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
    if not held["given_zero_weights"]:
        yield "No masks       No weight of the checkpoint is zero: this is the dense policy."
    yield (
        f"Parameters     {held['given']:,} of the checkpoint's module; {held['total']:,} exported, "
        f"of them {held['zero_weights']:,} weights zero"
    )
    removed = result["compaction"]["removed"]
    if removed:
        layers = ", ".join(
            f"{gone['units']} of {gone['of']} in {gone['layer']}" for gone in removed
        )
        yield f"Compaction     units removed: {layers}"
    if "self_test" in result:
        tested = result["self_test"]
        yield f"Self-test      {tested['said'] if tested['passed'] else tested['why']}"
    for name, found in result["equivalence"].items():
        yield (
            f"{name.capitalize():<15}{found['observations']:,} observations: largest difference "
            f"{found['max_error']:.1e}, {found['differing_actions']} actions differ"
        )
