# Run `make help` for the list of targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
# Tools that are no packages of the machine are built once and kept here.
CACHE := $(or $(REACH_TEST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/reach)
# Name of the container image, and where it goes.
export IMAGE ?= reach:dev
export ARCHIVE ?= $(or $(CARGO_TARGET_DIR),target)/image/reach.tar
SBOM ?= $(ARCHIVE:.tar=.cdx.json)
# The program in it.
SHIPPED = $(abspath $(or $(CARGO_TARGET_DIR),target))/$(shell rustc -vV | sed -n 's/^host: //p')/dist/reach
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: check
check: fmt-check clippy ## Fast loop, no control plane: formatting, clippy, unit, specification and property tests
	$(CARGO) test --locked --lib --bins --test spec --test properties --test server --test webhook --test cli --test readme --test clients

.PHONY: test
test: requirements fmt-check clippy workflows image-archive ## Everything: formatting, clippy, all tests against a real control plane and a real node
	tests/control-plane/build.sh >/dev/null
	tests/helm/build.sh >/dev/null
	if tests/node/packages.sh; then tests/node/build.sh >/dev/null; fi
	if tests/boot/packages.sh; then tests/boot/root.sh >/dev/null && tests/boot/images.sh >/dev/null; fi
	tests/chart/build.sh >/dev/null
	tests/cert-manager/build.sh >/dev/null
	tests/cluster-api/build.sh >/dev/null
	benches/check.sh
	@# All of it, so that one run shows everything that fails.
	$(CARGO) test --locked --no-fail-fast
	@# Last, so that nobody overlooks what was not run; a failure with CI=true.
	@$(CARGO) test --locked --quiet --test cluster -- --missing
	@$(CARGO) test --locked --quiet --test boot -- --missing

.PHONY: requirements
requirements:
	@missing=; \
	for tool in cargo go cc readelf setpriv unshare flock curl jq diff valgrind; do \
	  command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "missing:$$missing" >&2; \
	  echo "cargo: Rust by rustup; go: Go 1.26 or newer; cc, readelf: a C compiler and binutils (Debian: gcc); setpriv, unshare, flock: util-linux; diff: diffutils; curl, jq, valgrind" >&2; \
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

.PHONY: image
image: image-archive ## Build the container image target/image/reach.tar; a running Docker or podman gets it too
	@for engine in docker podman; do \
	  if command -v $$engine >/dev/null && $$engine info >/dev/null 2>&1; then \
	    $$engine load --input $(ARCHIVE) || exit 1; \
	  fi; \
	done

.PHONY: image-archive
image-archive:
	image/build.sh

.PHONY: sbom
sbom: ## List what the program in the image is built from, as CycloneDX, in target/image/reach.cdx.json
	image/sbom.sh $(SBOM)

.PHONY: workflows
workflows: ## Lint the hosted workflows
	@if grep -rnE '^[- ]*uses: *[^. ]' .github/workflows | grep -vE '@[0-9a-f]{40} # v[0-9.]+$$'; then \
	  echo 'expected: an action is pinned by its full commit, with the version behind it as a comment' >&2; exit 1; \
	fi
	@test -x $(CACHE)/tools/bin/actionlint-1.7.12 || { \
	  GOBIN=$(CACHE)/tools/bin go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 && \
	  mv $(CACHE)/tools/bin/actionlint $(CACHE)/tools/bin/actionlint-1.7.12; }
	$(CACHE)/tools/bin/actionlint-1.7.12 -shellcheck= -pyflakes= .github/workflows/*.yml

.PHONY: crds
crds: ## Generate src/api/crds.jsonl and crds/ from src/api.rs
	REACH_UPDATE=1 $(CARGO) test --locked --quiet --lib -- the_crds_that_are_compiled_in
	$(CARGO) run --locked --quiet -- crds --output-dir crds

.PHONY: manifests
manifests: ## Generate webhook/, certs/, the chart's CRDs and its table of values from the chart and crds/
	REACH_UPDATE=1 $(CARGO) test --locked --quiet --test chart -- generated::

.PHONY: bench
bench: image-archive ## Print the table of benches, and write it as JSON and to docs/performance.md; SECTIONS="load cores": only these, and not there
	tests/control-plane/build.sh >/dev/null
	REACH_TEST_PROGRAM=$(SHIPPED) $(CARGO) bench --locked --bench reach -- $(or $(SECTIONS),--publish)

.PHONY: bench-check
bench-check: ## Count the instructions of the engine, and compare them with benches/instructions.json (needs valgrind)
	benches/check.sh

.PHONY: control-plane
control-plane: ## Build kube-apiserver, etcd, kubectl and kube-controller-manager for the tests, once
	tests/control-plane/build.sh

.PHONY: cluster
cluster: requirements ## Bring up a whole cluster on this machine to try things in (needs root)
	@tests/node/packages.sh
	@$(CARGO) test --locked --quiet --test cluster -- --up

.PHONY: cluster-down
cluster-down: ## End it
	@$(CARGO) test --locked --quiet --test cluster -- --down

.PHONY: faults
faults: requirements image-archive ## Do every fault of docs/reliability.md and write its table there; FAST=1: at small sizes, and write nothing (needs root)
	@tests/node/packages.sh
	@# What ships, also where replicas are processes; and clients that do not take the time of what they measure.
	REACH_FAULTS=$(if $(FAST),fast,full) REACH_TEST_PROGRAM=$(if $(FAST),,$(SHIPPED)) $(CARGO) test --locked $(if $(FAST),,--profile soak) --test faults
	@$(if $(FAST),,$(CARGO) test --locked --quiet --test faults -- --report)

.PHONY: demo-hosts
demo-hosts: requirements image-archive ## Boot a machine with what reach renders for hosts, up to a cluster with reach in it, and tell what happened (needs root)
	@tests/node/packages.sh && tests/boot/packages.sh
	@$(CARGO) test --locked --quiet --test boot -- --story

.PHONY: kind-test
kind-test: ## Run the tests of the product on a kind cluster (needs Docker)
	tests/kind/run.sh

# Builds a tool of Cargo that is neither installed nor built yet.
define tool
	@command -v $(1) >/dev/null || test -x $(CACHE)/tools/bin/$(1) || \
	  $(CARGO) install --locked --root $(CACHE)/tools $(1)
endef

.PHONY: deny
deny: ## Check bans, licences and sources of dependencies
	$(call tool,cargo-deny)
	PATH="$$PATH:$(CACHE)/tools/bin" cargo-deny check bans licenses sources

.PHONY: clients
clients: ## Install the HTTP clients at pinned versions and compare each with its model (docs/clients.md)
	@folder=$$(tests/clients/install.sh) && $(CARGO) test --locked --quiet --test clients -- --measure "$$folder"

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZ_SECONDS (needs a nightly Rust)
	$(call tool,cargo-fuzz)
	for target in $$(ls fuzz/seeds); do \
	  mkdir -p fuzz/corpus/$$target; \
	  PATH="$$PATH:$(CACHE)/tools/bin" cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -dict=fuzz/dictionaries/$$target || exit 1; \
	done

.PHONY: soak
soak: requirements ## The engine under millions of generated inputs, sizes in tests/soak.sh (an hour; needs a nightly Rust)
	$(call tool,cargo-fuzz)
	PATH="$$PATH:$(CACHE)/tools/bin" tests/soak.sh

.PHONY: mutants
mutants: ## Change the engine in every small way and see which change no test notices; MUTANTS="--re inject/merge" for a part
	$(call tool,cargo-mutants)
	@# What the quick tests do not notice (2; 3 where they did not end) is left to those that take longer. Of each, only what is
	@# run is built: arguments behind `--` are for the run alone.
	PATH="$$PATH:$(CACHE)/tools/bin" $(CARGO) mutants --output target $(MUTANTS) \
	  $(addprefix --cargo-arg=,--lib --test spec) || case $$? in 2 | 3) ;; *) exit 1 ;; esac
	PATH="$$PATH:$(CACHE)/tools/bin" REACH_CASES=1000 $(CARGO) mutants --output target --iterate $(MUTANTS) \
	  $(addprefix --cargo-arg=--test=,properties no_proxy cli readme)
