#!/usr/bin/env bats
# Seccomp filters come back: all, in order, shared as they were. Those that we could not leave safely are refused.

load lib

filters_of() {
	grep -h '^Seccomp' "/proc/$PID/task/"*/status
}

there_and_back() {
	"$CRIU_LITE" check | grep -q '^yes  programs with a seccomp filter' || skip "filters cannot be suspended here"
	start seccomp "$1"
	check_target
	local before
	before=$(filters_of)
	dump_ok -R
	check_target
	for _ in 1 2; do
		rm -r "$IMG"
		dump_ok
		restore_ok
		check_target
		[[ $(filters_of) == "$before" ]] || fail "was: $before" "is: $(filters_of)"
	done
}

@test "filters of root: shared ones, a thread's own, with flags" {
	there_and_back root
}

@test "filters of an unprivileged user with no_new_privs" {
	there_and_back user
}

@test "a sandbox in which nearly every call fails" {
	there_and_back sandbox
}

@test "refused: strict mode, a filter that would kill us on our way out, one with a supervisor" {
	"$CRIU_LITE" check | grep -q '^yes  programs with a seccomp filter' || skip "filters cannot be suspended here"
	start seccomp strict
	refused 1 "$PID" seccomp strict -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/img" -R
	check_target
	start seccomp killer
	refused 1 "$PID" seccomp "system call 11" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/img" -R
	check_target
	start seccomp notify
	refused 1 "$PID" seccomp supervisor -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/img" -R
	check_target
}

# The dumper is killed at system calls of its own, spread over the whole dump: what it leaves behind meets the filter.
@test "a dumper that is killed leaves a sandboxed program unharmed" {
	"$CRIU_LITE" check | grep -q '^yes  programs with a seccomp filter' || skip "filters cannot be suspended here"
	start seccomp sandbox
	local stops n result img=$BATS_TEST_TMPDIR/killed killed=0
	result=$(env "$MARK" "$PROGS/reaper" "$PROGS/killer" 0 "$CRIU_LITE" dump -R -t "$PID" -D "$img" </dev/null | tail -1)
	[[ $result == *" ended 0" ]]
	stops=${result%% *}
	for n in {1..30}; do
		rm -rf "$img"
		result=$(env "$MARK" "$PROGS/reaper" "$PROGS/killer" $((1 + n * (stops - 1) / 30)) "$CRIU_LITE" dump -R -t "$PID" \
			-D "$img" </dev/null | tail -1)
		[[ $result == *killed ]] && killed=$((killed + 1))
		check_target || fail "after stop $n: $result"
	done
	((killed >= 20)) || fail "only $killed were killed"
	dump_ok
	restore_ok
	check_target
}
