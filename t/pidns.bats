#!/usr/bin/env bats
# A pid namespace of restore's own: numbers need not be free, and who may not choose them restores too.

load lib

# The program's number outside, once it was restored in a namespace: from the pid file.
restore_inside() {
	crl_ok restore -D "$IMG" -d --pidfile "$BATS_TEST_TMPDIR/pid" "$@" || return
	PID=$(<"$BATS_TEST_TMPDIR/pid")
	is_alive "$PID" || fail "pid $PID is not there"
}

# That it is in its own namespace, under its old number $1.
has_number() {
	local numbers
	numbers=$(grep ^NSpid: "/proc/$PID/status")
	[[ $numbers == *[[:space:]]"$1" && $PID != "$1" ]] || fail "$numbers, not $1 inside"
}

may_make_namespaces() {
	unshare -p -m -f --mount-proc true 2>/dev/null || skip "no pid namespace can be made here"
}

@test "--pidns: while the program runs on, a copy of it runs too" {
	may_make_namespaces
	start_simple
	local first=$PID
	check_target
	dump_ok -R
	restore_inside --pidns
	has_number "$first"
	check_target
	kill -KILL "$first"
	gone "$first"
	check_target
	end_target
}

@test "a tree in its namespace: dumped from outside, restored again, it ends with its init" {
	may_make_namespaces
	start tree build 'R(S(()X)W)(X)(G()())'
	local inner=$PID init
	dump_ok
	restore_inside --pidns
	has_number "$inner"
	check_target
	dump_ok
	restore_inside --pidns
	has_number "$inner"
	check_target
	init=$(awk '/^PPid:/ { print $2 }' "/proc/$PID/status")
	kill -KILL "$init"
	gone "$init"
	gone "$PID"
}

@test "a container is not gone into, but refused by name" {
	unshare -p -m -n -f --mount-proc true 2>/dev/null || skip "no namespaces can be made here"
	PID=$(env "$MARK" "$PROGS/reaper" -b /dev/null unshare -p -m -n -f --mount-proc /bin/sleep 1000)
	local child
	has_child() { child=$(<"/proc/$PID/task/$PID/children") && [[ $child && $(<"/proc/${child% }/comm") == sleep ]]; }
	eventually has_child
	refused 1 "$child" namespace nsenter -- dump -j -t "${child% }" -D "$BATS_TEST_TMPDIR/none"
	[[ ! -e $BATS_TEST_TMPDIR/none ]]
}

@test "attached: restore ends as the program does" {
	may_make_namespaces
	TARGET_STATUS=5 start tree build ''
	dump_ok
	crl restore -D "$IMG" --pidns --pidfile "$BATS_TEST_TMPDIR/pid" &
	local job=$! status=0
	eventually test -s "$BATS_TEST_TMPDIR/pid"
	PID=$(<"$BATS_TEST_TMPDIR/pid")
	check_target
	kill -TERM "$PID"
	wait "$job" || status=$?
	((status == 5)) || fail "status $status instead of 5"
}

@test "an image that cannot be restored says so from inside too, and leaves nothing" {
	may_make_namespaces
	start_simple
	dump_ok
	refused 1 "/nowhere/pid" -- restore -D "$IMG" -d --pidns --pidfile /nowhere/pid
	restore_ok
	check_target
}

# ---- as nobody ----

as_nobody() {
	((EUID == 0)) || skip "only root can become nobody"
	NOBODY=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	may_be_nobody() { "${NOBODY[@]}" unshare -U -p -m -f --mount-proc true 2>/dev/null; }
	may_be_nobody || skip "nobody may not make a user and pid namespace here"
	# Where bats runs, nobody may not look: a copy of the tools, and a directory of its own.
	BASE=$(mktemp -d /tmp/crl-nobody.XXXXXX)
	cp "$CRIU_LITE" "$PROGS"/* "$BASE"
	chmod -R a+rX "$BASE"
	chown 65534:65534 "$BASE"
	cd "$BASE" || return
	CRIU_LITE=$BASE/criu-lite
	PROGS_NOBODY=$BASE
}

# crl_ok and start, as nobody
nobody_ok() {
	local status=0
	env "$MARK" "$PROGS/reaper" "${NOBODY[@]}" "$CRIU_LITE" "$@" >"$BATS_TEST_TMPDIR/said" 2>&1 </dev/null || status=$?
	((status == 0)) || fail "as nobody: criu-lite $*: status $status" "$(cat "$BATS_TEST_TMPDIR/said")"
}

start_nobody() {
	OUT=$BASE/out
	: >"$OUT"
	chown 65534:65534 "$OUT"
	PID=$("${NOBODY[@]}" env -C "$BASE" "$MARK" "$PROGS_NOBODY/reaper" -b "$OUT" "$PROGS_NOBODY/$1" "${@:2}")
	wait_for_line 0
	[[ $LINE == ready ]] || fail "$1: $LINE"
}

restore_nobody() {
	rm -f "$BASE/pid"
	nobody_ok restore -D "$1" -d --pidfile "$BASE/pid" || return
	PID=$(<"$BASE/pid")
	is_alive "$PID" || fail "pid $PID is not there"
}

nobody_rounds() {
	local inner=$PID
	check_target || return
	for round in 1 2 3; do
		nobody_ok dump -t "$PID" -D "$BASE/img.$round" -R || return
		check_target || return
		rm -r "$BASE/img.$round"
		nobody_ok dump -t "$PID" -D "$BASE/img.$round" || return
		gone "$PID" || return
		restore_nobody "$BASE/img.$round" || return
		has_number "$inner" || return
		check_target || return
	done
	end_target
}

@test "as nobody: one of everything, three rounds, in a namespace unasked" {
	as_nobody
	start_nobody simple "$BASE/home"
	nobody_rounds
}

@test "as nobody: threads that check their registers" {
	as_nobody
	start_nobody threads 8
	nobody_rounds
}

@test "as nobody: a tree" {
	as_nobody
	start_nobody tree build 'R(S(()X)W)(X)(G()())(S(G(P)X))'
	nobody_rounds
}

teardown() {
	clean_up || return
	[[ ! ${BASE:-} ]] || rm -rf "$BASE"
}
