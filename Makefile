# Everything an author, a teacher or a reader does with this repository. GNU make 3.81 or newer.

.PHONY: help setup book replicate site pdf test serve notebooks labs repository clean
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The first Python of at least 3.10; name another with `make book PYTHON=python3.12`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do if $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo $$p; break; fi; done)
CHOSEN := $(if $(filter command environment,$(firstword $(origin PYTHON))),--use-this-python)
BIN := .venv/bin
SCALE ?= laptop
STORE := $(or $(MINITRANSFORMER_STORE),runs)
PORT ?= 8000

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup:  ## .venv with everything in it (the other targets do this by themselves)
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or newer was found. Install one, or name it: make book PYTHON=/path/to/python3" >&2; exit 1; }
	@tools/step install "$(PYTHON)" tools/setup.py $(CHOSEN)

book: setup replicate site  ## train live (SCALE=laptop), build the website, print the page to open

replicate: setup  ## train the runs of a short tour that are missing from runs/ and print its claims
	@tools/step replicate $(BIN)/minitransformer replicate --scale $(SCALE) --store "$(STORE)"

site: setup  ## build the website from the stored outputs and runs/
	@tools/step build $(BIN)/python tools/site.py

pdf: site  ## the whole book as one PDF, printed from the website by Chromium or Google Chrome
	@tools/step pdf $(BIN)/python tools/pdf.py

test: setup  ## every test, every notebook included (STRICT=1: a skipped test is a failure; ARGS=... to pytest)
	@tools/step test $(BIN)/python -m pytest $(if $(STRICT),--strict-skips) $(ARGS)

serve: setup  ## the built website on this machine (PORT=8000)
	@$(BIN)/python tools/site.py --serve $(PORT)

notebooks: setup  ## run every notebook again and store its outputs (SCALE=laptop)
	@tools/step notebooks $(BIN)/python tools/notebooks.py --scale $(SCALE)

labs: setup  ## write the students' copies of the labs from their sources
	@$(BIN)/python tools/labs.py

repository:  ## put the address of your fork everywhere it is named (URL=https://github.com/owner/name)
	@"$(PYTHON)" tools/repository.py "$(URL)"

clean:  ## remove .venv, the website and caches; runs/ stays
	rm -rf .venv _build build dist .pytest_cache .hypothesis *.egg-info
	find . -name .git -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
