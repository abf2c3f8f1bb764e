# make test     everything, with independent mail programs installed as needed;
#               TESTARGS='-run Reply ./internal/smtp' runs less
# make check    format, vet, staticcheck, layers, modules
# make demo     a relay and a receiver on loopback; ARGS=-once leaves when done
# make race     every test under the race detector, the end-to-end ones too
# make fuzz     each fuzz target for FUZZTIME
# make bench    the relay's speed and cost beside Postfix's: docs/performance.md;
#               ARGS=-quick takes less than a minute
# make bench-backlog  whom a million deliveries hold up that one site does not
#               take, and what idle sessions cost; ARGS='-only slow -n 50000'
# make bench-log  how long searches of a log of ten million events take, on SQLite
#               and on PostgreSQL, and what dropping old mail costs: docs/log.md;
#               ARGS='-events 1000000 -store sqlite'
# make cluster  several nodes on one PostgreSQL: kills, cuts, failovers and a clock
#               that is wrong, at length
# make crash    kills the relay CYCLES times with -9, after SECONDS under load on
#               average, and compares what it acknowledged with what arrived;
#               STORE=postgres on a server of its own, ARGS=-kill-server kills that too
# make crash-proof  takes one promise after the other out of a copy of the
#               source: the crash harness must find each
# make crash-order  watches one message with strace: synced before its 250

GO       ?= go
FUZZTIME ?= 30s
ARGS     ?=
TESTARGS ?=
CYCLES   ?= 20
SECONDS  ?= 1.5
STORE    ?= sqlite

.PHONY: build test test-deps check demo race fuzz bench bench-backlog bench-log cluster crash crash-proof crash-order clean

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

bench: test-deps
	@$(GO) run ./cmd/bench $(ARGS)

bench-backlog:
	@$(GO) run ./cmd/bench-backlog $(ARGS)

bench-log:
	@$(GO) run ./cmd/bench-log $(ARGS)

cluster: test-deps
	@$(GO) test -v -count=1 -timeout 30m ./internal/lab/cluster -long $(ARGS)

crash:
	@$(GO) run ./cmd/crash -store "$(STORE)" -cycles "$(CYCLES)" -seconds "$(SECONDS)" $(ARGS)

crash-proof: test-deps
	@GO="$(GO)" scripts/crash-proof.sh $(ARGS)

crash-order: test-deps
	@$(GO) run ./cmd/crash -store "$(STORE)" -order $(ARGS)

clean:
	rm -rf bin internal/lab/interop/testdata/node_modules
