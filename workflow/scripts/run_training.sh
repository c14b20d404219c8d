#!/usr/bin/env bash
# One training of the DAG:  run_training.sh FOLDER FINGERPRINT NODES GPUS COMMAND...
# Goes on from FOLDER/state when that belongs to the same configuration, code and input. Beside a training that a killed Snakemake
# left running in the same folder it waits, and then goes on from where that one ended.
set -euo pipefail
folder=$1 fingerprint=$2
shift 2
here=$(dirname "$0")
mkdir -p "$folder"
exec 9> "$folder/lock"
if ! flock --nonblock 9; then
  echo "$folder: another process is training here; waiting for it"
  flock 9
fi
bash "$here/begin_anew_if_changed.sh" "$fingerprint" "$folder"
exec bash "$here/launch.sh" "$@"
