#!/usr/bin/env bats
# What cannot be done is said beforehand, by name: of the machine and the user (check), of a program (check -t), and by
# dump, which leaves the program as it was.

load lib

start_blocked() {
	start blocked "$@" && return
	grep -q ^skip "$OUT" && skip "$(cat "$OUT")"
	return 1
}

# Both name it, and dump changes nothing.
is_named() {
	local what=$1 word
	shift
	start_blocked "$what"
	local status=0
	crl check -t "$PID" || status=$?
	((status == 1)) || fail "check -t: status $status"
	for word in "$@"; do
		grep -q "^pid $PID .*$word" "$STDOUT" || fail "no $word in: $(cat "$STDOUT")"
	done
	refused 1 "$PID" "$@" -- dump -t "$PID" -D "$BATS_TEST_TMPDIR/img"
	check_target
}

@test "check says yes or no to each thing, and what would help" {
	local status=0
	crl check || status=$?
	((status < 2))
	if grep -vE '^(yes  .+|no   .+: .+)$' "$STDOUT"; then
		fail "these lines are neither"
	fi
	(($(grep -c . "$STDOUT") > 10))
	# All that is needed is there, or what is not is named and not called unnecessary.
	if ((status)); then
		grep '^no ' "$STDOUT" | grep -qv 'not always needed'
	else
		! grep '^no ' "$STDOUT" | grep -v 'not always needed'
	fi
}

@test "check of a user with no rights at all" {
	((EUID == 0)) || skip "needs root"
	local copy=$BATS_TEST_TMPDIR/criu-lite
	cp "$CRIU_LITE" "$copy"
	chmod 755 "$BATS_RUN_TMPDIR" "$BATS_TEST_TMPDIR" "$copy" 2>/dev/null || true
	setpriv --reuid 65534 --regid 65534 --clear-groups "$copy" check >"$BATS_TEST_TMPDIR/out" || true
	[[ -s $BATS_TEST_TMPDIR/out ]] || skip "nobody cannot run it from here"
	grep -q '^no   programs with a seccomp filter: ' "$BATS_TEST_TMPDIR/out"
	grep -q '^no   programs of other users: ' "$BATS_TEST_TMPDIR/out"
}

@test "check -t: nothing stands against a simple program, and it is not touched" {
	start threads 4
	crl_ok check -t "$PID"
	grep -q "$PID" "$STDOUT"
	check_target
}

@test "check -t names all blockers at once" {
	start_blocked io_uring traced
	local status=0
	crl check -t "$PID" || status=$?
	((status == 1))
	grep -q "^pid $PID .*io_uring" "$STDOUT"
	grep -q "^pid $PID .*traced by" "$STDOUT"
	check_target
}

@test "check -t of what is not there" {
	refused 1 "no process 4194303" -- check -t 4194303
}

@test "refused by name: io_uring" {
	is_named io_uring "an io_uring"
}

@test "refused by name: a perf event" {
	is_named perf "a perf event"
}

@test "refused by name: a BPF map" {
	is_named bpf "a BPF map"
}

@test "refused by name: a userfaultfd" {
	is_named userfaultfd "a userfaultfd"
}

@test "refused by name: a FUSE server's connection" {
	is_named fuse "FUSE"
}

@test "refused by name: KVM" {
	is_named kvm "KVM"
}

@test "refused by name: a program that is being traced" {
	is_named traced "being traced by"
}

@test "refused by name: 32-bit code" {
	local dir=$BATS_TEST_TMPDIR
	cat >"$dir/p.s" <<-'S'
		.globl _start
		_start:	mov $4, %eax
			mov $1, %ebx
			mov $text, %ecx
			mov $6, %edx
			int $0x80
		1:	mov $29, %eax
			int $0x80
			jmp 1b
		text:	.ascii "ready\n"
	S
	as --32 -o "$dir/p.o" "$dir/p.s" && ld -m elf_i386 -o "$dir/p" "$dir/p.o" || skip "32-bit code cannot be assembled here"
	local out
	out=$(timeout 1 "$dir/p" || true)
	[[ $out == ready ]] || skip "this kernel runs no 32-bit code"
	start "$dir/p"
	crl check -t "$PID" || true
	grep -q "32-bit" "$STDOUT"
	refused 1 "$PID" 32-bit -- dump -t "$PID" -D "$dir/img"
	is_alive "$PID"
}

@test "an image that needs what this CPU has not is refused by name" {
	start threads 1
	dump_ok -R
	end_target
	python3 "$BATS_TEST_DIRNAME/prog/set-features.py" "$IMG"
	refused 1 "this CPU" "XCR0 0x4" -- restore -D "$IMG" -d
	# It was that bit, not the image: without a change it would have been restored.
	is_alive "$PID" && fail "it was restored" || true
}
