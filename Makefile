# make demo   from nothing to a Transformer that reads alphabets it has never seen
# make test   every test that runs in minutes
# PYTHON, TORCH and CONSTRAINTS can be set: make demo TORCH=torch CONSTRAINTS= takes the newest of everything

PYTHON ?= python3
TORCH ?= torch==2.13.0
CONSTRAINTS ?= -c constraints.txt
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS)
OUT ?= runs/demo

.PHONY: demo setup test test-slow test-browser lint types format benchmarks doctor clean

demo: $(VENV)/.for-demo
	$(VENV)/bin/quickstudy demo --out $(OUT)

setup: $(VENV)/.for-all

test: $(VENV)/.for-all
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow and not browser"

test-slow: $(VENV)/.for-all
	$(VENV)/bin/python -m pytest -q -m slow

test-browser: $(VENV)/.for-all
	$(VENV)/bin/python -m pytest -q -m browser

lint: $(VENV)/.for-all
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.for-all
	$(VENV)/bin/mypy

format: $(VENV)/.for-all
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

doctor: $(VENV)/.for-demo
	$(VENV)/bin/quickstudy doctor

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache

# Torch goes first and alone, so that nothing else chooses its version.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.for-demo: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing quickstudy for the demo …"
	$(PIP) -e '.[demo]'
	touch $@

$(VENV)/.for-all: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing quickstudy with every extra …"
	$(PIP) -e '.[all,dev]'
	touch $@ $(VENV)/.for-demo
