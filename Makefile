# Everything works on a fresh machine: `make dev` and `make test` install what is missing.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DEV := $(TARGET_DIR)/debug/holdfast-dev
NEEDS_DEV = test -x $(DEV) || { echo "make dev is not running: start it in another terminal first"; exit 1; }

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build dev outage recover clean-dev test fmt lint doc

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

test: setup build ## Run all tests, with PostgreSQL and Redis servers of their own
	$(CARGO) test --workspace --locked

fmt: ## Format the code
	$(CARGO) fmt --all

lint: setup ## Check formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: setup ## Build the documentation, warnings denied
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps --locked
