#!/usr/bin/env bats
# What processes share that cannot be carried over is refused by name; control groups are joined again.

load lib

@test "processes that share memory, descriptors, directory or actions are refused by name" {
	local case
	for case in vm:CLONE_VM files:CLONE_FILES fs:CLONE_FS sighand:CLONE_VM; do
		start shares "${case%:*}"
		refused 1 "${case#*:}" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/${case%:*}"
		[[ ! -e $BATS_TEST_TMPDIR/${case%:*} ]]
		check_target
	done
}

@test "a process in another namespace is refused by name" {
	((EUID == 0)) || skip "making a namespace needs root"
	start shares uts
	refused 1 "UTS namespace" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/img"
	check_target
}

@test "a process is put back into its control group" {
	local root group
	root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
	[[ -n $root ]] || skip "no control groups of version 2 here"
	group=$root/criu-lite-test.$$
	mkdir "$group" 2>/dev/null || skip "control groups cannot be made here"
	start shares none
	if ! echo "$PID" >"$group/cgroup.procs" 2>/dev/null; then
		rmdir "$group"
		skip "control groups cannot be joined here"
	fi
	dump_ok
	restore_ok
	check_target
	grep -q "criu-lite-test.$$" "/proc/$PID/cgroup"
	dump_ok
	eventually rmdir "$group"
	refused 1 "--no-cgroup" -- restore -D "$IMG" -d
	restore_ok --no-cgroup
	check_target
}
