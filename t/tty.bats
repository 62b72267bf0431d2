#!/usr/bin/env bats
# Terminals: with both ends in the tree, and the one that a program was started in.

load lib

@test "a pseudo terminal with its session survives, and goes on under -R" {
	start tty
	dump_ok -R
	check_target
	dump_ok
	restore_ok
	check_target
	dump_ok
	restore_ok
	check_target
}

@test "... in packet mode" {
	start tty packet
	dump_ok
	restore_ok
	check_target
}

# Runs a program in a terminal of its own, dumps it there, restores it in another.
@test "a program from a terminal needs --shell-job, and gets the terminal of restore" {
	"$(python)" - "$CRIU_LITE" "$PROGS/reaper" "$BATS_TEST_TMPDIR/img" <<-'PYTHON'
		import os, pty, select, subprocess, sys, time
		tool, reaper, image = sys.argv[1:]

		def in_terminal(command):
		    pid, master = pty.fork()
		    if pid == 0:
		        os.closerange(3, 1024)
		        os.execvp(command[0], command)
		    return pid, master

		def read_until(master, what):
		    got = b""
		    until = time.time() + 60
		    while what not in got:
		        assert time.time() < until, got
		        if select.select([master], [], [], 1)[0]:
		            got += os.read(master, 4096)
		    return got

		program = "import os\nprint('begin', os.getpid(), flush=True)\nn = 0\nwhile True:\n    n += 1\n    print(input(), n, flush=True)\n"
		shell, master = in_terminal(["sh", "-c", '"$0" -c "$1"; echo ended', sys.executable, program])
		line = read_until(master, b"\n")
		while line.count(b"\n") < 1 or b"begin" not in line:
		    line += read_until(master, b"\n")
		pid = line.split()[1].decode()
		os.write(master, b"one\n")
		read_until(master, b"one 1")

		refused = subprocess.run([tool, "dump", "-t", pid, "-D", image], capture_output=True, text=True)
		assert refused.returncode == 1 and "--shell-job" in refused.stderr, refused
		os.write(master, b"two\n")
		read_until(master, b"two 2")
		subprocess.run([tool, "dump", "-j", "-t", pid, "-D", image], check=True)
		read_until(master, b"ended")
		os.waitpid(shell, 0)

		restore, other = in_terminal([tool, "restore", "-j", "-D", image])
		os.write(other, b"three\n")
		read_until(other, b"three 3")

		os.write(other, b"\x04")  # end of file: a SIGINT may come just before Python waits, and is then not seen
		_, status = os.waitpid(restore, 0)
		assert status != 0, status
	PYTHON
}
