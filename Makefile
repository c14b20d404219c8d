# make reproduce [TIER=smoke]   environment, the whole DAG of a tier, its tables; again: nothing to do; interrupted: goes on
# make test                     the test suite, Slurm tests included where Slurm is installed
# make test-slurm               only those: a one-node Slurm is started and stopped
# make tables [TIER=mini]       every table from the published results, or a tier's; OWN=1: a tier's from your own, as far as they go
# make paper-tables.pdf [OWN=1] all tables of a tier on paper
# make claims [TIER=mini]       the paper's claims judged from published results, in seconds; OWN=1: from your own; RERUN=1 SEEDS=2: from a
#                               cut trained here
# make rehearsal [CORES=2]      tier paper on this CPU, over random weights in the official layouts (minutes, 0.4 GB in build/)
# make publish TIER=mini        the author's step: results of this machine become published; REMOTE=<dvc remote>: with images, prompts and all weights;
#                               DROP=1: also where published results are not here, and so go
# make restore TIER=mini        published trainings and scores back into results/, from where `make claims RERUN=1 SEEDS=8` goes on
# make mutants                  breaks one line at a time and lists the breaks that no test notices (minutes)
# make fuzz [CASES=20000]       damaged files of strangers through the command line; `make test` runs 1,000
# make faults [ROUNDS=10]       kills, damaged files, full and read-only disks: the same command must end bit for bit the same (minutes)
# make docs                     the site of docs/ into build/site/, with the reference from docstrings; stops at a broken link
# make lint                     ruff, mypy, snakefmt, snakemake --lint
TIER ?= smoke
CORES ?= 2
PYTHON ?= python3
# A switch is 1 or not given; an empty tier is a shell's variable that was not set.
$(foreach name,OWN RERUN DROP,$(if $(filter-out 1,$($(name))),$(error $(name)=$($(name)): the switch is $(name)=1, or not given)))
$(if $(strip $(TIER)),,$(error TIER is empty))
VENV := .venv
INSTALLED := $(VENV)/.installed
# An environment runs the code of the folder that it was made in.
MADE_IN := $(if $(wildcard $(INSTALLED)),$(shell cat $(INSTALLED)))
ifneq ($(MADE_IN),)
ifneq ($(MADE_IN),$(CURDIR))
$(error $(VENV) was made in $(MADE_IN), and runs the code there; remove it and call again)
endif
endif
FRAGMENTS = $(if $(filter 1,$(OWN)),results/$(TIER)/tables,paper_tables/$(TIER))

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport VIRTUAL_ENV

.PHONY: help reproduce tables claims rehearsal restore publish test test-slurm mutants fuzz faults lint docs install

reproduce: $(INSTALLED)
	@bash workflow/scripts/reproduce.sh $(TIER) $(CORES)

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

tables: $(INSTALLED)
ifeq ($(OWN),1)
	progrpo summary --config config/$(TIER).yaml
	progrpo tables --tier $(TIER) --own
else ifeq ($(origin TIER),file)
	dvc repro
else
	@test -d "paper_tables/$(TIER)" || { echo "make $@: nothing is published of a tier '$(TIER)'; OWN=1 takes your own" >&2; exit 2; }
	dvc repro --glob "*@$(TIER)*"
endif

# A cut is what claims need of the first seeds; what was trained before is not trained again.
claims: TIER := $(if $(filter file,$(origin TIER)),mini,$(TIER))
claims: $(INSTALLED)
ifeq ($(RERUN),1)
	@targets=$$(progrpo claims --tier $(TIER) --targets $(or $(SEEDS),2)) || exit 2; test -n "$$targets" || \
	  { echo "make $@: no claim of tier $(TIER) compares trainings: there is nothing to run again" >&2; exit 2; }; \
	  snakemake $$targets --profile local --cores $(CORES) --config tier=$(TIER)
	progrpo claims --tier $(TIER) --own
