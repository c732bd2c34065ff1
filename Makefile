# Pier from a clone: `sudo make demo` shows it, `sudo make test` proves it. Everything else is a piece of these two.

PYTHON  := $(shell tools/find-python)
VENV    := .venv
BIN     := $(VENV)/bin
PREFIX  ?= /usr/local
LIB     := $(PREFIX)/lib/pier
UNITS   ?= /etc/systemd/system
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV      ?= uv
TESTS   ?=
WORKERS ?= 2
PACKED  := $(wildcard src/pier/*.py src/pier/kernel/*.py src/pier/runtime/*.py src/pier/runtime/*/*.py) tools/pack.py tools/launchers.py

.PHONY: demo test unit integration vm vm-systemd lint bench start stop venv dev install uninstall locks protos clean
.NOTPARALLEL:

demo: venv ; @$(BIN)/python demo/tour.py

test: dev lint unit integration vm

unit: dev ; @tools/run-tests $(BIN)/python $(WORKERS) worksteal tests/unit $(TESTS)

integration: dev ; @tools/run-tests $(BIN)/python $(WORKERS) loadscope tests/integration $(TESTS)

vm: dev ; @$(BIN)/python -m pytest tests/vm $(TESTS)

vm-systemd: dev ; @PIER_VM_SYSTEMD=1 $(BIN)/python -m pytest tests/vm/test_systemd_machine.py $(TESTS)

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: venv ; @$(BIN)/python bench

start: venv ; @tools/daemon start

stop: ; @tools/daemon stop

# --- set-up: each step leaves a stamp, so that a second run takes no time -------------------------------------------

venv: $(VENV)/.runtime $(VENV)/.pack
dev: $(VENV)/.dev $(VENV)/.pack

$(VENV)/.system: tools/system-packages
	@PYTHON=$(PYTHON) tools/system-packages run
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.system requirements.lock tools/launchers.py tools/launcher_elf.py
	@$(PIP) install --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python tools/checkout.py $(CURDIR)/src
	@$(BIN)/python tools/launchers.py --python $(CURDIR)/$(BIN)/python --bin $(BIN) --code $(CURDIR)/src \
	    --packages "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@touch $@

$(VENV)/.pack: $(VENV)/.runtime $(PACKED)
	@$(BIN)/python -X no_debug_ranges tools/pack.py
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@tools/system-packages test
	@tools/cloud-kernel >/dev/null || true
	@tools/registry >/dev/null || true
	@tools/docker-plugins >/dev/null || true
	@$(PIP) install --require-hashes --only-binary :all: -r requirements-dev.lock
	@touch $@

# The locks name versions and hashes, and neither an index nor a host: pip's own configuration says where from.
locks:
	@$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	    --custom-compile-command "make locks" pyproject.toml -o requirements.lock
	@$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	    --custom-compile-command "make locks" --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

# BuildKit's messages. The compiler is wanted here alone and lives in an environment of its own.
protos:
	@test -x .venv-protoc/bin/python || $(PYTHON) -m venv .venv-protoc
	@.venv-protoc/bin/python -m pip --quiet install grpcio-tools==1.85.1
	@.venv-protoc/bin/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src src/pier/buildkit/pb/*.proto

# --- on the system --------------------------------------------------------------------------------------------------

install: venv
	@install -d $(LIB)/code $(LIB)/packages $(PREFIX)/bin $(UNITS)
	@rm -rf $(LIB)/code/pier && cp -r src/pier $(LIB)/code/
	@find $(LIB)/code -name __pycache__ -prune -exec rm -rf {} +
	@$(PIP) install --require-hashes --only-binary :all: --upgrade --target $(LIB)/packages -r requirements.lock
	@$(PYTHON) -m compileall -q $(LIB)/code
	@PYTHONPATH=$(LIB)/code $(PYTHON) -X no_debug_ranges tools/pack.py
	@$(PYTHON) tools/launchers.py --python $(PYTHON) --bin $(PREFIX)/bin --code $(LIB)/code --packages $(LIB)/packages
	@getent group docker >/dev/null || groupadd --system docker
	@sed 's|@BIN@|$(PREFIX)/bin|' packaging/pierd.service >$(UNITS)/pierd.service
	@install -m 644 packaging/pierd.socket $(UNITS)/pierd.socket
	@if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@echo "installed; start it with: systemctl enable --now pierd.socket pierd.service"

uninstall:
	@rm -rf $(LIB) $(PREFIX)/bin/pier $(PREFIX)/bin/pierd $(PREFIX)/bin/pier-runtime $(UNITS)/pierd.service $(UNITS)/pierd.socket
	@echo "removed; images and containers stay in /var/lib/pier"

clean:
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
