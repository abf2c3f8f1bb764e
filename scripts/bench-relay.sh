#!/usr/bin/env bash
# Messages a second from Postfix's smtp-source through the relay into Postfix's
# smtp-sink, in turn with smtp-source straight into smtp-sink, and the relay's
# CPU time. All on loopback, in a temporary folder.
#
#   scripts/bench-relay.sh [-m MESSAGES] [-s SESSIONS] [-l BYTES] [-r ROUNDS] [-d]
#
# -d sends all messages of a session over one connection, not one each.
# A round ends when the sink has every message. Build bin/postrider first.
set -euo pipefail
cd "$(dirname "$0")/.."

messages=10000 sessions=32 bytes=10240 rounds=3 keep=()
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

for program in smtp-source smtp-sink; do
	PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || {
		echo "$program is missing; it comes with Postfix (scripts/install-test-deps.sh)" >&2
		exit 1
	}
done
PATH=$PATH:/usr/sbin

folder=$(mktemp -d)
pids=()
cleanup() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait
	rm -rf "$folder"
}
trap cleanup EXIT

die() {
	echo "$*" >&2
	tail -n 20 "$folder"/*.log >&2 || true
	exit 1
}

now() { date +%s.%N; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }

# answers HOST:PORT waits until something listens there.
answers() {
	local i
	for i in $(seq 200); do
		(exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null && return
		sleep 0.05
	done
	die "nothing listens on $1"
}

# sink ADDRESS COUNTS starts a receiver that writes its counts to a file.
sink() {
	local drop=()
	[ "$(id -u)" -ne 0 ] || drop=(-u nobody)
	smtp-sink "${drop[@]}" -c "$1" 1024 >"$2" 2>>"$folder/sink.log" &
	pids+=($!)
	answers "$1"
}

# received COUNTS: how many messages a sink has counted so far.
received() {
	tail -c 100 "$1" | tr '\r' '\n' | awk -F 'mesg=' 'NF == 2 { n = $2 } END { print n + 0 }'
}

# run ADDRESS COUNTS sends to ADDRESS until the sink has all, and sets seconds.
run() {
	local before start
	before=$(received "$2")
	start=$(now)
	timeout "$limit" smtp-source "${keep[@]}" -s "$sessions" -l "$bytes" -m "$messages" \
		-f sender@client.example -t recipient@receiver.example "$1" 2>>"$folder/source.log" ||
		die "smtp-source to $1 failed"
	while [ "$(received "$2")" -lt $((before + messages)) ]; do
		[ "$(calc %d "$(now) - $start")" -lt "$limit" ] || die "only $(received "$2") messages arrived in ${limit}s"
		sleep 0.02
	done
	seconds=$(calc %.3f "$(now) - $start")
}

# cpu PID: seconds of processor time that a process has used, all threads.
cpu() {
	sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%.2f", ($12 + $13) / hz }'
}

base=$((20000 + RANDOM % 10000))
direct=127.0.0.1:$base relay=127.0.0.1:$((base + 1)) behind=127.0.0.1:$((base + 2))
sink "$direct" "$folder/direct.count"
sink "$behind" "$folder/behind.count"

cat >"$folder/postrider.toml" <<END
hostname = "bench.example"
data = "$folder/data"

[limits]
sessions_per_client = $((sessions + 8))

[[listen]]
name = "bench"
address = "$relay"
mode = "starttls"

[[route]]
domain = "*"
to = "$behind"

[log]
level = "warn"
END
bin/postrider serve -config "$folder/postrider.toml" >"$folder/postrider.log" 2>&1 &
postrider=$!
pids+=("$postrider")
answers "$relay"
for _ in $(seq 200); do
	[ ! -S "$folder/data/control.sock" ] || break
	sleep 0.05
done
bin/postrider credential add -config "$folder/postrider.toml" -kind network -network 127.0.0.1/32 bench >>"$folder/postrider.log" 2>&1 ||
	die "could not add a credential"

printf '%d messages of %d bytes, %d sessions\n' "$messages" "$bytes" "$sessions"
printf '%-6s %12s %12s %7s %18s\n' round 'direct msg/s' 'relay msg/s' ratio 'CPU s / 1000 msgs'
for round in $(seq "$rounds"); do
	run "$direct" "$folder/direct.count"
	straight=$(calc %.0f "$messages / $seconds")
	before=$(cpu "$postrider")
	run "$relay" "$folder/behind.count"
	through=$(calc %.0f "$messages / $seconds")
	used=$(calc %.3f "($(cpu "$postrider") - $before) * 1000 / $messages")
	printf '%-6d %12d %12d %7.2f %18.3f\n' "$round" "$straight" "$through" "$(calc %.4f "$through / $straight")" "$used"
done
