#!/usr/bin/env bash
# A sweep on Slurm: a Ray cluster over the job's nodes, for as long as the sweep runs.
#
#   conda activate rayprune      # cluster/environment.yml, where all nodes see it
#   sbatch cluster/slurm.sh pbt_cartpole /shared/runs/pbt_cartpole
#
# The second argument is a directory that all nodes share. Submitted again with the same one, after
# the time limit or a failure, the sweep goes on where it was.
#
# Whole nodes only: `ray symmetric-run` refuses a node where another Ray runs, and ends with `ray
# stop`, which ends every Ray of yours on the node. Keep --exclusive, or let no two such jobs meet.
#
# Change: nodes, time, and cpus-per-task to a node's cores (with GPUs: add --gpus-per-node). Set
# HEAD_IP if nodes should talk over another network than that of `hostname -I`'s first address. The
# token of each job is made here and lives in its environment only.
#SBATCH --job-name=rayprune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --output=rayprune-%j.log

set -euo pipefail

config=${1:?usage: sbatch cluster/slurm.sh CONFIG OUT [OPTION of rayprune sweep]...}
out=${2:?usage: sbatch cluster/slurm.sh CONFIG OUT [OPTION of rayprune sweep]...}
shift 2

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
read -r first_ip _ < <(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname -I)
head_ip=${HEAD_IP:-$first_ip}
# A port of this job's own, should a node be shared after all.
address="$head_ip:$((20000 + SLURM_JOB_ID % 10000))"

RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
# Nodes of a big job don't start together; Ray's own patience is 30 s.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}
export OMP_NUM_THREADS=1

resume=()
if [[ -f $out/sweep.yaml ]]; then
  resume=(--resume)
fi

# A Ray that did not start lets symmetric-run end with 0, so the sweep itself leaves its exit code.
ended=$(dirname "$out")/.$(basename "$out").exit-$SLURM_JOB_ID
mkdir -p "$(dirname "$out")"
# shellcheck disable=SC2016  # The inner shell expands it, on the head.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
  --disable-usage-stats -- \
  bash -c 'code=0; rayprune sweep "${@:2}" || code=$?; echo "$code" > "$1"; exit "$code"' _ "$ended" \
  "$config" --out "$out" --address "$address" "${resume[@]}" "$@" || true

if [[ ! -f $ended ]]; then
  echo "The sweep did not end: see above. Submit again with the same directory to go on." >&2
  exit 1
fi
code=$(<"$ended")
rm -f "$ended"
exit "$code"
