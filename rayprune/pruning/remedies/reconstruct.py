"""What is left of a layer makes up for what a cut takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults, switch
from rayprune.pruning.remedies.base import Remedy

KEY: Final = "reconstruct"


class Reconstruct(Remedy):
    """Solves for what is left of each Linear layer at a cut, so that its outputs hardly change.

    Least squares on the last minibatches (`rayprune.pruning.update.reconstruction`). A cut that is
    made up for moves a policy ten to a thousand times less, in nats; docs/findings.md has the runs.
    Other layers are left as they are, but Linear layers after them make up for their units, too.
    Weights that fade (``operation``) and mask updates that grow weights are not made up for.
    A pruning Learner of RLlib does it; `Pruner` does where it is passed a ``calibration``.
    """

    options: ClassVar[Mapping[str, str]] = {
        KEY: "let what is left of each Linear layer make up for a cut, by least squares"
    }

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its key."""
        yield from switch(f"{field}.{KEY}", block.get(KEY, False))