else ifeq ($(OWN),1)
	@progrpo claims --tier $(TIER) --own
else
	@test ! -f results/published/$(TIER)/curves.dvc || dvc pull --quiet results/published/$(TIER)/curves.dvc || \
	  { echo "make $@: the published curves could not be pulled; 'dvc pull results/published/$(TIER)/curves.dvc' says why" >&2; exit 2; }
	@progrpo claims --tier $(TIER)
endif

rehearsal: $(INSTALLED)
	progrpo rehearsal --cores $(CORES)

restore: TIER := $(if $(filter file,$(origin TIER)),mini,$(TIER))
restore: $(INSTALLED)
	@python workflow/scripts/restore.py $(TIER)

publish: $(INSTALLED)
	@python workflow/scripts/publish.py $(TIER) $(REMOTE) $(if $(filter 1,$(DROP)),--drop)

# Three workers for two cores: much of a test's time is waiting for other processes. In which order: tests/conftest.py.
test: $(INSTALLED)
	python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder tests

test-slurm: $(INSTALLED)
	@command -v slurmctld munged >/dev/null || PATH=$$PATH:/usr/sbin command -v slurmctld >/dev/null || \
	  { echo "make test-slurm: Slurm is not installed: apt-get install -y --no-install-recommends slurm-wlm munge" >&2; exit 2; }
	python -m pytest tests/slurm

mutants: $(INSTALLED)
	PYTHONPATH=code OMP_NUM_THREADS=1 python tests/mutation/run.py

fuzz: $(INSTALLED)
	FUZZ_CASES=$(or $(CASES),20000) FUZZ_SEED=$(or $(SEED),1) python -m pytest -q -s tests/fuzz

faults: $(INSTALLED)
	OMP_NUM_THREADS=1 python -u tests/faults/run.py --rounds $(or $(ROUNDS),10) --seed $(or $(SEED),1)

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy
	for tier in smoke mini paper; do snakemake --config tier=$$tier --lint || exit 1; done
	snakefmt --check Snakefile workflow

docs: build/docs-venv/.installed
	NO_MKDOCS_2_WARNING=1 build/docs-venv/bin/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

build/docs-venv/.installed: docs/requirements.txt
	test -x build/docs-venv/bin/python || $(PYTHON) -m venv build/docs-venv
	build/docs-venv/bin/python -m pip install --quiet -r docs/requirements.txt
	touch $@

paper-tables.pdf: TIER := $(if $(filter file,$(origin TIER)),$(if $(filter 1,$(OWN)),smoke,mini),$(TIER))
paper-tables.pdf: $(INSTALLED) FORCE
	@command -v pdflatex >/dev/null || \
	  { echo "make $@: pdflatex is not installed: apt-get install -y --no-install-recommends texlive-latex-recommended" >&2; exit 2; }
	@test -d $(FRAGMENTS) || { echo "make $@: $(FRAGMENTS) is not here; mini and paper are published, OWN=1 takes your own" >&2; exit 2; }
	progrpo tables --tier $(TIER) --table document --out build/paper-tables.tex
	cd build && TEXINPUTS=../$(FRAGMENTS): pdflatex -interaction=nonstopmode -halt-on-error paper-tables.tex > paper-tables.out \
	  || { tail -n 20 paper-tables.out; exit 1; }
	cp build/paper-tables.pdf $@

install: $(INSTALLED)

# torch alone and first: a build of this version that suits the machine (CPU, CUDA) is then left in place by the second line.
$(INSTALLED): requirements.txt pyproject.toml setup.py $(wildcard code/startup/*)
	@git rev-parse --git-dir > /dev/null 2>&1 || \
	  { echo "make: this folder is no git checkout, which DVC needs: call \`git init\` in it once" >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $$(grep '^torch==' requirements.txt)
	$(VENV)/bin/python -m pip install --quiet -r requirements.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	pwd -P > $@

FORCE:
