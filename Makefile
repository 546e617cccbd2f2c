# make train   set up, fetch CIFAR-10, train the default preset, score it
# make test    set up, fetch what the tests need, then the whole test suite
# make endurance  the tests that take minutes, and the campaigns of faults, reduced
# make campaigns  the whole campaigns of faults: kills, power cuts, two trainers
# make audit   ask whether the installed versions have known vulnerabilities; needs the network
# make check   lint, format, types
# make format  apply the format
# make docs    build the site in build/site
# make docs-pictures  train what the documents' pictures are of, and make them anew
# make bench-check  fail where deepcnn has become slower, by ratios to fixed work

PYTHON ?= python3
BIN := .venv/bin

.PHONY: audit train test coverage endurance campaigns check format docs docs-pictures bench-check
train: .venv/installed
	$(BIN)/deepcnn train

test: .venv/installed
	$(BIN)/deepcnn data fetch cifar10
	$(BIN)/python tests/packages.py
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

coverage: .venv/installed
	$(BIN)/pytest -n 2 --cov --cov-report=term

endurance: .venv/installed
	$(BIN)/deepcnn data fetch cifar10
	$(BIN)/python tests/packages.py
	$(BIN)/pytest -m endurance
	$(BIN)/python benchmarks/run.py campaigns --size reduced

campaigns: .venv/installed
	$(BIN)/python benchmarks/run.py campaigns --size full

audit: .venv/installed .venv-audit/installed
	$(BIN)/pip freeze --exclude-editable | sed "s/+.*//" > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --requirement .venv-audit/installed.txt --no-deps --disable-pip --strict

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench-check: .venv/installed
	$(BIN)/python benchmarks/run.py check

docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/build_site.py

docs-pictures: .venv/installed
	$(BIN)/deepcnn data fetch cifar10
	$(BIN)/python tests/packages.py
	for page in docs/make_*.py; do $(BIN)/python -m docs.$$(basename $$page .py) || exit 1; done

format: .venv/installed
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "deepcnn needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Apart from the project's own environment, whose versions it must not change.
.venv-audit/installed: Makefile
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	touch $@
