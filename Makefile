# The common tasks of this project, one target each. Each target installs what it needs.
PYTHON ?= python3
PORT ?= 8080
SHOP_PORT ?=
SOURCE ?=
BACKEND ?= local
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
CONSTRAINTS := constraints.txt
# Apache Beam has its own environment, because its pinned versions conflict with ours.
BEAM := .venv-beam
BEAM_CONSTRAINTS := constraints-beam.txt
# Labelled photos for `make bench`: a folder with a sub-folder for each kind.
PHOTOS ?= ../shared/data
PICTURES := $(if $(wildcard $(PHOTOS)),--pictures '$(PHOTOS)')

COMMA := ,
# Modules are compiled when they are imported, which only some of the installed ones are.
INSTALL := pip install --quiet --no-compile

# Small matrix products on many threads cost more than they save, most of all on a busy machine.
export OPENBLAS_NUM_THREADS := 1
# Tests start Python hundreds of times: compiling every module again would take longer than many tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: beam demo check fast test test-python test-page lint audit bench setup test-setup page docs dist model-package clean
FAST := not (fault or build or cloud or browser or slow)

# The default model is fetched as a package. TensorFlow is installed to build it only if the package is unavailable.
demo: $(if $(filter gcp-emulators,$(BACKEND)),$(STAMPS)/dev)  ## crawl, embed and serve pictures on this machine
	@$(MAKE) --no-print-directory -j2 $(STAMPS)/run $(STAMPS)/page
	@$(BIN)/visor model build >/dev/null || $(MAKE) --no-print-directory $(STAMPS)/build
	@$(BIN)/visor demo --port $(PORT) $(if $(SHOP_PORT),--shop-port $(SHOP_PORT)) --backend $(BACKEND) $(if $(SOURCE),--source '$(SOURCE)')

check: $(STAMPS)/dev $(STAMPS)/page $(STAMPS)/security  ## lint and the fast tests, before every commit
	@$(MAKE) --no-print-directory -j2 lint fast

fast: $(STAMPS)/dev
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m '$(FAST)' tests/unit tests/contract

test:  ## all tests
	@$(MAKE) --no-print-directory -j2 test-setup
	@$(MAKE) --no-print-directory -j2 test-python test-page

test-python:
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Beside the others, which often wait; what they print would be mixed.
test-page:
	@mkdir -p build
	@cd frontend && npm test >../build/test-page.log 2>&1 || { cat ../build/test-page.log; exit 1; }
	@tail -n 5 build/test-page.log

lint: $(STAMPS)/dev $(STAMPS)/page $(STAMPS)/security  ## style, types, front end
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/docs_tables.py --check
	$(BIN)/check-jsonschema --builtin-schema vendor.cloudbuild cloudbuild.yaml
	if command -v terraform >/dev/null; then terraform fmt -check -diff terraform; fi
	cd frontend && npm run lint

bench: $(STAMPS)/dev $(STAMPS)/build $(STAMPS)/bench  ## measure, and compare with other tools
	for images in 10000 70000 1000000; do \
	  $(BIN)/visor bench search --images $$images $(PICTURES) --json; done
	for images in 10000 70000 1000000; do \
	  $(BIN)/visor bench peers --images $$images $(PICTURES) --model nsfwjs --plot docs/img/peers-$$images.png; done
	$(BIN)/visor bench cold-start --images 100000 --json
	$(BIN)/visor bench operations
	if [ -d '$(PHOTOS)/grocery-catalogue' ]; then \
	  $(BIN)/visor bench packshots --queries '$(PHOTOS)'/grocery --catalogue '$(PHOTOS)'/grocery-catalogue \
	    --map '$(PHOTOS)'/packshots.json --json; \
	  $(BIN)/visor bench confidence --queries '$(PHOTOS)'/grocery --catalogue '$(PHOTOS)'/grocery-catalogue \
	    --map '$(PHOTOS)'/packshots.json --plot docs/img/confidence-packshots.svg --json; \
	  $(BIN)/visor bench confidence --queries '$(PHOTOS)'/grocery --map '$(PHOTOS)'/life.json \
	    --plot docs/img/confidence-demo.svg --json; \
	  $(BIN)/visor bench life --queries '$(PHOTOS)'/grocery --map '$(PHOTOS)'/life.json --json; fi
	if [ -d '$(PHOTOS)' ]; then for kinds in clothing/grocery grocery/clothing; do \
	  kind=$${kinds%/*} other=$${kinds#*/}; \
	  $(BIN)/visor eval '$(PHOTOS)'/$$kind --json; \
	  $(BIN)/visor bench metrics '$(PHOTOS)'/$$kind --model nsfwjs --model auto --plot docs/img/metrics-$$kind.png; \
	  $(BIN)/visor bench confidence --in '$(PHOTOS)'/$$kind --plot docs/img/confidence-$$kind.svg --json; \
	  $(BIN)/visor bench confidence --in '$(PHOTOS)'/$$kind --out '$(PHOTOS)'/$$other \
	    --plot docs/img/confidence-$$kind-$$other.svg --json; \
	  $(BIN)/visor bench copies '$(PHOTOS)'/$$kind --json; done; fi

