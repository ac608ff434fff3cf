# make pretrain ARGS="…"   train (python -m scripts.pretrain --help lists the flags)
# make environment         only what the others need first, to call scripts as .venv/bin/python -m scripts.NAME
# make test                the tests; make slow: the long ones (two processes, kills at any time)
# make chaos ARGS="…"      a job disturbed a hundred times (python -m tests.chaos.chaos --help); make slow: ten times
# make figures             after docs' tables were made again: what ties them to the code (tests/figures.py), anew
# make browser             the search page in a real browser: see what it needs, where it is made
# make beam                preparing by Apache Beam, in an environment of its own
# make parity              the comparison with torch and transformers, in an environment of its own
# make plan ARGS="…"       does it fit a TPU slice that is not here, how fast is it? (python -m scripts.plan --help)
# make flash ARGS="…"      what the flash kernel costs on such a TPU (python -m benchmarks.flash --help)
# make estimate ARGS="…"   how near a plan's estimate is to what the compiler has scheduled
# make aot                 the training step compiled for TPUs that are not here, as tests
# make bench               every benchmark; make lint: ruff and mypy; make lock: the pinned versions anew

PYTHON ?= python3
VENV := .venv
ENVIRONMENT := $(VENV)/.made-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PARITY := .venv-parity
BEAM := .venv-beam
LIBTPU := .venv-tpu
# A file to a worker: what its tests share is made once. In their order, but the longest first, lest one worker end on it.
PYTEST := -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
CPU := JAX_PLATFORMS=cpu
NO_TPU = $(CPU) TPU_LIBRARY_PATH=$(abspath $(LIBTPU))/libtpu/libtpu.so
# Temporary arrays of hundreds of megabytes in pages of 2 MB, not of 4 kB: a tenth of a CPU's step (glibc 2.35 or later).
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: environment pretrain test slow chaos figures browser beam parity plan flash estimate aot bench lint lock

pretrain: $(ENVIRONMENT)
	$(HUGE_PAGES) $(VENV)/bin/python -m scripts.pretrain $(ARGS)

environment: $(ENVIRONMENT)

test: $(ENVIRONMENT)
	$(VENV)/bin/python $(PYTEST) -m "not slow" --ignore tests/parity --ignore tests/tpu tests $(ARGS)

slow: $(ENVIRONMENT)
	$(VENV)/bin/python $(PYTEST) -m slow --ignore tests/parity --ignore tests/tpu tests $(ARGS)

chaos: $(ENVIRONMENT)
	$(VENV)/bin/python -m tests.chaos.chaos $(ARGS)

figures: $(ENVIRONMENT)
	FIGURES=1 $(VENV)/bin/python -m pytest -q -k figures tests/gan tests/rope

# A Chromium is for root to install, as by apt-get install --no-install-recommends chromium fonts-noto-cjk, or for anyone by
# .venv/bin/playwright install chromium; without one the tests are skipped, and say so. Once here, they are among `make test`'s.
browser: $(ENVIRONMENT)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check playwright==1.65.2
	$(VENV)/bin/python -m pytest -q -rs tests/retrieval/search/test_browser.py $(ARGS)

beam: $(BEAM)/.made
	$(CPU) $(BEAM)/bin/python -m pytest -q tests/pegasus_zh/rows/test_beam.py $(ARGS)

parity: $(PARITY)/.made
	$(CPU) $(PARITY)/bin/python $(PYTEST) tests/parity/test_benchmarks.py tests/parity $(ARGS)

plan: $(ENVIRONMENT) $(LIBTPU)/.made
	$(NO_TPU) $(VENV)/bin/python -m scripts.plan $(ARGS)

flash: $(ENVIRONMENT) $(LIBTPU)/.made
	$(NO_TPU) $(VENV)/bin/python -m benchmarks.flash $(ARGS)

estimate: $(ENVIRONMENT) $(LIBTPU)/.made
	$(NO_TPU) $(VENV)/bin/python -m benchmarks.estimate $(ARGS)

aot: $(ENVIRONMENT) $(LIBTPU)/.made
	$(NO_TPU) ALLOW_MULTIPLE_LIBTPU_LOAD=1 $(VENV)/bin/python -m pytest -q -n 2 -rP tests/tpu $(ARGS)

bench: $(PARITY)/.made
	$(HUGE_PAGES) $(CPU) $(PARITY)/bin/python -m benchmarks.run $(ARGS)

lint: $(ENVIRONMENT)
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

$(ENVIRONMENT): requirements/core.txt
	@echo 'Installing into $(VENV): about a minute and 1.5 GB, once'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/core.txt
	touch $@

$(PARITY)/.made: requirements/core.txt requirements/parity.txt
	rm -rf $(PARITY)
	$(PYTHON) -m venv $(PARITY)
	# On their own: a build without CUDA satisfies this where one is at hand, and a lock would name CUDA's packages.
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 rotary-embedding-torch==0.9.1 sentence-transformers==6.2.0 orthogonium==0.0.4
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/core.txt -r requirements/parity.txt
	touch $@

$(BEAM)/.made: requirements/beam.txt
	rm -rf $(BEAM)
	$(PYTHON) -m venv $(BEAM)
	$(BEAM)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/beam.txt
	touch $@

# libtpu lies apart: where it is installed but no TPU is, importing jax prints errors.
$(LIBTPU)/.made: requirements/tpu.txt $(ENVIRONMENT)
	rm -rf $(LIBTPU)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --target $(LIBTPU) -r requirements/tpu.txt
	touch $@

UV := uv pip compile --quiet --universal --no-emit-index-url --no-annotate --python-version 3.11
lock:
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) --extra dev pyproject.toml -o requirements/core.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) --extra parity -c requirements/core.txt pyproject.toml -o requirements/parity.txt
	cp requirements/core.txt requirements/beam.txt  # whose versions are taken where Beam allows
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) --extra beam --extra dev pyproject.toml -o requirements/beam.txt
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) requirements/tpu.in -o requirements/tpu.txt
