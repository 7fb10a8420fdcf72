# `make song` and `make test` need Python 3.11 (3.10 to 3.12), make and a compiler; everything else is fetched from PyPI.
PYTHON ?= python3.11
VENV ?= .venv
REPOSITORY ?= build/repository/demo
SONG ?= song.wav
COVER ?= cover.wav
BENCH ?=
DEMO ?=
EXAMPLES = heartvoice/examples
CONSENT = A synthetic voice: nobody's
BIN = $(VENV)/bin
READY = $(VENV)/.ready
export OMP_WAIT_POLICY = PASSIVE
# uv leaves it to the first import to compile: without bytecode each process of each server would compile anew.
unexport PYTHONDONTWRITEBYTECODE
NO_GPU = $(shell $(BIN)/python -c 'import torch; print("" if torch.cuda.is_available() else "not gpu")')
ALL = --dist loadfile --no-loadscope-reorder -m "$(NO_GPU)"

.PHONY: help song cover test fast nightly coverage faults fuzz bench demo-weights check licences audit sbom lint-deploy format configs docs reference dist release-check clean
help:
	@echo "make song    set up, export the preset demo, serve it with Triton, sing examples/lyrics.txt to $(SONG)"
	@echo "make cover   the same server gives a recording that singer: $(COVER)"
	@echo "make test    set up, run the tests of tests/unit and tests/integration"
	@echo "make fast    the tests of tests/unit alone (what plain pytest runs)"
	@echo "make nightly all tests, faults and fuzzing"
	@echo "make coverage   lines and branches that make test reaches, subprocesses included; pages in build/coverage and docs"
	@echo "make faults  kill, starve and cut off a real server in every way that we know; the table goes to benchmarks/results"
	@echo "make fuzz    FUZZ_S=30 seconds of fuzzing for each of its targets"
	@echo "make check   formatting, lint, types, licences and the tests of make test"
	@echo "make licences, make audit, make sbom   licences of what is installed; known vulnerabilities (network); build/sbom.json"
	@echo "make lint-deploy   hadolint, yamllint, and where they are, promtool and (by npm) dclint over deploy/; wheels for aarch64"
	@echo "make bench   a server under load, about 15 minutes; BENCH=--quick to try; plots in build/load"
	@echo "make demo-weights   train the preset demo's networks and measure them, in hours; goes on where it was interrupted"
	@echo "make docs    the documentation site, in build/site; make reference writes its pages on models, settings and weights"
	@echo "make clean   remove what was built; $(VENV) and the trainings in build/demo stay"

# With which the demo's language model is measured after its training; the defaults are for the official weights.
SETTINGS = --temperature 0.7 --top-k 20 --cfg-scale 1
OPTIONS ?=
song: $(READY)
	$(BIN)/heartvoice keys init
	$(BIN)/heartvoice export --preset demo --weights train/demo/weights --repository $(REPOSITORY)
	$(BIN)/heartvoice song --serve $(REPOSITORY) --lyrics @examples/lyrics.txt --tags @examples/tags.txt \
	    --duration 60 --seed 5 $(SETTINGS) $(OPTIONS) --output $(SONG)
	$(BIN)/heartvoice verify $(SONG)

cover: $(READY)
	$(BIN)/heartvoice keys init
	$(BIN)/heartvoice export --preset demo --weights train/demo/weights --repository $(REPOSITORY)
	$(BIN)/heartvoice cover $(EXAMPLES)/recording.flac --serve $(REPOSITORY) --voice $(EXAMPLES)/voice.flac --consent "$(CONSENT)" \
	    --output $(COVER) --stems build/stems

bench: $(READY)
	$(BIN)/heartvoice export --preset tiny --random-weights 0 --repository build/repository/tiny
	$(BIN)/heartvoice bench --repository build/repository/tiny --plots build/load $(BENCH)

# Two processes of one thread each. Ctrl-C saves their states; the same target goes on from there.
demo-weights: $(READY)
	$(BIN)/python -m train.demo all --folder build/demo $(DEMO)

test: $(READY)
	$(BIN)/python -m pytest -q $(ALL) tests/unit tests/integration

fast: $(READY)
	$(BIN)/python -m pytest -q

nightly: test
	$(BIN)/python -m pytest -q $(ALL) tests/nightly
	$(MAKE) fuzz

coverage: $(READY)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(ALL) tests/unit tests/integration
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet --directory build/coverage
	$(BIN)/coverage json --quiet -o build/coverage.json
	PYTHONPATH=. $(BIN)/python -m docs.scripts.coverage build/coverage.json
	$(BIN)/coverage report

