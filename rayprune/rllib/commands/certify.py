"""``rayprune certify``: is the pruned policy as good as the dense one, but for a margin?

Episodes are played in rounds, both policies on the same seeds, and the test is asked after each:
it may be, for its errors are those of `rayprune.statistics.noninferiority` whenever one stops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from rayprune.deploy.policy.metadata import rayprune_version
from rayprune.errors import CheckpointError, ConfigError, InputError
from rayprune.policies.foreign_policy import ForeignOptions
from rayprune.policies.identity import now
from rayprune.rllib.commands.compared_policies import Player, environment_of, open_players
from rayprune.rllib.commands.verdict import divergence, reason, same_weights
from rayprune.rllib.evaluation.closeness import action_difference, agreement
from rayprune.rllib.evaluation.paired_episodes import EpisodePair, play_pairs
from rayprune.rllib.evaluation.return_range import (
    GIVEN,
    PILOT,
    ReturnRange,
    known_range,
    pilot_range,
)
from rayprune.rllib.export.fingerprint import require_two
from rayprune.statistics.noninferiority import (
    NON_INFERIOR,
    QUESTIONS,
    UNDECIDED,
    Criteria,
    Margin,
    NonInferiority,
)
from rayprune.tracking.record import Record, prepare_out, to_json, write_atomic
from rayprune.tracking.report.certificate_page import write_certificate_page

SCHEMA: Final = 1
ROUND: Final = 20
"""Pairs of episodes between two looks."""
PILOT_PAIRS: Final = 16
"""Pairs that suggest a range where none is known; they are not part of the test."""
STATES: Final = 10_000
"""Of the dense policy, on which actions are compared, or a few more."""

PAIRS_FILE: Final = "pairs.jsonl"
RESULT_FILE: Final = "certificate.json"
PAGE_FILE: Final = "certificate.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyOptions:
    """What is to be shown."""

    margin: float
    """What the mean return may lose: a share of the dense one's size, or absolute."""
    absolute: bool = False
    """Whether margins are in the returns' units."""
    tail_margin: float | None = None
    """Likewise of the tail's mean; None for twice ``margin``."""
    tail: float = 0.25
    """The share of worst episodes that make the tail."""
    confidence: float = 0.95
    """One minus the chance of certifying wrongly."""
    episodes: int = 1000
    """Pairs at most."""
    seed: int | None = None
    """Of the first pair; None for the experiment's test seeds."""
    return_range: tuple[float, float] | None = None
    """The least and the largest return possible."""

    @property
    def margins(self) -> dict[str, Margin]:
        """The margin of each question."""
        tail = 2 * self.margin if self.tail_margin is None else self.tail_margin
        sizes = zip(QUESTIONS, (self.margin, tail), strict=True)
        return {name: Margin(size=size, share=not self.absolute) for name, size in sizes}

    def faults(self) -> list[str]:
        """Return everything that is wrong."""
        return [*self._margin_faults(), *self._share_faults(), *self._range_faults()]

    def _margin_faults(self) -> Iterator[str]:
        for name, value in (("margin", self.margin), ("tail-margin", self.tail_margin)):
            most = float("inf") if self.absolute else 1.0
            if value is not None and not 0 < value < most:
                in_units = value >= most and not self.absolute
                way = "Add --absolute if it is in the returns' units." if in_units else ""
                share = "a share of the dense return in (0, 1)"
                limit = "above 0, and finite" if self.absolute else share
                yield f"`--{name}` must be {limit}, but is {value!r}. {way}".rstrip()

    def _share_faults(self) -> Iterator[str]:
        if not 0.5 <= self.confidence < 1:
            way = f" For {self.confidence:g} % give {self.confidence / 100:g}."
            yield (
                f"`--confidence` must be in [0.5, 1), but is {self.confidence!r}."
                + (way if 50 <= self.confidence < 100 else "")
            )
        if not 0 < self.tail <= 0.5:
            yield f"`--tail` must be a share of the episodes in (0, 0.5], but is {self.tail!r}."
        doubled = self.margins["tail"].size
        if not self.absolute and self.tail_margin is None and self.margin < 1 <= doubled:
            yield (
                f"`--tail-margin` is twice `--margin` where it isn't given, here {doubled:g}: the "
                "whole dense return. Give one in (0, 1)."
            )

    def _range_faults(self) -> Iterator[str]:
        if self.return_range is not None and not (
            self.return_range[0] < self.return_range[1]
            and all(map(math.isfinite, self.return_range))
        ):
            yield (
                "`--return-range` must be the least and the largest return, finite, but is "
                f"{list(self.return_range)}."
            )


class CertifyReporter(Protocol):
    """Told how the test goes."""

    def start(self, most: int) -> None:
        """It begins; ``most`` pairs may be played."""

    def round(self, pairs: int, result: dict[str, Any]) -> None:
        """So many pairs were played; ``result`` is the certificate so far."""


