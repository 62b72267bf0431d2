/*
 * The command line. Says an error once, and ends with 0 (done), 1 (failed, nothing changed) or 2 (wrong usage).
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "dump.h"
#include "restore.h"
#include "show.h"

static const char usage_text[] =
	"usage: criu-lite dump -t PID -D DIR [options]   write a process and all below it to DIR\n"
	"       criu-lite restore -D DIR [options]       bring it back\n"
	"       criu-lite show DIR [--json]              what an image holds\n"
	"       criu-lite check [-t PID]                 what this kernel and user can do; what stands against dumping PID\n"
	"\n"
	"dump:\n"
	"  -t, --tree PID          the process\n"
	"  -D, --images-dir DIR    where to; made if missing, taken if empty\n"
	"  -R, --leave-running     let it go on afterwards\n"
	"  -s, --leave-stopped     leave it stopped afterwards\n"
	"      --replace           DIR holds an image: exchange it when the new one is whole\n"
	"      --timeout SECONDS   how long to wait for a thread to stop (10)\n"
	"      --tcp-close         TCP connections come back closed\n"
	"      --ext-unix-sk       datagram sockets may be connected to one outside: they are connected to its name again\n"
	"      --file-locks        keep locks on files\n"
	"      --max-processes N   a tree of more is a fork bomb, and refused (32768)\n"
	"restore:\n"
	"  -D, --images-dir DIR    where from\n"
	"  -d, --restore-detached  return when it runs; else wait for it and end as it does\n"
	"      --pidfile FILE      write its number to FILE\n"
	"      --pidns             in a pid namespace of its own: no number need be free\n"
	"      --no-cgroup         leave it in the control groups that restore runs in\n"
	"both:\n"
	"  -j, --shell-job         it belongs to a session that is not its own\n"
	"  -v                      say more\n";

enum {
	OPT_REPLACE = 256,
	OPT_TIMEOUT,
	OPT_PIDFILE,
	OPT_TCP_ESTABLISHED,
	OPT_TCP_CLOSE,
	OPT_EXT_UNIX,
	OPT_FILE_LOCKS,
	OPT_PIDNS,
	OPT_NO_CGROUP,
	OPT_MAX_PROCESSES,
};

static const struct option long_options[] = {
	{"tree", required_argument, NULL, 't'},
	{"images-dir", required_argument, NULL, 'D'},
	{"leave-running", no_argument, NULL, 'R'},
	{"leave-stopped", no_argument, NULL, 's'},
	{"replace", no_argument, NULL, OPT_REPLACE},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"restore-detached", no_argument, NULL, 'd'},
	{"pidfile", required_argument, NULL, OPT_PIDFILE},
	{"shell-job", no_argument, NULL, 'j'},
	{"tcp-established", no_argument, NULL, OPT_TCP_ESTABLISHED},
	{"tcp-close", no_argument, NULL, OPT_TCP_CLOSE},
	{"ext-unix-sk", no_argument, NULL, OPT_EXT_UNIX},
	{"file-locks", no_argument, NULL, OPT_FILE_LOCKS},
	{"pidns", no_argument, NULL, OPT_PIDNS},
	{"no-cgroup", no_argument, NULL, OPT_NO_CGROUP},
	{"max-processes", required_argument, NULL, OPT_MAX_PROCESSES},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int usage(int status)
{
	fputs(usage_text, status ? stderr : stdout);
	return status;
}

/* A whole positive number, or -1. */
static long number(const char *s)
{
	char *end;
	errno = 0;
	long v = strtol(s, &end, 10);
	return errno || *end || end == s || v < 0 || v > 0x7fffffff ? -1 : v;
}

