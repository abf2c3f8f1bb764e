#!/usr/bin/env bash
# Runs go test with the given arguments. Of a package that passes only its
# result is shown, of one that fails what its tests said. The last line counts:
# N passed, N failed (subtests count; so does a package that fails as a whole).
set -euo pipefail
cd "$(dirname "$0")/.."

"${GO:-go}" test -v "$@" | awk '
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
