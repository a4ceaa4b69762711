# The project's verbs, the same for people and for .ci/run.
# All they make lies in .venv*/, dist/ and target/: `make clean` removes it.

# Every CPython >= 3.11 here, lowest first, as "3.12=/path/to/python". Each candidate is run: a pyenv
# shim may lead nowhere, Debian's python3 may lack venv, and free-threaded builds cannot load abi3.
define FIND_PYTHONS
for python in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 python3.15 \
    "$$(pyenv root 2>/dev/null)"/versions/*/bin/python3; do \
  "$$python" -c 'import ensurepip, sys, sysconfig, venv; \
    sys.implementation.name == "cpython" and sys.version_info >= (3, 11) \
      and not sysconfig.get_config_var("Py_GIL_DISABLED") \
      and print("%d.%d" % sys.version_info[:2], sys.executable, sep="=")' 2>/dev/null; \
done | sort -t = -k 1,1V -u
endef
PYTHONS := $(shell $(FIND_PYTHONS))
VERSIONS := $(foreach found,$(PYTHONS),$(firstword $(subst =, ,$(found))))

# The interpreter of .venv: `make run PYTHON=python3.13` chooses another.
PYTHON ?= $(lastword $(subst =, ,$(firstword $(PYTHONS))))
BIN := .venv/bin

# Directories are listed too, so that a deleted file counts as a change.
SOURCES := Cargo.toml $(wildcard Cargo.lock) pyproject.toml \
  $(shell find src tui python/anabranch python/anabranch_command -name __pycache__ -prune -o -print 2>/dev/null)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_QUIET := 1
# PyO3 asks this interpreter what to build for, instead of searching.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# pyright's wrapper would mention newer versions; ours is pinned on purpose.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help pythons run test test-rust test-detached trials bench lint fmt wheel clean FORCE

help: ## list these verbs
	@sed -n 's/^\([a-z-]*\):.* ## /\1#/p' $(firstword $(MAKEFILE_LIST)) | awk -F'#' '{printf "make %-10s %s\n", $$1, $$2}'

pythons:
	@echo "CPython >= 3.11 found: $(or $(VERSIONS),none (set PYTHON=/path/to/python; venv is needed too))"
	@test -n "$(VERSIONS)"

run: .venv/installed ## build, install into .venv, and run the main job: in the dashboard, or printed
	$(BIN)/anabranch demo

test: pythons test-rust $(VERSIONS:%=test-%) ## Rust tests, then pytest and doctests on every Python >= 3.11 found

# The property tests draw other cases each time, from a seed that is printed: give it again with
# `make test-rust SEED=…`. In CI they draw the same ones: what lands must not hang on luck.
test-rust: export PROPTEST_RNG_SEED := $(or $(SEED),$(if $(CI),1000,$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')))
test-rust:
	@echo "== Rust (property tests: SEED=$$PROPTEST_RNG_SEED)"
	cargo test --workspace

# One version: `make test-3.12`, with `ARGS="-k window"` if wanted.
test-%: .venv-%/installed FORCE
	@echo "== Python $* (found: $(VERSIONS))"
	.venv-$*/bin/python -m pytest tests/python --doctest-modules --pyargs anabranch $(ARGS)

# PyO3 keeps an object that is dropped by a thread without the interpreter until some thread has it:
# then `__del__` runs who knows where. This build aborts instead. The tests are those in which other
# threads, waits and late results come up; `__del__` of the interpreter's own end is not among them.
DETACHED := channel channel_pipeline channel_threads callables cancellation compensation concurrency \
  drivers fan_in merge monitor relays select streams stubborn timeouts undo_actions
