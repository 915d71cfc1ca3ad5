# felix-py: `make demo` shows it, `make lab` leaves it up, `make test` proves it. Run as root, or with sudo at hand.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# The distribution's own first: python3-venv is for that one, and others are often compiled without a profile.
PYTHON ?= $(shell for p in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PACKAGES := bird2 iproute2 iputils-ping nftables procps python3-venv tcpdump musl-tools clang
LAB_PACKAGES := frr
INTEROP_PACKAGES := frr gobgpd
# Clients of the CNI plugin. Debian's containerd would push another one, with Docker, off a machine that has it.
CNI_PACKAGES := containernetworking-plugins iptables busybox-static \
  $(shell command -v containerd >/dev/null || echo containerd) $(shell command -v runc >/dev/null || echo runc)
TEST_PACKAGES := $(INTEROP_PACKAGES) $(CNI_PACKAGES) chromium prometheus
VM_PACKAGES := qemu-system-x86 busybox-static kmod
BENCH_PACKAGES := iperf3 gcc libc6-dev containernetworking-plugins chromium
COMPOSE_PACKAGES := docker.io docker-compose debootstrap
DOCKER ?= docker
# The image that ours are built on; felix-base:bookworm is made here, by debootstrap, where no registry can be reached.
BASE_IMAGE ?= python:3.12-slim-bookworm
export BASE_IMAGE DOCKER
STAMP := .venv/.installed
# The network of `make demo` and `make lab`, and of docker-compose.yml.
TOPOLOGY ?= deploy/lab/two-racks-spine.yaml
# Processes that share the tests out; most of them wait for timers most of the time.
WORKERS ?= 2
# Layers that need more than a machine and apt, or more than a few minutes, have a target each.
DEFAULT := not vm and not compose and not kubernetes$(if $(CNITOOL),, and not cnitool)
UNIT := -m "$(DEFAULT) and not slow and not netns and not interop and not bench" \
  $(foreach layer,interop vm compose kubernetes bench,--ignore=tests/$(layer))

.PHONY: help setup demo lab bench test test-vm test-compose test-kubernetes kubernetes-binaries manifests image check unit netns \
  interop lock
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

setup: $(STAMP)  ## install what is missing: Debian packages, and a virtual environment in the checkout

# Installs those of the given Debian packages that are missing.
define install
	missing=$$(for p in $(1); do dpkg -s "$$p" >/dev/null 2>&1 || echo "$$p"; done)
	if [ -n "$$missing" ]; then
	  $(SUDO) apt-get update -qq
	  # Daemons of these packages are for labs: none starts as a service, now or with the next boot.
	  policy=/usr/sbin/policy-rc.d
	  [ ! -e $$policy ] || policy=
	  [ -z "$$policy" ] || printf '#!/bin/sh\nexit 101\n' | $(SUDO) install -m 755 /dev/stdin $$policy
	  status=0
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing || status=$$?
	  [ -z "$$policy" ] || $(SUDO) rm -f $$policy
	  [ "$$status" = 0 ] || exit "$$status"
	  if [ -d /run/systemd/system ]; then
	    for p in $$missing; do case $$p in bird2) echo bird;; frr|gobgpd|prometheus|containerd) echo $$p;; esac; done |
	      xargs -r $(SUDO) systemctl disable --quiet
	  fi
	fi
endef

