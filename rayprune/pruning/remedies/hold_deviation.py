"""A Gaussian policy's deviation that doesn't shrink while masks change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rayprune.pruning.checks import Faults, switch
from rayprune.pruning.remedies.base import Remedy

KEY: Final = "hold_deviation"


class HoldDeviation(Remedy):
    """Keeps exploration as wide as at the first cut, until the last.

    A cut moves the means of the actions. Of a Gaussian policy the KL of that is the square of the
    move over twice the variance; so the narrower the policy has become, the further the same cut
    takes it out of the region that PPO trusts, and the shorter are the steps by which PPO repairs
    it. docs/findings.md has the runs in which returns fell for that, and those with this remedy.
    Actions that are not drawn, such as those of exported files, know no deviation. Discrete actions
    are left alone, and so are squashed Gaussians: SAC and TQC hold their entropy by themselves.
    A pruning Learner of RLlib does it; `Pruner` alone, which knows no policy, does not.
    """

    options: ClassVar[Mapping[str, str]] = {
        KEY: "let the deviation of a Gaussian policy not shrink while masks change"
    }

    @classmethod
    def faults(cls, field: str, block: Mapping[str, Any]) -> Faults:
        """Yield what is wrong with its key."""
        yield from switch(f"{field}.{KEY}", block.get(KEY, False))
