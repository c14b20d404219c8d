#!/usr/bin/env bash
# The body of `make reproduce`:  reproduce.sh TIER CORES
# Runs the DAG of a tier on this machine, says what was made, and compares it with the published. Writes nothing that is in git.
# Safe to interrupt and to repeat.
set -euo pipefail
tier=$1 cores=$2
if [ ! -f "config/$tier.yaml" ] || [ "$tier" = site ] || [ "$tier" = claims ]; then
  echo "make reproduce: no tier '$tier'; known: $(cd config && ls ./*.yaml | sed 's|./||; s|.yaml||' | grep -vx -e site -e claims | xargs)" >&2
  exit 2
fi

case $cores in
  *[!0-9]* | '' | 0) echo "make reproduce: CORES=$cores: must be a number of jobs, at least 1" >&2; exit 2 ;;
esac

# One at a time in a folder. Snakemake does not inherit the lock: a training that it left behind must not hold it.
mkdir -p .snakemake
exec 9> .snakemake/reproduce.lock
if ! flock --nonblock 9; then
  echo "make reproduce: already runs in this folder; wait for it or stop it" >&2
  exit 2
fi

# A killed Snakemake leaves its lock behind. It is stale when no Snakemake works in this folder any more.
if [ -n "$(ls .snakemake/locks 2>/dev/null)" ]; then
  working=
  here=$(pwd -P)
  for folder in /proc/[0-9]*; do
    if [ "$folder" != /proc/$$ ] && [ "$(readlink "$folder/cwd" 2>/dev/null)" = "$here" ] &&
      { tr '\0' ' ' < "$folder/cmdline"; } 2>/dev/null | grep -q snakemake; then working=${folder#/proc/}; fi
  done
  if [ -n "$working" ]; then
    echo "make reproduce: Snakemake already runs in this folder (process $working); wait for it or stop it" >&2
    exit 2
  fi
  snakemake --quiet all --config tier="$tier" --unlock 9>&-
fi

snakemake all --profile local --no-hooks --cores "$cores" --config tier="$tier" 9>&-
python workflow/scripts/overview.py "$tier"
echo
progrpo compare --config "config/$tier.yaml"
