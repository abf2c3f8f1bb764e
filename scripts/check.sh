#!/usr/bin/env bash
# Static checks: all are run, so that one run tells everything.
set -uo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
failed=0

step() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "ok    $name"
	else
		failed=1
		printf 'FAIL  %s\n%s\n' "$name" "$(head -n 60 <<<"$out")"
	fi
}

gofmt_clean() {
	local files
	files=$(git ls-files -co --exclude-standard -- '*.go' | xargs -r gofmt -l) || return 1
	[ -z "$files" ] || { printf 'gofmt -w would change:\n%s\n' "$files"; return 1; }
}

step gofmt gofmt_clean
step vet "$GO" vet ./...
step staticcheck "$GO" tool staticcheck ./...
step layers "$GO" test ./internal
step 'modules verified' "$GO" mod verify
step 'go.mod tidy' "$GO" mod tidy -diff
exit "$failed"
