#!/usr/bin/env bats
# Process trees: parents, groups, sessions, orphans, zombies, and what happens while a tree is being stopped.

load lib

round() {
	check_target || return
	dump_ok -R || return
	check_target || return
	dump_ok || return
	restore_ok || return
	check_target || return
	dump_ok || return
	restore_ok || return
	check_target
}

# tree_of SPEC: see t/prog/tree.c
tree_of() {
	need_root "the members' old numbers"
	start tree build "$1" && round || fail "the tree $1"
	end_tree
}

# Its members one by one: nobody else would.
end_tree() {
	local pid
	for pid in $(marked); do
		[[ $(<"/proc/$pid/comm") == reaper ]] || kill -KILL "$pid" || true
	done 2>/dev/null
	gone "$PID"
}

@test "children, grandchildren, and a child with two" {
	tree_of '()(())(()())'
}

@test "groups and sessions whose leaders live" {
	tree_of '(G()())(S(G())())(S)'
}

@test "zombies, with exit status or signal, of groups and sessions of their own too" {
	tree_of '(X)(K)(GX)(SK)((X))'
}

@test "a group whose leader is a zombie, or gone" {
	tree_of 'R(G()X)'
	tree_of 'R(G()()X)W'
}

@test "a group that its leader has left" {
	tree_of '(G()P)'
}

@test "a session whose leader is a zombie, or gone" {
	tree_of 'R(S()X)'
	tree_of 'R(S()(G)X)W'
}

@test "a child born before its parent's setsid" {
	tree_of '(()S())'
	tree_of '((()S)S)'
}

@test "an orphan whose session's leader lives elsewhere in the tree" {
	tree_of 'R(S(()X)W)'
}

@test "orphans of a session and a group that are both gone" {
	tree_of 'R(S(G()()X)WX)W'
}

@test "orphans with two subreapers, one below the other" {
	tree_of 'R(R(S()X)W)(S()X)W'
	tree_of 'R(R(S(()X)W))(S(()X)W)'
}

@test "a child of a gone session whose parent has made its own since" {
	tree_of 'R(S(()S)X)W'
}

# A leader's state is that of a zombie, whatever its threads do: check_target would believe it dead.
check_leader() {
	local lines n
	mapfile -t lines <"$OUT"
	n=${#lines[@]}
	kill -USR1 "$PID"
	says() { mapfile -t lines <"$OUT" && ((${#lines[@]} > n)); }
	eventually says || return
	[[ ${lines[n]} == "ok $n" ]] || fail "${lines[n]}"
}

@test "a process whose main thread has ended" {
	need_root "its threads' old numbers"
	OUT=$BATS_TEST_TMPDIR/out
	PID=$(env "$MARK" "$PROGS/reaper" -b "$OUT" "$PROGS/tree" leader)
	eventually grep -q ready "$OUT"
	check_leader
	for _ in {1..3}; do
		IMG=$BATS_TEST_TMPDIR/leader.$((IMAGES += 1))
		crl_ok dump -t "$PID" -D "$IMG" -R
		check_leader
		rm -r "$IMG"
		crl_ok dump -t "$PID" -D "$IMG"
		gone "$PID"
		crl_ok restore -D "$IMG" -d
		check_leader
	done
	end_target # its environment cannot be read: clean_up would not find it
}

@test "wait and SIGCHLD work as before" {
	start tree wait
	round
}

@test "parent and child share an offset as before" {
	start tree offset
	round
}

@test "a parent inside vfork: the dump waits for its child, but not for ever" {
	start tree vfork
	refused 1 vfork -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none" --timeout 1
	[[ ! -e $BATS_TEST_TMPDIR/none ]]
	check_target
	: >"$HOME_DIR/go"
	dump_ok
	restore_ok
	check_target
}

@test "processes born and dying while the tree is stopped, 20 times" {
	start tree churn
	for _ in {1..20}; do
		dump_ok -R
		check_target
		rm -r "$IMG"
	done
	for _ in {1..3}; do
		dump_ok
		restore_ok
		check_target
	done
}

@test "a tree that grows beyond what is allowed is refused, and goes on" {
	start tree chain 120
	refused 1 "more than 20 processes" --max-processes -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none" --max-processes 20
	[[ ! -e $BATS_TEST_TMPDIR/none ]]
	check_target
}

@test "processes that share memory, descriptors, directories or signal actions are refused by name" {
	local what word
	while read -r what word; do
		start tree share "$what"
		check_target
		refused 1 "$PID" "($word)" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none"
		check_target
		end_tree
	done <<-'END'
		vm CLONE_VM
		files CLONE_FILES
		fs CLONE_FS
		sighand CLONE_VM
	END
}

@test "a tree that cannot be restored: nobody is left of it, helpers and orphans neither" {
	start tree build 'R(S(()X)W)(S(G()()X)WX)W(X)(()S)'
	dump_ok
	mv "$HOME_DIR" "$HOME_DIR.away"
	refused 1 "working directory" "$HOME_DIR" -- restore -D "$IMG" -d
	none_left() { [[ ! $(marked) ]]; }
	eventually none_left
	mv "$HOME_DIR.away" "$HOME_DIR"
	restore_ok
	check_target
}

@test "a session of its own or --shell-job" {
	start tree build '()'
	local session pid=$PID
	PID=$(<"/proc/$PID/task/$PID/children")
	PID=${PID% }
	refused 1 "session $pid" --shell-job -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/none"
	is_alive "$PID"
	dump_ok -R -j
	kill -KILL "$PID" "$pid"
	gone "$PID"
	refused 1 --shell-job -- restore -D "$IMG" -d
	restore_ok -j
	read -r _ _ _ _ _ session _ <"/proc/$PID/stat"
	[[ $session != "$PID" ]] || fail "it leads a session"
	end_target
}
