# Everything works on a fresh machine: `make dev` and `make test` install what is missing.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DEV := $(TARGET_DIR)/debug/holdfast-dev
DENY := $(TARGET_DIR)/tools/bin/cargo-deny
NEEDS_DEV = test -x $(DEV) || { echo "make dev is not running: start it in another terminal first"; exit 1; }

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-test setup-fuzz build dev outage recover clean-dev test fuzz bench fmt lint doc deny

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## Install PostgreSQL, Redis and a C compiler if they are missing
	@scripts/setup.sh

build: ## Build all binaries
	$(CARGO) build --workspace --bins --locked

dev: setup build ## Run everything with a private PostgreSQL and Redis, until Ctrl-C
	@$(DEV) up

outage: ## Kill the PostgreSQL of a running `make dev`
	@$(NEEDS_DEV) && $(DEV) outage

recover: ## Start that PostgreSQL again
	@$(NEEDS_DEV) && $(DEV) recover

clean-dev: build ## Remove the data of `make dev`
	@$(DEV) clean

test: setup-test build ## Run all tests, with PostgreSQL and Redis servers of their own
	$(CARGO) test --workspace --locked

setup-test:
	@scripts/setup.sh test

setup-fuzz:
	@scripts/setup.sh fuzz

$(TARGET_DIR)/fuzz/bin/schemathesis: | setup-fuzz
	python3 -m venv $(TARGET_DIR)/fuzz
	$(TARGET_DIR)/fuzz/bin/pip install --quiet schemathesis==4.32.5

fuzz: build $(TARGET_DIR)/fuzz/bin/schemathesis ## Fuzz the API with schemathesis (ARGS="--examples 1000")
	$(TARGET_DIR)/debug/holdfast-fuzz --schemathesis $(abspath $(TARGET_DIR)/fuzz/bin/schemathesis) $(ARGS)

bench: ## Measure speed beside a server of your choice: make bench ARGS="--help"
	@scripts/setup.sh bench
	$(CARGO) run --release --locked -p tests --bin holdfast-bench -- $(ARGS)

$(DENY):
	$(CARGO) install cargo-deny --version 0.20.2 --locked --debug --config profile.dev.debug=false --root $(TARGET_DIR)/tools --target-dir $(TARGET_DIR)/tools/build

deny: $(DENY) ## Check licences, versions, sources and advisories of dependencies
	$(DENY) --locked check licenses bans sources
	@if timeout 120 $(DENY) fetch db; then $(DENY) --locked check advisories; \
		else echo "the advisory database cannot be reached: advisories were not checked"; fi

fmt: ## Format the code
	$(CARGO) fmt --all

lint: setup ## Check formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: setup ## Build the documentation, warnings denied
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked
