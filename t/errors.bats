#!/usr/bin/env bats
# What cannot be done is said in one line: what, why, and what to do. Exit status 1, and nothing has changed.

load lib

# Nothing was written where an image would be, and the program is well.
unharmed() {
	[[ ! -e $IMG/manifest ]] || fail "there is an image" || return
	[[ -z $(ls -A "$IMG" 2>/dev/null) ]] || fail "left behind: $(ls -A "$IMG")" || return
	check_target
}

setup() {
	IMG=$BATS_TEST_TMPDIR/img
}

# Runs what follows as nobody, in a directory of nobody's, which needs no way to it: parents may be closed.
as_nobody() {
	if ! command -v setpriv >/dev/null || ((EUID != 0)); then
		skip "needs root, to become nobody"
	fi
	mkdir -p "$BATS_TEST_TMPDIR/nobody"
	cp "$CRIU_LITE" "$BATS_TEST_TMPDIR/nobody/criu-lite"
	chown -R nobody "$BATS_TEST_TMPDIR/nobody"
	cat >"$BATS_TEST_TMPDIR/as-nobody" <<-SCRIPT
		#!/bin/bash
		cd "$BATS_TEST_TMPDIR/nobody" &&
		exec setpriv --reuid nobody --regid nogroup --clear-groups ./criu-lite "\$@"
	SCRIPT
	chmod +x "$BATS_TEST_TMPDIR/as-nobody"
	CRIU_LITE=$BATS_TEST_TMPDIR/as-nobody
}

@test "wrong usage: exit status 2, and how it is used" {
	local status
	for arguments in "" "frobnicate" "dump" "dump -t" "dump -t 1" "dump -D $IMG" "dump -t zero -D $IMG" "dump -t -5 -D $IMG" \
		"dump -t 0 -D $IMG" "dump -t 99999999999999 -D $IMG" "dump -t 1x -D $IMG" "restore" "restore -D" "show" \
		"dump -t 1 -D $IMG --no-such-option" "dump -t 1 -D $IMG superfluous"; do
		status=0
		# shellcheck disable=SC2086 # several words
		crl $arguments || status=$?
		((status == 2)) || fail "criu-lite $arguments: status $status instead of 2"
		[[ -s $STDERR ]] || fail "criu-lite $arguments: says nothing"
	done
	[[ ! -e $IMG ]]
}

@test "no such pid" {
	start threads 1
	end_target
	refused 1 "no process $PID" -- dump -t "$PID" -D "$IMG"
	[[ ! -e $IMG ]]
}

@test "a thread's number is not a process" {
	start threads 2
	local tid
	tid=$(cd "/proc/$PID/task" && printf '%s\n' * | grep -vx "$PID" | head -1)
	refused 1 "$tid" "$PID" thread -- dump -t "$tid" -D "$IMG"
	unharmed
}

@test "a process of somebody else" {
	start threads 2
	as_nobody
	refused 1 "$PID" -- dump -t "$PID" -D img
	[[ ! -e $BATS_TEST_TMPDIR/nobody/img ]]
	check_target
}

@test "a kernel thread" {
	[[ $(cat /proc/2/comm 2>/dev/null) == kthreadd ]] || skip "no kernel thread is visible"
	refused 1 "pid 2" kernel -- dump -t 2 -D "$IMG"
	[[ ! -e $IMG ]]
}

@test "a zombie" {
	local zombie
	OUT=$BATS_TEST_TMPDIR/zombie
	# It ends once its parent is one that asks for nobody: a shell might.
	# shellcheck disable=SC2016 # that shell's $$ and $!
	PID=$(env "$MARK" "$PROGS/reaper" -b "$OUT" sh -c '(until grep -q sleep /proc/$$/comm; do :; done) & echo $!; exec sleep 600')
	eventually test -s "$OUT"
	zombie=$(cat "$OUT")
	eventually grep -q '^State:.Z' "/proc/$zombie/status"
	refused 1 "$zombie" zombie -- dump -t "$zombie" -D "$IMG"
	[[ ! -e $IMG ]]
}

@test "itself" {
	local tool=$CRIU_LITE
	CRIU_LITE=$BATS_TEST_TMPDIR/itself
	# shellcheck disable=SC2016 # that shell's $$
	printf '#!/bin/sh\nexec "%s" dump -t $$ -D "%s"\n' "$tool" "$IMG" >"$CRIU_LITE"
	chmod +x "$CRIU_LITE"
	refused 1 itself -- dump
	[[ ! -e $IMG ]]
}

