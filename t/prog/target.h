/*
 * What the programs that tests dump have in common.
 *
 * A target sets itself up, prints `ready`, and waits for signals: at SIGUSR1 it checks everything it knows about
 * itself and prints `ok N` (N counts from 1) or `FAIL: why`; SIGTERM ends it, with exit status $TARGET_STATUS or 0.
 * Its output is a regular file. Everything here works without allocating, so that checking changes nothing.
 */
#ifndef TARGET_H
#define TARGET_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

static inline void say(const char *format, ...)
{
	char line[1024];
	va_list ap;
	va_start(ap, format);
	int len = vsnprintf(line, sizeof(line) - 1, format, ap);
	va_end(ap);
	if (len > (int)sizeof(line) - 2)
		len = (int)sizeof(line) - 2;
	line[len++] = '\n';
	if (write(1, line, (size_t)len) != len)
		_exit(120);
}

static inline _Noreturn void fatal(const char *what)
{
	say("FAIL: setting up: %s: %s", what, strerror(errno));
	_exit(121);
}

/* Why a check failed: the first reason counts. Always returns -1. */
static char target_why[512];
__attribute__((format(printf, 1, 2))) static inline int wrong(const char *format, ...)
{
	static int taken;
	if (__atomic_exchange_n(&taken, 1, __ATOMIC_SEQ_CST))
		return -1;
	char text[sizeof(target_why)];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	memcpy(target_why + 1, text + 1, sizeof(text) - 1);
	__atomic_store_n(&target_why[0], text[0], __ATOMIC_RELEASE); /* read by other threads: complete or empty */
	return -1;
}

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec ts;
	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static inline void pause_ms(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	while (nanosleep(&ts, &ts) < 0)
		;
}

/* To be called before threads are made: they inherit the mask. */
static inline void target_block_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		fatal("sigprocmask");
}

/* Answers signals until SIGTERM; returns the exit status to end with. */
static inline int target_loop(int (*check)(void))
{
	const char *status = getenv("TARGET_STATUS");
	unsigned int n = 0;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	say("ready");
	for (;;) {
		int sig = sigwaitinfo(&set, NULL);
		if (sig == SIGTERM)
			return status ? atoi(status) : 0;
		if (sig < 0 && errno != EINTR) /* EINTR: a tracer looked at us (see ptrace(2), BUGS) */
			wrong("sigwaitinfo: %s", strerror(errno));
		if (sig < 0 && errno == EINTR)
			continue;
		if (check() == 0 && !target_why[0])
			say("ok %u", ++n);
		else
			say("FAIL: %s", target_why[0] ? target_why : "no reason was given");
	}
}

/* Reads a whole file into buf and ends it with NUL. */
static inline ssize_t slurp(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	size_t len = 0;
	ssize_t n;
	while (len < size - 1 && (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += (size_t)n;
	close(fd);
	buf[len] = 0;
	return (ssize_t)len;
}

/*
 * What the kernel says that this process consists of: mappings, descriptors, threads, children. Taken when ready;
 * compared at each check.
 */
struct mapping {
	unsigned long start, end, offset, inode;
	unsigned int major, minor;
	char perms[5];
	char name[139];
};
struct state {
	unsigned int n_maps, n_fds, n_tasks;
	struct mapping map[4096];
	struct {
		unsigned int fd;
		char link[124];
	} fd[1024];
	struct {
		unsigned int tid;
		char comm[20];
	} task[2048];
};
static struct state state_ready, state_now;
static char state_text[1 << 20];

/* What was one mapping to the kernel may be two after a restore, and the reverse: neighbours that are alike are one. */
static inline int joins(const struct mapping *a, const struct mapping *b)
{
	if (a->end != b->start || strcmp(a->perms, b->perms) || strcmp(a->name, b->name) || a->inode != b->inode)
		return 0;
	return !a->inode || a->offset + (a->end - a->start) == b->offset;
}

static inline int take_maps(struct state *s)
{
	if (slurp("/proc/self/maps", state_text, sizeof(state_text)) <= 0)
		return wrong("/proc/self/maps: %s", strerror(errno));
	s->n_maps = 0;
	for (char *line = state_text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		struct mapping m = {0};
		int name = 0;
		if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu %n", &m.start, &m.end, m.perms, &m.offset, &m.major, &m.minor,
			   &m.inode, &name) < 7)
			return wrong("cannot read this line of maps: %s", line);
		snprintf(m.name, sizeof(m.name), "%s", line + name);
		/* The stack grows, the kernel's own pages have another size on another kernel. */
		if (!strncmp(m.name, "[vvar", 5) || !strcmp(m.name, "[vsyscall]"))
			continue;
		if (!strcmp(m.name, "[stack]"))
			m.start = 0;
		if (!strcmp(m.name, "[vdso]") || !strcmp(m.name, "[heap]"))
			m.end = 0;
		if (s->n_maps && joins(&s->map[s->n_maps - 1], &m)) {
			s->map[s->n_maps - 1].end = m.end;
			continue;
		}
		if (s->n_maps == sizeof(s->map) / sizeof(s->map[0]))
			return wrong("more mappings than this test can hold");
		s->map[s->n_maps++] = m;
	}
	return 0;
}

