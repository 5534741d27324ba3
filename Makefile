# make demo and make test do all the set-up: they need python3 (3.11 or newer) with venv and pip, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test lint rules bench ci lock lock-peers clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

demo: install
	$(BIN)/tidegate demo

test: install
	$(BIN)/python -m pytest -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Alert rules and their tests, by promtool, which it gets itself on Debian.
rules:
	scripts/prometheus check

bench: install
	scripts/kafka start
	$(BIN)/tidegate bench

# The whole gate, from a clean machine: system packages, a real broker, every test.
ci: install
	scripts/ci

# Re-resolves every dependency and writes the hashes: what install uses, and of it what the image needs.
lock:
	$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	    pyproject.toml -o requirements.lock
	$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --custom-compile-command "make lock" --constraint requirements.lock \
	    pyproject.toml -o deploy/requirements.lock
	rm -rf $(VENV)-lock

# Likewise for what scripts/peers measures beside Tidegate, each in an environment of its own.
lock-peers:
	$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv
	for peer in faust quix; do $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock-peers" \
	    scripts/peers.d/$$peer.in -o scripts/peers.d/$$peer.lock || exit 1; done
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
