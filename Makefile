# Every command of the project starts here. `make` lists them.

SHELL := bash

# What the binaries answer to `version`: a tag, or the commit with a mark when
# the tree has changes of its own. VERSION=v1.2.3 says otherwise.
ifndef VERSION
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
endif
export VERSION

FUZZTIME ?= 30s

# Go wants a home for its caches and git one for its settings. On a machine
# that has none that can be written to, the checkout serves as one.
ifneq ($(shell test -n "$$HOME" -a -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.cache/home
endif

.PHONY: help
help: ## List the commands (this)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## Build bin/kubectl-vsecm and bin/safe
	hack/build kubectl-vsecm bin/kubectl-vsecm
	hack/build safe bin/safe

.PHONY: demo
demo: build ## Play the whole story with real programs: encrypt, push, delivered
	hack/demo.sh

.PHONY: test
test: ## Run every test, with the race detector
	hack/test

.PHONY: e2e
e2e: ## Run the tests that need a whole node of Kubernetes (root, on Linux)
	hack/e2e

.PHONY: lint
lint: ## Check format, code, modules, dependency rules and the other platforms
	hack/lint

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (30s)
	hack/fuzz "$(FUZZTIME)"

.PHONY: bench
bench: build ## Measure beside age, kubeseal, sops and git, as ratios
	bench/run.sh -record bench

.PHONY: soak
soak: ## Kill Safe and its store 500 times in the middle of their work
	hack/soak

.PHONY: release
release: ## Make archives, image, manifests, sums and bills of materials in dist/, twice
	hack/release "$(if $(filter file,$(origin VERSION)),,$(VERSION))" dist
	hack/check-reproducible "$(if $(filter file,$(origin VERSION)),,$(VERSION))" dist

.PHONY: clean
clean: ## Remove what these commands made
	rm -rf bin dist
	test ! -e .cache || chmod -R u+w .cache
	rm -rf .cache
