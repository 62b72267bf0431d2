/*
 * Runs a command as its subreaper, so that whatever it leaves behind is reaped as soon as it ends: a test that waits
 * for a pid to be free need not know who its parent has become.
 *
 *     reaper CMD ARGS…             runs CMD, exits with its status (128 + N after signal N)
 *     reaper -b OUTFILE CMD ARGS…  starts CMD in a session of its own, input /dev/null, output appended to OUTFILE;
 *                                  prints its pid and returns at once
 *     reaper -w PID                waits (at most 60 s) until PID is gone and reaped, so that its number is free
 *
 * Either way the process that reaps stays behind, holding no descriptor, until it has no child left. No command
 * inherits a descriptor above 2: test runners keep theirs open and wait for their end.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the reaping process tells the one that the shell waits for. */
struct news {
	pid_t pid;  /* of CMD */
	int status; /* its exit status, once it has ended */
};

static void close_from(unsigned int first)
{
	if (first <= 1023 && syscall(SYS_close_range, first, ~0u, 0) < 0)
		err(125, "close_range");
}

static void redirect(const char *outfile)
{
	int in = open("/dev/null", O_RDONLY);
	int out = open(outfile, O_WRONLY | O_APPEND | O_CREAT, 0666);
	if (in < 0 || out < 0)
		err(125, "%s", in < 0 ? "/dev/null" : outfile);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		err(125, "dup2");
	if (setsid() < 0)
		err(125, "setsid");
}

static _Noreturn void run(const char *outfile, char **argv)
{
	if (outfile)
		redirect(outfile);
	close_from(3);
	execvp(argv[0], argv);
	warn("%s", argv[0]);
	_exit(127);
}

static _Noreturn void reap_all(int to_shell, const char *outfile, char **argv)
{
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		err(125, "PR_SET_CHILD_SUBREAPER");
	pid_t pid = fork();
	if (pid < 0)
		err(125, "fork");
	if (pid == 0)
		run(outfile, argv);

	/* The shell's pipes must see their end while this process lives on. A session of its own: no terminal's signals. */
	setsid();
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	dup2(to_shell, 3);
	close_from(4);

	struct news news = {.pid = pid};
	if (outfile && write(3, &news, sizeof(news)) != sizeof(news))
		_exit(125);
	for (;;) {
		int status;
		pid_t ended = waitpid(-1, &status, __WALL);
		if (ended < 0 && errno == ECHILD)
			_exit(0);
		if (ended != pid || outfile)
			continue;
		news.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		if (write(3, &news, sizeof(news)) != sizeof(news))
			_exit(125);
		close(3);
	}
}

static int wait_free(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd >= 0 && poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, 60000) == 0)
		return 1;
	/* It has ended. Before 6.9 nothing tells when it is reaped, which only takes its parent to wake up. */
	for (int ms = 0; ms < 60000; ms++) {
		if (kill(pid, 0) < 0 && errno == ESRCH)
			return 0;
		poll(NULL, 0, 1);
	}
	return 1;
}

int main(int argc, char **argv)
{
	const char *outfile = NULL;
	char **cmd = argv + 1;
	if (argc == 3 && !strcmp(argv[1], "-w"))
		return wait_free((pid_t)atoi(argv[2]));
	if (argc > 3 && !strcmp(argv[1], "-b")) {
		outfile = argv[2];
		cmd = argv + 3;
	}
	if (argc < 2 || cmd[0][0] == '-')
		errx(125, "usage: reaper [-b OUTFILE] CMD ARGS… | -w PID");

	int pipefd[2];
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		err(125, "pipe");
	pid_t reaping = fork();
	if (reaping < 0)
		err(125, "fork");
	if (reaping == 0) {
		close(pipefd[0]);
		reap_all(pipefd[1], outfile, cmd);
	}
	close(pipefd[1]);
	struct news news;
	if (read(pipefd[0], &news, sizeof(news)) != sizeof(news))
		errx(125, "the reaper died");
	if (outfile)
		printf("%d\n", news.pid);
	return news.status;
}
