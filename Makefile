# Two commands matter: `make demo` and `make test`. Each sets up .venv on its first call; later calls are quick.
# PYTHON names the interpreter that creates .venv: Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q

# torch comes first and alone: nothing after it may bring in another build of it.
TORCH := torch==2.13.0
TRITON := triton==3.7.1
BUILD_TOOLS := "setuptools>=77" wheel "cmake>=3.22" ninja
# Without their dependencies, which name torch. The version of torchvision is the one made for TORCH.
PEERS := timm torchvision==0.28.0
LIBRARIES_OF_TORCH := libtorch_cpu.so libtorch_cuda.so libtorch.so libc10.so libc10_cuda.so "libcudart.so.*"

NATIVE := setup.py pyproject.toml CMakeLists.txt $(shell find csrc -type f)

# Two test processes on as many cores: threads of OpenMP that spin while they wait would take the cores from each other.
export OMP_WAIT_POLICY := PASSIVE

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

SUITES := package benchmarks emulator triton

.PHONY: demo test test-quick test-all test-rest $(SUITES:%=test-%) lint build compile-only docs wheel clean
.DELETE_ON_ERROR:

ifdef WHEEL
# make demo WHEEL=dist/mobilevit_fast-....whl: installed and run in seconds, with nothing compiled.
demo: $(VENV)/.torch
	rm -f $(VENV)/.built
	$(PIP) "$(WHEEL)[demo]"
	cd $(VENV) && bin/python -m mobilevit_fast.demo
else
demo: $(VENV)/.built
	$(PY) -m mobilevit_fast.demo
endif

# The tiers, and the suites that they are made of (CONTRIBUTING.md, testing/suites.py). Every part runs, also behind one
# that failed. `make test-rest MINUTES=20` begins no slice of what `make test` leaves out after so many minutes.
TIERS := $(PY) -m testing.suites
test: $(VENV)/.tested
	$(TIERS) test

test-quick: $(VENV)/.tested
	$(TIERS) quick

test-all: $(VENV)/.tested
	$(TIERS) all

test-rest: $(VENV)/.tested
	$(TIERS) rest $(if $(MINUTES),--minutes $(MINUTES)) $(if $(BEGIN),--begin $(BEGIN))

lint: $(VENV)/.tested
	$(TIERS) lint

$(SUITES:%=test-%): test-%: $(VENV)/.tested
	$(TIERS) $*

build: $(VENV)/.built

# The pages as a site in build/site, without a network.
docs: $(VENV)/.tested
	$(PY) -m mkdocs build -q

# Every CUDA source through nvcc; needs no GPU and no CUDA build of torch.
compile-only: $(VENV)/.built
	$(PY) setup.py -q compile_only

# One for every Python from 3.11 and torch 2.11 to 2.13, in dist/. Tagged by auditwheel for the oldest glibc that it runs
# with; the libraries of torch stay out of it on purpose: they have to be those that the process has.
wheel: $(VENV)/.tested
	rm -rf build/wheel dist/mobilevit_fast-*.whl
	$(PY) -m build --no-isolation --outdir build/wheel
	$(PY) -m auditwheel repair $(LIBRARIES_OF_TORCH:%=--exclude %) --wheel-dir dist build/wheel/*-linux_*.whl

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
	@echo "compiling the kernels: 2 to 5 minutes on two cores"
	$(PY) setup.py -q build_ext --inplace
	@echo "installing the package and what the demo needs"
	$(PIP) --no-build-isolation -e ".[demo]"
	touch $@

$(VENV)/.tested: $(VENV)/.built pyproject.toml
	@echo "installing what tests and benchmarks need"
	$(PIP) $(TRITON)
	$(PIP) --no-build-isolation -e ".[dev]"
	$(PIP) --no-deps $(PEERS)
	touch $@
