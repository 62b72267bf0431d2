#!/usr/bin/env bats
# The image is an ELF core: gdb opens it, and readelf lists it.

load lib

setup() {
	command -v gdb >/dev/null || skip "gdb is not installed"
}

debug() {
	local program=$1
	shift
	timeout 120 gdb -nx -batch -iex 'set debuginfod enabled off' "$@" "$program" "$IMG/core.$PID" 2>&1
}

@test "gdb shows every thread's stack and a variable" {
	start threads 8
	dump_ok
	debug "$PROGS/threads" -ex 'thread apply all bt' -ex 'printf "marker is %lx\n", *(long *)&marker' >"$BATS_TEST_TMPDIR/gdb"
	cat "$BATS_TEST_TMPDIR/gdb"
	(($(grep -c '^Thread [0-9]' "$BATS_TEST_TMPDIR/gdb") == 9))
	# Each worker's stack leads from its start to where it was; the main thread's from main.
	(($(grep -cE '^#[0-9]+ .* (start_thread|clone3?) ' "$BATS_TEST_TMPDIR/gdb") >= 8))
	(($(grep -cE '^#[0-9]+ .*\<work \(' "$BATS_TEST_TMPDIR/gdb") == 8))
	(($(grep -cE '^#[0-9]+ .*\<main \(' "$BATS_TEST_TMPDIR/gdb") == 1))
	grep -q 'marker is 5eed1234' "$BATS_TEST_TMPDIR/gdb"
	if grep -E 'Cannot access memory|corrupt stack|warning: .*(core|note)' "$BATS_TEST_TMPDIR/gdb"; then
		fail "gdb complains"
	fi
}

@test "gdb finds the threads under their numbers, with the registers that they had" {
	start threads 3
	local tids
	tids=$(cd "/proc/$PID/task" && printf '%s\n' * | sort -n)
	dump_ok
	# shellcheck disable=SC2016 # gdb's own variable
	debug "$PROGS/threads" -ex 'info threads' -ex 'p $_siginfo' -ex 'info auxv' -ex 'info registers rip' >"$BATS_TEST_TMPDIR/gdb"
	cat "$BATS_TEST_TMPDIR/gdb"
	[[ $(grep -oE 'LWP [0-9]+' "$BATS_TEST_TMPDIR/gdb" | cut -d' ' -f2 | sort -nu) == "$tids" ]]
	grep -q AT_SYSINFO_EHDR "$BATS_TEST_TMPDIR/gdb"
	grep -qE '^rip +0x[0-9a-f]+' "$BATS_TEST_TMPDIR/gdb"
}

@test "gdb shows a Python program's threads and its variables" {
	start_python -O -O
	dump_ok
	debug "$(python)" -ex 'thread apply all bt' -ex 'printf "optimize is %d\n", *(int *)&Py_OptimizeFlag' >"$BATS_TEST_TMPDIR/gdb"
	head -60 "$BATS_TEST_TMPDIR/gdb"
	(($(grep -c '^Thread [0-9]' "$BATS_TEST_TMPDIR/gdb") == 5))
	grep -q 'optimize is 2' "$BATS_TEST_TMPDIR/gdb"
	(($(grep -cE '^#[0-9]+ .* (_?Py|sig_wait|start_thread|clone3?)' "$BATS_TEST_TMPDIR/gdb") >= 5))
}

@test "readelf reads every ELF file of an image without a complaint" {
	command -v readelf >/dev/null || skip "binutils is not installed"
	start threads 4
	dump_ok
	local file
	for file in "$IMG/core.$PID" "$IMG/tree"; do
		readelf -hlnW "$file" >"$BATS_TEST_TMPDIR/readelf" 2>"$BATS_TEST_TMPDIR/complaints"
		[[ ! -s $BATS_TEST_TMPDIR/complaints ]] || fail "$(cat "$BATS_TEST_TMPDIR/complaints")"
		grep -q CRIULITE "$BATS_TEST_TMPDIR/readelf"
	done
	readelf -hW "$IMG/core.$PID" | grep -q 'CORE'
}