@test "a process that waits for criu-lite: its parent" {
	local tool=$CRIU_LITE
	CRIU_LITE=$BATS_TEST_TMPDIR/parent
	# shellcheck disable=SC2016 # that shell's $$
	printf '#!/bin/sh\n"%s" dump -R -t $$ -D "%s"\nexit $?\n' "$tool" "$IMG" >"$CRIU_LITE"
	chmod +x "$CRIU_LITE"
	# Whether it can be done or is refused: it ends, and says which.
	local status=0
	timeout 60 "$CRIU_LITE" </dev/null >"$BATS_TEST_TMPDIR/said" 2>&1 || status=$?
	((status == 0 || status == 1)) || fail "status $status: $(cat "$BATS_TEST_TMPDIR/said")"
	((status == 0)) || (($(wc -l <"$BATS_TEST_TMPDIR/said") == 1))
}

@test "a directory that is not empty" {
	start threads 2
	mkdir "$IMG"
	echo precious >"$IMG/file"
	refused 1 "$IMG" "not empty" -- dump -t "$PID" -D "$IMG"
	[[ $(ls -A "$IMG") == file && $(cat "$IMG/file") == precious ]]
	check_target
}

@test "a directory that holds an image: the old image stays" {
	start threads 2
	dump_ok -R
	local before
	before=$(cd "$IMG" && sha256sum ./*)
	refused 1 "$IMG" image -- dump -t "$PID" -D "$IMG"
	[[ $(cd "$IMG" && sha256sum ./*) == "$before" ]]
	check_target
}

@test "a file where the directory should be" {
	start threads 2
	echo precious >"$IMG"
	refused 1 "$IMG" "irectory" -- dump -t "$PID" -D "$IMG"
	[[ $(cat "$IMG") == precious ]]
	check_target
}

@test "a missing directory is made; one whose parent is missing is not" {
	start threads 2
	refused 1 "$IMG/a/b" "does not exist" -- dump -t "$PID" -D "$IMG/a/b"
	[[ ! -e $IMG ]]
	check_target
	crl_ok dump -R -t "$PID" -D "$IMG"
	[[ -s $IMG/manifest ]]
}

@test "a directory that cannot be written" {
	start threads 2
	refused 1 /proc/self/img -- dump -t "$PID" -D /proc/self/img
	check_target
	as_nobody
	mkdir "$IMG"
	chmod 755 "$IMG"
	ln -s "$IMG" "$BATS_TEST_TMPDIR/nobody/img"
	refused 1 -- dump -t "$PID" -D img
	unharmed
}

@test "a full disk" {
	unshare -m true 2>/dev/null || skip "no mount namespace may be made"
	start threads 4
	mkdir "$IMG"
	local tool=$CRIU_LITE size
	CRIU_LITE=$BATS_TEST_TMPDIR/full
	for size in 4k 16k 64k 256k; do
		cat >"$CRIU_LITE" <<-SCRIPT
			#!/bin/bash
			# The disk is seen here alone; what is left on it is told, and vanishes with it.
			exec unshare -m bash -c 'mount -t tmpfs -o size=$size none "$IMG" && "$tool" "\$@"; s=\$?
			ls -A "$IMG" >"$BATS_TEST_TMPDIR/left"; exit \$s' - "\$@"
		SCRIPT
		chmod +x "$CRIU_LITE"
		refused 1 "space" -- dump -t "$PID" -D "$IMG"
		[[ ! -s $BATS_TEST_TMPDIR/left ]] || fail "left on the full disk: $(cat "$BATS_TEST_TMPDIR/left")"
		check_target
	done
}

@test "a limit on file size, of the tool or of the program" {
	start threads 4
	local tool=$CRIU_LITE
	CRIU_LITE=$BATS_TEST_TMPDIR/limited
	printf '#!/bin/bash\nulimit -f 16\nexec "%s" "$@"\n' "$tool" >"$CRIU_LITE"
	chmod +x "$CRIU_LITE"
	local status=0
	crl dump -t "$PID" -D "$IMG" || status=$?
	# No signal may end it half way.
	((status == 1)) || fail "status $status: $(cat "$STDERR")"
	unharmed
	CRIU_LITE=$tool
	# The parasite writes under the program's limit: it must not be the program that gets SIGXFSZ.
	prlimit --pid "$PID" --fsize=4096:4096
	status=0
	crl dump -R -t "$PID" -D "$IMG" || status=$?
	((status <= 1)) || fail "status $status: $(cat "$STDERR")"
	check_target
}

@test "a pipe that somebody else holds" {
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	OUT=$BATS_TEST_TMPDIR/out
	# shellcheck disable=SC2016 # that shell's arguments
	PID=$(env "$MARK" "$PROGS/reaper" -b "$OUT" sh -c 'sleep 600 | exec "$1" 2' - "$PROGS/threads")
	eventually test -s "$OUT"
	local shell=$PID child
	for child in $(cat "/proc/$shell/task/$shell/children") $shell; do
		[[ $(cat "/proc/$child/comm") == threads ]] && PID=$child
	done
	refused 1 "$PID" "fd 0" pipe -- dump -j -t "$PID" -D "$IMG"
	unharmed
}

@test "a terminal" {
	command -v script >/dev/null || skip "script is not installed"
	OUT=$BATS_TEST_TMPDIR/out
	: >"$OUT"
	env "$MARK" "$PROGS/reaper" -b /dev/null script -qc "echo \$\$ >'$BATS_TEST_TMPDIR/pid'; exec '$PROGS/threads' 2 >>'$OUT'" /dev/null
	eventually grep -q ready "$OUT"
	PID=$(cat "$BATS_TEST_TMPDIR/pid")
	refused 1 "$PID" terminal -- dump -t "$PID" -D "$IMG"
	unharmed
}

@test "an open file that was deleted or has changed" {
	need_root "a link in another user namespace's /proc"
	start threads 2
	mv "$OUT" "$OUT.moved"
	cp -p "$OUT.moved" "$OUT"
	# Another file under the name: moved, it is found. Removed, it travels in the image (see files.bats).
	dump_ok -R
	rm "$OUT.moved"
	OUT=/proc/$PID/fd/1
	dump_ok -R
	end_target
	restore_ok
	[[ $(readlink "$OUT") == *.moved\ \(deleted\) ]]
}

@test "restore: no image, none at all" {
	refused 1 "$IMG" "o such" -- restore -D "$IMG" -d
	mkdir "$IMG"
	refused 1 "$IMG" "not an image" -- restore -D "$IMG" -d
	refused 1 "$IMG" "not an image" -- show "$IMG"
	echo "something else" >"$IMG/manifest"
	refused 1 manifest -- restore -D "$IMG" -d
	: >"$IMG/manifest"
	refused 1 manifest -- restore -D "$IMG" -d
	[[ $(ls -A "$IMG") == manifest ]]
}

# Every way of damage is tried on a copy of one good image, which restores at the end.
damaged() {
	refused 1 "$1" -- restore -D "$BATS_TEST_TMPDIR/bad" -d || fail "... after damage: $2" || return
	gone "$PID"
}

fresh_copy() {
	rm -rf "$BATS_TEST_TMPDIR/bad"
	cp -a "$IMG" "$BATS_TEST_TMPDIR/bad"
}

@test "restore: an image that is cut short, or lacks a file" {
	start threads 2
	dump_ok
	local file name size
	for file in "$IMG"/*; do
		name=${file##*/}
		size=$(stat -c %s "$file")
		for size in 0 1 63 $((size / 2)) $((size - 1)); do
			fresh_copy
			truncate -s "$size" "$BATS_TEST_TMPDIR/bad/$name"
			damaged "$name" "$name cut to $size bytes"
		done
		fresh_copy
		echo superfluous >>"$BATS_TEST_TMPDIR/bad/$name"
		damaged "$name" "$name is longer"
		fresh_copy
		rm "$BATS_TEST_TMPDIR/bad/$name"
		if [[ $name == manifest ]]; then
			damaged "not an image" "no $name"
		else
			damaged "$name" "no $name"
		fi
	done
	restore_ok
	check_target
}

