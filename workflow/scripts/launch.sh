#!/usr/bin/env bash
# Start a command on NODES x GPUS processes:  launch.sh NODES GPUS COMMAND...
#   1 x 1   the command itself
#   1 x n   torchrun on this node
#   m x n   inside a Slurm allocation, one torchrun per node; they meet at MASTER_ADDR:MASTER_PORT, by default on the node that runs this script
# Where Slurm gave a node fewer GPUs than were asked for, that number of processes is started there.
# Nothing is assumed of the nodes but this repository on a shared file system and the environment of the submitting shell.
set -euo pipefail
nodes=$1 gpus=$2
shift 2
if [ "$nodes" -eq 1 ] && [ "${SLURM_GPUS_ON_NODE:-$gpus}" -lt "$gpus" ]; then
  gpus=$SLURM_GPUS_ON_NODE
fi
command=$(command -v "$1") || { echo "launch.sh: $1: not on PATH; activate the environment first" >&2; exit 2; }
shift

# After a signal, how long a rank that writes a large state may go on. A cluster's own limit (KillWait) stands beside it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}

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

# The first node of the allocation runs this script. MASTER_ADDR and MASTER_PORT, where they are set, win, as for a fast network's
# address; NCCL_* and GLOO_* of the submitting shell reach every process. A free port keeps two jobs on one node apart.
MASTER_ADDR=${MASTER_ADDR:-$(hostname)}
MASTER_PORT=${MASTER_PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
export MASTER_ADDR MASTER_PORT
# shellcheck disable=SC2016 # SLURM_NODEID is known on each node only; -- keeps torchrun from reading --run as its own
# srun takes no number of cores from the job: unbound, the processes of a node share all that the job has there.
exec srun --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1 --cpu-bind=none --kill-on-bad-exit=1 \
  bash -c 'n=${SLURM_GPUS_ON_NODE:-$0}; exec torchrun --node-rank "$SLURM_NODEID" --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" \
    --nproc-per-node "$((n < $0 ? n : $0))" "$@"' "$gpus" --nnodes "$nodes" --no-python -- "$command" "$@"
