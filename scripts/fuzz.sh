#!/usr/bin/env bash
# Runs each fuzz target for the given time (30s when none is given).
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
GO=${GO:-go}

for package in $(git grep -lE '^func Fuzz[A-Z_]' -- '*_test.go' | xargs -r -n1 dirname | sort -u); do
	for target in $("$GO" test -list '^Fuzz' "./$package" | grep '^Fuzz'); do
		echo "== $package $target"
		"$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$package"
	done
done
