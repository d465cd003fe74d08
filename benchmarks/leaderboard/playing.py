"""Playing: returns of an exported file on fresh seeds, plain and in shifted environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.leaderboard.tasks import Env, Task, noisy, random_episode
from rayprune.deploy.formats import open_artifact
from rayprune.statistics.cvar import cvar
from rayprune.statistics.intervals import iqm

FIRST_SEED: Final = 1_000_000
"""Of the score. Training, validation and test seeds lie far below."""
SHIFTED_SEED: Final = 2_000_000
WORST: Final = 0.25
AT_ONCE: Final = 50
"""Episodes that are stepped side by side."""


def scores(task: Task, file: Path) -> dict[str, Any]:
    """Return a file's score, its returns and those of the shifted environments."""
    returns = play(file, task.env(), range(FIRST_SEED, FIRST_SEED + task.episodes))
    seeds = range(SHIFTED_SEED, SHIFTED_SEED + task.episodes // 2)
    shifted = {}
    for name, shift in task.shifts.items():
        make = task.env(shift)
        if shift.noise:
            make = noisy(task, make, shift.noise)
        shifted[name] = summary(play(file, make, seeds))
    return {"score": summary(returns), "returns": short(returns), "shifts": shifted}


def play(file: Path, make_env: Callable[[], Env], seeds: Sequence[int]) -> list[float]:
    """Return a file's return on each seed."""
    # Ray is imported with them, which a table or a plan has no use for.
    from rayprune.rllib.commands.compared_policies import FileActor
    from rayprune.rllib.evaluation.paired_episodes import PolicySide

    artifact, returns = open_artifact(file), []
    for first in range(0, len(seeds), AT_ONCE):
        side = PolicySide(FileActor(artifact), make_env, seeds[first : first + AT_ONCE])
        try:
            while side.active:
                side.step(side.act())
        finally:
            side.close()
        returns += side.returns
    return returns


def random_returns(task: Task) -> list[float]:
    """Return those of a policy that draws its actions."""
    return [random_episode(task, FIRST_SEED + i)[0] for i in range(task.episodes)]


def summary(returns: Sequence[float]) -> dict[str, float]:
    """Return mean, IQM and the mean of the worst quarter."""
    return {
        "episodes": len(returns),
        "mean": round(sum(returns) / len(returns), 3),
        "iqm": round(iqm(returns), 3),
        "worst": round(cvar(returns, WORST), 3),
    }


def short(returns: Sequence[float]) -> list[float]:
    """Return them with as many digits as a row needs."""
    return [round(value, 2) for value in returns]
