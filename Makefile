# make sample   set up and print samples
# make test     set up and run the tests
# make lint     set up and check style and types
# make check-transformers   set up transformers and PyTorch in peers/, and compare with them
# make gpt-2-samples MODEL=117M   make the samples folder anew
PYTHON ?= python3
MODEL ?= 1M
PEERS ?= peers
BIN := .venv/bin
# pip compiles what it installs on one core. This does it on all; like pip, it leaves out what does
# not compile.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib
# What $(PYTHON) runs to see whether TensorFlow has a release for it; any Python can read this.
CHECK := import sys; sys.exit(None if (3, 10) <= sys.version_info[:2] <= (3, 13) else \
	'Python 3.10 to 3.13 is needed, and this is ' + sys.version.split()[0] + \
	'; try: make clean && make PYTHON=python3.12')

.PHONY: sample test lint check-transformers gpt-2-samples format clean

sample: .venv/.installed
	$(BIN)/python src/generate_unconditional_samples.py --nsamples 2 --temperature 0.8 --top_p 0.9 --stop_at_end

test: .venv/.installed-dev
	$(BIN)/python -m pytest

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile.cpu Dockerfile.gpu

check-transformers: .venv/.installed-dev $(PEERS)/.installed
	$(BIN)/python tools/check_transformers.py --peer_python $(PEERS)/bin/python

gpt-2-samples: .venv/.installed
	$(BIN)/python tools/make_samples.py $(MODEL)

format: .venv/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c "$(CHECK)"
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt | .venv/bin/python
	@$(BIN)/python -c "$(CHECK)"
	$(BIN)/python $(INSTALL) -r requirements.txt
	$(COMPILE) || true
	touch $@

.venv/.installed-dev: requirements-dev.txt requirements-convert.txt requirements-ray.txt requirements.txt | .venv/bin/python
	@$(BIN)/python -c "$(CHECK)"
	$(BIN)/python $(INSTALL) -r requirements-dev.txt
	$(COMPILE) || true
	touch $@

$(PEERS)/.installed: benchmarks/requirements.txt
	test -e $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@
