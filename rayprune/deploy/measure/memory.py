"""Peak memory of an exported policy, in a process of its own.

    python -m rayprune.deploy.measure.memory policy.onnx 1 32 256

prints, as JSON, by how many bytes opening the file and running each batch size raised the process's
peak above what the runtime takes by itself. Linux only: elsewhere a peak can't be reset.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_RESET: Final = Path("/proc/self/clear_refs")
_PATIENCE_S = 120


def peak_memory(artifact: Path, batches: Sequence[int]) -> dict[int, int] | None:
    """Return the bytes of each batch size; None where they can't be measured.

    Args:
        artifact: an exported file.
        batches: sizes; the peak of one holds for the larger ones, too.
    """
    if not _RESET.exists():
        return None
    command = [sys.executable, "-m", __spec__.name, str(artifact), *map(str, batches)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
        held: dict[str, int] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        return None
    return {int(batch): found for batch, found in held.items()}


def measure(artifact: Path, batches: Sequence[int]) -> dict[int, int]:
    """Measure in this process; see `peak_memory`."""
    # The runtimes' own memory isn't the policy's.
    import torch

    from rayprune.deploy.formats import format_of, open_artifact

    format_of(artifact).load_runtime()
    torch.set_num_threads(1)
    _RESET.write_text("5")  # the peak begins again at what is held now
    before = _status("VmHWM")
    policy = open_artifact(artifact)
    found = {}
    for batch in sorted(batches):
        inputs = [port.zeros(batch) for port in policy.interface.inputs]
        for _ in range(2):
            policy.run(inputs)
        found[batch] = _status("VmHWM") - before
    return found


def _status(name: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), [int(n) for n in sys.argv[2:]])))
