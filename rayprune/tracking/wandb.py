"""Weights & Biases: one W&B run per training run or trial, in the run's own ``wandb/``.

Offline needs no account, and ``wandb sync OUT/wandb/offline-run-*`` uploads it
later. Online falls back to offline, with one warning, when there is no key, the key is refused or
the server can't be reached: nothing that W&B does may stop or hold up training.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rayprune.algorithms import is_offline
from rayprune.config import TrackingConfig
from rayprune.errors import StorageError, first_line
from rayprune.tracking.record import read_rows, to_json, write_atomic
from rayprune.tracking.tracker import Tell, Trackers, flat_metrics, is_installed

if TYPE_CHECKING:
    import wandb

STATE_FILE: Final = "rayprune.json"
"""In the run's ``wandb/``: the id and the next step, for the run that resumes."""

SECONDS_TO_REACH: Final = 3.0
SECONDS_TO_START: Final = 20.0
SECONDS_TO_FINISH: Final = 30.0
"""How long the end of a run waits for W&B's uploads; what is left stays on disk."""

SHARES: Final = (99, 95, 90)
"""Per cent of a front's best return, of which each has its sparsest policy."""

_LONGEST_TAG = 64
_LEFT_OUT = {"replay_buffer.pkl"}
"""Files of a checkpoint that an artifact leaves out: gigabytes that only a resume needs."""


