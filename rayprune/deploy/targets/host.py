"""Target ``host``: the machine that measures, timed by its clock."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rayprune.deploy.formats import FORMATS, format_of, open_artifact
from rayprune.deploy.formats.c.compiler import compile_c, find_compiler, run_self_test
from rayprune.deploy.measure.energy import energy_of, has_counters
from rayprune.deploy.measure.latency import time_arms
from rayprune.deploy.measure.machine import cpu
from rayprune.deploy.measure.memory import peak_memory
from rayprune.deploy.policy.runs import timing_inputs
from rayprune.deploy.targets.base import Latency, Measurement, Target
from rayprune.deploy.targets.toolchain import run
from rayprune.errors import first_line

_LIMIT_S = 10.0
_RUNTIMES = {"onnx": "onnxruntime", "torch": "torch"}
_READ = "Flash is {flash}, RAM by how much it raised the process's peak."
_ENERGY = "Energy is all that the processors took meanwhile, whatever else ran included."


class HostTarget(Target):
    """This machine: one action at a time, one thread, called from Python."""

    reports = frozenset({"flash_bytes", "ram_bytes", "latency_us", "self_test"})
    line = "this machine: time and memory, measured"

    def __init__(self, name: str, options: Sequence[str] = ()) -> None:
        super().__init__(name, options)
        if has_counters():
            self.reports |= {"energy_uj"}
        self.formats = ("c", *(kind for kind in FORMATS if kind != "c"))

    def missing(self, kind: str | None = None) -> tuple[str, ...]:
        """See `Target.missing`."""
        needs_compiler = (kind or self.format) == "c"
        return ("gcc",) if needs_compiler and find_compiler() is None else ()

    def _measured(self, artifact: Path) -> Measurement:
        opened = open_artifact(artifact)
        inputs = timing_inputs(opened.interface, 1)
        timings = time_arms({"policy": lambda: opened.run(inputs)}, limit_s=_LIMIT_S)["policy"]
        figures, kind = timings.summary(), format_of(artifact).name
        flash, what = _flash(artifact, kind)
        energy = energy_of(lambda: opened.run(inputs))
        return Measurement(
            target=self.name,
            flash_bytes=flash,
            ram_bytes=(peak_memory(artifact, (1,)) or {}).get(1),
            energy_uj=energy,
            latency_us=Latency(figures["median_us"], figures["p99_us"]),
            self_test=run_self_test(artifact)["passed"] if kind == "c" else None,
            tools={"cpu": cpu(), **_runtime(kind)},
            notes=(_READ.format(flash=what), *(() if energy is None else (_ENERGY,))),
        )


def _flash(artifact: Path, kind: str) -> tuple[int, str]:
    """Return what stays the same of a file when it is run, in bytes, and what that is."""
    tool = shutil.which("size")
    if kind != "c" or tool is None:
        return artifact.stat().st_size, "the file"
    with tempfile.TemporaryDirectory(prefix="rayprune-size-") as place:
        compiled = Path(place) / "policy.o"
        compile_c(artifact, compiled, "-c")
        told = run([tool, "--format=berkeley", compiled]).require("Sizes").stdout
    text, data = map(int, told.splitlines()[1].split()[:2])
    return text + data, "code and constants of the compiled file"


def _runtime(kind: str) -> dict[str, str]:
    if kind in _RUNTIMES:
        return {_RUNTIMES[kind]: version(_RUNTIMES[kind])}
    found = find_compiler()
    if kind != "c" or found is None:
        return {}
    told = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60)
    return {Path(found).name: first_line(ValueError(told.stdout))}
