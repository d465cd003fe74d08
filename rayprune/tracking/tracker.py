"""Followers of a run beside its record: what they are told, and how none of them can stop it.

A tracker reads the rows that go into results.jsonl. Besides the plain numbers it understands, where
a row has them:

``groups`` and ``layers``
    sparsity by group and by layer name (``layers`` may be summary.json's list, too);
``own_groups``
    of groups with choices of their own: what these are, their target and sparsity, by group name;
``mask_churn``, ``dead_units``
    share of the weights whose mask has changed since the last row, and dead units; a number each,
    or one by layer name;
``policy_change``
    how far the row's mask updates moved the policy at most: ``kl``, ``value_change``,
    ``greedy_changed``; and the least share of a step that was ``taken``;
``itop``
    share of the weights that were ever active, of all and by layer (in-time over-parameterisation,
    arXiv:2102.02887); absent where training began with all of them;
``scores``
    histograms by layer name, ``{"counts": [...], "edges": [...]}``, one edge more than counts;
``plasticity``
    ``{"dormant", "srank", "gradient_snr"}``, each by layer name;
``flops``
    ``{"dense": ..., "sparse": ...}`` of one forward;
``exploit``
    this row is the first after an exploit: the object of lineage.jsonl.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

from rayprune.config import TrackingConfig
from rayprune.extras import pip_line

Tell = Callable[[str], None]
"""Takes one sentence for the person who watches, such as `Reporter.message`."""

Histogram = tuple[list[float], list[float]]
"""Counts and edges, one edge more than counts."""

_PREFIXES = {"groups": "sparsity/group", "layers": "sparsity/layer", "own_groups": "group"}
_NO_METRICS = {"exploit"}


class Tracker(Protocol):
    """Follows one run; a resumed run starts a new one in the same directory."""

    def start(self, config: Mapping[str, Any]) -> None:
        """The run starts, or goes on.

        Args:
            config: the resolved experiment, nested as in the YAML.
        """

    def row(self, row: Mapping[str, Any]) -> None:
        """An iteration ended; the row is in the record already."""

    def artifact(self, path: Path, kind: str) -> None:
        """Keep a file or a directory: kind ``checkpoint`` or ``front``."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """The run has ended.

        Args:
            summary: the content of summary.json; None when it did not come to its end.
        """


class Trackers:
    """Several trackers as one, of which none can stop the run.

    A tracker that fails is told of once, and left out from then on. As a context manager it
    finishes the trackers when the run was left without `finish`.
    """

    def __init__(self, trackers: Sequence[Tracker], tell: Tell) -> None:
        self._trackers = list(trackers)
        self._tell = tell
        self._finished = False

    def start(self, config: Mapping[str, Any]) -> None:
        """See `Tracker.start`."""
        self.each(lambda tracker: tracker.start(config))

    def row(self, row: Mapping[str, Any]) -> None:
        """See `Tracker.row`."""
        self.each(lambda tracker: tracker.row(row))

    def artifact(self, path: Path, kind: str) -> None:
        """See `Tracker.artifact`."""
        self.each(lambda tracker: tracker.artifact(path, kind))

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """See `Tracker.finish`; a second call does nothing."""
        if not self._finished:
            self._finished = True
            self.each(lambda tracker: tracker.finish(summary))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(None)

    def each(self, action: Callable[[Tracker], None]) -> None:
        """Do something with each tracker that hasn't failed yet."""
        for tracker in list(self._trackers):
            try:
                action(tracker)
            # Whatever a third party's package raises, training is worth more.
            except Exception as error:
                self._trackers.remove(tracker)
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                self._tell(
                    f"{type(tracker).__name__} failed, so the run goes on without it: {reason}"
                )
                if not self._finished:
                    with contextlib.suppress(Exception):
                        tracker.finish(None)


def flat_metrics(row: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Histogram]]:
    """Return a row's numbers and its histograms, each under a path of names.

    >>> flat_metrics({"env_steps": 10, "groups": {"policy": 0.5}, "return_mean": None})
    ({'env_steps': 10, 'sparsity/group/policy': 0.5}, {})
    >>> flat_metrics({"own_groups": {"value": {"schedule": "rigl", "target": 0.9}}})
    ({'group/value/target': 0.9}, {})
    >>> flat_metrics({"scores": {"pi": {"counts": [3, 1], "edges": [0.0, 0.5, 1.0]}}})
    ({}, {'scores/pi': ([3, 1], [0.0, 0.5, 1.0])})
    """
    numbers: dict[str, float] = {}
    histograms: dict[str, Histogram] = {}
    for path, value in _leaves({k: v for k, v in row.items() if k not in _NO_METRICS}, ""):
        if isinstance(value, Mapping):
            histograms[path] = (list(value["counts"]), list(value["edges"]))
        else:
            numbers[path] = value
    return numbers, histograms


def layer_sparsities(layers: object) -> dict[str, float]:
    """Return ``{layer name: sparsity}`` of a row's or a summary's ``layers``, in either form.

    >>> layer_sparsities([{"name": "pi", "sparsity": 0.5, "shape": [2, 4]}])
    {'pi': 0.5}
    """
    if isinstance(layers, Mapping):
        return {str(name): value for name, value in layers.items() if value is not None}
    if isinstance(layers, Sequence) and not isinstance(layers, str):
        return {str(layer["name"]): layer["sparsity"] for layer in layers}
    return {}


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        path = prefix + (key if prefix else _PREFIXES.get(key, str(key)))
        if key == "layers" and not prefix:
            value = layer_sparsities(value)
        if isinstance(value, Mapping):
            if set(value) == {"counts", "edges"}:
                yield path, value
            else:
                yield from _leaves(value, f"{path}/")
        elif key == "ci95" and isinstance(value, Sequence) and len(value) == 2:
            yield from _leaves({"low": value[0], "high": value[1]}, f"{path}_")
        elif isinstance(value, bool):
            yield path, int(value)
        elif isinstance(value, Real):
            yield path, value


_told: set[str] = set()
_OFF = {"wandb": "off", "tensorboard": "false"}


def is_installed(package: str, tracking: TrackingConfig, tell: Tell) -> bool:
    """Whether a tracker's package is installed; a missing one is told of once per process.

    Args:
        package: ``wandb`` or ``tensorboardX``.
        tracking: the experiment's; what it has by default may be missing without a word.
        tell: told.
    """
    extra = package.lower().removesuffix("x")
    try:
        # Not find_spec: W&B's own folder `wandb/` in the working directory passes for a package.
        distribution(package)
    except PackageNotFoundError:
        if extra in tracking.model_fields_set and package not in _told:
            _told.add(package)
            value = str(getattr(tracking, extra)).lower()
            tell(
                f"`tracking.{extra}: {value}` needs {package}, which is not installed, so the run "
                f"goes on without it. {pip_line(extra)}, or set it to {_OFF[extra]}."
            )
        return False
    return True
