"""``rayprune bench``: what a policy's actions cost, dense beside pruned, in each runtime.

Of a checkpoint the policy is exported twice to every format: whole, and with its dead units
removed. What the removal gains is the ratio of the two *in the same runtime*; against RLlib's
`forward_inference` there is the gain of the export in it, too, and both are told.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import torch

from rayprune.config import EvaluationConfig
from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.manifest import require_manifest
from rayprune.deploy.export.shrink import shrink
from rayprune.deploy.formats import FORMATS, format_named, format_of, is_exported, open_artifact
from rayprune.deploy.measure.latency import CONTROL, LEAST_ROUNDS, Timings, speed_up, time_arms
from rayprune.deploy.measure.machine import cores, cpu
from rayprune.deploy.measure.memory import peak_memory
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.interface import Array
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import ConfigError, InputError
from rayprune.policies.export import observed
from rayprune.policies.foreign_policy import ForeignOptions, ForeignPolicy, open_policy
from rayprune.policies.places import is_foreign
from rayprune.rllib.commands.bench_arms import (
    DENSE,
    EAGER,
    PRUNED,
    RLLIB,
    BenchArm,
    eager,
    exported,
    rllib_module,
)
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.export.recorded import Recorded
from rayprune.storage.copies import shown
from rayprune.tracking.versions import versions

P = TypeVar("P")
SCHEMA: Final = 1
LIMIT_S: Final = 30.0
"""For one batch size and number of threads; slow policies get fewer rounds."""
_GLANCE_S: Final = 0.5
NOISE: Final = 0.2
"""By how much a control may be off before the figures are doubted aloud."""
NOTHING_DEAD: Final = "No unit is dead, so that nothing can be removed: prune neurons."
GONE_IN_TRAINING: Final = (
    "Its dead units went while it was trained, so that 'dense' is what is left of it: give the "
    "dense policy's checkpoint first to compare with that."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is timed."""

    deadline_ms: float | None = None
    """What a call may take; None for no deadline."""
    batches: tuple[int, ...] = (1, 32, 256)
    threads: tuple[int, ...] = (1, 0)
    """0 is one for each core."""
    rounds: int = 20
    """Blocks of calls, of about 5 ms, of each arm."""
    formats: tuple[str, ...] = tuple(FORMATS)
    """Of the files that a checkpoint is exported to."""
    memory: bool = True
    """Whether each file's peak memory is measured, in a process of its own."""

    def faults(self) -> list[str]:
        """Return everything that is wrong."""
        faults = []
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            faults.append(f"`--deadline` must be above 0 ms, but is {self.deadline_ms!r}.")
        if not self.batches or min(self.batches) < 1:
            faults.append(f"`--batches` must be 1 or more, but are {list(self.batches)}.")
        if not self.threads or min(self.threads) < 0:
            faults.append(f"`--threads` must be 0 (all) or more, but are {list(self.threads)}.")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            faults.append(f"`--formats` must be of {sorted(FORMATS)}, but hold {unknown}.")
        return faults


class BenchReporter(Protocol):
    """Told what is going on."""

    def stage(self, text: str) -> None:
        """It turned to this."""

    def row(self, text: str) -> None:
        """A first figure is there: what was timed, and what a call took."""


@dataclass(slots=True)
class Target:
    """What was asked about, and the arms that it comes to."""

    path: str
    arms: list[BenchArm] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    parameters: dict[str, int | None] = field(default_factory=dict)
    """Of the policy, whole and with dead units removed."""


def bench(
    paths: Sequence[Path],
    options: BenchOptions,
    reporter: BenchReporter,
    source: ForeignOptions | None = None,
) -> dict[str, Any]:
    """Time policies side by side, in one process.

    Args:
        paths: checkpoints (rayprune's, plain RLlib's, or a finished run's directory), exported
            files, and policies from elsewhere; what comes first is the reference of the others in
            the same runtime.
        options: what is timed.
        reporter: told of the progress.
        source: what policies from elsewhere don't say themselves.

    Returns:
        A plain dict::

            {"schema": 1, "machine": {"cpu", "cores", "load", "versions"}, "settings": {...},
             "targets": [{"target", "parameters": {"dense", "pruned"}, "notes": [...]}],
             "rows": [{"target", "policy", "runtime", "threads", "batch", "median_us", "ci95_us",
                       "p99_us", "calls", "missed", "file_bytes", "peak_memory_bytes",
                       "speed_up": {"same_runtime", "forward_inference": {"ratio", "ci95"}}}],
             "controls": [{"threads", "batch", "of", "ratio", "ci95"}]}

        ``same_runtime`` is against the first policy in that runtime, what pruning gains;
        ``forward_inference`` against RLlib's own call, of the first checkpoint. Either is None
        where there is nothing to compare with. A control is the ratio of one arm to itself.

    Raises:
        InputError: a wrong option, or nothing there that can be timed.
    """
    faults = options.faults()
    if faults:
        raise ConfigError(faults)
    about = _machine()  # before our own load
    with ExitStack() as stack:
        targets = _targets(paths, options, stack, reporter, source)
        arms = [arm for target in targets for arm in target.arms]
        _check_alike(arms)
        if options.memory:
            _measure_memory(arms, options, reporter)
        rows, controls = _timed(arms, options, reporter)
    for target in targets:
        _note_noise(target, controls)
    return {
        "schema": SCHEMA,
        "machine": about,
        "settings": asdict(options),
        "targets": [
            {"target": target.path, "parameters": target.parameters, "notes": target.notes}
            for target in targets
        ],
        "rows": rows,
        "controls": controls,
    }


