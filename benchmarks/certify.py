"""Error rates and episodes needed of `rayprune certify`'s test, simulated, beside a t test's.

    python benchmarks/certify.py [--replications 400] [--pairs 600]

Each scenario is drawn twice: at the margin's border, where certifying is wrong, and with two equal
policies, where it is right. Rows: the share that certified, and the median pairs it took. The t
test looks at 20, 40, 80, ... pairs, each at an equal part of the error (Bonferroni), and the tail's
bootstrap likewise. The pairs have a fixed generator per scenario.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rayprune.statistics.betting import Contrast, Wealth
from rayprune.statistics.cvar import TailEvidence, cvar

ERROR = 0.05
MARGIN = 0.05
TAIL_MARGIN = 0.1
TAIL = 0.25
Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, tuple[int, int], bool], tuple[Array, Array]]


@dataclass(frozen=True)
class Scenario:
    """How returns come about; `draw(random, shape, border)` gives dense and pruned."""

    name: str
    low: float
    high: float
    mean: Draw
    """At the border the *mean* is lower by exactly the margin."""
    tail: Draw
    """At the border the *CVaR* is lower by exactly the margin."""


def ceiling(share: float) -> Draw:
    """The dense policy always earns 500; at the border the other falls to 0 so often."""

    def draw(random: np.random.Generator, shape: tuple[int, int], border: bool) -> Any:
        falls = random.random(shape) < (share if border else 0.0)
        return np.full(shape, 500.0), np.where(falls, 0.0, 500.0)

    return draw


def falls(share: float, fell: float = 100.0) -> Draw:
    """Both fall in 5 % of episodes, not the same ones; at the border the other does more often."""

    def draw(random: np.random.Generator, shape: tuple[int, int], border: bool) -> Any:
        dense = np.where(random.random(shape) < 0.05, fell, 500.0)
        pruned = np.where(random.random(shape) < 0.05 + (share if border else 0.0), fell, 500.0)
        return dense, pruned

    return draw


def heavy(loss: float, scale: float = 25.0) -> Draw:
    """A common difficulty and own log-normal losses (CVaR and mean far apart), clipped to range."""

    def draw(random: np.random.Generator, shape: tuple[int, int], border: bool) -> Any:
        def own() -> Array:
            return scale * random.lognormal(0.0, 1.0, shape)

        common = random.normal(0.0, 15.0, shape)
        dense, pruned = 300.0 + common - own(), 300.0 + common - own() - (loss if border else 0.0)
        return np.clip(dense, -500, 400), np.clip(pruned, -500, 400)

    return draw


def scenarios() -> list[Scenario]:
    """Return them, with losses that lie on the border."""
    mean = 0.05 * 100.0 + 0.95 * 500.0
    # CVaR of a 5 % fall to 100 at 25 %: 420. Falls of share s add 400 s / 0.25 of loss to it.
    tail_share = TAIL_MARGIN * mean * TAIL / 400.0
    level = 300.0 - 25.0 * float(np.exp(0.5))
    return [
        Scenario("ceiling", 0, 500, ceiling(MARGIN), ceiling(TAIL_MARGIN * TAIL)),
        Scenario("falls", 0, 500, falls(MARGIN * mean / 400.0), falls(tail_share)),
        Scenario("heavy tail", -500, 400, heavy(MARGIN * level), heavy(TAIL_MARGIN * level)),
    ]


def betting_mean(dense: Array, pruned: Array, low: float, high: float) -> Array:
    """Return after how many pairs each replication certified; 0 for never, ``(replications,)``."""
    claims = [Contrast(pruned=1.0, dense=-1.0 + MARGIN)]
    if low < 0:
        claims.append(Contrast(pruned=1.0, dense=-1.0 - MARGIN))
    wealths = [Wealth((len(dense),)) for _ in claims]
    found = np.zeros(len(dense), dtype=int)
    for n in range(dense.shape[1]):
        for claim, wealth in zip(claims, wealths, strict=True):
            wealth.bet(claim.at(pruned[:, n], dense[:, n]), claim.least(low, high))
        logs = np.logaddexp.reduce([wealth.log() for wealth in wealths]) - np.log(len(claims))
        found[(found == 0) & (logs >= -np.log(ERROR))] = n + 1
    return found


def betting_tail(dense: Array, pruned: Array, low: float, high: float) -> Array:
    """Likewise of the CVaR."""
    return np.array([_tail_shown(*pair, low, high) for pair in zip(dense, pruned, strict=True)])


def _tail_shown(dense: Array, pruned: Array, low: float, high: float) -> int:
    signs = (1.0,) if low >= 0 else (1.0, -1.0)
    allowances = [Contrast(dense=sign * TAIL_MARGIN) for sign in signs]
    found = [TailEvidence(one, "pruned", TAIL, low, high) for one in allowances]
    for n, pair in enumerate(zip(pruned, dense, strict=True), start=1):
        for one in found:
            one.add(*map(float, pair))
        logs = np.logaddexp.reduce([one.log() for one in found]) - np.log(len(found))
        if logs >= -np.log(ERROR):
            return n
    return 0


def looks(pairs: int) -> list[int]:
    """Return 20, 40, 80, ... and the last."""
    found = [20]
    while 2 * found[-1] < pairs:
        found.append(2 * found[-1])
    return [*found, pairs]


def t_mean(dense: Array, pruned: Array, low: float, high: float) -> Array:
    """A t test at each look of the margin's contrast, as if returns were normal."""
    found = np.zeros(len(dense), dtype=int)
    times = looks(dense.shape[1])
    values = pruned - (1.0 - MARGIN) * dense
    for n in times:
        means, errors = values[:, :n].mean(1), values[:, :n].std(1, ddof=1) / np.sqrt(n)
        limit = stats.t.ppf(1.0 - ERROR / len(times), n - 1)
        found[(found == 0) & (means - limit * errors > 0)] = n
    return found


