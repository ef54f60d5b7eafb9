# make quickstart and make test set up what they need: a virtual environment in .venv, filled by uv.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= rna-store
# More options of `rna-ray run`, such as ARGS="--set data.name=mnist --set data.root=FOLDER".
ARGS ?=
EVERY_CORE := -n auto --dist worksteal
# Where Python may not keep what it compiled, every process, and each of Ray's workers, compiles torch and ray anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install quickstart test unit browser chaos bench bench-test bench-gpu profile lint reference clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e . --group dev
	touch $@

install: .venv/installed  ## the virtual environment, with rna-ray in it as it stands in this folder

quickstart: .venv/installed  ## train and attack six small networks on real digits, and print the table
	$(BIN)/rna-ray run sweeps/quickstart.yaml --store $(STORE) $(ARGS)
	$(BIN)/rna-ray table quickstart --store $(STORE)

test: unit  ## the whole test suite, but for that of the benchmarks and of the report in a browser
	$(BIN)/python -m pytest tests/unit -m slow $(EVERY_CORE)
	$(BIN)/python -m pytest tests/integration -n 2 --dist worksteal

unit: .venv/installed  ## the fast part of the tests
	$(BIN)/python -m pytest tests/unit -m "not slow" $(EVERY_CORE)

browser: .venv/installed  ## the report in a real Chromium, which it does not install
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ echo "make browser needs chromium and chromedriver: on Debian, apt-get install chromium chromium-driver" >&2; exit 2; }
	$(BIN)/python -m pytest tests/browser

chaos: .venv/installed  ## sweeps under random kills, resumed, compared with an undisturbed one; ARGS="--runs 2 --kills 3"
	PYTHONPATH=tests $(BIN)/python tests/integration/chaos.py $(ARGS)

bench: .venv/installed  ## every claim about speed beside its peer, some hours; ARGS="training tables --repeat 3", ARGS=--small
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-test: .venv/installed  ## whether the benchmarks run, all but compiling and gpu, in seconds of work each
	$(BIN)/python -m pytest tests/benchmarks -n 2 --dist worksteal

bench-gpu: .venv/installed  ## the training step on a GPU
	$(BIN)/python benchmarks/bench.py gpu $(ARGS)

profile: .venv/installed  ## where the time of a training step and of a sweep goes
	$(BIN)/python benchmarks/profiles.py $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .

reference: .venv/installed  ## docs/reference.md, from the sentences beside the settings
	$(BIN)/python docs/reference.py

clean:
	rm -rf .venv build dist *.egg-info