def _targets(
    paths: Sequence[Path],
    options: BenchOptions,
    stack: ExitStack,
    reporter: BenchReporter,
    source: ForeignOptions | None,
) -> list[Target]:
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rayprune-bench-")))
    targets = []
    for number, path in enumerate(paths):
        reporter.stage(f"exports {path}")
        within = place / str(number)
        if is_foreign(path):
            within.mkdir()
            policy = open_policy(path, source)
            targets.append(_ForeignTarget(path, policy, within, options, reporter).assembled())
        else:
            targets.append(_target(path, within, options, stack, reporter))
    return targets


def _measure_memory(
    arms: Sequence[BenchArm], options: BenchOptions, reporter: BenchReporter
) -> None:
    for arm in arms:
        if arm.file is not None:
            reporter.stage(f"measures the memory of {arm.name}")
            arm.memory = peak_memory(arm.file, options.batches)


def _machine() -> dict[str, Any]:
    """Return what the figures hold for."""
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return {"cpu": cpu(), "cores": cores(), "load": load, "versions": versions()}


def _target(
    path: Path, place: Path, options: BenchOptions, stack: ExitStack, reporter: BenchReporter
) -> Target:
    if is_exported(path):
        return _file_target(path)
    place.mkdir()
    policy = stack.enter_context(OpenPolicy.at(path))
    return _CheckpointTarget(path, policy, place, options, reporter).assembled()


def _file_target(path: Path) -> Target:
    require_manifest(path)
    artifact = open_artifact(path)
    runtime = format_of(path).name
    observes = artifact.interface.observations
    arm = BenchArm(shown(path), path.name, runtime, exported(path), path, observes)
    return Target(shown(path), [arm], [], {path.name: _parameters_of(artifact)})


class _PolicyTarget(Generic[P]):
    """A policy in each runtime, whole and with its dead units removed."""

    def __init__(
        self, path: Path, policy: P, place: Path, options: BenchOptions, reporter: BenchReporter
    ) -> None:
        self._path, self._policy, self._place = path, policy, place
        self._options, self._reporter = options, reporter
        self._target = Target(shown(path))

    def _exported(
        self, whole: DeployablePolicy, inputs: list[Array], *, shrunk_in_training: bool
    ) -> Target:
        """Return the target with an arm for each runtime of the policy, each looked at once."""
        versions_of = self._versions(whole, inputs, shrunk_in_training=shrunk_in_training)
        for name, (policy, given) in versions_of.items():
            self._target.parameters[name] = sum(p.numel() for p in policy.parameters())
            self._add(BenchArm(self._target.path, name, EAGER, eager(policy)))
            for runtime in self._options.formats:
                self._export(name, policy, given, runtime)
        return self._target

    def _versions(
        self, whole: DeployablePolicy, inputs: list[Array], *, shrunk_in_training: bool
    ) -> dict[str, tuple[DeployablePolicy, list[Array]]]:
        """Return the policy dense and, where units are dead, without them, with its inputs."""
        smaller = shrink(whole, inputs)
        found = {DENSE: (whole, inputs)}
        if smaller.certificate["removed"]:
            found[PRUNED] = (smaller.policy, smaller.inputs(inputs))
        elif not shrunk_in_training:
            self._target.notes.append(NOTHING_DEAD)
        if shrunk_in_training:
            self._target.notes.append(GONE_IN_TRAINING)
        return found

    def _export(
        self, name: str, policy: DeployablePolicy, inputs: list[Array], runtime: str
    ) -> None:
        self._reporter.stage(f"exports {name} of {self._path} to {runtime}, and proves it")
        file = self._place / f"{name}{format_named(runtime).suffix}"
        try:
            export_policy(policy, file, runtime, recorded=inputs, about={}, compacted=False)
            # What can be written can't always be run: C needs a compiler.
            observes = open_artifact(file).interface.observations
        except InputError as error:
            self._target.notes.append(f"{name}, {runtime}: {error}")
        else:
            arm = BenchArm(self._target.path, name, runtime, exported(file), file, observes)
            self._target.arms.append(arm)

    def _add(self, arm: BenchArm) -> None:
        self._target.arms.append(arm)
        _glance(arm, self._options, self._reporter)