$(STAMP): pyproject.toml requirements/dev.txt setup.py felix_py/cni/felix-cni.c ipip/tunnel.bpf.c felix_py/kernel/guard.bpf.c ipip/offload.c felix_py/kernel/exchange.c felix_py/cni/callers.c felix_py/replace.c
	@$(call install,$(PACKAGES))
	[ -n "$(PYTHON)" ] || { echo "felix-py needs Python 3.11 or newer: apt-get install python3" >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: setup      ## bring a network of four nodes up on this machine, prove what it does, take it down again
	@$(call install,$(LAB_PACKAGES))
	$(SUDO) $(BIN)/felix-lab demo --topology $(TOPOLOGY)

lab: setup       ## the same network, left up: felix-lab status|exec|ping|fail|heal|down; TOPOLOGY= for another
	@$(call install,$(LAB_PACKAGES))
	$(SUDO) $(BIN)/felix-lab up --topology $(TOPOLOGY)

bench: setup     ## figures as JSON lines: NAME=lab for one, RUNS= for another count; all of them go to docs/performance.md
	@$(call install,$(BENCH_PACKAGES))
	$(SUDO) env RUNS="$(RUNS)" SIZE="$(SIZE)" BEFORE="$(BEFORE)" $(BIN)/python tests/bench/run.py $(NAME)

image:           ## felix-py:dev (agent, tools, CNI) and felix-py-lab:dev (routers too); BASE_IMAGE=felix-base:bookworm where there is no registry
	@case "$(BASE_IMAGE)" in felix-base:*)
	  $(DOCKER) image inspect "$(BASE_IMAGE)" >/dev/null 2>&1 || $(SUDO) env DOCKER="$(DOCKER)" deploy/lab/base-image.sh "$(BASE_IMAGE)";; esac
	for each in agent:felix-py:dev lab:felix-py-lab:dev; do
	  DOCKER_BUILDKIT=1 $(DOCKER) build -q -f deploy/Dockerfile --target "$${each%%:*}" -t "$${each#*:}" \
	    --build-arg BASE_IMAGE="$(BASE_IMAGE)" --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	    --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
	    --build-arg CREATED="$$(git log -1 --format=%cI 2>/dev/null || echo unknown)" \
	    $$([ -z "$${PIP_CONFIG_FILE:-}" ] || echo "--secret id=pip,src=$$PIP_CONFIG_FILE") \
	    $$([ -z "$${APT_CONFIG:-}" ] || echo "--secret id=apt,src=$$APT_CONFIG") . >/dev/null
	  $(DOCKER) image inspect --format "$${each#*:} {{.Size}} bytes" "$${each#*:}"
	done

check: setup     ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup      ## the pure tests only, with a quick search for counterexamples
	$(BIN)/pytest -n $(WORKERS) --hypothesis-profile=quick $(UNIT)

test: check      ## everything but test-vm, test-compose and test-kubernetes
	@$(call install,$(TEST_PACKAGES))
	$(SUDO) env CI="$(CI)" CNITOOL="$(CNITOOL)" $(BIN)/pytest -n $(WORKERS) -m "$(DEFAULT)"

test-compose: setup ## the lab in containers: faults, and every page of deploy/lab/scenarios; builds the images, some 5 minutes
	@if ! command -v $(DOCKER) >/dev/null; then
	$(call install,$(COMPOSE_PACKAGES))
	fi
	$(SUDO) env CI="$(CI)" BASE_IMAGE="$(BASE_IMAGE)" DOCKER="$(DOCKER)" $(BIN)/pytest tests/compose

test-vm: setup   ## the kernel's own IPIP, all pairs of tunnel drivers: under Debian's kernel in QEMU, some 5 minutes
	@$(call install,$(VM_PACKAGES))
	$(SUDO) env CI="$(CI)" $(BIN)/pytest tests/vm

KUBERNETES ?= $(HOME)/.cache/felix-py/kubernetes

kubernetes-binaries: ## Kubernetes from the Go module proxy, etcd from Debian: some 10 minutes, once
	tests/kubernetes/binaries.sh $(KUBERNETES) kube-apiserver kubectl kubelet kube-proxy kube-controller-manager kube-scheduler

manifests:       ## write deploy/kubernetes/felix.yaml anew, from its base (needs kubectl)
	{ cat deploy/kubernetes/header.txt; kubectl kustomize deploy/kubernetes/base; } > deploy/kubernetes/felix.yaml.new
	mv deploy/kubernetes/felix.yaml.new deploy/kubernetes/felix.yaml

test-kubernetes: setup ## agents at a real API server, some 6 minutes; with `make image`, the manifest on four kubelets, some 12 more
	$(SUDO) env FELIX_KUBERNETES="$(KUBERNETES)" DOCKER="$(DOCKER)" CI="$(CI)" $(BIN)/pytest tests/kubernetes

interop: setup   ## every BGP scenario with BIRD, FRR and GoBGP; the results go to docs/interop.md
	@$(call install,$(INTEROP_PACKAGES))
	$(SUDO) $(BIN)/python tests/interop/report.py

lock:            ## write requirements/*.txt anew, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes requirements/build.in -o requirements/build.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev requirements/build.in pyproject.toml -o requirements/dev.txt
