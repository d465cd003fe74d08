"""``on_clone``: what a clone does whose masks are sparser than its target."""

from __future__ import annotations

from collections.abc import Mapping

from rayprune.pruning.checks import Faults, choice
from rayprune.pruning.component import Chosen
from rayprune.pruning.schedules.sparse_training.sparse_from_start import weight_faults

faults = choice(["hold", "regrow"])


def conflicts(prefix: str, chosen: Chosen) -> Faults:
    """Yield what can't go with weights that grow back."""
    if chosen.values.get("on_clone") != "regrow":
        return
    yield from weight_faults(f"`{prefix}on_clone` 'regrow'", prefix, chosen)
    if isinstance(chosen.values.get("operation"), Mapping):
        yield (
            f"`{prefix}operation` must be 'zero' with `{prefix}on_clone` 'regrow': what still "
            f"fades can't grow back. Or leave `{prefix}on_clone` at 'hold'."
        )
    if chosen.values.get("threshold") is not None:
        yield (
            f"`{prefix}on_clone` 'regrow' needs a target to regrow to, but `{prefix}threshold` "
            f"gives none. Give `{prefix}sparsity`, or leave it at 'hold'."
        )