@test "restore: an image with one altered bit, wherever" {
	start threads 2
	dump_ok
	local file name size at i
	for file in "$IMG"/*; do
		name=${file##*/}
		size=$(stat -c %s "$file")
		# First and last byte, and places between that are not all multiples of anything.
		for ((i = 0; i < 40; i++)); do
			at=$((i * (size - 1) / 39))
			fresh_copy
			python3 - "$BATS_TEST_TMPDIR/bad/$name" "$at" "$((i % 8))" <<-'PYTHON'
				import sys
				with open(sys.argv[1], "r+b") as f:
				    f.seek(int(sys.argv[2]))
				    byte = f.read(1)[0]
				    f.seek(int(sys.argv[2]))
				    f.write(bytes([byte ^ 1 << int(sys.argv[3])]))
			PYTHON
			damaged "${name%%.*}" "bit $((i % 8)) of byte $at of $name"
		done
	done
	restore_ok
	check_target
}

# A manifest that says something else, with a right sum.
rewrite_manifest() {
	python3 - "$BATS_TEST_TMPDIR/bad/manifest" "$1" "$2" <<-'PYTHON'
		import re, sys
		path, old, new = sys.argv[1:]
		text = open(path).read()
		body, end = text[:text.rindex("sum ")], "\n"
		changed = re.sub(old, new, body, count=1, flags=re.M)
		assert changed != body, (old, body)
		crc = 0xffffffff
		for byte in changed.encode():
		    crc ^= byte
		    for _ in range(8):
		        crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
		open(path, "w").write(f"{changed}sum {crc ^ 0xffffffff:08x}\n")
	PYTHON
}

