# make demo: the shortest way to a result. make test: what CI runs. `make help` lists the rest.
PYTHON ?= python3
CORES ?= $(shell nproc)
BIN := .venv/bin
RULES := workflow edpipe/pipeline/snakemake edpipe/pipeline/project/templates
DEMO := digits_ed digits_kd digits_ce

.PHONY: help install demo test test-fast test-faults test-slurm check docs format wheel lock ci clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: .venv/installed ## a virtual environment in .venv with the pinned packages

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: install ## ED, KD and CE on real handwritten digits: 40 seconds on two cores, once installed
	$(BIN)/snakemake --cores $(CORES) -- $(DEMO:%=results/%.html)
	$(BIN)/edpipe compare $(DEMO:%=results/%.json)

test: install ## every test
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

# Without the checks of array axes and the doctests, which CI makes: they take a third of the time.
test-fast: install ## the tests that take less than a third of a second: under a minute on two cores
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile -m "not slow" -o addopts="--strict-markers --import-mode=importlib -q" tests

test-faults: install ## a hundred kills, full disks, servers that lie, damaged remotes, two tools at once; a table at the end
	$(BIN)/python -m pytest -m faults tests/faults tests/stories

test-slurm: install ## a real Slurm on this machine's loopback, with jobs that fail, are cancelled, …; Debian, root
	command -v slurmctld slurmd munged || (apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge)
	EDPIPE_TEST_SLURM=1 $(BIN)/python -m pytest tests/cluster/test_slurm.py -s

check: install ## style, types, workflow lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/snakefmt --check --compact-diff $(RULES)
	$(BIN)/snakemake --lint
	$(BIN)/edpipe check
	$(BIN)/edpipe upgrade --check
	$(BIN)/edpipe code --confirmed

docs: .venv/docs ## the pages of docs/ as a site, to read without a network: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "mkdocs-material>=9.6,<10"
	touch $@

format: install ## puts style right where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt $(RULES)

wheel: install ## the package as a file to install, in dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .

lock: ## writes requirements.lock from what is installed in .venv
	@echo '# Every package at the version that was tested; no index addresses. Made by `make lock`.' > requirements.lock
	@$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip \
	  | sed -E 's/^((nvidia-[^=]+|triton|cuda-[^=]+)==.*)$$/\1 ; sys_platform == "linux"/' >> requirements.lock

ci: check test ## what CI runs

clean: ## removes what can be made again from logs; artifacts and results stay
	rm -rf logs .snakemake/log .pytest_cache .ruff_cache
