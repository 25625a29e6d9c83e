# Run `make help` for the list of targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
# Tools that are no packages of the machine are built once and kept here.
CACHE := $(or $(REACH_TEST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/reach)
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: check
check: fmt-check clippy ## Fast loop, no control plane: formatting, clippy, unit, specification and property tests
	$(CARGO) test --locked --lib --bins --test spec --test properties --test server --test webhook --test cli --test readme

.PHONY: test
test: requirements fmt-check clippy ## Everything: formatting, clippy, all tests against a real control plane
	tests/control-plane/build.sh >/dev/null
	tests/helm/build.sh >/dev/null
	tests/chart/build.sh >/dev/null
	$(CARGO) test --locked

.PHONY: requirements
requirements:
	@missing=; \
	for tool in cargo go cc setpriv flock curl jq diff; do \
	  command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "missing:$$missing" >&2; \
	  echo "cargo: Rust by rustup; go: Go 1.26 or newer; cc: a C compiler (Debian: gcc); setpriv, flock: util-linux; diff: diffutils; curl, jq" >&2; \
	  exit 1; \
	fi

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --check

.PHONY: clippy
clippy: ## Lint, warnings are errors
	$(CARGO) clippy --locked --all-targets -- -D warnings

.PHONY: crds
crds: ## Generate crds/ from src/api.rs
	$(CARGO) run --locked --quiet -- crds --output-dir crds

.PHONY: manifests
manifests: ## Generate webhook/, certs/, the chart's CRDs and its table of values from the chart and crds/
	REACH_UPDATE=1 $(CARGO) test --locked --quiet --test chart -- generated::

.PHONY: bench
bench: ## Print the table of benches and write it as JSON
	$(CARGO) bench --locked --bench reach

.PHONY: control-plane
control-plane: ## Build kube-apiserver, etcd, kubectl and kube-controller-manager for the tests, once
	tests/control-plane/build.sh

.PHONY: deny
deny: ## Check bans, licences and sources of dependencies
	@command -v cargo-deny >/dev/null || test -x $(CACHE)/tools/bin/cargo-deny || \
	  $(CARGO) install --locked --root $(CACHE)/tools cargo-deny
	PATH="$$PATH:$(CACHE)/tools/bin" cargo-deny check bans licenses sources

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZ_SECONDS (needs a nightly Rust)
	@command -v cargo-fuzz >/dev/null || test -x $(CACHE)/tools/bin/cargo-fuzz || \
	  $(CARGO) install --locked --root $(CACHE)/tools cargo-fuzz
	for target in review presets; do \
	  PATH="$$PATH:$(CACHE)/tools/bin" cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done