/* The options that only say yes, each with its place in struct options. */
static bool *flag_of(struct options *o, int c)
{
	switch (c) {
	case 'R':
		return &o->leave_running;
	case 's':
		return &o->leave_stopped;
	case 'd':
		return &o->detach;
	case 'j':
		return &o->shell_job;
	case OPT_REPLACE:
		return &o->replace;
	case OPT_TCP_ESTABLISHED:
		return &o->tcp_established;
	case OPT_TCP_CLOSE:
		return &o->tcp_close;
	case OPT_EXT_UNIX:
		return &o->ext_unix_sk;
	case OPT_FILE_LOCKS:
		return &o->file_locks;
	case OPT_PIDNS:
		return &o->pidns;
	case OPT_NO_CGROUP:
		return &o->no_cgroup;
	default:
		return NULL;
	}
}

/* The option's argument as a number from MIN to MAX, or -1: said. */
static long number_between(long min, long max, const char *what)
{
	long v = number(optarg);
	if (v >= min && v <= max)
		return v;
	fprintf(stderr, "criu-lite: %s is no %s (%ld to %ld)\n", optarg, what, min, max);
	return -1;
}

static int parse_one(int c, struct options *o)
{
	bool *flag = flag_of(o, c);
	long n = 0;
	if (flag) {
		*flag = true;
		return 0;
	}
	switch (c) {
	case 't':
		o->pid = n = number_between(0, 0x7fffffff, "process's number");
		break;
	case 'D':
		o->dir = optarg;
		break;
	case 'v':
		verbosity++;
		break;
	case OPT_TIMEOUT:
		n = number_between(0, 86400, "number of seconds");
		o->timeout_ms = n * 1000;
		break;
	case OPT_PIDFILE:
		o->pidfile = optarg;
		break;
	case OPT_MAX_PROCESSES:
		o->max_processes = n = number_between(1, 0x7fffffff, "number of processes");
		break;
	case 'h':
		exit(usage(0));
	default:
		return usage(2);
	}
	return n < 0 ? 2 : 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	int c;
	while ((c = getopt_long(argc, argv, "t:D:Rsdjvh", long_options, NULL)) >= 0) {
		int wrong = parse_one(c, o);
		if (wrong)
			return wrong;
	}
	if (optind < argc) {
		fprintf(stderr, "criu-lite: %s: no argument is expected here\n", argv[optind]);
		return 2;
	}
	return 0;
}

static int say_error(const char *command)
{
	fprintf(stderr, "criu-lite: %s: %s\n", command, the_error.text);
	return 1;
}

static int missing(const char *command, const char *what)
{
	fprintf(stderr, "criu-lite: %s: %s is needed; see criu-lite --help\n", command, what);
	return 2;
}

static int main_dump(int argc, char **argv)
{
	struct options o = {.timeout_ms = 10000, .max_processes = 32768};
	int wrong = parse(argc, argv, &o);
	if (wrong)
		return wrong;
	if (!o.pid || !o.dir)
		return missing("dump", o.pid ? "-D DIR" : "-t PID");
	return dump_tree(&o) ? say_error("dump") : 0;
}

/* As the program ended, so do we. */
static int end_as(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	int sig = WTERMSIG(status);
	signal(sig, SIG_DFL);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	return 128 + sig;
}

static int main_restore(int argc, char **argv)
{
	struct options o = {.timeout_ms = 10000};
	int status = 0, wrong = parse(argc, argv, &o);
	if (wrong)
		return wrong;
	if (!o.dir)
		return missing("restore", "-D DIR");
	if (restore_tree(&o, &status))
		return say_error("restore");
	return o.detach ? 0 : end_as(status);
}

static int main_show(int argc, char **argv)
{
	int ret = cmd_show(argc, argv);
	return ret < 0 ? say_error("show") : ret;
}

static int main_check(int argc, char **argv)
{
	struct options o = {0};
	int wrong = parse(argc, argv, &o);
	if (wrong)
		return wrong;
	int ret = o.pid ? check_tree(o.pid) : check_system();
	return ret < 0 ? say_error("check") : ret;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {{"dump", main_dump}, {"restore", main_restore}, {"show", main_show}, {"check", main_check}};

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a write says so itself */
	if (argc < 2)
		return usage(2);
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return usage(0);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "criu-lite: there is no command %s\n", argv[1]);
	return usage(2);
}
