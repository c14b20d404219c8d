#!/usr/bin/env bash
# Start a command on NODES x GPUS processes:  launch.sh NODES GPUS COMMAND...
#   1 x 1   the command itself
#   1 x n   torchrun on this node
#   m x n   inside a Slurm allocation, one torchrun per node, which meet on the node that runs this script
# Nothing is assumed of the nodes but this repository on a shared file system and the environment of the submitting shell.
set -euo pipefail
nodes=$1 gpus=$2
shift 2
command=$(command -v "$1") || { echo "launch.sh: $1: not on PATH; activate the environment first" >&2; exit 2; }
shift

if [ "$nodes" -eq 1 ] && [ "$gpus" -le 1 ]; then
  exec "$command" "$@"
fi
if [ "$nodes" -eq 1 ]; then
  exec torchrun --standalone --nproc-per-node "$gpus" --no-python -- "$command" "$@"  # -- keeps torchrun from reading --run as its own
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "launch.sh: $nodes nodes need a Slurm allocation; set hardware.nodes to 1 in the config to run here" >&2
  exit 2
fi

exec srun --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1 --kill-on-bad-exit=1 \
  torchrun --nnodes "$nodes" --nproc-per-node "$gpus" --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d \
  --rdzv-endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 20000))" --no-python -- "$command" "$@"  # -- keeps torchrun from reading --run as its own
