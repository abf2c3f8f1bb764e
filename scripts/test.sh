#!/usr/bin/env bash
# Runs the tests: those of single packages under the race detector, those of the
# whole relay (internal/lab), which measure and wait, without. With arguments
# it runs go test with those instead.
#
# Of a package that passes only its result is shown, of one that fails what its
# tests said. The last line counts: N passed, N failed (subtests count; so does a
# package that fails as a whole).
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}

tests() {
	if [ $# -gt 0 ]; then
		"$GO" test -v "$@"
		return
	fi
	local all alone=() whole=() status=0
	all=$("$GO" list ./...) || return
	while read -r package; do
		case $package in
		*/internal/lab | */internal/lab/*) whole+=("$package") ;;
		*) alone+=("$package") ;;
		esac
	done <<<"$all"
	CGO_ENABLED=1 "$GO" test -v -race -timeout 30m "${alone[@]}" || status=1
	"$GO" test -v -timeout 30m "${whole[@]}" || status=1
	return $status
}

tests "$@" | awk '
	function end(bad) {
		if (bad && !named) failed++
		if (bad) printf "%s", said
		said = ""; named = 0
	}
	/^ *--- PASS: /  { passed++; next }
	/^ *--- FAIL: /  { failed++; named = 1 }
	/^=== (RUN|PAUSE|CONT|NAME) / { next }
	/^PASS$/         { next }
	/^ok  \t/        { end(0); print; fflush(); next }
	/^\?   \t/       { end(0); next }
	/^FAIL\t/        { end(1); print; fflush(); next }
	                 { said = said $0 "\n" }
	END {
		printf "%s", said
		printf "%d passed, %d failed\n", passed, failed
		exit failed > 0 || passed == 0
	}'