def bootstrap_tail(dense: Array, pruned: Array, low: float, high: float) -> Array:
    """A percentile bootstrap of the CVaRs' difference at each look."""
    random = np.random.default_rng(1)
    found = np.zeros(len(dense), dtype=int)
    times = looks(dense.shape[1])
    for n in times:
        for i in np.flatnonzero(found == 0):
            drawn = random.integers(n, size=(400, n))
            worst = max(1, round(TAIL * n))
            theirs = dense[i, :n][drawn]
            tails = [
                np.partition(x, worst - 1, axis=1)[:, :worst].mean(1)
                for x in (theirs, pruned[i, :n][drawn])
            ]
            gaps = tails[1] - tails[0] + TAIL_MARGIN * np.abs(theirs.mean(1))
            if np.quantile(gaps, ERROR / len(times)) > 0:
                found[i] = n
    return found


METHODS: dict[str, dict[str, Callable[..., Array]]] = {
    "mean": {"betting": betting_mean, "t, Bonferroni": t_mean},
    "tail": {"betting": betting_tail, "bootstrap, Bonferroni": bootstrap_tail},
}


def measure(replications: int, pairs: int) -> list[dict[str, Any]]:
    """Return a row for each scenario, question and method."""
    rows = []
    for scenario in scenarios():
        for question, methods in METHODS.items():
            draw = getattr(scenario, question)
            drawn = {
                border: draw(np.random.default_rng(7), (replications, pairs), border)
                for border in (True, False)
            }
            for method, run in methods.items():
                wrong, right = (
                    run(*drawn[border], scenario.low, scenario.high) for border in (True, False)
                )
                taken = right[right > 0]
                rows.append(
                    {
                        "scenario": scenario.name,
                        "question": question,
                        "method": method,
                        "wrongly certified": float((wrong > 0).mean()),
                        "rightly certified": float((right > 0).mean()),
                        "median pairs": int(np.median(taken)) if len(taken) else None,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def check_borders() -> None:
    """See by a large sample that the borders are borders."""
    for scenario in scenarios():
        dense, pruned = scenario.mean(np.random.default_rng(3), (1, 2_000_000), True)
        lost = (dense.mean() - pruned.mean()) / dense.mean()
        dense, pruned = scenario.tail(np.random.default_rng(3), (1, 2_000_000), True)
        tails = [cvar(x[0].tolist(), TAIL) for x in (dense, pruned)]
        print(f"{scenario.name}: mean {lost:.4f}, CVaR {(tails[0] - tails[1]) / dense.mean():.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    check_borders()
    table = measure(given.replications, given.pairs)
    if given.out is not None:
        given.out.write_text(json.dumps(table, indent=2) + "\n")