class WandbTracker:
    """A `rayprune.tracking.tracker.Tracker` that writes a W&B run.

    Its step is its own and counts rows: W&B drops rows whose step goes back, which env steps and
    iterations do after a resume or an exploit. Charts take ``env_steps`` for their x axis.

    Args:
        directory: the run's directory.
        mode: ``online`` or ``offline``; the environment's ``WANDB_MODE`` may lower it.
        project: W&B's project.
        name: what the run is called.
        group: runs that belong together: a sweep's trials, an experiment's seeds.
        tags: words to filter by.
        tell: told of what goes wrong, once.
        job_type: ``train``, or ``sweep`` for the run that holds a sweep's front.
    """

    def __init__(
        self,
        directory: Path,
        *,
        mode: str,
        project: str,
        name: str,
        group: str,
        tags: Sequence[str],
        tell: Tell,
        job_type: str = "train",
    ) -> None:
        self._directory = directory
        self._mode = _lower_mode(mode)
        self._project = project
        self._name = name
        self._group = group
        self._tags = tags
        self._tell = tell
        self._job_type = job_type
        self._state: dict[str, Any] = {}
        self._run: wandb.Run | None = None

    def start(self, config: Mapping[str, Any]) -> None:
        """See `Tracker.start`."""
        if self._mode == "disabled":
            return
        if self._mode == "offline":
            # Else an offline run, too, sends telemetry, and waits for the server at its end.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._state = self._read_state()
        self._run = self._init(config)
        clock = "updates" if is_offline(config.get("algorithm")) else "env_steps"
        self._run.define_metric(clock)
        self._run.define_metric("*", step_metric=clock)
        # Online, the server may know of more steps than this disk: another machine went on.
        self._state["step"] = max(self._state["step"], self._run.step)
        self._write_state()

    def row(self, row: Mapping[str, Any]) -> None:
        """See `Tracker.row`."""
        if self._run is None:
            return
        import wandb

        exploit = row.get("exploit")
        if exploit:
            self._exploit(exploit)
        numbers, histograms = flat_metrics(row)
        drawn = {
            path: wandb.Histogram(np_histogram=(counts, edges))  # type: ignore[arg-type]
            for path, (counts, edges) in histograms.items()
        }
        self._log({**numbers, **drawn})

    def artifact(self, path: Path, kind: str, aliases: Sequence[str] = ()) -> None:
        """See `Tracker.artifact`; `aliases` are names of this version, beside W&B's ``latest``."""
        if self._run is None or not path.exists():
            return
        import wandb

        artifact = wandb.Artifact(_artifact_name(kind, self._state["id"]), type=kind)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            if file.name not in _LEFT_OUT:
                name = file.name if file == path else file.relative_to(path).as_posix()
                # Neither copied nor cached: an offline run names the files where they lie.
                artifact.add_file(str(file), name=name, skip_cache=True, policy="immutable")
        self._run.log_artifact(artifact, aliases=["latest", *aliases] if aliases else None)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a table; nested values go in as JSON."""
        if self._run is None or not rows:
            return
        import wandb

        columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
        data = [[_cell(row.get(str(column))) for column in columns] for row in rows]
        self._log({name: wandb.Table(columns=columns, data=data)})

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """See `Tracker.finish`."""
        if self._run is None:
            return
        self.table("lineage", self._state["lineage"])
        if summary is not None:
            self._run.summary.update(flat_metrics(summary)[0])
        run, self._run = self._run, None
        place = Path(run.settings.sync_dir)
        try:
            run.finish(exit_code=int(summary is None))
        except Exception as error:  # besides its own errors W&B raises the service's
            self._tell(
                f"W&B did not get the end of {self._name!r} ({first_line(error)}). Nothing is "
                f"lost: `wandb sync {place}` uploads it later."
            )

    def _log(self, values: dict[str, Any]) -> None:
        assert self._run is not None
        self._run.log(values, step=self._state["step"])
        self._state["step"] += 1
        self._write_state()

    def _exploit(self, exploit: Mapping[str, Any]) -> None:
        """Mark the run as a copy, keep the ancestry, and take over the changed config."""
        assert self._run is not None
        self._state["lineage"].append(dict(exploit))
        changed = exploit.get("changed") or {}
        marks = ["exploited", f"from:{exploit.get('donor')}"[:_LONGEST_TAG]]
        held = list(self._run.tags or ())
        if "pruning.criterion" in changed:
            old, new = changed["pruning.criterion"]
            held = [str(new) if tag == old else tag for tag in held]
        self._run.tags = tuple(dict.fromkeys([*held, *marks]))
        for path, change in changed.items():
            holder, _, key = path.partition(".")
            new = {holder: _with(self._run.config.get(holder), key, change[1])}
            self._run.config.update(new, allow_val_change=True)

    def _init(self, config: Mapping[str, Any]) -> wandb.Run:
        if self._mode == "online":
            fault = _unusable()
            if fault is None:
                try:
                    return self._open(config, "online")
                except Exception as error:
                    fault = f"W&B refused the run: {first_line(error)}."
                    self._state["id"] = secrets.token_hex(6)
            self._tell(
                f"{fault} The run goes on offline; `wandb sync {self._directory / 'wandb'}"
                "/offline-run-*` uploads it later."
            )
        return self._open(config, "offline")

    def _open(self, config: Mapping[str, Any], mode: str) -> wandb.Run:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",  # our own standard output is a contract
            x_disable_stats=True,  # Ray measures the machine, once for all trials
            init_timeout=SECONDS_TO_START,
            finish_timeout=SECONDS_TO_FINISH,
            finish_timeout_raises=True,
        )
        return wandb.init(
            dir=str(self._directory),
            mode="online" if mode == "online" else "offline",
            project=self._project,
            id=self._state["id"],
            name=self._name,
            group=self._group,
            tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys(self._tags)],
            job_type=self._job_type,
            config=dict(config),
            # A run of the user's own, or another trial's in this process, stays what it is.
            reinit="create_new",
            # Offline, too: else `wandb sync` writes what a resumed run did over how it began.
            resume="allow",
            settings=settings,
        )

    def _read_state(self) -> dict[str, Any]:
        fresh = {"id": secrets.token_hex(6), "step": 0, "lineage": []}
        try:
            held = json.loads((self._directory / "wandb" / STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return fresh
        return {**fresh, **held}

    def _write_state(self) -> None:
        path = self._directory / "wandb" / STATE_FILE
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, to_json(self._state))


def track_sweep(directory: Path, tracking: TrackingConfig, tell: Tell) -> None:
    """Write a finished sweep's own W&B run into its ``wandb/``: front, lineage and outcome.

    Args:
        directory: the sweep's; ``sweep.json``, ``front.json`` and ``lineage.jsonl`` are read.
        tracking: the experiment's.
        tell: told of what goes wrong.
    """
    if tracking.wandb == "off" or not is_installed("wandb", tracking, tell):
        return
    sweep = json.loads((directory / "sweep.json").read_text(encoding="utf-8"))
    tracker = WandbTracker(
        directory,
        mode=tracking.wandb,
        project=tracking.project,
        name=sweep["name"],
        group=sweep["name"],
        tags=("sweep", sweep["method"]),
        tell=tell,
        job_type="sweep",
    )
    with Trackers([tracker], tell) as guarded:
        guarded.start({key: sweep[key] for key in ("name", "method")})
        guarded.each(lambda _: _sweep_tables(tracker, directory, sweep))
        guarded.artifact(directory / "front.json", "front")
        guarded.each(lambda _: _sparsest_policies(tracker, directory))
        guarded.finish({key: value for key, value in sweep.items() if key != "trials"})


def _sweep_tables(tracker: WandbTracker, directory: Path, sweep: Mapping[str, Any]) -> None:
    tracker.table("trials", sweep["trials"])
    for name, rows in (
        ("front", lambda: json.loads((directory / "front.json").read_text("utf-8"))["points"]),
        ("lineage", lambda: read_rows(directory / "lineage.jsonl")),
    ):
        tracker.table(name, _or_nothing(rows))


def _sparsest_policies(tracker: WandbTracker, directory: Path) -> None:
    """Keep the front's policies that are the sparsest at a share of the best return."""
    front = _or_nothing(lambda: json.loads((directory / "front.json").read_text("utf-8"))["points"])
    for checkpoint, aliases in sparsest_aliases(front).items():
        tracker.artifact(directory / checkpoint, "checkpoint", aliases)


def sparsest_aliases(points: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the aliases that a front's policies are found by, by checkpoint.

    ``sparsest-95`` is the sparsest one that keeps 95 % of the front's best validation return: that
    falls short of it by no more than 5 % of its size.

    >>> points = [
    ...     {"checkpoint": "a", "return": 100.0, "sparsity": 0.5},
    ...     {"checkpoint": "b", "return": 96.0, "sparsity": 0.9},
    ...     {"checkpoint": "c", "return": 50.0, "sparsity": 0.99},
    ... ]
    >>> sparsest_aliases(points)
    {'a': ['sparsest-99'], 'b': ['sparsest-95', 'sparsest-90']}
    """
    found: dict[str, list[str]] = {}
    measured = [p for p in points if None not in (p.get("return"), p.get("sparsity"))]
    best = max((float(point["return"]) for point in measured), default=0.0)
    for share in SHARES if measured else ():
        least = best - (1 - share / 100) * abs(best)
        keeping = [point for point in measured if point["return"] >= least]
        sparsest = max(keeping, key=lambda point: float(point["sparsity"]))
        found.setdefault(str(sparsest["checkpoint"]), []).append(f"sparsest-{share}")
    return found


def _or_nothing(read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A sweep in which nothing was copied, or of which all trials failed, lacks the file."""
    try:
        return read()
    except (OSError, StorageError):
        return []


def _unusable() -> str | None:
    """Return why W&B can't be used online, found out within seconds; None when it can."""
    import requests
    import wandb

    server = str(wandb.setup().settings.base_url)
    try:
        # Any answer will do: it is the connection that W&B itself would wait for, for minutes.
        requests.get(server, timeout=SECONDS_TO_REACH, allow_redirects=False, stream=True).close()
    except requests.RequestException as error:
        return f"W&B at {server} can't be reached ({type(error).__name__})."
    try:
        # `wandb.init` would ask for the key on a terminal, and wait.
        if not wandb.login(prompt=False, verify=False):
            return "There is no key for W&B; `wandb login` stores one."
        # Not left to `wandb.init`: after a failure there the run's id stays taken in this process.
        wandb.Api(timeout=int(SECONDS_TO_START))
    except Exception as error:  # W&B raises its own, requests' and the service's
        return f"W&B can't be used: {first_line(error)}."
    return None


def _lower_mode(mode: str) -> str:
    """What CI and clusters set in WANDB_MODE wins where it asks for less."""
    asked = os.environ.get("WANDB_MODE", mode)
    return asked if asked in ("offline", "disabled") else mode


def _with(held: Any, path: str, value: Any) -> Any:
    """Return ``held`` with the value at a dotted path replaced; ``held`` itself is unharmed."""
    if not path:
        return value
    head, _, rest = path.partition(".")
    inner = dict(held) if isinstance(held, Mapping) else {}
    return {**inner, head: _with(inner.get(head), rest, value)}


def _cell(value: Any) -> Any:
    return to_json(value) if isinstance(value, (Mapping, list, tuple)) else value


def _artifact_name(kind: str, run_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{kind}-{run_id}")
