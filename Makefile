# Needs Python 3.11 or newer; installs everything else into .venv from the lock files.
# PYTHON=... selects the interpreter, ARGS=... passes arguments to the command.

.DEFAULT_GOAL := help
.PHONY: help run demo test check check-deploy prove chaos fuzz audit bench bench-quick bench-tools \
	format lock run-tools check-tools

PY := .venv/bin/python
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | \
		while IFS='	' read -r name does; do printf '  make %-12s %s\n' "$$name" "$$does"; done

# On a terminal the command has its own process group, so that Ctrl-C reaches only the command: make
# waits for the drain and exits with the command's exit code. Elsewhere the command takes the place of
# the shell, so that a SIGTERM to make reaches it.
run: run-tools ## run everything in one process with an embedded Postgres (Ctrl-C drains)
	@if [ ! -t 0 ]; then exec $(PY) -m notifier dev $(ARGS); fi; \
		trap '' TSTP; set -m; $(PY) -m notifier dev $(ARGS)

demo: run-tools ## 2,000 notifications with mixed fates, shown live, checked at the end
	@$(PY) -m harness.demo $(ARGS)

# The whole suite runs in three processes, each with its own servers, because most tests wait for
# them; the tests of a file stay together. With ARGS, one process runs what they select.
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder
# ARGS=--rabbitmq=4 runs the tests that use RabbitMQ on a private RabbitMQ 4; 4.0 is also known.
RABBITMQ = $(patsubst --rabbitmq=%,--version %,$(filter --rabbitmq=%,$(ARGS)))
test: check-tools ## all tests; installs the servers that they need if they are missing
	@deploy/install-rabbitmq $(RABBITMQ)
	@deploy/install-pgbouncer
	@deploy/install-prometheus
	@deploy/install-nginx
	@deploy/install-mail-servers
	@deploy/install-typescript
	@$(PY) -m pytest $(if $(filter-out --rabbitmq=%,$(ARGS)),,$(PARALLEL)) $(ARGS)

check: check-tools ## exactly what CI runs: format, lint, types, imports, locks, deployment, tests
	@$(PY) -m ruff format --check --quiet . || { echo 'not formatted: run `make format`'; exit 1; }
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy
	@$(PY) -m mypy --python-version 3.10 client
	@.venv/bin/lint-imports --no-logo --cache-dir .cache/import-linter
	@$(PY) .ci/lock.py check
	@$(MAKE) --no-print-directory check-deploy
	@$(MAKE) --no-print-directory test

# The tools that read the files under deploy/ and need neither a container engine nor a cluster.
check-deploy: check-tools
	@.venv/bin/docker-compose -f docker-compose.yml config --quiet
	@.venv/bin/hadolint deploy/Dockerfile deploy/stand-ins/*/Dockerfile
	@.venv/bin/kubernetes-validate --strict --quiet \
		$(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))

prove: check-tools ## measure the promised figures on real processes, by hand (ARGS="name --rounds 1")
	@deploy/install-rabbitmq
	@deploy/install-prometheus
	@$(PY) -m benchmarks.prove $(ARGS)

bench: bench-tools ## compare Notifier with similar systems; writes docs/performance.md, by hand (ARGS=drain)
	@$(PY) -m benchmarks.bench $(ARGS)

bench-quick: bench-tools ## three minutes of it, compared with the committed ratios
	@$(PY) -m benchmarks.bench --quick $(ARGS)

ROUNDS ?= 10
SEED ?= 1
chaos: check-tools ## faults in a running system; counts lost and duplicate sends (FAULTS= ROUNDS= SEED=)
	@deploy/install-rabbitmq $(RABBITMQ)
	@$(PY) -m tests.chaos --rounds $(ROUNDS) --seed $(SEED) $(FAULTS) $(ARGS)

fuzz: check-tools ## fuzz every parser of outside input for SECONDS (60) each, by hand (ARGS=settings for one)
	@nice $(PY) -m tests.property.fuzz $(or $(SECONDS),60) $(ARGS)

# Strict: a dependency that the index does not know is a failure.
audit: check-tools ## check the locked dependencies for known vulnerabilities, by hand
	@.venv/bin/uv --quiet tool run pip-audit@2.10.1 --strict --no-deps --disable-pip \
		--progress-spinner off --requirement requirements-dev.lock $(ARGS)

format: check-tools ## format, and apply the fixes of the linter
	@$(PY) -m ruff check --quiet --fix-only .
	@$(PY) -m ruff format .

lock: check-tools ## write the lock files from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(PY) .ci/lock.py write $(ARGS)

bench-tools: check-tools
	@deploy/install-rabbitmq
	@benchmarks/install-tools
	@benchmarks/unpack-receivers
	@benchmarks/install-peers

run-tools:
	@.ci/venv requirements.lock

check-tools:
	@.ci/venv requirements-dev.lock
