# make test     everything, with independent mail programs installed as needed;
#               TESTARGS='-run Reply ./internal/smtp' runs less
# make check    format, vet, staticcheck, layers, modules
# make demo     a relay and a receiver on loopback; ARGS=-once leaves when done
# make race     every test under the race detector, the end-to-end ones too
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
	@GO="$(GO)" scripts/test.sh $(TESTARGS)

test-deps:
	@scripts/install-test-deps.sh

check:
	@GO="$(GO)" scripts/check.sh

demo: build
	bin/postrider demo $(ARGS)

race: test-deps
	@GO="$(GO)" scripts/test.sh -race ./...

fuzz:
	@GO="$(GO)" scripts/fuzz.sh $(FUZZTIME)

bench: build
	@scripts/bench-relay.sh $(ARGS)

clean:
	rm -rf bin internal/lab/interop/testdata/node_modules
