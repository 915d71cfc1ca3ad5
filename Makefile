# felix-py: `make demo` shows it, `make lab` leaves it up, `make test` proves it. Run as root, or with sudo at hand.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PACKAGES := bird2 iproute2 iputils-ping nftables procps python3-venv tcpdump musl-tools
STAMP := .venv/.installed

.PHONY: help setup test check unit netns interop lock
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

setup: $(STAMP)  ## install what is missing: Debian packages, and a virtual environment in the checkout

$(STAMP): pyproject.toml requirements/dev.txt
	@missing=$$(for p in $(PACKAGES); do dpkg -s "$$p" >/dev/null 2>&1 || echo "$$p"; done)
	if [ -n "$$missing" ]; then
	  $(SUDO) apt-get update -qq
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
	fi
	[ -n "$(PYTHON)" ] || { echo "felix-py needs Python 3.11 or newer: apt-get install python3" >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

check: setup     ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup      ## the pure tests only
	$(BIN)/pytest -m "not netns and not interop and not vm and not bench"

test: check      ## everything
	$(SUDO) $(BIN)/pytest

lock:            ## write requirements/*.txt anew, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev requirements/build.in pyproject.toml -o requirements/dev.txt
