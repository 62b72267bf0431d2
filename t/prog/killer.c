/*
 * Kills a command at an exact moment of its life.
 *
 *     killer N CMD ARGS…   runs CMD and SIGKILLs it at its Nth system-call stop (entry and exit both count, from
 *                          the end of its execve on); N = 0: only counts
 *
 * The last line on stdout is `STOPS killed` or `STOPS ended STATUS`. CMD's own children and threads are not followed
 * (threads die with it). When killer ends, CMD is dead and reaped, unless something else is still tracing it.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static int wait_for(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, __WALL) < 0)
		if (errno != EINTR)
			err(125, "waitpid");
	return status;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		errx(125, "usage: killer N CMD ARGS…");
	unsigned long n = strtoul(argv[1], NULL, 10), stops = 0;

	int go[2];
	if (pipe(go) < 0)
		err(125, "pipe");
	pid_t pid = fork();
	if (pid < 0)
		err(125, "fork");
	if (pid == 0) {
		char byte;
		close(go[1]);
		if (read(go[0], &byte, 1) != 1)
			_exit(125);
		close(go[0]);
		execvp(argv[2], argv + 2);
		warn("%s", argv[2]);
		_exit(127);
	}
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
		err(125, "PTRACE_SEIZE");
	if (write(go[1], "", 1) != 1)
		err(125, "write");
	close(go[0]);
	close(go[1]);

	int started = 0;
	for (;;) {
		int status = wait_for(pid);
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			printf("%lu ended %d\n", stops, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
			return 0;
		}
		int sig = WSTOPSIG(status), event = status >> 16, deliver = 0;
		if (event == PTRACE_EVENT_EXEC)
			started = 1;
		else if (sig == (SIGTRAP | 0x80))
			stops++;
		else if (!event)
			deliver = sig;
		if (n && stops == n) {
			kill(pid, SIGKILL);
			while (status = wait_for(pid), !WIFEXITED(status) && !WIFSIGNALED(status))
				;
			printf("%lu killed\n", stops);
			return 0;
		}
		if (ptrace(started ? PTRACE_SYSCALL : PTRACE_CONT, pid, 0, deliver) < 0 && errno != ESRCH)
			err(125, "PTRACE_SYSCALL");
	}
}
