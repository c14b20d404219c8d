#!/usr/bin/env bash
# Keep work that can be gone on with, drop work that cannot:  begin_anew_if_changed.sh FINGERPRINT FOLDER...
# A folder remembers the fingerprint (configuration, code and input) of what it was begun with. With another one it is emptied,
# so that a job which goes on where it was interrupted never mixes two versions. A folder without a fingerprint is kept.
set -euo pipefail
fingerprint=$1
shift
for folder in "$@"; do
  mkdir -p "$folder"
  if [ -f "$folder/fingerprint" ] && [ "$(cat "$folder/fingerprint")" != "$fingerprint" ]; then
    echo "$folder: configuration, code or input changed since this was begun; beginning anew"
    find "$folder" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
  fi
  echo "$fingerprint" > "$folder/fingerprint"
done
