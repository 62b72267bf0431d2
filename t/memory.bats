#!/usr/bin/env bats
# Memory of every sort: comes back as it was, and costs what it holds.

load lib

# Twice: what was restored must be like what was dumped.
round_trip() {
	check_target
	dump_ok -R
	check_target
	dump_ok
	restore_ok
	check_target
	rm -r "$IMG"
	dump_ok
	restore_ok
	check_target
	check_target
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
