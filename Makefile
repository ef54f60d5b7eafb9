# make quickstart and make test set up what they need: a virtual environment in .venv, filled by uv.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= rna-store
# More options of `rna-ray run`, such as ARGS="--set data.name=mnist --set data.root=FOLDER".
ARGS ?=
EVERY_CORE := -n auto --dist loadfile

.PHONY: quickstart test unit lint clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e . --group dev
	touch $@

quickstart: .venv/installed  ## train and attack six small networks on real digits, and print the table
	$(BIN)/rna-ray run sweeps/quickstart.yaml --store $(STORE) $(ARGS)
	$(BIN)/rna-ray table quickstart --store $(STORE)

test: unit  ## the whole test suite
	$(BIN)/python -m pytest tests/unit -m slow $(EVERY_CORE)
	$(BIN)/python -m pytest tests/integration

unit: .venv/installed  ## the fast part of the tests
	$(BIN)/python -m pytest tests/unit -m "not slow" $(EVERY_CORE)

lint: .venv/installed
	$(BIN)/ruff check .

clean:
	rm -rf .venv build dist *.egg-info
