# What the tests share: starting programs that check themselves, dumping and restoring them, and leaving nothing
# behind. Load it with `load lib`. t/run sets CRIU_LITE (the tool) and PROGS (where t/prog was built).
#
#   start PROG ARGS…    starts a program of t/prog (or any, by absolute path) and waits for its `ready`: PID, OUT, HOME_DIR
#   check_target        has it check itself (see t/prog/target.h) and fails with what it says
#   dump_ok OPTS…       dumps PID to IMG, a new directory; without -R it is gone afterwards
#   restore_ok OPTS…    restores IMG, detached: PID lives again
#   refused STATUS WORDS… -- ARGS…   the tool must fail with one line that has all the words
#   gone PID            waits until a process is gone, its number free
#
# Everything here waits for events or for a state, within a bound that only a hang reaches.

: "${CRIU_LITE:=$(cd "$BATS_TEST_DIRNAME/.." && pwd)/build/criu-lite}"
: "${PROGS:=$(cd "$BATS_TEST_DIRNAME/.." && pwd)/build/t/prog}"

# Every process that a test starts has this in its environment, and so has what the tool restores: none is missed at
# the end, and no stranger is met.
MARK="CRL_TEST=$BATS_TEST_TMPDIR"

STARTED=0
IMAGES=0

fail() {
	printf '%s\n' "$@" >&2
	return 1
}

# Waits 10 ms without a process: a pipe from which nothing comes.
tick() {
	[[ ${TICK_FD:-} ]] || exec {TICK_FD}<> <(:)
	read -r -t 0.01 -u "$TICK_FD" || true
}

# Waits until a command succeeds.
eventually() {
	local deadline=$((SECONDS + 60))
	until "$@"; do
		((SECONDS < deadline)) || fail "in vain, for a minute: $*" || return
		tick
	done
}

gone() {
	"$PROGS/reaper" -w "$1" || fail "pid $1 is still there: $(head -3 "/proc/$1/status" 2>/dev/null)"
}

is_alive() {
	grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"
}

# Python as such, not a wrapper that is a shell script. Debian's own has symbols that gdb can name.
python() {
	local python=/usr/bin/python3
	[[ -x $python ]] || python=$(python3 -c 'import sys; print(sys.executable)')
	readlink -f "$python"
}

