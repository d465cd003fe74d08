"""What `import rayprune`, and all of its pure-torch part, takes beyond importing torch.

    python benchmarks/import_time.py

Fresh processes in turn, median of paired differences in seconds of process time, and a control of
torch against torch. Byte code comes from caches, as after an installation, whatever
`PYTHONDONTWRITEBYTECODE` says. Target: at most 0.2 s. Exits with 1 when it is missed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

TARGET = 0.2
CLOCK = "import time; start = time.process_time(); {}; print(time.process_time() - start)"
TORCH = "import torch"
OURS = "import rayprune; [getattr(rayprune, name) for name in rayprune.__all__]"


def seconds(statement: str, caches: str) -> float:
    """Return the process time that a statement takes in a fresh interpreter."""
    command = [sys.executable, "-c", CLOCK.format(statement)]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": caches}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return float(done.stdout)


def measured(rounds: int = 7) -> list[tuple[float, float, float]]:
    """Return the seconds of torch, of rayprune and of torch again, round by round."""
    with tempfile.TemporaryDirectory() as caches:
        seconds(OURS, caches)  # fills the caches
        return [tuple(seconds(s, caches) for s in (TORCH, OURS, TORCH)) for _ in range(rounds)]


def main() -> int:
    """Measure, print, and say by the exit status whether the target is met."""
    rounds = measured()
    extra = statistics.median(ours - torch for torch, ours, _ in rounds)
    control = statistics.median(again - torch for torch, _, again in rounds)
    print(f"torch    {statistics.median(torch for torch, _, _ in rounds):.3f} s")
    print(f"rayprune {extra:+.3f} s")
    print(f"control  {control:+.3f} s")
    print(f"target   {TARGET:+.3f} s: {'met' if extra <= TARGET else 'MISSED'}")
    return 0 if extra <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