test-detached: .venv-$(lastword $(VERSIONS))/installed ## find objects that are dropped without the interpreter
	RUSTFLAGS="--cfg pyo3_disable_reference_pool" $(BIN)/maturin build --profile dev \
	  --target-dir target/detached --interpreter $(BIN)/python --out target/detached/wheels
	rm -rf target/detached/package
	$(BIN)/python -m zipfile -e target/detached/wheels/*.whl target/detached/package
	PYTHONPATH=target/detached/package .venv-$(lastword $(VERSIONS))/bin/python -m pytest -q \
	  $(DETACHED:%=tests/python/test_%.py)

# `TRIALS`, `STORMS` and `SEED` choose; each run prints its seed. A pipeline in Python takes some
# milliseconds, one in Rust a quarter of one: so there are fewer of them.
trials: export TRIALS ?= 1000000
trials: export STORMS ?= 100000
trials: export LIFECYCLE ?= 50
trials: export SOAK ?= 600
trials: export KILLS ?= 60
trials: export DISASTERS ?= 10
trials: export SIMULATIONS ?= 2000
trials: pythons $(VERSIONS:%=.venv-%/installed) ## the random tests at length, every way to end 50 times, a soak of 10 minutes
	cargo test --release --package anabranch-core --test trees -- --nocapture
	cargo test --release --package anabranch-core --test engine conservation -- --nocapture
	set -e; for version in $(VERSIONS); do \
	  .venv-$$version/bin/python -m pytest -q tests/python/test_lifecycle.py; \
	  TRIALS=$(STORMS) .venv-$$version/bin/python tests/python/storms.py; \
	done
	.venv-$(lastword $(VERSIONS))/bin/python tests/python/soak.py
	.venv-$(lastword $(VERSIONS))/bin/python tests/python/killing.py
	.venv-$(lastword $(VERSIONS))/bin/python tests/python/disasters.py
	SIMULATIONS=$(SIMULATIONS) .venv-$(lastword $(VERSIONS))/bin/python -m pytest -q tests/python/test_outbox_acks.py

bench: .venv-bench/installed ## measure against hand-written loops and other libraries
	.venv-bench/bin/python tests/bench/run.py $(ARGS)

lint: .venv/installed .venv/linters ## formatters, clippy, ruff, mypy, pyright, stubs
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest anabranch._core --allowlist tests/typing/stubtest-allow.txt
	PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes anabranch --ignoreexternal

fmt: .venv/linters ## format Rust and Python in place, with ruff's safe fixes
	cargo fmt --all
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

wheel: dist/.built ## the one abi3 wheel for all versions, in dist/
	@ls dist/*.whl

clean: ## remove environments, wheels and build output
	rm -rf .venv .venv-* dist target .pytest_cache .mypy_cache .ruff_cache .hypothesis

dist/.built: $(SOURCES) | $(BIN)/maturin
	rm -f dist/*.whl
	$(BIN)/maturin build --release --interpreter $(BIN)/python --out dist
	@touch $@

$(BIN)/python: | pythons
	$(PYTHON) -m venv --clear .venv

$(BIN)/maturin: | $(BIN)/python
	$(BIN)/pip install maturin==1.16.0

.venv/installed: dist/.built
	$(BIN)/pip install --no-deps --force-reinstall dist/*.whl
	@touch $@

.venv/linters: tests/typing/requirements.txt | $(BIN)/python
	$(BIN)/pip install -r $<
	@touch $@

.venv-bench/installed: tests/bench/requirements.txt dist/.built
	test -x .venv-bench/bin/python || $(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/pip install -r $<
	.venv-bench/bin/pip install --no-deps --force-reinstall dist/*.whl
	@touch $@

.venv-%/installed: tests/requirements.txt dist/.built
	test -x .venv-$*/bin/python || $(patsubst $*=%,%,$(filter $*=%,$(PYTHONS))) -m venv --clear .venv-$*
	.venv-$*/bin/pip install -r $<
	.venv-$*/bin/pip install --no-deps --force-reinstall dist/*.whl
	@touch $@

# Kept, though pattern rules make them: they are the environments' stamps.
.PRECIOUS: .venv-%/installed
