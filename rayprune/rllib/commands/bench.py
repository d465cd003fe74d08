"""``rayprune bench``: what a policy's actions cost, dense beside pruned, in each runtime.

Of a checkpoint the policy is exported twice to every format: whole, and with its dead units
removed. What the removal gains is the ratio of the two *in the same runtime*; against RLlib's
`forward_inference` there is the gain of the export in it, too, and both are told.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch
import tree

from rayprune.config import EvaluationConfig
from rayprune.deploy.export.export import export_policy
from rayprune.deploy.export.shrink import shrink
from rayprune.deploy.formats import FORMATS, format_named, format_of, is_exported, open_artifact
from rayprune.deploy.measure.latency import CONTROL, LEAST_ROUNDS, Arm, Timings, speed_up, time_arms
from rayprune.deploy.measure.machine import cores, cpu
from rayprune.deploy.measure.memory import peak_memory
from rayprune.deploy.policy.artifact import Artifact
from rayprune.deploy.policy.capture import plain_copy
from rayprune.deploy.policy.interface import Port
from rayprune.deploy.policy.policy import DeployablePolicy
from rayprune.errors import ConfigError, InputError
from rayprune.rllib.evaluation.evaluator import Evaluator
from rayprune.rllib.evaluation.open_policy import OpenPolicy
from rayprune.rllib.export.latency import timing_inputs
from rayprune.rllib.export.policy import deployable
from rayprune.rllib.export.recorded import Recorded
from rayprune.storage.copies import shown
from rayprune.tracking.versions import versions

SCHEMA: Final = 1
RLLIB: Final = "forward_inference"
"""The runtime of whoever doesn't export: RLlib's module, called with a batch."""
EAGER: Final = "eager"
"""The plain torch module in Python, observation in, action out, without RLlib around it."""
LIMIT_S: Final = 30.0
"""For one batch size and number of threads; slow policies get fewer rounds."""
_GLANCE_S: Final = 0.5
NOISE: Final = 0.2
"""By how much a control may be off before the figures are doubted aloud."""
DENSE: Final = "dense"
PRUNED: Final = "pruned"
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
class Subject:
    """One policy in one runtime."""

    target: str
    policy: str
    """``dense`` or ``pruned``; of a file its name."""
    runtime: str
    open: Callable[[int], Callable[[int], Arm]]
    """From threads, then a batch size, to what is timed."""
    file: Path | None = None
    observes: tuple[Port, ...] = ()
    """What goes into the file."""
    memory: dict[int, int] | None = None

    @property
    def name(self) -> str:
        """Its own among all."""
        return f"{self.target} {self.policy} {self.runtime}"


@dataclass(slots=True)
class Target:
    """What was asked about, and the subjects that it comes to."""

    path: str
    subjects: list[Subject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    parameters: dict[str, int | None] = field(default_factory=dict)
    """Of the policy, whole and with dead units removed."""


def bench(paths: Sequence[Path], options: BenchOptions, reporter: BenchReporter) -> dict[str, Any]:
    """Time policies side by side, in one process.

    Args:
        paths: checkpoints (rayprune's, plain RLlib's, or a finished run's directory) and exported
            files; what comes first is the reference of the others in the same runtime.
        options: what is timed.
        reporter: told of the progress.

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
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rayprune-bench-")))
        targets = []
        for number, path in enumerate(paths):
            reporter.stage(f"exports {path}")
            targets.append(_target(path, place / str(number), options, stack, reporter))
        subjects = [subject for target in targets for subject in target.subjects]
        _check_alike(subjects)
        if options.memory:
            for subject in subjects:
                if subject.file is not None:
                    reporter.stage(f"measures the memory of {subject.name}")
                    subject.memory = peak_memory(subject.file, options.batches)
        rows, controls = _timed(subjects, options, reporter)
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
    return _checkpoint_target(path, place, options, stack, reporter)


def _file_target(path: Path) -> Target:
    artifact = open_artifact(path)
    runtime = format_of(path).name
    observes = artifact.interface.observations
    subject = Subject(shown(path), path.name, runtime, _opener(path), path, observes)
    return Target(shown(path), [subject], [], {path.name: _parameters_of(artifact)})


def _checkpoint_target(
    path: Path, place: Path, options: BenchOptions, stack: ExitStack, reporter: BenchReporter
) -> Target:
    policy = stack.enter_context(OpenPolicy.at(path))
    evaluator, shrunk = policy.evaluator, bool(policy.saved.origins)
    seed = EvaluationConfig().validation_seed
    whole = plain_copy(deployable(evaluator))
    target = Target(shown(path))
    target.subjects.append(Subject(target.path, DENSE, RLLIB, _rllib(evaluator, seed)))
    _glance(target.subjects[-1], options, reporter)
    reporter.stage(f"plays an episode of {path}, and removes what is dead")
    recorded = Recorded(whole.interface)
    evaluator.returns(seed, 1, recorded.watch)
    inputs = recorded.inputs(whole.interface)
    smaller = shrink(whole, inputs)
    policies = {DENSE: (whole, inputs)}
    if smaller.certificate["removed"]:
        policies[PRUNED] = (smaller.policy, smaller.inputs(inputs))
    else:
        target.notes += [] if shrunk else [NOTHING_DEAD]
    if shrunk:
        target.notes.append(GONE_IN_TRAINING)
    for name, (exported, given) in policies.items():
        target.parameters[name] = sum(p.numel() for p in exported.parameters())
        target.subjects.append(Subject(target.path, name, EAGER, _eager(exported)))
        _glance(target.subjects[-1], options, reporter)
        for runtime in options.formats:
            reporter.stage(f"exports {name} of {path} to {runtime}, and proves it")
            file = place / f"{name}{format_named(runtime).suffix}"
            try:
                export_policy(exported, file, runtime, recorded=given, about={}, compacted=False)
                # What can be written can't always be run: C needs a compiler.
                observes = open_artifact(file).interface.observations
            except InputError as error:
                target.notes.append(f"{name}, {runtime}: {error}")
            else:
                opened = Subject(target.path, name, runtime, _opener(file), file, observes)
                target.subjects.append(opened)
    return target


def _glance(subject: Subject, options: BenchOptions, reporter: BenchReporter) -> None:
    """Tell of a first look, long before all is exported and timed side by side."""
    threads, batch = options.threads[0] or cores(), options.batches[0]
    with _torch_threads(threads):
        arms = {subject.name: subject.open(threads)(batch)}
        found = time_arms(arms, rounds=LEAST_ROUNDS, limit_s=_GLANCE_S)[subject.name]
    reporter.row(f"{_told(subject, found, threads, batch)} (a first look, alone)")


def _told(subject: Subject, found: Timings, threads: int, batch: int) -> str:
    figures = found.summary()
    return (
        f"{subject.name}, batch {batch}, {threads} thread(s): median {figures['median_us']:,.1f} "
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


def _eager(policy: DeployablePolicy) -> Callable[[int], Callable[[int], Arm]]:
    def of_batch(batch: int) -> Arm:
        inputs = [torch.from_numpy(given) for given in timing_inputs(policy.interface, batch)]

        def call() -> object:
            with torch.inference_mode():
                return policy(*inputs)

        return call

    return lambda _threads: of_batch


def _rllib(evaluator: Evaluator, seed: int) -> Callable[[int], Callable[[int], Arm]]:
    one = evaluator.first_batch(seed)

    def of_batch(batch: int) -> Arm:
        many = tree.map_structure(lambda leaf: _repeated(leaf, batch), one)

        def call() -> object:
            with torch.no_grad():
                return evaluator.module.forward_inference(many)

        return call

    return lambda _threads: of_batch


def _repeated(leaf: Any, batch: int) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.repeat(batch, *(1 for _ in leaf.shape[1:]))


def _opener(file: Path) -> Callable[[int], Callable[[int], Arm]]:
    def of_threads(threads: int) -> Callable[[int], Arm]:
        artifact = open_artifact(file, threads=threads)

        def of_batch(batch: int) -> Arm:
            inputs = timing_inputs(artifact.interface, batch)
            return lambda: artifact.run(inputs)

        return of_batch

    return of_threads


def _timed(
    subjects: Sequence[Subject], options: BenchOptions, reporter: BenchReporter
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    controls: list[dict[str, Any]] = []
    # Of a machine with one core, one and all are the same.
    for count in dict.fromkeys(threads or cores() for threads in options.threads):
        with _torch_threads(count):
            opened = {subject.name: subject.open(count) for subject in subjects}
            for batch in dict.fromkeys(options.batches):
                reporter.stage(f"times batch {batch} with {count} thread(s)")
                arms = {name: made(batch) for name, made in opened.items()}
                found = time_arms(arms, rounds=options.rounds, limit_s=LIMIT_S)
                for subject in subjects:
                    reporter.row(_told(subject, found[subject.name], count, batch))
                where = {"threads": count, "batch": batch}
                rows += [_row(subject, subjects, found, options, where) for subject in subjects]
                first = subjects[0].name
                same = speed_up(found[first], found[CONTROL])
                controls.append({**where, "of": first, **same})
    return rows, controls


def _row(
    subject: Subject,
    subjects: Sequence[Subject],
    found: Mapping[str, Timings],
    options: BenchOptions,
    where: Mapping[str, int],
) -> dict[str, Any]:
    deadline = None if options.deadline_ms is None else 1e-3 * options.deadline_ms
    return {
        "target": subject.target,
        "policy": subject.policy,
        "runtime": subject.runtime,
        **where,
        **found[subject.name].summary(deadline),
        "file_bytes": None if subject.file is None else subject.file.stat().st_size,
        "peak_memory_bytes": (subject.memory or {}).get(where["batch"]),
        "speed_up": {
            "same_runtime": _against(subject, subjects, found, subject.runtime),
            RLLIB: _against(subject, subjects, found, RLLIB),
        },
    }


def _against(
    subject: Subject, subjects: Sequence[Subject], found: Mapping[str, Timings], runtime: str
) -> dict[str, Any] | None:
    """Return the ratio to the first policy in a runtime, None for that one itself."""
    reference = next((one for one in subjects if one.runtime == runtime), None)
    if reference is None or reference is subject:
        return None
    return speed_up(found[reference.name], found[subject.name])


def _check_alike(subjects: Sequence[Subject]) -> None:
    """Refuse to compare policies that don't see the same."""
    if len({subject.name for subject in subjects}) < len(subjects):
        raise InputError("The same checkpoint or file was given twice.")
    ports = {subject.target: subject.observes for subject in subjects if subject.observes}
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
