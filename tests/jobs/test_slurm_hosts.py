"""The Slurm script with Ray's own symmetric-run on two hosts; Slurm's commands are stand-ins."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rayprune.tracking.record import read_rows
from tests.cluster.files import CLUSTER
from tests.jobs.hosts import ROOT, Hosts, cleaned, hosts, possible
from tests.rllib import experiments

pytestmark = [
    pytest.mark.slow,  # two Ray nodes, twice
    pytest.mark.skipif(not possible(), reason="hosts of their own need root"),
    pytest.mark.timeout(1200),
]

STEPS = 1200
SWEEP: dict[str, Any] = {
    **experiments.PPO,
    "stop": {"env_steps": STEPS},
    "search": {
        "population": 2,
        "space": {"pruning.sparsity": {"uniform": [0.3, 0.95]}},
        "interval": 400,
    },
}
SRUN = """
nodes=(host0 host1)
while [[ $1 == --* ]]; do
  case $1 in --nodelist=*) nodes=("${1#*=}") ;; esac
  shift
done
for node in "${nodes[@]}"; do
  "$(dirname "$0")/on-$node" "$@" &
done
code=0
for _ in "${nodes[@]}"; do wait -n || code=$?; done
exit "$code"
"""


def stand_ins(made: Hosts, place: Path) -> Path:
    """Write Slurm's commands for two hosts; return the folder for PATH."""
    scripts = place / "bin"
    scripts.mkdir()
    commands = {"scontrol": 'printf "host0\\nhost1\\n"', "srun": SRUN}
    for host in (0, 1):
        commands[f"on-host{host}"] = f'exec {shlex.join(made.enter(host, place))} "$@"'
    for name, text in commands.items():
        (scripts / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (scripts / name).chmod(0o755)
    return scripts


def batch(made: Hosts, scripts: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script as Slurm does, on the first of the job's nodes."""
    slurm = {
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NODELIST": "host[0-1]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    given = cleaned()
    environment = {
        **given,
        **slurm,
        "PATH": f"{scripts}:{given['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": "/tmp",
        "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "100",
    }
    command = ["bash", str(CLUSTER / "slurm.sh"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.parent.name: read_rows(path) for path in out.glob("trials/*/results.jsonl")}


def test_a_batch_job_sweeps_over_its_two_hosts_and_goes_on_when_submitted_again(
    tmp_path: Path,
) -> None:
    config, out = tmp_path / "c.yaml", tmp_path / "shared" / "sweep"
    config.write_text(json.dumps(SWEEP))
    with hosts(2) as made:
        scripts = stand_ins(made, tmp_path)
        wrong = batch(made, scripts, config, out, "--set", "search.population=0")
        assert wrong.returncode == 2, wrong.stderr
        assert "`search.population`" in wrong.stdout + wrong.stderr
        first = batch(made, scripts, config, out)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "2 of 2 run at once" in first.stdout + first.stderr
        outcome = json.loads((out / "sweep.json").read_text())
        assert [trial["status"] for trial in outcome["trials"]] == ["done"] * 2
        rows = rows_of(out)
        assert all(trial[-1]["env_steps"] >= STEPS for trial in rows.values())
        again = batch(made, scripts, config, out)
    assert again.returncode == 0, again.stdout + again.stderr
    assert rows_of(out) == rows
    assert [path.name for path in out.parent.iterdir()] == ["sweep"]
