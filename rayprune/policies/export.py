"""A policy from elsewhere to a proven file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from rayprune.deploy.export.export import ExportRequest
from rayprune.deploy.policy.agreement import agreement
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.runs import in_parts, module_run
from rayprune.errors import InvariantError
from rayprune.policies.episodes import Episodes, made, play, sampled, with_noise
from rayprune.policies.foreign_policy import ForeignOptions, ForeignPolicy, open_policy
from rayprune.policies.identity import facts_of
from rayprune.policies.spaces import nested

FIRST_SEED: Final = 10_000
EPISODES: Final = 20
"""What `evaluation` has by default."""


def export_foreign(place: Path, source: ForeignOptions, asked: ExportRequest) -> dict[str, Any]:
    """Export a policy of Stable-Baselines3 or a module of one's own, and prove the file.

    It is proven on observations of greedy episodes where the environment is known, else on some
    drawn from the space; and, of Stable-Baselines3, against ``predict(deterministic=True)``.

    Args:
        place: as `open_policy` takes it.
        source: what the policy's file doesn't say of itself.
        asked: the file.

    Returns:
        The certificate, with where the policy lies.

    Raises:
        InputError: no policy, or one that can't be exported; says what is in the way.
        InvariantError: the file doesn't compute what the policy does. Nothing was written.
    """
    chosen = asked.check()
    opened = open_policy(place, source)
    policy = opened.sampling() if asked.sample else opened.policy
    count = asked.episodes or EPISODES
    met = observed(opened, count)
    about = {
        **source_of(opened, sample=asked.sample),
        "recorded": _recorded(opened, met, count),
        **as_trained(opened, met.observations),
    }
    ready = policy if asked.rounds(chosen) else plain_copy(policy)
    return asked.write(ready, chosen, with_noise(policy, met.observations), about)


def observed(opened: ForeignPolicy, episodes: int) -> Episodes:
    """Return what a policy observes in episodes, or what is drawn where there is no environment."""
    greedy, options = plain_copy(opened.policy), opened.options
    if options.env is None:
        return Episodes(sampled(greedy, opened.spaces[0]), [])
    with made(options.env, options.env_config) as env:
        return play(greedy, env, FIRST_SEED, episodes)


def as_trained(opened: ForeignPolicy, observations: list[Array]) -> dict[str, Any]:
    """Compare a policy with what its own library does, where it has one.

    Raises:
        InvariantError: they differ.
    """
    predict = getattr(opened.module, "predict", None)
    if predict is None:
        return {}
    raw = nested(opened.spaces[0], observations)
    given = raw if opened.normalisation is None else opened.normalisation.apply(raw)
    ours = in_parts(module_run(plain_copy(opened.policy)), observations)
    theirs = np.asarray(predict(given, deterministic=True)[0]).astype(ours[0].dtype)
    found = agreement(opened.policy.interface, [theirs, ours[1]], ours)
    if not found.holds:
        raise InvariantError(
            f"The policy outside {opened.library} doesn't do what it does there: on "
            f"{found.observations} observations the action differs by {found.max_error:.2e} and "
            f"{found.differing_actions} choice(s) differ. Nothing was written. Please report it "
            "with the zip."
        )
    return {"as_trained": {"by": f"{opened.library}'s predict", **found.to_dict()}}


def source_of(opened: ForeignPolicy, *, sample: bool) -> dict[str, Any]:
    """Return what a file says of the policy that it was made of; JSON only."""
    options = opened.options
    return {
        "checkpoint": opened.name,
        "weights_sha256": opened.sha256(),
        "compacted_in_training": False,
        "algorithm": type(opened.module).__name__,
        "library": opened.library,
        "normalised_by": opened.normalised_by,
        **facts_of(opened.spaces, options.env, options.env_config, sample=sample),
    }


def _recorded(opened: ForeignPolicy, met: Episodes, episodes: int) -> Mapping[str, Any]:
    if opened.options.env is None:
        return {"drawn_from_space": len(met.observations[0])}
    told = {"first_seed": FIRST_SEED, "episodes": episodes, "greedy": True}
    mean = float(np.mean(met.returns)) if met.returns else None
    return {**told, "mean_return": mean, "returns": len(met.returns)}
