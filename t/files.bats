#!/usr/bin/env bats
# Open and mapped files that are not what their path leads to; and locks on them.

load lib

# Numbers are chosen, and what is mapped is opened, with privilege.
setup() {
	((EUID == 0)) || skip "needs root"
}

@test "removed files: open, mapped, with holes, of several users, their name taken" {
	start files removed
	round_trip
	(($(du -sm "$IMG" | cut -f1) < 20)) || fail "the image takes $(du -sh "$IMG")"
	[[ $(ls "$HOME_DIR") == log ]]
}

@test "a renamed file is found under its new name" {
	start files renamed
	round_trip
}

# Each is refused by name, and the program is unharmed.
@test "refused: a removed directory, a file with another name left" {
	start files directory
	refused 1 "$PID" "directory that was removed" gone -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/no"
	check_target
	start files linked
	refused 1 "$PID" "has 1 others" one -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/no"
	check_target
}

@test "locks: flock, POSIX, OFD, a lease; only with --file-locks" {
	need_root "restore under the old number"
	start files locks
	refused 1 "$PID" lock --file-locks -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/no"
	round_trip --file-locks
	# Somebody else holds one now.
	rm -r "$IMG"
	dump_ok --file-locks
	exec {fd}<"$HOME_DIR/flock"
	flock -s "$fd"
	refused 1 "$PID" lock -- restore -D "$IMG" -d
	exec {fd}<&-
	gone "$PID"
	restore_ok
	check_target
}

@test "who is signalled for a descriptor: owner, signal, O_ASYNC" {
	start files owner
	round_trip
}

@test "a program whose file was removed, or put in its place by another" {
	cp "$PROGS/files" "$BATS_TEST_TMPDIR/program"
	start "$BATS_TEST_TMPDIR/program" removed
	rm "$BATS_TEST_TMPDIR/program"
	round_trip
	[[ $(readlink "/proc/$PID/exe") == "$BATS_TEST_TMPDIR/program (deleted)" ]]
	[[ ! -e $BATS_TEST_TMPDIR/program ]]
	end_target
	cp "$PROGS/files" "$BATS_TEST_TMPDIR/program"
	start "$BATS_TEST_TMPDIR/program" renamed
	cp "$PROGS/memory" "$BATS_TEST_TMPDIR/new"
	mv "$BATS_TEST_TMPDIR/new" "$BATS_TEST_TMPDIR/program"
	round_trip
	cmp "$PROGS/memory" "$BATS_TEST_TMPDIR/program"
}

@test "files seen from another root" {
	start files chroot
	round_trip
}

@test "refused: a program that runs from a memfd" {
	start "$(python)" -c 'import os, sys
fd = os.memfd_create("program", 0)
os.write(fd, open(sys.argv[1], "rb").read())
again = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY)
os.set_inheritable(again, True)
os.close(fd)
os.execve("/proc/self/fd/%d" % again, ["program", "renamed"], os.environ)' "$PROGS/files"
	refused 1 "$PID" "from a memfd" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/no"
	check_target
}
