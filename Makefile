# make demo: a working example from nothing · make test: lint, types and all tests · both create .venv first
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test quick lint gate bench page browser sanitize clean
.DEFAULT_GOAL := demo

# The stamp is newer than what it was installed from, so `make` installs once and again after a change.
$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard reasonx_eval/metrics/kernels/*)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/reasonx-eval demo --out demo
	$(BIN)/reasonx-ft demo --out demo/tuning

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# The embedded networks, evaluated afresh, against the stored baseline: what a change must not make worse.
gate: $(VENV)/.installed
	for model in tiny tiny-flow; do \
	  $(BIN)/reasonx-eval run --model $$model --dataset scenes-synthetic,scenes-wild --limit 20 --out build/gate --force --quiet >/dev/null || exit; \
	done
	$(BIN)/reasonx-eval gate build/gate

# Speed: benchmarks/speed/README.md from one run, on a machine that does nothing else.
# Equals sign: see benchmarks/speed/pytest.ini.
bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	mkdir -p build
	$(BIN)/python -m pytest benchmarks/speed --benchmark-only --benchmark-json=build/bench.json
	$(BIN)/python -m benchmarks.speed.report build/bench.json

# leaderboards/index.html and what is beside it, from leaderboards/results.
page: $(VENV)/.installed
	$(BIN)/reasonx-eval leaderboard leaderboards/results

# A browser for the tests of the page, which are skipped without one. It changes the system, so only root is asked to,
# and `make test` does so only where the environment sets REASONX_INSTALL_BROWSER.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get -qq update && \
	DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core >/dev/null || \
	echo "no chromium, and none could be installed: the tests of the page are skipped" >&2

# What a change is tried with while it is written: lint, types, and the tests that train no network.
quick: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers 2
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "not slow" -q --no-header \
	  tests/test_imports.py tests/reasonx_eval/io tests/reasonx_eval/metrics tests/reasonx_eval/scoring \
	  tests/reasonx_eval/protocols tests/reasonx_eval/gate tests/reasonx_eval/statistics/test_bootstrap.py tests/reasonx_ft/grpo

test: $(VENV)/.installed $(if $(REASONX_INSTALL_BROWSER),browser)
	$(MAKE) --jobs 2 lint gate
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# The kernels under the address and undefined-behaviour sanitizers: odd shapes, strides, types and counts.
SANITIZED := build/sanitize/reasonx_eval/metrics/kernels/_compiled.abi3.so
sanitize: $(VENV)/.installed
	CFLAGS="-g -fsanitize=address,undefined -fno-sanitize-recover=all" $(BIN)/python -c 'from setuptools import setup; setup()' \
	  --quiet build_ext --force --build-lib build/sanitize --build-temp build/sanitize/objects
	test -f $(SANITIZED)
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	REASONX_KERNELS=$(SANITIZED) REASONX_FUZZ_ROUNDS=150 \
	  $(BIN)/python -m pytest --quiet -p no:cacheprovider tests/reasonx_eval/metrics/test_kernels_fuzz.py

clean:
	rm -rf $(VENV) build demo *.egg-info reasonx_eval/metrics/kernels/*.so .pytest_cache .mypy_cache .ruff_cache
