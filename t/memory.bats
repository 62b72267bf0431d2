#!/usr/bin/env bats
# Memory of every sort: comes back as it was, and costs what it holds.

load lib

# Numbers are chosen, and what is mapped is opened, with privilege.
setup() {
	((EUID == 0)) || skip "needs root"
}

@test "memory shared by parent and child, sparse, mapped twice and in part" {
	start memory shared
	round_trip
	# 1 GiB with a few pages in it
	(($(du -sm "$IMG" | cut -f1) < 20)) || fail "the image takes $(du -sh "$IMG")"
}

@test "mappings of /dev/zero, shared and private" {
	start memory zero
	round_trip
}

@test "memfds: seals, sizes, positions, mapped shared and private, or mapped alone" {
	start memory memfd
	round_trip
}

@test "an altered byte of shared memory is found before anything runs" {
	start memory shared
	dump_ok
	local file
	file=$(find "$IMG" -name 'mem.*' -size +100k)
	printf '\125' | dd of="$file" bs=1 seek=20000 conv=notrunc status=none
	refused 1 "${file##*/}" checksum -- restore -D "$IMG" -d
	gone "$PID"
}

# start, or skip where the kernel lacks the thing: the program says so.
start_or_skip() {
	start memory "$1" || skip "$(tail -1 "$OUT")"
}

@test "every flag of a mapping; memory without access; 4 TiB that hold nothing; names" {
	start memory flags
	round_trip
	(($(du -sm "$IMG" | cut -f1) < 20)) || fail "the image takes $(du -sh "$IMG")"
}

@test "guard markers, private and shared, locked too" {
	start_or_skip guard
	round_trip
}

@test "sealed mappings (mseal)" {
	start_or_skip sealed
	round_trip
}

@test "mlockall for what is to come, at once or on fault" {
	start_or_skip lock
	round_trip
	start_or_skip lock-onfault
	round_trip
}

@test "memory policies" {
	start_or_skip policy
	round_trip
}

@test "a file of /dev/shm that two processes map" {
	start_or_skip shm-file
	round_trip || { rm -f "/dev/shm/criu-lite-test.$PID"; false; }
	kill -TERM "$PID"
	gone "$PID"
}

@test "a limit that is below what is in use" {
	start memory limit
	round_trip
}

@test "huge pages: private, shared, memfd" {
	local pool=/proc/sys/vm/nr_hugepages before
	before=$(cat $pool)
	[[ -w $pool ]] && echo $((before + 3)) >$pool || skip "no huge pages can be reserved"
	(($(cat $pool) >= before + 3)) || { echo "$before" >$pool; skip "no huge pages are free"; }
	local status=0
	{ start memory huge && round_trip; } || status=$?
	[[ ${PID:-} ]] && end_target
	echo "$before" >$pool
	((status == 0))
}

@test "System V shared memory keeps its number and key" {
	start memory sysv
	round_trip || { ipcrm -M $((PID << 8)); false; }
	kill -TERM "$PID" # it removes what it has made
	gone "$PID"
}

# Each is refused by name, and the program is unharmed.
@test "refused: aio rings, userfaultfd" {
	local case word
	for case in aio:"asynchronous I/O" uffd:userfaultfd; do
		word=${case#*:}
		start memory "${case%%:*}" || continue
		refused 1 "$PID" "$word" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/no"
		check_target
		end_target
	done
}

@test "an ordinary user's shared memory is dumped by that user" {
	local as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	command -v setpriv >/dev/null || skip "needs setpriv"
	# bats' own directories are root's alone
	chmod o+x "$BATS_RUN_TMPDIR" "${BATS_TEST_TMPDIR%/*}" "$BATS_TEST_TMPDIR"
	"${as[@]}" test -x "$CRIU_LITE" -a -x "$PROGS/memory" -a -x "$BATS_TEST_TMPDIR" || skip "not to be reached by nobody"
	start "$(command -v setpriv)" "${as[@]:1}" "$PROGS/memory" shared
	check_target
	IMG=$BATS_TEST_TMPDIR/img
	mkdir "$IMG"
	chown 65534:65534 "$IMG"
	env "$MARK" "$PROGS/reaper" "${as[@]}" "$CRIU_LITE" dump -t "$PID" -D "$IMG"
	gone "$PID"
	(($(du -sm "$IMG" | cut -f1) < 20)) || fail "the image takes $(du -sh "$IMG")"
	restore_ok
	check_target
}
