#!/usr/bin/env bats
# Internet sockets, on the loopback of a network namespace of the test's own.

load lib

# In the namespace that a sleeping process holds: the tool and the program alike.
setup() {
	unshare -n true 2>/dev/null || skip "no network namespace can be made here"
	local tool=$CRIU_LITE name
	HOLDER=$(env "$MARK" "$PROGS/reaper" -b /dev/null unshare -n /bin/sleep 1000)
	in_sleep() { [[ $(cat "/proc/$HOLDER/comm") == sleep ]]; }
	eventually in_sleep
	for name in tool program; do
		# shellcheck disable=SC2016 # the script's argument
		printf '#!/bin/sh\nexec nsenter --net=/proc/%s/ns/net %s "$@"\n' "$HOLDER" \
			"$([[ $name == tool ]] && echo "$tool" || echo "$PROGS/inet")" >"$BATS_TEST_TMPDIR/$name"
		chmod +x "$BATS_TEST_TMPDIR/$name"
	done
	CRIU_LITE=$BATS_TEST_TMPDIR/tool
	INET=$BATS_TEST_TMPDIR/program
}

@test "TCP and UDP, IPv4 and IPv6, bound, listening, connected, with options" {
	start "$INET" all
	check_target
	dump_ok -R
	check_target
	for _ in 1 2 3; do
		dump_ok
		restore_ok
		check_target
	done
}

@test "a TCP connection is refused, or closed by --tcp-close" {
	start "$INET" connection
	check_target
	refused 1 "$PID" "TCP connection from 127.0.0.1:" --tcp-close --tcp-established -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none"
	refused 1 "$PID" "TCP connection from 127.0.0.1:" --tcp-close -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none" --tcp-established
	check_target
	dump_ok -R --tcp-close
	check_target
	dump_ok --tcp-close
	restore_ok
	: >"$HOME_DIR/closed"
	check_target
	dump_ok
	restore_ok
	check_target
}

@test "connections that nobody has accepted are refused, or reset by --tcp-close" {
	start "$INET" pending
	check_target
	refused 1 "$PID" "1 connections wait" --tcp-close -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none"
	check_target
	dump_ok --tcp-close
	restore_ok
	: >"$HOME_DIR/closed"
	check_target
}

@test "a multicast group is refused by name" {
	start "$INET" multicast
	refused 1 "$PID" "multicast group" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none"
	is_alive "$PID"
}

@test "an address that is taken: nothing runs, and the error names it" {
	start "$INET" all
	dump_ok -R
	refused 1 "127.0.0.1:" "in use" -- restore -D "$IMG" -d
	check_target
}
