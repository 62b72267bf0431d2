#!/usr/bin/env bats
# The main job: a program is dumped, is gone, comes back, and goes on where it was.

load lib

@test "a program with one of everything comes back as it was" {
	start_simple
	check_target
	dump_ok
	restore_ok
	check_target
	check_target
}

@test "... and what was restored can be dumped and restored, ten times" {
	start_simple
	for _ in {1..10}; do
		dump_ok
		restore_ok
		check_target
		rm -r "$IMG"
	done
}

@test "64 threads that check their registers survive ten rounds" {
	start threads 64
	for _ in {1..10}; do
		dump_ok
		restore_ok
		check_target
		rm -r "$IMG"
	done
}

@test "restored threads can be joined, and the program ends with its own status" {
	start threads 8
	dump_ok
	restore_ok
	kill -TERM "$PID"
	gone "$PID"
	[[ $(tail -1 "$OUT") == ready ]]
}

@test "a Python program with threads, files and a big dictionary survives ten rounds" {
	start_python
	for _ in {1..10}; do
		dump_ok
		restore_ok
		check_target
		rm -r "$IMG"
	done
}

@test "a program that nobody prepared: sleep goes on and ends" {
	local reaper_out=$BATS_TEST_TMPDIR/sleep
	PID=$(env "$MARK" "$PROGS/reaper" -b "$reaper_out" /bin/sleep 3)
	# It is in its system call once its state says so.
	eventually grep -q '^State:.S' "/proc/$PID/status"
	dump_ok
	restore_ok
	gone "$PID"
	[[ ! -s $reaper_out ]]
}

@test "-R leaves the program running, with all that it has" {
	start threads 16
	check_target
	dump_ok -R
	check_target
	dump_ok -R
	check_target
}

@test "-R: the image restores the moment of the dump" {
	start threads 16
	check_target
	dump_ok -R
	end_target
	restore_ok
	check_target
}

@test "-R and one of everything: nothing is lost on either side" {
	start_simple
	dump_ok -R
	end_target
	restore_ok
	check_target
	dump_ok -R
	check_target
}

@test "a program whose stack has no room that was used before" {
	start simple "$BATS_TEST_TMPDIR/simple" deep
	dump_ok -R
	check_target
	dump_ok
	restore_ok
	check_target
}

@test "one image restores more than once" {
	start threads 4
	dump_ok
	for _ in 1 2 3; do
		restore_ok
		end_target
	done
	restore_ok
	check_target
}

@test "--pidfile tells the pid" {
	need_root "restore under the old number"
	start threads 2
	dump_ok
	crl_ok restore -D "$IMG" -d --pidfile "$BATS_TEST_TMPDIR/pid"
	[[ $(cat "$BATS_TEST_TMPDIR/pid") == "$PID" ]]
	check_target
}

@test "without -d restore waits, and exits with the program's status" {
	need_root "restore under the old number"
	export TARGET_STATUS=37
	start threads 4
	unset TARGET_STATUS
	dump_ok
	local status=0
	rm -f "$BATS_TEST_TMPDIR/pid"
	crl restore -D "$IMG" --pidfile "$BATS_TEST_TMPDIR/pid" 3>&- &
	local waiting=$!
	# Only now is it whole: a signal that asks would end a half restored program.
	eventually test -s "$BATS_TEST_TMPDIR/pid"
	check_target
	kill -0 "$waiting"
	kill -TERM "$PID"
	wait "$waiting" || status=$?
	((status == 37)) || fail "status $status instead of 37: $(cat "$BATS_TEST_TMPDIR/stderr")"
}

@test "... and with 128 + N when signal N ends it" {
	need_root "restore under the old number"
	start threads 4
	dump_ok
	local status=0
	rm -f "$BATS_TEST_TMPDIR/pid"
	crl restore -D "$IMG" --pidfile "$BATS_TEST_TMPDIR/pid" 3>&- &
	local waiting=$!
	# Only now is it whole: a signal that asks would end a half restored program.
	eventually test -s "$BATS_TEST_TMPDIR/pid"
	check_target
	kill -KILL "$PID"
	wait "$waiting" || status=$?
	((status == 128 + 9)) || fail "status $status instead of 137: $(cat "$BATS_TEST_TMPDIR/stderr")"
}

@test "a stopped program is dumped stopped, comes back stopped, and goes on when continued" {
	start threads 4
	kill -STOP "$PID"
	eventually grep -q '^State:.T' "/proc/$PID/status"
	dump_ok -R
	grep -q '^State:.T' "/proc/$PID/status"
	dump_ok
	restore_ok
	grep -q '^State:.T' "/proc/$PID/status"
	kill -CONT "$PID"
	check_target
}

@test "a signal that comes during a dump is not lost" {
	start threads 8
	for _ in {1..5}; do
		check_target &
		local checking=$!
		dump_ok -R
		wait "$checking"
	done
}

@test "the image is for its owner alone" {
	start threads 2
	umask 022
	dump_ok
	[[ $(stat -c %a "$IMG") == 700 ]]
	[[ -z $(find "$IMG" -type f -perm /077) ]]
}

@test "memory that holds nothing takes no room in the image" {
	# 4 GiB of untouched memory are mapped, and about 500 KiB in use.
	start_simple
	dump_ok
	(($(du -sk "$IMG" | cut -f1) < 8192))
}

@test "show prints an image for people and for programs" {
	start_simple
	dump_ok
	crl_ok show "$IMG"
	grep -q "$PID" "$STDOUT"
	grep -q "/dev/zero" "$STDOUT"
	crl_ok show "$IMG" --json
	python3 -c '
import json, sys
text = json.dumps(json.load(open(sys.argv[1])))
assert sys.argv[2] in text and "/dev/zero" in text, text[:500]
' "$STDOUT" "$PID"
}

@test "check says what this kernel and user can do" {
	crl_ok check
	[[ -s $STDOUT ]]
	start threads 2
	crl_ok check -t "$PID"
	check_target
}
