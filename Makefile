# Needs Python 3.11 or newer; everything else is installed into .venv from the lock files.
# PYTHON=... chooses the interpreter, ARGS=... hands words on to the command.

.DEFAULT_GOAL := help
.PHONY: help run demo test check check-deploy prove chaos fuzz audit bench bench-quick bench-tools \
	format lock run-tools check-tools

PY := .venv/bin/python
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

help: ## list what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | \
		while IFS='	' read -r name does; do printf '  make %-12s %s\n' "$$name" "$$does"; done

# On a terminal the command gets a process group of its own, so that Ctrl-C is its alone: make
# waits for the drain and ends with the command's own code.
run: run-tools ## serve everything in one process, on an embedded Postgres (Ctrl-C drains)
	@if [ -t 0 ]; then trap '' TSTP; set -m; fi; $(PY) -m notifier dev $(ARGS)

demo: run-tools ## 2,000 notifications with mixed fates, watched live, checked at the end
	@$(PY) -m harness.demo $(ARGS)

test: check-tools ## all tests; installs RabbitMQ and Prometheus if there are none
	@deploy/install-rabbitmq
	@deploy/install-prometheus
	@$(PY) -m pytest $(ARGS)

check: check-tools ## exactly what CI runs: format, lint, types, imports, locks, deployment, tests
	@$(PY) -m ruff format --check --quiet . || { echo 'not formatted: run `make format`'; exit 1; }
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-logo --cache-dir .cache/import-linter
	@$(PY) .ci/lock.py check
	@$(MAKE) --no-print-directory check-deploy
	@$(MAKE) --no-print-directory test

# What the files under deploy/ are read by, as far as it runs without an engine or a cluster.
check-deploy: check-tools
	@.venv/bin/docker-compose -f docker-compose.yml config --quiet
	@.venv/bin/hadolint deploy/Dockerfile deploy/stand-ins/*/Dockerfile
	@.venv/bin/kubernetes-validate --strict --quiet \
		$(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))

prove: check-tools ## the promised figures on real processes, by hand (ARGS="name --rounds 1")
	@deploy/install-rabbitmq
	@deploy/install-prometheus
	@$(PY) -m benchmarks.prove $(ARGS)

bench: bench-tools ## Notifier beside its peers; writes docs/performance.md, by hand (ARGS=drain)
	@$(PY) -m benchmarks.bench $(ARGS)

bench-quick: bench-tools ## three minutes of it, held against the committed ratios
	@$(PY) -m benchmarks.bench --quick $(ARGS)

ROUNDS ?= 10
SEED ?= 1
chaos: check-tools ## faults in a running system: what is lost or doubled (FAULTS= ROUNDS= SEED=)
	@deploy/install-rabbitmq
	@$(PY) -m tests.chaos --rounds $(ROUNDS) --seed $(SEED) $(FAULTS) $(ARGS)

fuzz: check-tools ## every parser of outside input for SECONDS (60) each, by hand (ARGS=settings for some)
	@nice $(PY) -m tests.property.fuzz $(or $(SECONDS),60) $(ARGS)

# Strict: what the index knows nothing of fails, and is not taken for well.
audit: check-tools ## look the locked dependencies up among the known vulnerabilities, by hand
	@.venv/bin/uv --quiet tool run pip-audit@2.10.1 --strict --no-deps --disable-pip \
		--progress-spinner off --requirement requirements-dev.lock $(ARGS)

format: check-tools ## format, and mend what the linter can mend
	@$(PY) -m ruff check --quiet --fix-only .
	@$(PY) -m ruff format .

lock: check-tools ## write the lock files anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(PY) .ci/lock.py write $(ARGS)

bench-tools: check-tools
	@deploy/install-rabbitmq
	@benchmarks/install-tools
	@benchmarks/install-peers

run-tools:
	@.ci/venv requirements.lock

check-tools:
	@.ci/venv requirements-dev.lock
