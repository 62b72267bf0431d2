/*
 * An epoll with one entry of every kind, a nested one, and a child that shares it.
 */
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "target.h"

enum { PLAIN = 1, EDGE, FIRED, ARMED, NESTED, CLOSED, REUSED, CHILD, PROCESS };
#define DATA(n) (0xfedcba9876543200ull + (n))

static int ep, outer, plain, edge, fired, armed, kept_dup, reused, process, to_child[2], from_child[2];
static char entries_ready[4096], entries_now[4096];

static int event(unsigned int value)
{
	int fd = eventfd(value, EFD_NONBLOCK);
	if (fd < 0)
		fatal("eventfd");
	return fd;
}

static void add(int to, int fd, uint32_t events, unsigned int n)
{
	struct epoll_event e = {.events = events, .data.u64 = DATA(n)};
	if (epoll_ctl(to, EPOLL_CTL_ADD, fd, &e))
		fatal("epoll_ctl");
}

/* The entries without their inodes' numbers, in the order of their data. */
static void take_entries(char *out)
{
	char path[64], text[4096], *line, *at = out;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", ep);
	if (slurp(path, text, sizeof text) < 0)
		fatal("fdinfo");
	for (unsigned int n = 1; n <= PROCESS; n++)
		for (line = text; (line = strstr(line, "tfd:")); line += 4) {
			unsigned int tfd, events;
			unsigned long data;
			if (sscanf(line, "tfd: %u events: %x data: %lx", &tfd, &events, &data) == 3 && data == DATA(n))
				at += sprintf(at, "%u:%u:%x ", n, tfd, events);
		}
}

/* It owns nothing but the epoll: at a byte it says what the epoll says. */
static void child(void)
{
	char c;
	struct epoll_event e[16];
	while (read(to_child[0], &c, 1) == 1) {
		c = (char)epoll_wait(ep, e, 16, 0);
		if (write(from_child[1], &c, 1) != 1)
			break;
	}
	_exit(0);
}

static void set_up(void)
{
	struct epoll_event e;
	pid_t pid;
	if ((ep = epoll_create1(EPOLL_CLOEXEC)) < 0 || (outer = epoll_create1(0)) < 0 || pipe(to_child) || pipe(from_child))
		fatal("epoll");
	if ((pid = fork()) < 0)
		fatal("fork");
	if (!pid) {
		close(to_child[1]);
		close(from_child[0]);
		child();
	}
	close(to_child[0]);
	close(from_child[1]);
	fired = event(1);
	add(ep, fired, EPOLLIN | EPOLLONESHOT, FIRED);
	if (epoll_wait(ep, &e, 1, 0) != 1)
		fatal("epoll_wait");
	add(ep, plain = event(0), EPOLLIN, PLAIN);
	add(ep, edge = event(0), EPOLLIN | EPOLLET, EDGE);
	add(ep, armed = event(0), EPOLLIN | EPOLLONESHOT, ARMED);
	int closed = event(0);
	add(ep, closed, EPOLLIN, CLOSED);
	kept_dup = fcntl(closed, F_DUPFD, 100);
	close(closed);
	reused = event(0);
	if (reused != closed)
		fatal("the lowest free number");
	add(ep, reused, EPOLLIN, REUSED);
	process = (int)syscall(SYS_pidfd_open, pid, 0);
	if (process < 0)
		fatal("pidfd_open");
	add(ep, process, EPOLLIN, PROCESS);
	add(outer, ep, EPOLLIN, NESTED);
	take_entries(entries_ready);
}

static int tells(int fd, unsigned int n, const char *what)
{
	struct epoll_event e[4];
	int got = epoll_wait(fd, e, 4, 0);
	if (got != (n ? 1 : 0) || (n && e[0].data.u64 != DATA(n)))
		return wrong("%s: %d events, the first %llx", what, got, got > 0 ? (unsigned long long)e[0].data.u64 : 0);
	return 0;
}

static int happens(int fd, unsigned int n, const char *what)
{
	uint64_t v = 1;
	if (write(fd, &v, 8) != 8)
		return wrong("%s: write: %s", what, strerror(errno));
	if (tells(ep, n, what))
		return -1;
	return read(fd, &v, 8) == 8 ? 0 : wrong("%s: read: %s", what, strerror(errno));
}

static int ask_child(int want)
{
	char c = 0;
	if (write(to_child[1], &c, 1) != 1 || read(from_child[0], &c, 1) != 1)
		return wrong("the child does not answer");
	return c == want ? 0 : wrong("the child sees %d events instead of %d", c, want);
}

static int check(void)
{
	uint64_t v = 1;
	struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = DATA(ARMED)};
	take_entries(entries_now);
	if (strcmp(entries_ready, entries_now))
		return wrong("entries were %s and are %s", entries_ready, entries_now);
	if (tells(ep, 0, "nothing happens") || tells(outer, 0, "nothing happens in the nested one") || ask_child(0) ||
	    happens(plain, PLAIN, "plain") || happens(edge, EDGE, "edge") || happens(fired, 0, "one that has fired") ||
	    happens(kept_dup, CLOSED, "one whose number was closed") || happens(reused, REUSED, "one with a used number") ||
	    happens(armed, ARMED, "oneshot") || happens(armed, 0, "oneshot, fired"))
		return -1;
	if (epoll_ctl(ep, EPOLL_CTL_MOD, armed, &e))
		return wrong("arming it again: %s", strerror(errno));
	if (write(plain, &v, 8) != 8 || tells(outer, NESTED, "nested") || ask_child(1) || read(plain, &v, 8) != 8)
		return wrong("the nested one");
	return 0;
}

int main(void)
{
	target_block_signals();
	set_up();
	return target_loop(check);
}
