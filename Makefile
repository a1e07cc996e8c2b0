# `make run` serves, `make check` is for every change, `make test` proves everything.
# Each target first makes sure that the machine and .venv have what it needs.
SHELL := /bin/bash
PYTHON := .venv/bin/python
PYTEST := .venv/bin/pytest
PHASE := .ci/phase
STATE := $(or $(APPLIANCE_STATE),./var)
ARGS ?=

QUICK_TESTS := tests/tidy tests/unit tests/conformance tests/crash tests/s3
MACHINE_TESTS := tests/clients tests/system

.PHONY: help setup setup-test install run check lint types test quick-tests all-quick-tests \
	machine-tests soak mutants crash-long bench format lock clean

help:
	@printf '%s\n' \
	'make run     serve S3 over HTTPS from $(STATE) (ARGS="..." goes to "appliance dev")' \
	'make check   style, types, layers and all quick tests; no root, under three minutes' \
	'make test    everything, as continuous integration runs it; root on Debian for all of it' \
	'make soak    failing drives under aws-cli and boto3, for many minutes; root' \
	'make mutants disable each safeguard of the engine in turn and see the tests notice' \
	'             (ARGS="--publish", --only TEXT, --survivors, --list; a tenth is in make test)' \
	'make crash-long  a million crash states (STATES, SEED, WORKERS), figures for RELIABILITY.md' \
	'make bench   measure this service beside others (see docs/PERFORMANCE.md)' \
	'make install the service on this server, under systemd; root (see docs/installation.md)' \
	'make setup   only install what running needs;  make setup-test  what testing needs' \
	'make format  lay the code out;  make lock  renew the locks;  make clean  forget what was built'

setup:
	@packaging/setup.sh run

setup-test:
	@packaging/setup.sh test

install:
	@packaging/setup.sh server

run: setup
	@exec .venv/bin/appliance dev --state "$(STATE)" $(ARGS)

check: setup-test
	@$(PHASE) style $(MAKE) -s lint
	@$(PHASE) types $(MAKE) -s types
	@$(PHASE) "quick tests" $(MAKE) -s quick-tests

lint:
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types:
	@.venv/bin/mypy

quick-tests:
	@$(PYTEST) -q -n 2 --dist worksteal -m "not root and not long" $(QUICK_TESTS)

all-quick-tests:
	@$(PYTEST) -q -n 2 --dist worksteal $(QUICK_TESTS)

machine-tests:
	@$(PYTEST) -q -s -m "not soak" $(MACHINE_TESTS)

test: setup-test
	@$(PHASE) style $(MAKE) -s lint
	@$(PHASE) types $(MAKE) -s types
	@$(PHASE) "tidy, unit, conformance, crash and S3 tests" $(MAKE) -s all-quick-tests
	@$(PHASE) "a tenth of the engine's mutants" $(PYTHON) -m tests.mutants --share 10
	@$(PHASE) "clients, drives and whole machines" $(MAKE) -s machine-tests

soak: setup-test
	@$(PYTEST) -q -s -m soak $(MACHINE_TESTS)

mutants: setup-test
	@$(PYTHON) -m tests.mutants --jobs $(shell nproc) $(ARGS)

STATES ?= 1000000
SEED ?= $(shell od -An -N3 -tu4 /dev/urandom | tr -d ' ')
WORKERS ?= $(shell nproc)
crash-long: setup-test
	@$(PYTHON) -m tests.crash.explore --states $(STATES) --seed $(SEED) --workers $(WORKERS) --publish

bench: setup-test
	@$(PYTHON) -m tests.bench $(if $(PEERS),--peers "$(PEERS)") $(ARGS)

format: setup-test
	@.venv/bin/ruff check --fix --select I .
	@.venv/bin/ruff format .

LOCK := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock"
lock: setup-test
	@$(LOCK) --output-file requirements-build.lock requirements-build.in
	@$(LOCK) --output-file requirements.lock requirements.in
	@$(LOCK) --output-file requirements-dev.lock requirements-dev.in

clean:
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	@find appliance tests -name __pycache__ -prune -exec rm -rf {} +
