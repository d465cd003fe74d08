"""From what each layer alone can lose to a sparsity for each layer: pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from rayprune.errors import ConfigError


def tolerated(ladder: Sequence[tuple[float, float]], allowed: float) -> float:
    """Return the highest sparsity up to which a loss stays allowed, interpolated linearly.

    A dense layer loses nothing. Where the loss crosses what is allowed more than once, the first
    crossing counts. Beyond the ladder nothing is known, so nothing is claimed.

    Args:
        ladder: sparsities, rising, each with its loss: at least how much is lost for sure, that
            is the upper end of an interval.
        allowed: the largest loss that is tolerated, at least 0.

    >>> tolerated([(0.5, 0.0), (0.8, 2.0), (0.9, 40.0)], allowed=1.0)
    0.65
    >>> tolerated([(0.5, 0.0), (0.8, 0.5)], allowed=1.0)
    0.8
    """
    good, good_loss = 0.0, 0.0
    for sparsity, loss in ladder:
        if loss > allowed:
            share = (allowed - good_loss) / (loss - good_loss) if math.isfinite(loss) else 0.0
            return round(good + max(0.0, share) * (sparsity - good), 6)
        good, good_loss = sparsity, loss
    return good


def scaled_to(
    sparsities: Mapping[str, float], counts: Mapping[str, int], target: float, rest: int = 0
) -> dict[str, float]:
    """Scale layer sparsities to a target over all of them, which is then met to the weight.

    Where the layers are sparser than the target, their sparsities shrink by one factor; where they
    are denser, their densities do. The counts that come of it are rounded by largest remainder
    (ties to the earlier layer), so that they add up to ``round(target * total)``.

    Args:
        sparsities: by layer, in [0, 1).
        counts: weights (or units) by layer, as the sparsities count them.
        target: of all weights together, ``rest`` included, in [0, 1).
        rest: weights of layers that stay dense.

    Returns:
        Sparsities by layer, each exactly a count over the layer's own, and below 1.

    Raises:
        ConfigError: the target can't be met, for each layer keeps one weight at least.

    >>> scaled_to({"a": 0.5, "b": 0.9}, {"a": 100, "b": 100}, target=0.35)
    {'a': 0.25, 'b': 0.45}
    >>> scaled_to({"a": 0.5, "b": 0.9}, {"a": 100, "b": 100}, target=0.85)
    {'a': 0.75, 'b': 0.95}
    """
    total = sum(counts.values()) + rest
    wanted = round(target * total)
    most = sum(count - 1 for count in counts.values())
    if wanted > most:
        raise ConfigError(
            f"`--target` {target} cannot be met: of {total} weights {total - most} stay, so at "
            f"most {math.floor(1000 * most / total) / 1000} is reachable. Lower it, or scan more "
            "layers."
        )
    shares = _shares(
        {name: Fraction(sparsities[name]) * count for name, count in counts.items()},
        counts,
        wanted,
    )
    pruned = _rounded(shares, {name: count - 1 for name, count in counts.items()}, wanted)
    return {name: pruned[name] / counts[name] for name in counts}


def overall(sparsities: Mapping[str, float], counts: Mapping[str, int], rest: int = 0) -> float:
    """Return the sparsity of all layers together, as masks round it, ``rest`` counted as dense.

    >>> overall({"a": 0.5, "b": 0.75}, {"a": 10, "b": 20}, rest=10)
    0.5
    """
    pruned = sum(round(sparsities[name] * count) for name, count in counts.items())
    return pruned / (sum(counts.values()) + rest)


def _shares(
    pruned: Mapping[str, Fraction], counts: Mapping[str, int], wanted: int
) -> dict[str, Fraction]:
    """Return what each layer should lose, as fractions that add up to ``wanted``."""
    now, total = sum(pruned.values()), sum(counts.values())
    if now >= wanted:
        return {
            name: value * wanted / now if now else Fraction(0) for name, value in pruned.items()
        }
    factor = Fraction(total - wanted) / (total - now)
    return {name: counts[name] - (counts[name] - value) * factor for name, value in pruned.items()}


def _rounded(
    shares: Mapping[str, Fraction], most: Mapping[str, int], wanted: int
) -> dict[str, int]:
    whole = {name: min(math.floor(share), most[name]) for name, share in shares.items()}
    while (missing := wanted - sum(whole.values())) > 0:
        # Again where a layer was full: its share goes to the others.
        open_ = [name for name in whole if whole[name] < most[name]]
        open_.sort(key=lambda name: whole[name] - shares[name])
        for name in open_[:missing]:
            whole[name] += 1
    return whole