class _CheckpointTarget(_PolicyTarget[OpenPolicy]):
    """A checkpoint's policy, beside RLlib's own call."""

    def assembled(self) -> Target:
        """Return it, each of its arms looked at once."""
        evaluator, seed = self._policy.evaluator, EvaluationConfig().validation_seed
        whole = plain_copy(deployable(evaluator))
        self._add(BenchArm(self._target.path, DENSE, RLLIB, rllib_module(evaluator, seed)))
        self._reporter.stage(f"plays an episode of {self._path}, and removes what is dead")
        recorded = Recorded(whole.interface)
        evaluator.returns(seed, 1, recorded.watch)
        inputs = recorded.inputs(whole.interface)
        return self._exported(whole, inputs, shrunk_in_training=bool(self._policy.saved.origins))


class _ForeignTarget(_PolicyTarget[ForeignPolicy]):
    """A policy of Stable-Baselines3 or of one's own."""

    def assembled(self) -> Target:
        """Return it, each of its arms looked at once."""
        self._reporter.stage(f"plays an episode of {self._path}, and removes what is dead")
        met = observed(self._policy, 1).observations
        return self._exported(plain_copy(self._policy.policy), met, shrunk_in_training=False)


def _glance(arm: BenchArm, options: BenchOptions, reporter: BenchReporter) -> None:
    """Tell of a first look, long before all is exported and timed side by side."""
    threads, batch = options.threads[0] or cores(), options.batches[0]
    with _torch_threads(threads):
        calls = {arm.name: arm.open(threads)(batch)}
        found = time_arms(calls, rounds=LEAST_ROUNDS, limit_s=_GLANCE_S)[arm.name]
    reporter.row(f"{_told(arm, found, threads, batch)} (a first look, alone)")


def _told(arm: BenchArm, found: Timings, threads: int, batch: int) -> str:
    figures = found.summary()
    return (
        f"{arm.name}, batch {batch}, {threads} thread(s): median {figures['median_us']:,.1f} "
        f"us, p99 {figures['p99_us']:,.1f} us"
    )


def _note_noise(target: Target, controls: Sequence[Mapping[str, Any]]) -> None:
    """Say where the machine was too busy for figures to be trusted."""
    for control in controls:
        low, high = control["ci95"]
        if low < 1 - NOISE or high > 1 + NOISE:
            target.notes.append(
                f"Noise at batch {control['batch']} with {control['threads']} thread(s): one arm "
                f"against itself took [{low:.2f}, {high:.2f}] times as long. Something else kept "
                "the cores busy; measure again on an idle machine."
            )


def _timed(
    arms: Sequence[BenchArm], options: BenchOptions, reporter: BenchReporter
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    controls: list[dict[str, Any]] = []
    # Of a machine with one core, one and all are the same.
    for count in dict.fromkeys(threads or cores() for threads in options.threads):
        with _torch_threads(count):
            opened = {arm.name: arm.open(count) for arm in arms}
            for batch in dict.fromkeys(options.batches):
                reporter.stage(f"times batch {batch} with {count} thread(s)")
                calls = {name: made(batch) for name, made in opened.items()}
                found = time_arms(calls, rounds=options.rounds, limit_s=LIMIT_S)
                for arm in arms:
                    reporter.row(_told(arm, found[arm.name], count, batch))
                where = {"threads": count, "batch": batch}
                rows += [_row(arm, arms, found, options, where) for arm in arms]
                first = arms[0].name
                same = speed_up(found[first], found[CONTROL])
                controls.append({**where, "of": first, **same})
    return rows, controls


def _row(
    arm: BenchArm,
    arms: Sequence[BenchArm],
    found: Mapping[str, Timings],
    options: BenchOptions,
    where: Mapping[str, int],
) -> dict[str, Any]:
    deadline = None if options.deadline_ms is None else 1e-3 * options.deadline_ms
    return {
        "target": arm.target,
        "policy": arm.policy,
        "runtime": arm.runtime,
        **where,
        **found[arm.name].summary(deadline),
        "file_bytes": None if arm.file is None else arm.file.stat().st_size,
        "peak_memory_bytes": (arm.memory or {}).get(where["batch"]),
        "speed_up": {
            "same_runtime": _against(arm, arms, found, arm.runtime),
            RLLIB: _against(arm, arms, found, RLLIB),
        },
    }


def _against(
    arm: BenchArm, arms: Sequence[BenchArm], found: Mapping[str, Timings], runtime: str
) -> dict[str, Any] | None:
    """Return the ratio to the first policy in a runtime, None for that one itself."""
    reference = next((one for one in arms if one.runtime == runtime), None)
    if reference is None or reference is arm:
        return None
    return speed_up(found[reference.name], found[arm.name])


def _check_alike(arms: Sequence[BenchArm]) -> None:
    """Refuse to compare policies that don't see the same."""
    if len({arm.name for arm in arms}) < len(arms):
        raise InputError("The same checkpoint or file was given twice.")
    ports = {arm.target: arm.observes for arm in arms if arm.observes}
    different = {target for target, held in ports.items() if held != next(iter(ports.values()))}
    if different:
        raise InputError(
            f"{sorted(different)} don't observe what {next(iter(ports))!r} does, so that their "
            "times don't compare. Give policies of one environment."
        )


def _parameters_of(artifact: Artifact) -> int | None:
    module = getattr(artifact, "module", None)
    return None if module is None else sum(p.numel() for p in module.parameters())


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