faults: $(READY)
	HEARTVOICE_FAULTS_REPORT=1 $(BIN)/python -m pytest -q -n 0 -s tests/nightly/faults

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry heartvoice client export
	$(BIN)/heartvoice export check
	$(MAKE) licences
	$(MAKE) test

# The environment that these look at; the tools themselves run in make's own.
INSPECTED ?= $(BIN)/python
AUDIT_SERVICE ?= pypi
licences: $(READY)
	@$(BIN)/python -m piplicenses --python $(INSPECTED)

# Local builds such as torch 2.13.0+cpu are unknown to the databases.
audit: $(VENV)/.audit
	@mkdir -p build
	@$(BIN)/python -m pip --python $(INSPECTED) list --format=freeze --exclude heartvoice | sed 's/+.*//' > build/installed.txt
	@$(BIN)/pip-audit --strict --vulnerability-service $(AUDIT_SERVICE) --no-deps --disable-pip --requirement build/installed.txt || { \
	    echo "error: a vulnerability was found, or not every package could be looked up (see above); this needs the database of PyPI, or with AUDIT_SERVICE=osv that of OSV" >&2; exit 1; }

sbom: $(VENV)/.audit
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --of JSON -o build/sbom.json $(INSPECTED)

$(VENV)/.audit: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[audit]'
	@touch $@

FUZZ_S ?= 30
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz.run all --seconds $(FUZZ_S)

# promtool is in Debian's package prometheus; dclint comes by npm.
lint-deploy: $(READY)
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/yamllint --strict -c deploy/.yamllint.yaml deploy .github .pre-commit-config.yaml mkdocs.yml CITATION.cff
	@if command -v promtool >/dev/null; then promtool check config deploy/prometheus/prometheus.yaml && \
	    promtool test rules tests/unit/deploy/rules_test.yaml; else echo "not run: promtool (apt-get install prometheus)"; fi
	@if command -v npm >/dev/null; then npm exec --yes --package=dclint@3.1.0 -- dclint --max-warnings 0 \
	    -c deploy/.dclintrc.yaml deploy/compose.yaml; else echo "not run: dclint (needs npm)"; fi
	HEARTVOICE_RESOLVE=1 $(BIN)/python -m pytest -q -n 2 -k aarch64 tests/integration/test_packaging.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict --clean

reference: $(READY)
	PYTHONPATH=. $(BIN)/python -m docs.scripts.reference --write
	PYTHONPATH=. $(BIN)/python -m docs.scripts.images --write
	PYTHONPATH=. $(BIN)/python -m docs.scripts.protos --write

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build

# The release workflow calls it with the tag: v and the version.
release-check: $(READY)
	@version=v$$($(BIN)/python -c 'import heartvoice; print(heartvoice.__version__)'); \
	    [ "$$version" = "$(TAG)" ] || { echo "error: the tag is $(TAG), heartvoice.__version__ asks for $$version"; exit 1; }
	@grep -q "^## \[$(TAG:v%=%)\]" CHANGELOG.md || { echo "error: CHANGELOG.md has no section [$(TAG:v%=%)]"; exit 1; }

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

configs: $(READY)
	$(BIN)/heartvoice export configs

clean:
	[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name demo -exec rm -rf {} +
	rm -rf dist $(SONG) $(COVER) *.egg-info

# The embedded server needs a Python with a shared library: said before anything is downloaded.
# uv installs several times as fast as pip. It takes a package from the first index that has it, whatever the wheel: so it
# is told pip's main index and folders of wheels, and of further indexes only those that the caller names.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install it or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))" \
	    || { echo "error: $(PYTHON) must be Python 3.10, 3.11 or 3.12"; exit 1; }
	@$(PYTHON) -c "from heartvoice.server.triton_wheel import shared_libpython as f; f()" 2>&1 | tail -n 1 | sed 's/^.*SetupError: /error: /' | { ! grep . ; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: no venv module; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip uv
	@echo "installing into $(VENV)"
	@setting() { printenv "PIP_$$1" || $(BIN)/python -m pip config get "global.$$2" 2>/dev/null; }; set --; \
	    for url in $$(setting INDEX_URL index-url); do set -- "$$@" --default-index "$$url"; done; \
	    for url in $$PIP_EXTRA_INDEX_URL; do set -- "$$@" --index "$$url"; done; \
	    for folder in $$(setting FIND_LINKS find-links); do set -- "$$@" --find-links "$$folder"; done; \
	    $(BIN)/uv pip install --python $(BIN)/python --index-strategy unsafe-best-match "$$@" \
	        --constraint constraints.txt --editable '.[dev]' \
	    || { echo "uv could not install it; pip tries"; $(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'; }
	@touch $@
