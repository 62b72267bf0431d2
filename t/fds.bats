#!/usr/bin/env bats
# Descriptors that are no files: pipes, events, epoll, inotify, pidfds, message queues.

load lib

survives() {
	start "$@" && round_trip && crl_ok show "$IMG" --json || return
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
	refused 1 "pid $child (pipes)" "a pipe" "end is outside the tree" -- dump -j -t "$child" -D "$BATS_TEST_TMPDIR/refused"
	check_target
}

@test "epoll: each kind of entry, nested, shared with a child" {
	survives epoll
}

# A queue outlives its program; SIGTERM has the program remove it.
end_gently() {
	kill -TERM "$PID"
	gone "$PID"
}

@test "inotify: watches by number, a moved file" {
	survives watches inotify
}

@test "inotify with events that were not read is refused" {
	start watches unread
	refused 1 "pid $PID" "an inotify with" "bytes of events" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/refused"
	check_target
}

@test "pidfds of a child, itself, a zombie, one that is gone" {
	survives watches pidfd
}

@test "a pidfd of a process outside the tree is refused" {
	start watches outside
	refused 1 "pid $PID" "a pidfd of process" "outside the tree" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/refused"
	check_target
}

@test "an empty POSIX message queue" {
	survives watches mqueue
	end_gently
}

@test "a POSIX message queue that is not empty is refused" {
	start watches full
	refused 1 "pid $PID" "message queue" "1 messages" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/refused"
	check_target
	end_gently
}