@test "restore: an image of another machine or version" {
	start threads 2
	dump_ok
	fresh_copy
	rewrite_manifest '^kernel .*' 'kernel 9.9.9'
	crl_ok show "$BATS_TEST_TMPDIR/bad" # the sum was made right
	fresh_copy
	rewrite_manifest '^machine .*' 'machine aarch64'
	damaged aarch64 "another machine"
	fresh_copy
	rewrite_manifest '^criu-lite image 1$' 'criu-lite image 2'
	damaged version "another version"
	fresh_copy
	rewrite_manifest '^file core' 'file ../core'
	damaged manifest "a file outside the image"
	restore_ok
	check_target
}

@test "restore: the program's file has changed or is gone" {
	local program=$BATS_TEST_TMPDIR/program
	cp "$PROGS/threads" "$program"
	start "$program" 2
	dump_ok
	mv "$program" "$program.kept"
	refused 1 "$program" -- restore -D "$IMG" -d
	gone "$PID"
	cp "$program.kept" "$program"
	echo >>"$program"
	refused 1 "$program" "changed" -- restore -D "$IMG" -d
	gone "$PID"
	# Same length, another time: it may be another build.
	cp "$program.kept" "$program"
	refused 1 "$program" "changed" -- restore -D "$IMG" -d
	gone "$PID"
	mv "$program.kept" "$program"
	restore_ok
	check_target
}

@test "restore: an open file has changed or is gone" {
	start_simple
	dump_ok
	local file=$BATS_TEST_TMPDIR/simple.1/private
	mv "$file" "$file.kept"
	refused 1 "$file" -- restore -D "$IMG" -d
	gone "$PID"
	cp "$file.kept" "$file"
	echo longer >>"$file"
	refused 1 "$file" "changed" -- restore -D "$IMG" -d
	gone "$PID"
	mv "$file.kept" "$file"
	restore_ok
	check_target
}

@test "restore: its directory is gone" {
	start_simple
	dump_ok
	mv "$BATS_TEST_TMPDIR/simple.1" "$BATS_TEST_TMPDIR/elsewhere"
	refused 1 "$BATS_TEST_TMPDIR/simple.1" -- restore -D "$IMG" -d
	gone "$PID"
	mv "$BATS_TEST_TMPDIR/elsewhere" "$BATS_TEST_TMPDIR/simple.1"
	restore_ok
	check_target
}

@test "restore: the pid is in use" {
	need_root "restore under the old number"
	start threads 2
	dump_ok -R
	refused 1 "$PID" taken -- restore -D "$IMG" -d
	check_target
}

@test "restore: a pidfile that cannot be written" {
	start threads 2
	dump_ok
	refused 1 "$BATS_TEST_TMPDIR/no/pid" -- restore -D "$IMG" -d --pidfile "$BATS_TEST_TMPDIR/no/pid"
	gone "$PID"
	restore_ok
	check_target
}

@test "a program that somebody else traces" {
	command -v gdb >/dev/null || skip "gdb is not installed"
	start threads 2
	env "$MARK" "$PROGS/reaper" -b /dev/null gdb -nx -batch -p "$PID" -ex 'shell sleep 600'
	eventually grep -q '^TracerPid:.*[1-9]' "/proc/$PID/status"
	local tracer
	tracer=$(awk '/^TracerPid:/ { print $2 }' "/proc/$PID/status")
	refused 1 "$PID" "$tracer" -- dump -t "$PID" -D "$IMG"
	[[ ! -e $IMG/manifest ]]
	kill -KILL "$tracer"
	check_target
}
