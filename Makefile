# Two commands: `make run` serves the demo site, `make test` runs the suite. The first call of each
# sets up what it needs in .venv; later calls start at once.
#
#   make run ADDR=127.0.0.1:8000
#   make test ARGS="-k presence"      on SQLite, then on PostgreSQL
#   make chaos                        the long runs of the oracle, tests/chaos/: an hour and more
#   make bench                        Rooms beside other servers, benchmarks/: an hour and more
#   make lint                         what CI checks besides the tests
#   make bench-check                  whether what everybody needs became slower; ARGS=--commit takes it as it is now
#   make lock                         requirements/*.in -> hash-locked requirements/*.txt

ADDR ?= 127.0.0.1:8000
ARGS ?=
# Tests mostly wait, so a few more processes than cores are worth their while.
WORKERS ?= 4
# A file is one process's, which shares its servers. tests/conftest.py puts the long ones first.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
VENV ?= .venv
BIN := $(VENV)/bin

# uv where there is one, else what every Python brings along.
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

.PHONY: run test test-sqlite test-postgres chaos bench bench-check lint lock clean

run: $(VENV)/.base
	@$(BIN)/python manage.py rooms_demo --addr $(ADDR)

test: test-sqlite test-postgres

test-sqlite: $(VENV)/.test
	$(PYTEST) $(ARGS)

# Without tests in which the database has no say: once is enough.
test-postgres: $(VENV)/.test
	ROOMS_TEST_DATABASE=postgres $(PYTEST) \
		$(foreach name,browser dialling farewells gowsev hostile_doors native_clocks native_connecting native_fuzz native_limits \
			native_requests native_transport roomer runrooms vectors,--ignore=tests/integration/test_$(name).py) \
		$(foreach name,fanout js management/test_supervising.py protocols test_architecture.py test_documentation.py \
			benchmarks/test_generator.py test_frames.py test_reconnecting.py websocket,--ignore=tests/$(name)) \
		$(ARGS)

# make chaos ARGS="--on postgres --seeds 1 --messages 5000" is a small one; --help says more.
chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos.run $(ARGS)

# In an environment of its own: what Rooms is measured beside is no part of it. ARGS="--help" says more.
bench:
	@$(MAKE) --no-print-directory VENV=.venv-benchmarks .venv-benchmarks/.benchmarks
	@.venv-benchmarks/bin/python -m benchmarks $(ARGS)

# makemigrations looks at a database; not at the one of `make run`.
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
