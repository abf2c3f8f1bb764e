#!/usr/bin/env bash
# Shows that the crash harness finds what it is for. Each mutation in
# internal/lab/crash/testdata/mutations takes one promise out of a copy of the
# source; the harness must report what the mutation's "Expect:" line says:
# a figure of its result that must not be 0, repeats beyond the bound, or, for
# "order", that the 250 comes before the sync. "Flags:" are for the harness,
# "Stores:" the engines that it is tried on. The source as it is must pass. The
# last line is JSON.
#
#   scripts/crash-proof.sh [NAME ...]      with names: only these mutations
#   CYCLES=8                           kills for each
#   STORES="sqlite postgres"           engines
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mutations=$PWD/internal/lab/crash/testdata/mutations
failed=0 caught=0 missed=0 passed=0
read -ra stores <<<"${STORES:-sqlite postgres}"

"$GO" build -o "$folder/crash" ./cmd/crash

# harness SOURCE LOG [FLAG ...] runs it; its exit status is the harness's.
harness() {
	local source=$1 log=$2
	shift 2
	"$folder/crash" -source "$source" -dir "$(mktemp -d -p "$folder")" -cycles "${CYCLES:-8}" -seconds 1 -patience 10s "$@" >"$log" 2>&1
}

# say NAME RESULT TEXT prints a row.
say() { printf '%-19s %-8s %-8s %s\n' "$@"; }

# figures LOG gives those of the result that are not in order, for people.
figures() {
	{ grep -oE '"(lost|altered|false_reports|torn|stuck|repeated|bound)":[0-9]+' "$1" | tr -d '"' | tr ':\n' ' ,' | sed 's/,$//; s/,/, /g'; } || true
}

say mutation store result 'what the harness saw'
for store in "${stores[@]}"; do
	if harness "$PWD" "$folder/none.log" -store "$store" && harness "$PWD" "$folder/order.log" -store "$store" -order; then
		passed=$((passed + 1))
		say none "$store" passes "$(figures "$folder/none.log")"
	else
		failed=1
		say none "$store" FAILS "$(tail -n 3 "$folder/none.log" "$folder/order.log" 2>/dev/null | tr '\n' ' ')"
	fi
done

# try NAME EXPECT STORE [FLAG ...] runs the harness on the mutated copy.
try() {
	local name=$1 expect=$2 store=$3 seen=no saw log=$folder/$1-$3.log
	shift 3
	if [ "$expect" = order ]; then
		if ! harness "$folder/$name" "$log" -store "$store" "$@" -order && grep -q 'acknowledged before its commit is synced' "$log"; then seen=yes; fi
		saw='the 250 before the sync'
	else
		if ! harness "$folder/$name" "$log" -store "$store" "$@"; then
			case $expect in
			repeated) ! grep -qE '[0-9]+ repeated, but at most' "$log" || seen=yes ;;
			*) ! grep -qE "\"$expect\":[1-9]" "$log" || seen=yes ;;
			esac
		fi
		saw=$(figures "$log")
	fi
	if [ $seen = yes ]; then
		caught=$((caught + 1))
		say "$name" "$store" caught "$saw"
	else
		failed=1 missed=$((missed + 1))
		say "$name" "$store" MISSED "$expect expected: ${saw:-nothing}"
		tail -n 5 "$log"
	fi
}

for patch in "$mutations"/*.patch; do
	name=$(basename "$patch" .patch)
	[ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
	expect=$(sed -n 's/^Expect: //p' "$patch")
	read -ra flags < <(sed -n 's/^Flags: //p' "$patch"; echo)
	read -ra known < <(sed -n 's/^Stores: //p' "$patch"; echo)
	mkdir "$folder/$name"
	git ls-files -z --cached --others --exclude-standard -- '*.go' go.mod go.sum internal cmd | sort -zu |
		tar --null --files-from=- -cf - | tar -xf - -C "$folder/$name"
	if ! (cd "$folder/$name" && GIT_CEILING_DIRECTORIES=$folder git apply "$patch"); then
		failed=1 missed=$((missed + 1))
		say "$name" - FAILS 'the patch does not fit the source any more'
		continue
	fi
	for store in "${stores[@]}"; do
		[[ " ${known[*]} " != *" $store "* ]] || try "$name" "$expect" "$store" "${flags[@]}"
	done
done
printf '{"stores":%d,"passed":%d,"mutations":%d,"caught":%d,"missed":%d}\n' ${#stores[@]} $passed $((caught + missed)) $caught $missed
exit $failed
