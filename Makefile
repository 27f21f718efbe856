# `make run` serves the demo site, `make test` runs the tests. The first call of each sets up what it needs in
# .venv; later calls start at once.
#
#   make run ADDR=127.0.0.1:8000
#   make check T=tests/hub            one folder or module of the tests, in one process
#   make test ARGS="-k presence"      all tests on SQLite, and on PostgreSQL those marked with `database`
#   make test-all                     every stage that CI runs
#   make chaos                        the long runs of the oracle, tests/chaos/: an hour and more
#   make bench                        Rooms beside other servers, benchmarks/: an hour and more
#   make lint                         formatting, types and migrations
#   make bench-check                  whether a common operation became slower; ARGS=--commit accepts the figures
#   make lock                         requirements/*.in -> hash-locked requirements/*.txt

ADDR ?= 127.0.0.1:8000
ARGS ?=
T ?= tests
# The newest Python that is supported; a stage of its own runs the newest Django on it.
NEWEST ?= python3.13
# Many tests wait, so there are more processes than cores.
WORKERS ?= 5
# One process runs a whole module, whose tests share servers. tests/conftest.py sorts the long modules first.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
VENV ?= .venv
BIN := $(VENV)/bin

# Hundreds of processes start in a run: each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

# uv if it is installed, otherwise venv and pip.
UV := $(or $(shell command -v uv),$(wildcard .venv/bin/uv))
export UV_PYTHON_DOWNLOADS := never
ifneq ($(UV),)
PYTHON ?= >=3.11
CREATE = $(UV) venv --quiet --allow-existing --python "$(PYTHON)" $(VENV)
INSTALL = $(UV) pip install --quiet --python $(BIN)/python --require-hashes
else
PYTHON ?= python3
CREATE = $(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Rooms needs Python 3.11 or newer')" \
	&& $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
endif

.PHONY: run check test test-all test-sqlite test-database test-postgres test-newest chaos bench bench-check lint lock clean

run: $(VENV)/.base
	@$(BIN)/python manage.py rooms_demo --addr $(ADDR)

check: $(VENV)/.test
	@$(BIN)/python -m pytest -q -n 0 $(T) $(ARGS)

test: test-sqlite test-database

test-all: test test-postgres lint bench-check test-newest

test-sqlite: $(VENV)/.test
	$(PYTEST) $(ARGS)

# The tests whose outcome depends on the database, on PostgreSQL.
test-database: $(VENV)/.test
	@# Status 5: no test is selected, which is no failure if ARGS selects tests of other modules.
	ROOMS_TEST_DATABASE=postgres $(PYTEST) -m database $(ARGS) || [ $$? = 5 ]

# All others on PostgreSQL.
test-postgres: $(VENV)/.test
	ROOMS_TEST_DATABASE=postgres $(PYTEST) -m "not database and not any_database" $(ARGS)

# Of the tests with live servers only some: the others have run with the oldest versions.
test-newest:
	@$(NEWEST) -c "" || { echo "make test-newest needs Python 3.13: NEWEST=/path/of/python3.13"; exit 1; }
	@# The Redis of the first environment serves here as well: its wheel is not for Python 3.13.
	PATH="$$PATH:$(abspath .venv/bin)" $(MAKE) --no-print-directory test-sqlite PYTHON="$(NEWEST)" VENV=.venv-newest \
		ARGS='-m "smoke or not live"'

# make chaos ARGS="--on postgres --seeds 1 --messages 5000" is a small one; --help says more.
chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos.run $(ARGS)

# The other servers have an environment of their own. ARGS="--help" says more.
bench:
	@$(MAKE) --no-print-directory VENV=.venv-benchmarks .venv-benchmarks/.benchmarks
	@.venv-benchmarks/bin/python -m benchmarks $(ARGS)

# makemigrations reads a database: not the one of `make run`.
lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	DATABASE_URL=sqlite:///$(VENV)/lint.sqlite3 $(BIN)/python manage.py makemigrations --check --dry-run

bench-check: $(VENV)/.test
	$(BIN)/python -m benchmarks.check $(ARGS)

lock:
	@test -n "$(UV)" || { echo "make lock needs uv: pip install uv"; exit 1; }
	for name in base test benchmarks; do (cd requirements && $(abspath $(UV)) pip compile --quiet --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate $$name.in -o $$name.txt) || exit 1; done

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(CREATE)

$(VENV)/.base: requirements/base.txt | $(BIN)/python
	$(INSTALL) -r $<
	@touch $@

$(VENV)/.benchmarks: requirements/benchmarks.txt | $(BIN)/python
	$(INSTALL) -r $<
	@touch $@

# The test requirements contain the base ones.
$(VENV)/.test: requirements/test.txt | $(BIN)/python
	$(INSTALL) -r $<
	@touch $@ $(VENV)/.base
