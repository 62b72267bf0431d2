#!/usr/bin/env bats
# Descriptors that are no files: pipes, events, epoll, inotify, pidfds, message queues.

load lib

# The program is dumped and goes on; then it is dumped, ends, and comes back, twice.
survives() {
	start "$@" || return
	check_target || return
	dump_ok -R || return
	check_target || return
	for _ in 1 2; do
		dump_ok || return
		restore_ok || return
		check_target || return
	done
	crl_ok show "$IMG" --json || return
	python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$STDOUT"
}

@test "a pipe: contents, size, flags, a second reader, a dup" {
	survives pipes contents
}

@test "a pipe of packets" {
	survives pipes packets
}

@test "pipes of which one end was closed" {
	survives pipes ends
}

@test "a FIFO" {
	survives pipes fifo
}

@test "parent and child with a pipe each way" {
	survives pipes tree
}

@test "eventfd, timerfd, signalfd" {
	survives events
}

# Writes slowly, so that lines are on their way at any time; what comes out must be whole.
@test "a pipeline of bash, in the middle of its work" {
	local out=$BATS_TEST_TMPDIR/numbers
	# shellcheck disable=SC2016 # it is the inner bash's
	PID=$(env "$MARK" "$PROGS/reaper" -b "$BATS_TEST_TMPDIR/log" /bin/bash -c \
		'out=$1; for ((i = 0; i < 3000; i++)); do echo "$i"; done | { sleep 0.7; while read -r n; do
		echo "$n"; ((n % 20)) || sleep 0.002; done; } | cat >"$out"; exit 0' bash "$out")
	eventually test -e "$out"
	for _ in 1 2 3; do
		dump_ok
		restore_ok
	done
	gone "$PID"
	[[ ! -s $BATS_TEST_TMPDIR/log ]] || fail "$(cat "$BATS_TEST_TMPDIR/log")"
	cmp "$out" <(for ((i = 0; i < 3000; i++)); do echo "$i"; done)
}

@test "a pipe whose other end is outside is refused, and the program unharmed" {
	local child
	start pipes tree
	read -r child _ <"/proc/$PID/task/$PID/children" || true # no newline ends it
	refused 1 "pid $child (pipes)" "a pipe" "end is outside the tree" -- dump -t "$child" -D "$BATS_TEST_TMPDIR/refused"
	check_target
}
