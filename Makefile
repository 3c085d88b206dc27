# Every target works in a fresh clone and sets up what it needs; a second run finds it done.
# make PYTHON=python3.12 ... chooses the Python (3.11 or newer; by itself: the first that is found).

SHELL := /bin/bash
PYTHON ?=
PORT ?= 8000
INPUTS ?= 1000000
SEED ?= $(shell date +%Y%m%d)
export PYTHON

# Sets up an environment: $(call setup,FOLDER,KIND)
setup = python=$$(bash scripts/find_python.sh) && "$$python" scripts/setup_env.py $(1) $(2)

# Part of `check` because they break where a name or a document changes, not where the code is wrong.
CHECK_TESTS := tests/test_public_names.py tests/test_docs.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-matrix test-newest check explore fuzz bench bench-engines bench-capacity clean

help:
	@echo "make demo            serve the demo programs at http://127.0.0.1:8000 (PORT=8001 for another port)"
	@echo "make test            the whole suite against the built wheels, with a real browser"
	@echo "make test-fast       the tests that take no time, no browser and no servers, on the sources as they are"
	@echo "make test-matrix     the same tests against the wheels, on the newest Python of this machine"
	@echo "make test-newest     the tests of the engines on their newest servers: Valkey and MySQL, too (1 GB in /var/tmp)"
	@echo "make check           ruff, mypy --strict, the public names, the examples of the documents"
	@echo "make explore         chosen triples of requests in every order of their driver calls, some minutes"
	@echo "make fuzz            mangled cookies, bodies and stored data, a million of each (INPUTS=, SEED=)"
	@echo "make bench           measure against other session libraries and bring docs/bench.md up to date"
	@echo "make bench-engines   measure every engine on its real server: docs/engines/figures.md"
	@echo "make bench-capacity  measure one million sessions in an engine: docs/capacity.md"
	@echo "make clean           remove all that the other targets made, the demo's database too"

demo:
	@$(call setup,.venv,demo)
	@exec .venv/bin/python pythonweb/scripts/WSGIServer.py --port $(PORT) --data .demo

test:
	@exec bash scripts/test.sh

test-fast:
	@$(call setup,.venv,develop)
	@.venv/bin/pytest -q -n auto -m "not slow and not browser and not server"

test-matrix:
	@exec bash scripts/test_matrix.sh

test-newest:
	@$(call setup,.venv,develop)
	@exec bash scripts/test_newest.sh

check:
	@$(call setup,.venv,develop)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	.venv/bin/mypy --strict scripts
	.venv/bin/pytest -q $(CHECK_TESTS)

explore:
	@$(call setup,.venv,develop)
	@exec .venv/bin/python scripts/explore.py

# Twenty minutes and more; out of the way of whatever else the machine does.
fuzz:
	@$(call setup,.venv,develop)
	@exec nice -n 19 .venv/bin/python tests/fuzz/fuzz.py --iterations $(INPUTS) --seed $(SEED)

# The rivals live in an environment of their own, with coatcheck from its wheel. Timings gate nothing.
define bench_setup
	@$(call setup,.venv-bench,wheels)
	@if ! cmp -s bench/requirements.txt .venv-bench/bench.stamp; then \
		.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --retries 10 --timeout 60 \
			-r bench/requirements.txt && cp bench/requirements.txt .venv-bench/bench.stamp; fi
endef

bench:
	$(bench_setup)
	.venv-bench/bin/python bench/requests.py --update-docs
	.venv-bench/bin/python bench/races.py --update-docs

# These two start servers: redis-server, postgresql, pgbouncer, mariadb-server and memcached of Debian.
bench-engines:
	$(bench_setup)
	.venv-bench/bin/python bench/engines.py --update-docs

bench-capacity:
	$(bench_setup)
	.venv-bench/bin/python bench/capacity.py --update-docs

clean:
	rm -rf bench/results .build .demo .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
