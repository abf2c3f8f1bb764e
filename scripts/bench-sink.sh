#!/usr/bin/env bash
# Messages a second from Postfix's smtp-source into Postfix's smtp-sink and into
# postrider sink, in turn, and the CPU time of each receiver: medians and their
# ratios. All on loopback.
#
#   scripts/bench-sink.sh [-m MESSAGES] [-s SESSIONS] [-l BYTES] [-r ROUNDS] [-d]
#
# -d sends all messages of a session over one connection, not one each.
# Installs Postfix with apt when its tools are missing (as root; its daemon is
# not started). Build bin/postrider first, or name another program in SINK.
set -euo pipefail
cd "$(dirname "$0")/.."

messages=20000 sessions=32 bytes=10240 rounds=5 keep=()
while getopts m:s:l:r:d option; do
	case $option in
	m) messages=$OPTARG ;;
	s) sessions=$OPTARG ;;
	l) bytes=$OPTARG ;;
	r) rounds=$OPTARG ;;
	d) keep=(-d) ;;
	*) exit 2 ;;
	esac
done
limit=300 # seconds for one run

PATH=$PATH:/usr/sbin
if ! command -v smtp-source >/dev/null || ! command -v smtp-sink >/dev/null; then
	running=$(pgrep -x master || true)
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postfix >/dev/null
	[ -n "$running" ] || postfix stop 2>/dev/null || true
fi

folder=$(mktemp -d)
pids=()
cleanup() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	rm -rf "$folder"
}
trap cleanup EXIT

now() { date +%s.%N; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }
median() { sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'; }

# answers HOST:PORT waits until something listens there.
answers() {
	for _ in $(seq 200); do
		(exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null && return
		sleep 0.05
	done
	echo "nothing listens on $1" >&2
	exit 1
}

# cpu PID: seconds of processor time that a process has used, all threads.
cpu() {
	sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%.2f", ($12 + $13) / hz }'
}

# run NAME PID ADDRESS sends all messages there; the results go into files.
run() {
	local before start seconds
	before=$(cpu "$2")
	start=$(now)
	timeout "$limit" smtp-source "${keep[@]}" -s "$sessions" -l "$bytes" -m "$messages" \
		-f sender@client.example -t recipient@receiver.example "$3"
	seconds=$(calc %.3f "$(now) - $start")
	calc '%.0f\n' "$messages / $seconds" >>"$folder/$1.rate"
	calc '%.4f\n' "($(cpu "$2") - $before) * 1000 / $messages" >>"$folder/$1.cpu"
}

base=$((20000 + RANDOM % 10000))
theirs=127.0.0.1:$base ours=127.0.0.1:$((base + 1))
user=()
[ "$(id -u)" -ne 0 ] || user=(-u nobody)
smtp-sink "${user[@]}" "$theirs" 1024 2>"$folder/smtp-sink.log" &
pids+=($!)
${SINK:-bin/postrider sink} -listen "$ours" >"$folder/counts" &
pids+=($!)
answers "$theirs"
answers "$ours"

printf '%d messages of %d bytes, %d sessions, %d rounds\n' "$messages" "$bytes" "$sessions" "$rounds"
printf '%-7s %15s %11s %12s %9s\n' round 'smtp-sink msg/s' 'sink msg/s' 'CPU s / 1000' sink
for round in $(seq "$rounds"); do
	if [ $((round % 2)) -eq 1 ]; then
		run theirs "${pids[0]}" "$theirs"
		run ours "${pids[1]}" "$ours"
	else
		run ours "${pids[1]}" "$ours"
		run theirs "${pids[0]}" "$theirs"
	fi
	printf '%-7d %15d %11d %12.3f %9.3f\n' "$round" "$(tail -n1 "$folder/theirs.rate")" "$(tail -n1 "$folder/ours.rate")" \
		"$(tail -n1 "$folder/theirs.cpu")" "$(tail -n1 "$folder/ours.cpu")"
done
t=$(median <"$folder/theirs.rate") o=$(median <"$folder/ours.rate")
tc=$(median <"$folder/theirs.cpu") oc=$(median <"$folder/ours.cpu")
printf '%-7s %15d %11d %12.3f %9.3f\n' median "${t%.*}" "${o%.*}" "$tc" "$oc"
printf 'sink to smtp-sink: rate %.2f, CPU %.2f\n' "$(calc %.4f "$o / $t")" "$(calc %.4f "$oc / $tc")"
