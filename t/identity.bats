#!/usr/bin/env bats
# Who a program is, what it may do, how it is scheduled: all of it comes back, for each thread.

load lib

# What a kernel or a user cannot do here is said by the program itself.
there_and_back() {
	start identity "$@" || {
		grep -q ^skip "$OUT" && skip "$(cat "$OUT")"
		return 1
	}
	round_trip
}

@test "user, group and file system ids, groups, dumpable" {
	there_and_back ids ids-worker
}

@test "a daemon that has become nobody, with a signal for its parent's end" {
	there_and_back nobody nobody-worker
}

@test "threads that are not the same user" {
	there_and_back ids-worker
}

@test "capabilities: all five sets, with securebits" {
	there_and_back caps caps-worker
}

@test "no_new_privs and dumpable" {
	need_root "a program that is not dumpable"
	there_and_back no-new-privs no-new-privs-worker undumpable
}

@test "no_new_privs of one thread alone" {
	there_and_back no-new-privs-worker
}

@test "policy with reset on fork, nice, I/O priority, timer slack: of each thread" {
	there_and_back batch
	end_target
	there_and_back batch-worker
}

@test "a real-time policy" {
	there_and_back rr-worker
}

@test "affinity" {
	there_and_back affinity-worker
}

@test "utilization clamps" {
	there_and_back uclamp
}

@test "subreaper, no huge pages, a signal for the parent's end" {
	there_and_back prctl
}

@test "memory that is never writable and executable (MDWE)" {
	there_and_back mdwe
}

@test "an I/O flusher" {
	there_and_back flusher
}

@test "speculation that was forbidden" {
	there_and_back speculation-worker
}

@test "a program that is to end with its parent is restored by one that stays, or not at all" {
	need_root "restore under the old number"
	start identity orphan
	dump_ok
	refused 1 "$PID" "signal 9" "without -d" -- restore -D "$IMG" -d
	rm -f "$BATS_TEST_TMPDIR/pid"
	crl restore -D "$IMG" --pidfile "$BATS_TEST_TMPDIR/pid" 3>&- &
	local waiting=$!
	eventually test -s "$BATS_TEST_TMPDIR/pid"
	check_target
	kill -TERM "$PID"
	wait "$waiting"
}