audit: $(STAMPS)/dev  ## check the pinned versions for published vulnerabilities, if the database can be reached
	@mkdir -p build && rm -f build/audit.json
	@$(BIN)/python -m pip install --quiet pip-audit && $(BIN)/python -m pip_audit --no-deps --disable-pip --timeout 10 \
	  --format json --output build/audit.json --requirement $(CONSTRAINTS) 2>build/audit.log || \
	  if [ -s build/audit.json ]; then cat build/audit.json; exit 1; \
	  else tail -n 1 build/audit.log; echo "Nothing was audited: the advisories cannot be reached"; fi

setup: test-setup $(STAMPS)/security  ## install what lint and all tests need

test-setup: $(STAMPS)/dev,build $(STAMPS)/page $(BEAM)/.stamp

page: $(STAMPS)/page

docs: $(STAMPS)/docs  ## the documentation site in site/; fails on broken links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

dist: $(STAMPS)/dev $(STAMPS)/page  ## source distribution and wheel in dist/, with the built page
	rm -rf dist
	$(BIN)/python scripts/dist.py

model-package: $(STAMPS)/build  ## the wheel of the built default model in dist/, reproducible byte for byte
	$(BIN)/python scripts/models/model_package.py

clean:  ## remove what was built here (not VISOR_HOME)
	rm -rf $(VENV) $(BEAM) .venv-checkov build dist site frontend/dist frontend/node_modules

$(STAMPS)/venv:
	@$(PYTHON) scripts/prerequisites.py
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: pyproject.toml $(CONSTRAINTS) | $(STAMPS)/venv
	@echo "Installing Visor (versions of $(CONSTRAINTS)) …" >&2
	@$(BIN)/python -m $(INSTALL) --constraint $(CONSTRAINTS) --editable .
	@touch $@

# Each stamp is extras of pyproject.toml, installed with the pinned versions. Two in one go take less time than one
# after the other, and only one pip at a time may work in an environment.
EXTRAS := dev build dev,build bench docs
$(EXTRAS:%=$(STAMPS)/%): $(STAMPS)/%: pyproject.toml $(CONSTRAINTS) | $(STAMPS)/venv
	@echo "Installing what '$*' needs (pinned in $(CONSTRAINTS)) …" >&2
	@$(BIN)/python -m $(INSTALL) --constraint $(CONSTRAINTS) --editable '.[gcp,$*]' --editable devtools
	@touch $(patsubst %,$(STAMPS)/%,$(subst $(COMMA), ,$*)) $@

beam: $(BEAM)/.stamp  ## install what `visor bulk` needs, in .venv-beam

$(BEAM)/.stamp: pyproject.toml $(BEAM_CONSTRAINTS)
	@echo "Installing Apache Beam into $(BEAM) (versions of $(BEAM_CONSTRAINTS)) …" >&2
	@$(PYTHON) -m venv $(BEAM)
	@$(BEAM)/bin/python -m $(INSTALL) --constraint $(BEAM_CONSTRAINTS) --editable '.[beam]' --editable devtools
	@touch $@

# checkov has its own environment, because its pinned versions conflict with ours.
$(STAMPS)/security: scripts/security.py $(wildcard terraform/*.tf) | $(STAMPS)/venv
	@echo "Checking terraform/ with checkov …" >&2
	@$(BIN)/python scripts/security.py
	@touch $@

$(STAMPS)/page: $(shell find frontend -path frontend/node_modules -prune -o -path frontend/dist -prune -o -type f -print) | $(STAMPS)/venv
	@echo "Building the page …" >&2
	@cd frontend && npm ci --silent && npm run --silent build
	@touch $@
