"""TensorBoard event files, in the run's own ``tensorboard/``.

Written by tensorboardX: ray[rllib] brings it anyway, and it needs NumPy and protobuf only, where
torch.utils.tensorboard needs the whole of tensorboard with its web server and gRPC. Any tensorboard
reads what it writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayprune.tracking.record import step_of, to_json
from rayprune.tracking.tracker import Histogram, flat_metrics

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoardTracker:
    """A `rayprune.tracking.tracker.Tracker` that writes TensorBoard's files.

    Its step is env steps. A resumed run tells TensorBoard to forget the steps that it does again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "tensorboard"
        self._config = ""
        self._writer: SummaryWriter | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """See `Tracker.start`."""
        # Only the first row says from which step on older files are superseded.
        self._config = to_json(config, indent=2)

    def row(self, row: Mapping[str, Any]) -> None:
        """See `Tracker.row`."""
        step = step_of(row)
        writer = self._writer or self._open(step)
        numbers, histograms = flat_metrics(row)
        for path, value in numbers.items():
            # RLlib logs NaN for what it has not counted yet, and tensorboardX warns of each.
            if math.isfinite(value):
                writer.add_scalar(path, value, step)
        for path, histogram in histograms.items():
            _add_histogram(writer, path, histogram, step)
        if row.get("exploit"):
            writer.add_text("exploit", _as_code(to_json(row["exploit"])), step)

    def artifact(self, path: Path, kind: str) -> None:
        """TensorBoard keeps no files."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """See `Tracker.finish`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> SummaryWriter:
        from tensorboardX import SummaryWriter

        resumed = any(self._directory.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(
            str(self._directory),
            purge_step=step if resumed else None,
            flush_secs=2,  # what a killed process may lose
        )
        self._writer.add_text("config", _as_code(self._config), step)
        return self._writer


def _add_histogram(writer: SummaryWriter, path: str, histogram: Histogram, step: int) -> None:
    counts, edges = histogram
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    writer.add_histogram_raw(
        path,
        min=edges[0],
        max=edges[-1],
        num=sum(counts),
        sum=sum(n * x for n, x in zip(counts, middles, strict=True)),
        sum_squares=sum(n * x * x for n, x in zip(counts, middles, strict=True)),
        bucket_limits=edges[1:],
        bucket_counts=counts,
        global_step=step,
    )


def _as_code(text: str) -> str:
    """TensorBoard shows text as Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())
