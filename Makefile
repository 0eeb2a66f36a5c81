# Two commands matter: `make demo` and `make test`. Each sets up .venv on its first call; later calls are quick.
# PYTHON names the interpreter that creates .venv: Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q

# torch comes first and alone: nothing after it may bring in another build of it.
TORCH := torch==2.13.0
TRITON := triton==3.7.1
BUILD_TOOLS := "setuptools>=77" wheel "pybind11>=2.13" "cmake>=3.22" ninja
# Without their dependencies, which name torch. The version of torchvision is the one made for TORCH.
PEERS := timm torchvision==0.28.0

NATIVE := setup.py pyproject.toml CMakeLists.txt $(shell find csrc -type f)
CXX_FILES := $(shell find csrc emulator tests/native tests/cuda -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# Two test processes on as many cores: threads of OpenMP that spin while they wait would take the cores from each other.
export OMP_WAIT_POLICY := PASSIVE

# Emulated CUDA kernels run under AddressSanitizer, which has to be in the process from its start, and the C++ library
# with it. Its options: fibers are stacks that it does not know; leaks are not what these tests look for.
SANITIZER := $(shell for name in libasan.so libstdc++.so; do $(CXX) -print-file-name=$$name; done 2> /dev/null)
ASAN_OPTIONS := detect_leaks=0:detect_stack_use_after_return=0

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

SUITES := package benchmarks emulator triton

.PHONY: demo test $(SUITES:%=test-%) test-thorough lint build compile-only docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.built
	$(PY) -m mobilevit_fast.demo

# Every suite runs, also behind one that failed.
test: lint
	@failed=0; for suite in $(SUITES); do $(MAKE) --no-print-directory test-$$suite || failed=1; done; exit $$failed

test-package: $(VENV)/.tested
	$(PY) -m pytest -q -p no:benchmark -n 2 --ignore=tests/triton --ignore=tests/emulator --ignore=tests/cuda

test-benchmarks: $(VENV)/.tested
	$(PY) -m pytest -q --benchmark-disable benchmarks

test-emulator: $(VENV)/.tested
	LD_PRELOAD="$(SANITIZER)" ASAN_OPTIONS=$(ASAN_OPTIONS) $(PY) -m pytest -q -p no:benchmark -n 2 -m "not thorough" tests/emulator tests/cuda

test-triton: $(VENV)/.tested
	TRITON_INTERPRET=1 $(PY) -m pytest -q -p no:benchmark -n 2 tests/triton

# Every size and order of threads of the kernels for compute capability 9.0, of which `test` takes one in four.
test-thorough: $(VENV)/.tested
	LD_PRELOAD="$(SANITIZER)" ASAN_OPTIONS=$(ASAN_OPTIONS) $(PY) -m pytest -q -p no:benchmark -n 2 -m thorough tests/emulator

lint: $(VENV)/.tested
	$(VENV)/bin/ruff check -q .
	$(VENV)/bin/ruff format -q --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)
	$(VENV)/bin/mypy

build: $(VENV)/.built

# The pages as a site in build/site, without a network.
docs: $(VENV)/.tested
	$(PY) -m mkdocs build -q

# Every CUDA source through nvcc; needs no GPU and no CUDA build of torch.
compile-only: $(VENV)/.built
	$(PY) setup.py -q compile_only

clean:
	rm -rf build dist *.egg-info mobilevit_fast/_lib mobilevit_fast/_C.*.so
	rm -f $(VENV)/.built $(VENV)/.tested

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	    f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}; use make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH) into $(VENV)"
	$(PIP) $(TORCH) numpy
	$(PIP) $(BUILD_TOOLS)
	touch $@

$(VENV)/.built: $(VENV)/.torch $(NATIVE)
	@echo "compiling the kernels and installing the package: 2 to 5 minutes on two cores, without further messages"
	$(PIP) --no-build-isolation -e ".[demo]"
	touch $@

$(VENV)/.tested: $(VENV)/.built pyproject.toml
	@echo "installing what tests and benchmarks need"
	$(PIP) $(TRITON)
	$(PIP) --no-build-isolation -e ".[dev]"
	$(PIP) --no-deps $(PEERS)
	touch $@