@dataclass(slots=True)
class _Actions:
    """What both would do on the dense policy's states."""

    dense: list[Any] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)

    def add(self, dense: Any, other: Any) -> None:
        self.dense.append(dense)
        self.other.append(other)

    def figures(self) -> dict[str, Any]:
        return {
            "agreement": agreement(self.dense, self.other),
            "action_difference": action_difference(self.dense, self.other),
            "states": len(self.dense),
        }


def certify(
    dense: Path,
    pruned: Path,
    options: CertifyOptions,
    out: Path,
    reporter: CertifyReporter,
    source: ForeignOptions | None = None,
) -> dict[str, Any]:
    """Play pairs of episodes until the question is decided or the most are played.

    Args:
        dense: the reference: rayprune's checkpoint, plain RLlib's, a finished run's directory, or
            an exported file.
        pruned: likewise; both play in its environment.
        options: what is to be shown.
        out: a directory of its own; gets pairs.jsonl (a row a pair), certificate.json and
            certificate.html, the first two after every round.
        reporter: told of the progress.
        source: what policies from elsewhere don't say themselves.

    Returns:
        The content of certificate.json::

            {"schema": 1, "rayprune": version, "date": when it began,
             "policies": {"dense", "pruned": {"name", "kind", "sha256", "version", "date"}},
             "dense", "pruned", "env", "verdict": "non-inferior" | "inferior" | "undecided",
             "certified": bool, "exit_code": 0 | 1, "reason": a sentence,
             "pairs": played, "decided_at", "settings": {...},
             "range": {"low", "high", "source": "given" | "environment" | "pilot", "outside"},
             "mean", "tail": {"dense", "pruned", "difference", "margin", "p", "p_against",
                              "shown_at", "refuted_at", "least_margin"},
             "closeness": {"agreement", "action_difference", "states"},
             "divergence": {"diverged": share of the pairs, "first": step, "median": step},
             "parameters": {"dense": {"total", "nonzero"}, "pruned": ...},
             "evidence": {"mean", "tail": {"for", "against": logarithms after each pair}}}

        ``least_margin`` is the least margin that these pairs would have shown, in the unit of
        ``margin``; ``range.outside`` counts returns outside of a pilot's range that would flatter
        the pruned policy: with any of them nothing is certified.

    Raises:
        InputError: a wrong option, no checkpoint, spaces that differ, a wrong range, one policy
            twice, or a pruned one with more weights than the dense one.
        KeyboardInterrupt: says where the certificate so far is.
    """
    faults = options.faults()
    if faults:
        raise ConfigError(faults)
    players, config, evaluation = open_players(dense, pruned, source)
    try:
        _check_spaces(*players)
        policies = [player.identity() for player in players]
        held = [player.parameters()["nonzero"] for player in players]
        require_two(policies[0], policies[1], (held[0], held[1]))
        prepare_out(out, resume=False)
        with Record.open(out / PAIRS_FILE) as record:
            about = {
                "rayprune": rayprune_version(),
                "date": now(),
                "policies": dict(zip(("dense", "pruned"), policies, strict=True)),
            }
            seed = evaluation.test_seed if options.seed is None else options.seed
            test = _Certification(players, config, options, seed, about)
            result = test.run(record, out, reporter)
    finally:
        for player in players:
            player.close()
    write_certificate_page(result, [asdict(pair) for pair in test.pairs], out / PAGE_FILE)
    return result


