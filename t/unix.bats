#!/usr/bin/env bats
# Unix sockets of every type, and what is on its way in them.

load lib

survives() {
	start "$@" && round_trip && crl_ok show "$IMG" --json || return
	python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$STDOUT"
}

@test "socket pairs: stream, datagram, seqpacket; options, credentials, shared with a child" {
	survives unix pairs
}

@test "data, descriptors and credentials on their way; one direction shut" {
	survives unix flight
}

@test "listening, accepted, waiting to be accepted" {
	survives unix listen
}

@test "a restore that fails leaves the sockets of a running program where they are" {
	local before
	start unix listen
	dump_ok -R
	before=$(stat -c %i "$HOME_DIR"/*)
	refused 1 -- restore -D "$IMG" -d
	[[ $(stat -c %i "$HOME_DIR"/*) == "$before" ]] || fail "files were $before and are: $(ls -li "$HOME_DIR")"
	check_target
}

@test "datagram sockets with and without names" {
	survives unix dgram
}

@test "sockets whose other end was closed" {
	survives unix closed
}

@test "a peer outside the tree is refused, and the program unharmed" {
	local child
	start unix half
	read -r child _ <"/proc/$PID/task/$PID/children" || true # no newline ends it
	refused 1 "pid $child (unix)" "a unix socket whose peer" "outside the tree" -- \
		dump -j -t "$child" -D "$BATS_TEST_TMPDIR/refused"
	check_target
}

@test "a datagram socket outside: refused, and connected again with --ext-unix-sk" {
	local log_pid log_out
	export EXTERNAL=$BATS_TEST_TMPDIR/log.sock
	((${#EXTERNAL} < 100)) || skip "the path of the temporary directory is too long for a socket"
	start unix log
	log_pid=$PID log_out=$OUT
	start unix external
	refused 1 "pid $PID (unix)" "$EXTERNAL" "--ext-unix-sk" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/refused"
	dump_ok --ext-unix-sk
	restore_ok --ext-unix-sk
	check_target
	PID=$log_pid OUT=$log_out
	check_target
}
