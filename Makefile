# Sparse Circuits. `make` on its own lists the targets. Needs Python 3.11 or newer, git and make; nothing else.

SHELL := bash
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

# An environment that happens to be active must not leak into this one.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

# One thread: two cores with several OpenMP threads each spin against one another, and one thread repeats bit for bit.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := passive

SITE := _build/html/.current
SITE_SOURCES := _config.yml book/_toc.yml book/references.bib \
	$(wildcard book/*.md book/*.yml book/_static/*.* book/_templates/static/* notebooks/*.ipynb data/*.json lib/book_tools/*.py \
	_build/reports/verification.json)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install book serve lab test threads lint format chapters student lock sync clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: .venv/installed ## create .venv with the locked versions (the other targets do it by themselves)

.venv/installed: requirements.lock pyproject.toml lib/book_tools/install.py
	$(PYTHON) lib/book_tools/install.py

book: $(SITE) ## build the site from the stored outputs and say where to open it
	@echo "The book is built: open $(CURDIR)/_build/html/index.html, or serve it with 'make serve'."

# A full build every time something changed: an incremental one does not repeat the warnings of pages it skips.
$(SITE): .venv/installed $(SITE_SOURCES)
	$(VENV_PYTHON) -m book_tools.assets
	$(VENV_PYTHON) -m book_tools.generated
	.venv/bin/jupyter-book build . --toc book/_toc.yml -W -n --keep-going --all
	@touch $@

serve: book ## serve the built site on 127.0.0.1:8000
	$(VENV_PYTHON) -m http.server 8000 --bind 127.0.0.1 --directory _build/html

lab: .venv/installed ## open the chapters in JupyterLab
	$(VENV_PYTHON) -m jupyterlab --notebook-dir=notebooks

test: .venv/installed ## run the tests, the linters and every chapter, with a summary at the end
	$(VENV_PYTHON) -m book_tools.check

threads: .venv/installed ## run the chapters with two threads, which may move a number by a little
	$(VENV_PYTHON) -m book_tools.check chapters-2-threads

lint: .venv/installed ## run ruff and the notebook linters only
	$(VENV_PYTHON) -m book_tools.check lint format linters

format: .venv/installed ## let ruff format the code
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

chapters: .venv/installed ## re-execute every chapter, store its outputs and record its claims
	$(VENV_PYTHON) -m book_tools.notebooks --execute

student: .venv/installed ## make the students' notebooks, without solutions, in _build/student
	$(VENV_PYTHON) -m book_tools.student

lock: .venv/installed ## resolve requirements.lock anew from pyproject.toml, keeping the versions that still fit
	$(VENV_PYTHON) -m book_tools.lock

sync: .venv/installed ## rewrite what derives from repository.url and from the chapters' metadata
	$(VENV_PYTHON) -m book_tools.notebooks --sync
	$(VENV_PYTHON) -m book_tools.address --sync

clean: ## delete the built site; the environment stays
	rm -rf _build