class _Certification:
    def __init__(
        self,
        players: Sequence[Player],
        config: AlgorithmConfig,
        options: CertifyOptions,
        seed: int,
        about: Mapping[str, Any],
    ) -> None:
        self._dense, self._pruned = players
        self._config, self._options, self._seed = config, options, seed
        self._about = about
        self._actors = self._dense.actor(), self._pruned.actor()
        self._shadow = self._pruned.actor()
        self._actions = _Actions()
        self._outside = 0
        self.pairs: list[EpisodePair] = []

    def run(self, record: Record, out: Path, reporter: CertifyReporter) -> dict[str, Any]:
        """Play until it is decided; the certificate so far is always on disk."""
        reporter.start(self._options.episodes)
        self._range = self._find_range()
        self._check_margins()
        test = self._test = NonInferiority(self._criteria())
        result: dict[str, Any] = {}
        try:
            while len(self.pairs) < self._options.episodes and test.verdict == UNDECIDED:
                for pair in self._round():
                    self._take(pair)
                    record.append(asdict(pair))
                result = self._result(final=False)
                write_atomic(out / RESULT_FILE, to_json(result, indent=2) + "\n")
                reporter.round(len(self.pairs), result)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(_told_interruption(out, len(self.pairs))) from error
        result = self._result(final=True)
        write_atomic(out / RESULT_FILE, to_json(result, indent=2) + "\n")
        return result

    def _find_range(self) -> ReturnRange:
        given = self._options.return_range
        if given is not None:
            return ReturnRange(low=given[0], high=given[1], source=GIVEN)
        known = known_range(self._config.env, self._config.env_config)
        if known is not None:
            return known
        # After the last seed that the test could come to.
        first = self._seed + self._options.episodes
        pairs = self._play(range(first, first + PILOT_PAIRS), compare=False)
        return pilot_range([value for pair in pairs for value in (pair.dense, pair.pruned)])

    def _check_margins(self) -> None:
        """Refuse a margin that no policy could miss."""
        width = self._range.high - self._range.low
        widest = max(margin.size for margin in self._options.margins.values())
        if self._options.absolute and self._range.source != PILOT and widest >= width:
            raise InputError(
                f"A margin of {widest:g} is as wide as all returns, which lie in "
                f"[{self._range.low:g}, {self._range.high:g}]: any policy would be certified. Give "
                "a smaller --margin, and --tail-margin, which is twice that unless it is given."
            )

    def _criteria(self) -> Criteria:
        margins = self._options.margins
        return Criteria(
            margin=margins["mean"],
            tail_margin=margins["tail"],
            low=self._range.low,
            high=self._range.high,
            confidence=self._options.confidence,
            tail=self._options.tail,
        )

    def _round(self) -> list[EpisodePair]:
        begin = self._seed + len(self.pairs)
        end = min(begin + ROUND, self._seed + self._options.episodes)
        return self._play(range(begin, end), compare=len(self._actions.dense) < STATES)

    def _play(self, seeds: Sequence[int], *, compare: bool) -> list[EpisodePair]:
        with self._dense.threads():
            return play_pairs(
                environment_of(self._config),
                *self._actors,
                seeds,
                self._shadow if compare else None,
                self._actions.add,
            )

    def _take(self, pair: EpisodePair) -> None:
        values = {name: getattr(pair, name) for name in ("pruned", "dense")}
        taken = {name: self._range.take(value, name, pair.seed) for name, value in values.items()}
        self._outside += self._range.flatters(**values)
        self.pairs.append(pair)
        self._test.add(**taken)

    def _result(self, *, final: bool) -> dict[str, Any]:
        test = self._test
        # What a pilot left out could only be counted in the pruned policy's favour.
        vetoed = test.verdict == NON_INFERIOR and self._outside > 0
        verdict = UNDECIDED if vetoed else test.verdict
        found = {name: test.figures(name) for name in QUESTIONS}
        for name in QUESTIONS if final else ():
            found[name]["least_margin"] = test.least_margin(name)
        outside = self._outside if vetoed else 0
        return {
            "schema": SCHEMA,
            **self._about,
            "dense": self._dense.name,
            "pruned": self._pruned.name,
            "env": str(self._config.env),
            "env_config": dict(self._config.env_config),
            "verdict": verdict,
            "certified": verdict == NON_INFERIOR,
            "exit_code": 0 if verdict == NON_INFERIOR else 1,
            "reason": reason(verdict, found, self._options.tail, outside)
            + same_weights(**self._about["policies"]),
            "pairs": len(self.pairs),
            "decided_at": None if vetoed else test.decided_at,
            **self._conditions(),
            **found,
            **self._beside(),
        }

    def _conditions(self) -> dict[str, Any]:
        """Return what the test was asked with."""
        margins, options = self._options.margins, asdict(self._options)
        return {
            "settings": {**options, "tail_margin": margins["tail"].size, "seed": self._seed},
            "range": {**asdict(self._range), "outside": self._outside},
        }

    def _beside(self) -> dict[str, Any]:
        """Return what else the pairs tell."""
        return {
            "closeness": self._actions.figures(),
            "divergence": divergence(self.pairs),
            "parameters": {
                "dense": self._dense.parameters(),
                "pruned": self._pruned.parameters(),
            },
            "evidence": {
                name: {"for": question.log_for, "against": question.log_against}
                for name, question in self._test.questions.items()
            },
        }


def _check_spaces(dense: Player, pruned: Player) -> None:
    for part, ours, theirs in zip(
        ("observations", "actions"), dense.spaces(), pruned.spaces(), strict=True
    ):
        if ours != theirs:
            raise CheckpointError(
                f"The {part} of {dense.name!r} are {ours}, but those of {pruned.name!r} {theirs}: "
                "only policies for the same environment can be compared."
            )


def _told_interruption(out: Path, pairs: int) -> str:
    if not pairs:
        return "Interrupted before the first round was played."
    return f"Interrupted after {pairs} pairs: nothing is decided. They are in {out / RESULT_FILE}."
