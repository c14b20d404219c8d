#!/usr/bin/env bash
# One training of the DAG:  run_training.sh FOLDER FINGERPRINT NODES GPUS COMMAND...
# Goes on from FOLDER/state when that belongs to the same configuration, code and input. A second training in the same folder,
# beside one that a killed Snakemake left running, is refused.
set -euo pipefail
folder=$1 fingerprint=$2
shift 2
here=$(dirname "$0")
mkdir -p "$folder"
exec 9> "$folder/lock"
if ! flock --nonblock 9; then
  echo "$folder: another process is training here; wait for it or stop it" >&2
  exit 2
fi
bash "$here/begin_anew_if_changed.sh" "$fingerprint" "$folder"
exec bash "$here/launch.sh" "$@"
