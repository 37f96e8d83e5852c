# Everything a person types; the work is in scripts/ and the Go tools.

GO = scripts/go
GUEST_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
RUNNER = CGO_ENABLED=0 GOOS=linux GOFLAGS=-mod=readonly
RUNNER_BUILD = build -trimpath -ldflags '-s -w'
RUNNER_MODULE = github.com/ChristopherHX/github-act-runner
WORKFLOW = examples/workflows/relay.yml

.DEFAULT_GOAL := help

.PHONY: help
help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## run a workflow in real virtual machines, without a GitHub account
	@scripts/prepare.sh demo
	@$(MAKE) --no-print-directory build
	bin/tasuki demo $(WORKFLOW)

.PHONY: test
test: ## every test, those with QEMU included (Linux)
	@scripts/prepare.sh
	@$(MAKE) --no-print-directory vet runners
	scripts/test.sh

.PHONY: prepare
prepare: ## install what is missing on this machine
	@scripts/prepare.sh

.PHONY: build
build: ## build bin/tasuki and the runner program of the demo's guests
	@[ -e bin/tasuki ] || echo "building: the first time it fetches and compiles a lot, for some minutes"
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/tasuki ./cmd/tasuki
	@$(MAKE) --no-print-directory bin/demorunner-linux-$(GUEST_ARCH)

# Go's build cache decides what is to be done.
.PHONY: runners bin/demorunner-linux-amd64 bin/demorunner-linux-arm64
runners: bin/demorunner-linux-amd64 bin/demorunner-linux-arm64
bin/demorunner-linux-amd64 bin/demorunner-linux-arm64:
	cd tools/demorunner && $(RUNNER) GOARCH=$(@:bin/demorunner-linux-%=%) \
		../../$(GO) $(RUNNER_BUILD) -o ../../$@ $(RUNNER_MODULE)

.PHONY: vet
vet: ## gofmt, and go vet here and for the other platforms
	@bad=$$("$$(dirname "$$($(GO) --path)")/gofmt" -l cmd internal tools); \
		if [ -n "$$bad" ]; then echo "not formatted; run gofmt -w on:" $$bad >&2; exit 1; fi
	$(GO) vet ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) vet ./...

.PHONY: soak
soak: ## the tests that take long: the same ones, with their long inputs
	TASUKI_SOAK=1 scripts/test.sh -timeout 6h

# Peers that are missing are left out of the table; crane and oras are built here.
.PHONY: bench-jobs
bench-jobs: ## 1,000 jobs in bursts over three scale sets, while much goes wrong
	TASUKI_BURST_JOBS=1000 $(GO) test ./internal/e2e -run TestBurstOverThreeScaleSets -count=1 -v -timeout 60m | grep -v '^ *tasuki-burst-'

.PHONY: bench-images
bench-images: ## our transfer of images beside skopeo, crane and oras, and what an update moves
	-GOBIN=$(CURDIR)/bin/peers $(GO) install github.com/google/go-containerregistry/cmd/crane@v0.22.1
	-GOBIN=$(CURDIR)/bin/peers $(GO) install oras.land/oras/cmd/oras@v1.3.6
	PATH="$(CURDIR)/bin/peers:$$PATH" $(GO) test -run '^$$' -bench 'Peers|Delta' -benchtime 5x -timeout 60m ./internal/image/transfer

.PHONY: clean
clean: ## remove what was built here
	rm -rf bin
