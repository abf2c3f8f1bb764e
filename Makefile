# make test     everything, with independent mail programs installed as needed
# make check    format, vet, staticcheck, layers, modules
# make demo     a relay and a receiver on loopback; ARGS=-once leaves when done
# make race     the tests again under the race detector
# make fuzz     each fuzz target for FUZZTIME
# make bench    messages a second beside Postfix's own tools

GO       ?= go
FUZZTIME ?= 30s
ARGS     ?=
TESTARGS ?=

.PHONY: build test test-deps check demo race fuzz bench clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/postrider ./cmd/postrider

test: test-deps
	@scripts/test.sh $(TESTARGS) ./...

test-deps:
	@scripts/install-test-deps.sh

check:
	@GO="$(GO)" scripts/check.sh

demo: build
	bin/postrider demo $(ARGS)

race: test-deps
	@scripts/test.sh -race $(TESTARGS) ./...

fuzz:
	@scripts/fuzz.sh $(FUZZTIME)

bench: build
	@scripts/bench-relay.sh $(ARGS)

clean:
	rm -rf bin internal/lab/interop/testdata/node_modules
