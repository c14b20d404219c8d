#!/usr/bin/env bash
# The body of `make publish`:  publish.sh TIER
# The author's step: the results of this machine become the published ones of a tier, and its tables are set from them. Nothing
# else writes results/published/ or paper_tables/. Safe to repeat; what it changed is committed by hand.
set -euo pipefail
tier=$1 own=results/$1 published=results/published/$1
if [ ! -d "$published" ]; then
  echo "make publish: tier '$tier' is not published; published are: $(cd results/published && ls -d */ | tr -d / | grep -vx hardware | xargs)" >&2
  exit 2
fi
if [ ! -d "$own" ]; then
  echo "make publish: $own is not here; run the tier first" >&2
  exit 2
fi

if [ -d results/hardware ]; then cp -r results/hardware/. results/published/hardware/; fi
progrpo summary --config "config/$tier.yaml" --hardware results/published/hardware --out "$published/summary.json"
for part in evaluations analysis curves; do
  rm -rf "${published:?}/$part" "$published/$part.dvc"
  if [ -d "$own/$part" ]; then
    cp -r "$own/$part" "$published/$part"
    dvc add --quiet "$published/$part"
    dvc push --quiet --remote embedded "$published/$part.dvc"
  fi
done
# The remote travels in git, so each commit holds what its own pointers name and nothing else.
dvc gc --quiet --force --workspace --cloud --remote embedded
dvc repro --quiet --glob "table@$tier-*"
progrpo claims --tier "$tier" --pages
echo "Published tier $tier: $(find "$own/evaluations" -mindepth 1 -maxdepth 1 -type d 2> /dev/null | wc -l) models and seeds evaluated."
echo "  git add results/published paper_tables dvc.lock dvc-remote && git commit"
