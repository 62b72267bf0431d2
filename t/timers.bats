#!/usr/bin/env bats
# Timers: what was left of them at the dump is left when the program goes on.

load lib

there_and_back() {
	start timers "$1"
	round_trip
}

@test "timers of every kind keep their numbers, clocks, intervals and what is left" {
	there_and_back long
}

@test "timers that run out all the time go on, each to whom it was meant for" {
	there_and_back firing
}

@test "a timer that runs out once does so once: not early, not twice, not never" {
	start timers once
	dump_ok -R
	check_target
	rm -r "$IMG"
	dump_ok
	restore_ok
	check_target
	check_target
	check_target
}

@test "... also when it has run out while nobody was there" {
	start timers once
	dump_ok
	# More than what was left of it.
	local end=$((SECONDS + 5))
	while ((SECONDS < end)); do tick; done
	restore_ok
	check_target
	check_target
	check_target
}

@test "show tells of timers" {
	start timers long
	dump_ok -R
	crl_ok show "$IMG" --json
	grep -q '"itimers"\|itimers' "$STDOUT"
	grep -q value_ns "$STDOUT"
}