/* Calls each(s, number) for every entry of a directory of numbers but `except`. */
static inline int each_number(struct state *s, const char *path, int (*each)(struct state *, unsigned int))
{
	static char buf[65536] __attribute__((aligned(8)));
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return wrong("%s: %s", path, strerror(errno));
	int result = 0;
	long n;
	while (!result && (n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n && !result; at += *(unsigned short *)(buf + at + 16)) {
			const char *name = buf + at + 19;
			unsigned int number = (unsigned int)strtoul(name, NULL, 10);
			if (name[0] != '.' && !(number == (unsigned int)dir && !strcmp(path, "/proc/self/fd")))
				result = each(s, number);
		}
	close(dir);
	return result;
}

static inline int take_fd(struct state *s, unsigned int fd)
{
	char path[64];
	if (s->n_fds == sizeof(s->fd) / sizeof(s->fd[0]))
		return wrong("more descriptors than this test can hold");
	snprintf(path, sizeof(path), "/proc/self/fd/%u", fd);
	memset(&s->fd[s->n_fds], 0, sizeof(s->fd[0]));
	s->fd[s->n_fds].fd = fd;
	if (readlink(path, s->fd[s->n_fds].link, sizeof(s->fd[0].link) - 1) < 0)
		return wrong("%s: %s", path, strerror(errno));
	s->n_fds++;
	return 0;
}

static inline int take_task(struct state *s, unsigned int tid)
{
	char path[64];
	if (s->n_tasks == sizeof(s->task) / sizeof(s->task[0]))
		return wrong("more threads than this test can hold");
	snprintf(path, sizeof(path), "/proc/self/task/%u/comm", tid);
	memset(&s->task[s->n_tasks], 0, sizeof(s->task[0]));
	s->task[s->n_tasks].tid = tid;
	if (slurp(path, s->task[s->n_tasks].comm, sizeof(s->task[0].comm)) < 0)
		snprintf(s->task[s->n_tasks].comm, sizeof(s->task[0].comm), "(gone)");
	s->n_tasks++;
	return 0;
}

static inline int state_take(struct state *s)
{
	s->n_fds = s->n_tasks = 0;
	return take_maps(s) || each_number(s, "/proc/self/fd", take_fd) || each_number(s, "/proc/self/task", take_task) ? -1 : 0;
}

/* Says in text what differs, 0: nothing. Both sides list things in the kernel's order, by number. */
static inline int state_differs(const struct state *a, const struct state *b, char *text, size_t size)
{
	for (unsigned int i = 0; i < a->n_maps || i < b->n_maps; i++) {
		const struct mapping *x = &a->map[i], *y = &b->map[i];
		if (i < a->n_maps && i < b->n_maps && x->start == y->start && x->end == y->end && x->offset == y->offset &&
		    x->inode == y->inode && x->major == y->major && x->minor == y->minor && !strcmp(x->perms, y->perms) &&
		    !strcmp(x->name, y->name))
			continue;
		static const struct mapping none = {.name = "nothing more"};
		x = i < a->n_maps ? x : &none;
		y = i < b->n_maps ? y : &none;
		snprintf(text, size, "mapping %u was %lx-%lx %s %lx %.100s and is %lx-%lx %s %lx %.100s", i, x->start, x->end,
			 x->perms, x->offset, x->name, y->start, y->end, y->perms, y->offset, y->name);
		return 1;
	}
	for (unsigned int i = 0; i < a->n_fds || i < b->n_fds; i++)
		if (i >= a->n_fds || i >= b->n_fds || memcmp(&a->fd[i], &b->fd[i], sizeof(a->fd[0]))) {
			snprintf(text, size, "descriptors: there were %u and are %u; at %u, was %u %s, is %u %s", a->n_fds,
				 b->n_fds, i, i < a->n_fds ? a->fd[i].fd : 0, i < a->n_fds ? a->fd[i].link : "nothing",
				 i < b->n_fds ? b->fd[i].fd : 0, i < b->n_fds ? b->fd[i].link : "nothing");
			return 1;
		}
	for (unsigned int i = 0; i < a->n_tasks || i < b->n_tasks; i++)
		if (i >= a->n_tasks || i >= b->n_tasks || memcmp(&a->task[i], &b->task[i], sizeof(a->task[0]))) {
			snprintf(text, size, "threads: there were %u and are %u; at %u, was %u %s, is %u %s", a->n_tasks,
				 b->n_tasks, i, i < a->n_tasks ? a->task[i].tid : 0, i < a->n_tasks ? a->task[i].comm : "nothing",
				 i < b->n_tasks ? b->task[i].tid : 0, i < b->n_tasks ? b->task[i].comm : "nothing");
			return 1;
		}
	return 0;
}

/* When a dumper was killed, its parasite is still on its way out for a moment: what differs may settle. */
static inline int state_check(void)
{
	char text[400];
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 20000000000;
	for (;;) {
		if (state_take(&state_now) < 0)
			return -1;
		if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD)
			snprintf(text, sizeof(text), "there is a child that this program did not make");
		else if (!state_differs(&state_ready, &state_now, text, sizeof(text)))
			return 0;
		if (now_ns(CLOCK_MONOTONIC) > end)
			return wrong("%s", text);
		pause_ms(2);
	}
}

#endif
