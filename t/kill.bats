#!/usr/bin/env bats
# serial
# no second try
# Whenever criu-lite is killed, the program that it looks at goes on as if nothing had been there.
#
# The dumper is killed at its Nth system-call stop, for N from the first to the last: all of them with CRL_FULL=1,
# else a sample that is spread evenly and reaches every part. The programs check themselves: registers, memory,
# timing, and that there is no mapping, descriptor, thread or child that was not there before.

load lib

# The children of the target's reaper: the target, and nothing that a killed dumper left.
alone() {
	local deadline=$((SECONDS + 60)) reaper children
	reaper=$(awk '/^PPid:/ { print $2 }' "/proc/$PID/status")
	while ((SECONDS < deadline)); do
		read -r -a children <"/proc/$reaper/task/$reaper/children" || true
		[[ ${children[*]} == "$PID" ]] && return
		tick
	done
	fail "beside pid $PID there is: ${children[*]}"
}

killed_at() {
	local n=$1 result
	shift
	rm -rf "$IMG"
	result=$(env "$MARK" "$PROGS/reaper" "$PROGS/killer" "$n" "$CRIU_LITE" "$@" 2>"$BATS_TEST_TMPDIR/stderr" </dev/null | tail -1)
	check_target || fail "... after criu-lite $* was killed at stop $n: $result" || return
	alone || fail "... after criu-lite $* was killed at stop $n: $result" || return
	RESULT=$result
}

# sweep SAMPLES ARGS…: how many stops there are is counted first, and again while killing: the end moves a little.
sweep() {
	local samples=$1 stops n i kills=0
	shift
	IMG=$BATS_TEST_TMPDIR/killed
	killed_at 0 "$@"
	[[ $RESULT == *" ended 0" ]] || fail "criu-lite $*: $RESULT" "$(cat "$BATS_TEST_TMPDIR/stderr")" || return
	stops=${RESULT%% *}
	((stops > 50)) || fail "only $stops stops: is this criu-lite?" || return
	if [[ ${CRL_FULL:-} ]] || ((samples > stops)); then
		samples=$stops
	fi
	for ((i = 0; i < samples; i++)); do
		n=$((1 + i * (stops - 1) / (samples > 1 ? samples - 1 : 1)))
		killed_at "$n" "$@" || return
		[[ $RESULT == *killed ]] && kills=$((kills + 1))
	done
	echo "# $stops stops, killed at $kills of $samples tried, $samples unharmed" >&3
	# Near the end a run may be a few stops shorter than the counted one.
	((kills >= samples * 8 / 10)) || fail "only $kills of $samples runs were killed" || return
	# After all of this the program can still be dumped and restored.
	rm -rf "$IMG"
	dump_ok
	restore_ok
	check_target
}

@test "dump -R killed at any system call leaves threads unharmed" {
	start threads 6
	check_target
	sweep 60 dump -R -t "$PID" -D "$BATS_TEST_TMPDIR/killed"
}

@test "dump -R killed at any system call leaves one of everything unharmed" {
	start_simple
	check_target
	sweep 60 dump -R -t "$PID" -D "$BATS_TEST_TMPDIR/killed"
}

@test "unix sockets with messages on their way: SO_PEEK_OFF is as it was" {
	start unix peek
	check_target
	sweep 60 dump -R -t "$PID" -D "$BATS_TEST_TMPDIR/killed"
}

@test "a Python program is unharmed too" {
	start_python
	check_target
	sweep 15 dump -R -t "$PID" -D "$BATS_TEST_TMPDIR/killed"
}

@test "dump without -R: killed before the image is published it leaves the program unharmed" {
	# From the publishing on the program may be dead, but then there is an image: one of the two is always there.
	start threads 6
	IMG=$BATS_TEST_TMPDIR/killed
	local stops n i result samples=${CRL_FULL:+100000}
	result=$(env "$MARK" "$PROGS/reaper" "$PROGS/killer" 0 "$CRIU_LITE" dump -t "$PID" -D "$IMG" 2>&1 | tail -1)
	[[ $result == *" ended 0" ]] || fail "$result"
	gone "$PID"
	restore_ok
	check_target
	stops=${result%% *}
	: "${samples:=25}"
	((samples <= stops)) || samples=$stops
	for ((i = 0; i < samples; i++)); do
		n=$((1 + i * (stops - 1) / (samples - 1)))
		rm -rf "$IMG"
		env "$MARK" "$PROGS/reaper" "$PROGS/killer" "$n" "$CRIU_LITE" dump -t "$PID" -D "$IMG" >/dev/null 2>&1
		if [[ -e $IMG/manifest ]]; then
			is_alive "$PID" && end_target
			gone "$PID"
			restore_ok || fail "... after a dump killed at stop $n of $stops" || return
		fi
		check_target || fail "... after a dump killed at stop $n of $stops" || return
	done
}

@test "restore killed at any system call leaves nothing half restored" {
	need_root "restore under the old number"
	start threads 6
	dump_ok
	cp -p "$OUT" "$BATS_TEST_TMPDIR/as_dumped"
	local stops n i result samples=${CRL_FULL:+100000}
	result=$(env "$MARK" "$PROGS/reaper" "$PROGS/killer" 0 "$CRIU_LITE" restore -D "$IMG" -d | tail -1)
	[[ $result == *" ended 0" ]] || fail "$result"
	check_target
	end_target
	as_dumped
	stops=${result%% *}
	: "${samples:=25}"
	((samples <= stops)) || samples=$stops
	for ((i = 0; i < samples; i++)); do
		n=$((1 + i * (stops - 1) / (samples - 1)))
		env "$MARK" "$PROGS/reaper" "$PROGS/killer" "$n" "$CRIU_LITE" restore -D "$IMG" -d >/dev/null 2>&1
		# Let go before the kill, it is whole; else it ends by itself.
		settle || fail "... after a restore killed at stop $n of $stops" || return
	done
	restore_ok
	check_target
}

# Either the program is gone, or it runs and is well. Asking one that is half restored would end it and hide that.
settle() {
	eventually gone_or_waiting || return
	is_alive "$PID" || { gone "$PID"; return; }
	check_target || return
	end_target
	as_dumped
}

# In rt_sigtimedwait (128), as only its own main thread is.
gone_or_waiting() {
	local call
	is_alive "$PID" || return 0
	{ read -r call _ <"/proc/$PID/syscall"; } 2>/dev/null && [[ $call == 128 ]]
}

# What the program has said since is not in the image's past: back to what the image knows, times included.
as_dumped() {
	cp -p "$BATS_TEST_TMPDIR/as_dumped" "$OUT"
}
