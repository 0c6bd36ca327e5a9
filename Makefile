# Everything a newcomer types. `make demo` and `make test` work on a fresh machine: they make .venv and install into it.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
TO ?= es
DRAWS ?= 300
SEED ?= 0
PYTEST ?= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Python keeps what it has compiled, also where an image turns that off: tests start it some hundreds of times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint style explore docs bench clean

demo: $(VENV)/installed
	$(BIN)/dragoman demo --to $(TO)

# Format and lint first: they take a second. Types are checked beside the tests, where a core would wait.
test: style
	$(BIN)/pyright & types=$$!; OMP_NUM_THREADS=1 $(PYTEST) && wait $$types

check: lint
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow"

lint: style
	$(BIN)/pyright

style: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

explore: $(VENV)/installed-dev
	HYPOTHESIS_PROFILE=explore OMP_NUM_THREADS=1 $(PYTEST) $$(grep -l "from hypothesis" tests/test_*.py)
	OMP_NUM_THREADS=1 $(BIN)/python tests/explore.py --draws $(DRAWS) --seed $(SEED)

# A site in build/site, with a reference of the public names; links are checked. Open build/site/index.html.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/kill_resume.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/train_speed.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/recurrent.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/train_memory.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/plan.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/length_growth.py
	$(BIN)/python benchmarks/plan_published.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/lm_train.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mamba.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compile.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compile.py --precision bfloat16
	$(BIN)/python benchmarks/startup.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/parallel.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/attention_kernels.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/loss_chunks.py
	$(BIN)/python benchmarks/clean_memory.py
	$(BIN)/python benchmarks/fuzz_readers.py
	test -d runs/demo-$(TO) || $(BIN)/dragoman demo --to $(TO)
	$(BIN)/python benchmarks/same_answer.py runs/demo-$(TO)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/decode.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/translate.py runs/demo-$(TO)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/caches.py runs/demo-$(TO)
	$(BIN)/python benchmarks/serve.py runs/demo-$(TO)
	$(BIN)/python benchmarks/serve_lm.py
	$(BIN)/python benchmarks/bulk.py --run runs/demo-$(TO)
	$(BIN)/python benchmarks/cores.py runs/demo-$(TO)
	$(BIN)/python benchmarks/documents.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/vector_index.py
	$(BIN)/python benchmarks/tables.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/serve_faults.py runs/demo-$(TO)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/decode_growth.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/lm_decode.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/optimizers.py runs/demo-$(TO)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/parity.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/exports.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/museum.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/families.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Most files of packages are never imported, and Python compiles those that are: so pip need not compile all of them.
$(VENV)/torch: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-compile "$(TORCH)"
	@touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/torch pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[dev]"
	@touch $@ $(VENV)/installed