# Waits for line $1 (from 0) of OUT, which is then in LINE; fails when the program ends before.
wait_for_line() {
	local deadline=$((SECONDS + 120)) lines
	while ((SECONDS < deadline)); do
		mapfile -t lines <"$OUT"
		((${#lines[@]} > $1)) && { LINE=${lines[$1]}; return; }
		is_alive "$PID" || fail "pid $PID ended; it said: $(tail -3 "$OUT")" || return
		tick
	done
	fail "pid $PID says nothing; its last words: $(tail -3 "$OUT")" "$(head -20 "/proc/$PID/status")"
}

start() {
	local program=$1
	shift
	[[ $program == /* ]] || program=$PROGS/$program
	STARTED=$((STARTED + 1))
	HOME_DIR=$BATS_TEST_TMPDIR/home.$STARTED
	OUT=$BATS_TEST_TMPDIR/out.$STARTED
	mkdir "$HOME_DIR"
	: >"$OUT"
	PID=$(cd "$HOME_DIR" && env "$MARK" "$PROGS/reaper" -b "$OUT" "$program" "$@")
	wait_for_line 0 || return
	[[ $LINE == ready ]] || fail "$program: $LINE"
}

start_simple() {
	start simple "$BATS_TEST_TMPDIR/simple.$((STARTED + 1))"
}

start_python() {
	start "$(python)" "$@" "$BATS_TEST_DIRNAME/prog/program.py" 20000
}

# Its answers are numbered, in its memory: a restored program goes on where the dumped one was.
check_target() {
	local lines
	mapfile -t lines <"$OUT"
	kill -USR1 "$PID" || fail "pid $PID is not there" || return
	wait_for_line "${#lines[@]}" || return
	[[ $LINE == "ok ${#lines[@]}" ]] || fail "pid $PID: $LINE"
}

# The tool, under a reaper and with nothing of bats' open. Its status; what it says is in $STDOUT and $STDERR.
crl() {
	STDOUT=$BATS_TEST_TMPDIR/stdout STDERR=$BATS_TEST_TMPDIR/stderr
	env "$MARK" "$PROGS/reaper" "$CRIU_LITE" "$@" >"$STDOUT" 2>"$STDERR" </dev/null
}

crl_ok() {
	local status=0
	crl "$@" || status=$?
	((status == 0)) && return
	fail "criu-lite $*: status $status" "$(cat "$STDERR")"
}

# What only root can choose or see: a program's old number, for one.
need_root() {
	((EUID == 0)) || skip "needs root: $1"
}

dump_ok() {
	local option running='' status=0
	for option; do
		[[ $option == -R ]] && running=1
	done
	IMAGES=$((IMAGES + 1))
	IMG=$BATS_TEST_TMPDIR/img.$IMAGES
	crl dump -t "$PID" -D "$IMG" "$@" || status=$?
	# A refusal that says so is right where this user is not root.
	((status == 0 || EUID == 0)) || ! grep -qE 'run as root|needs root' "$STDERR" || skip "$(cat "$STDERR")"
	((status == 0)) || fail "criu-lite dump -t $PID $*: status $status" "$(cat "$STDERR")" || return
	[[ -s $IMG/manifest ]] || fail "$IMG has no manifest" || return
	if [[ $running ]]; then
		is_alive "$PID" || fail "pid $PID did not outlive dump -R"
	else
		gone "$PID"
	fi
}

# An ordinary user may not choose pids: restore then makes a namespace, in which the program has its old number, and here
# another. As root it is the same here.
restore_ok() {
	local before=$PID
	crl_ok restore -D "$IMG" -d --pidfile "$BATS_TEST_TMPDIR/restored" "$@" || return
	PID=$(<"$BATS_TEST_TMPDIR/restored")
	((EUID != 0 || PID == before)) || fail "pid $before came back as $PID" || return
	is_alive "$PID" || fail "restore succeeded, but pid $PID is not there"
}

# round_trip OPTION…: dumped, the program goes on unharmed; dumped again it ends and comes back, twice, for what was
# restored must be like what was dumped. The options are dump's.
round_trip() {
	local round
	check_target && dump_ok -R "$@" && check_target || return
	for round in 1 2; do
		rm -r "$IMG"
		dump_ok "$@" && restore_ok && check_target || fail "round $round" || return
	done
}

end_target() {
	kill -KILL "$PID" 2>/dev/null || true # it may be on its way out already
	gone "$PID"
}

# refused STATUS WORD… -- ARGS…: fails as it should, in one line for people: who speaks, and all these words.
refused() {
	local want=$1 words=() status=0 lines word
	shift
	while [[ $1 != -- ]]; do
		words+=("$1")
		shift
	done
	shift
	crl "$@" || status=$?
	mapfile -t lines <"$STDERR"
	((status == want)) || fail "criu-lite $*: status $status instead of $want" "${lines[@]}" || return
	((${#lines[@]} == 1)) || fail "criu-lite $*: ${#lines[@]} lines instead of one:" "${lines[@]}" || return
	[[ ${lines[0]} == "criu-lite: "* ]] || fail "not criu-lite speaks: ${lines[0]}" || return
	[[ ! -s $STDOUT ]] || fail "criu-lite $*: failed, yet wrote to stdout: $(cat "$STDOUT")" || return
	for word in "${words[@]}"; do
		[[ ${lines[0]} == *"$word"* ]] || fail "criu-lite $*: no \"$word\" in: ${lines[0]}" || return
	done
}

# What the test's processes are: pids whose environment has the mark. bats itself has not.
marked() {
	local file pid
	grep -lsFx --null-data -- "$MARK" /proc/[0-9]*/environ | while read -r file; do
		pid=${file#/proc/}
		printf '%s\n' "${pid%/environ}"
	done
}

# Kills what the test has left, and fails when something does not go away: reapers end after their last child.
clean_up() {
	local deadline=$((SECONDS + 60)) pid left comm
	while ((SECONDS < deadline)); do
		left=()
		for pid in $(marked); do
			{ read -r comm <"/proc/$pid/comm"; } 2>/dev/null || continue
			left+=("$pid $comm")
			[[ $comm == reaper ]] || kill -KILL "$pid" 2>/dev/null || true
		done
		((${#left[@]})) || return 0
		tick
	done
	# A child that has lost its environment keeps its reaper: name it.
	for pid in $(marked); do
		left+=("children of $pid: $(cat "/proc/$pid/task/$pid/children")")
	done
	fail "still there:" "${left[@]}"
}

teardown() {
	clean_up
}
