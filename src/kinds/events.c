/*
 * eventfd, timerfd and signalfd: all that they are is in /proc/PID/fdinfo (Documentation/filesystems/proc.rst, 3.8).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

struct rec_eventfd {
	struct rec_description d;
	uint64_t count;
	uint32_t semaphore, pad;
};

struct rec_timerfd {
	struct rec_description d;
	uint32_t clock, settime_flags;
	uint64_t ticks;
	uint64_t left_ns, interval_ns;
	uint64_t now_ns; /* CLOCK at the dump */
};

struct rec_signalfd {
	struct rec_description d;
	uint64_t mask;
};

/* ---- dump ---- */

static bool is_anon(const struct fd_entry *f, const char *name)
{
	return !(f->flags & O_PATH) && strcmp(f->link, name) == 0;
}

static uint64_t clock_now(uint32_t clock)
{
	struct timespec t = {0};
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int collect_eventfd(struct dump *d, struct fd_entry *f)
{
	struct rec_eventfd r = {
		.d = {.id = f->description, .flags = f->flags},
		.count = status_number(f->fdinfo, "eventfd-count", 16, 0),
		.semaphore = status_number(f->fdinfo, "eventfd-semaphore", 10, 2),
	};
	if (r.semaphore == 2) /* shown since Linux 6.5 */
		return refuse_fd(f, "an eventfd, of which this kernel does not tell whether it is a semaphore (Linux 6.5 does)");
	return notes_add_record(&d->tree, REC_EVENTFD, &r, sizeof r, NULL, 0);
}

/* "(seconds, nanoseconds)" */
static int pair_ns(const struct fd_entry *f, const char *key, uint64_t *ns)
{
	const char *v = status_field(f->fdinfo, key);
	unsigned long s, n;
	if (!v || sscanf(v, "(%lu, %lu)", &s, &n) != 2)
		return refuse_fd(f, "a timerfd, whose %s is not in its fdinfo", key);
	*ns = s * 1000000000ull + n;
	return 0;
}

static int collect_timerfd(struct dump *d, struct fd_entry *f)
{
	/* again, for what is left belongs to the clock's reading beside it */
	char *fresh = proc_read(NULL, "/proc/%d/fdinfo/%d", f->process->host->tid, f->fd);
	if (!fresh)
		return -1;
	free(f->fdinfo);
	f->fdinfo = fresh;
	struct rec_timerfd r = {
		.d = {.id = f->description, .flags = f->flags},
		.clock = status_number(f->fdinfo, "clockid", 10, 0),
		.settime_flags = status_number(f->fdinfo, "settime flags", 8, 0),
		.ticks = status_number(f->fdinfo, "ticks", 10, 0),
	};
	if (pair_ns(f, "it_value", &r.left_ns) || pair_ns(f, "it_interval", &r.interval_ns))
		return -1;
	r.now_ns = clock_now(r.clock);
	return notes_add_record(&d->tree, REC_TIMERFD, &r, sizeof r, NULL, 0);
}

static int collect_signalfd(struct dump *d, struct fd_entry *f)
{
	struct rec_signalfd r = {
		.d = {.id = f->description, .flags = f->flags},
		.mask = status_number(f->fdinfo, "sigmask", 16, 0),
	};
	return notes_add_record(&d->tree, REC_SIGNALFD, &r, sizeof r, NULL, 0);
}

static int events_collect_fd(struct dump *d, struct fd_entry *f)
{
	int ret;
	if (is_anon(f, "anon_inode:[eventfd]"))
		ret = collect_eventfd(d, f);
	else if (is_anon(f, "anon_inode:[timerfd]"))
		ret = collect_timerfd(d, f);
	else if (is_anon(f, "anon_inode:[signalfd]"))
		ret = collect_signalfd(d, f);
	else
		return 0;
	return ret ? -1 : 1;
}

/* ---- restore ---- */

static int open_eventfd(const struct rec_eventfd *r)
{
	autoclose int fd = eventfd(0, EFD_CLOEXEC | (r->semaphore ? EFD_SEMAPHORE : 0));
	if (fd < 0)
		return fail_errno("an eventfd");
	if (r->count && (r->count == UINT64_MAX || write(fd, &r->count, 8) != 8))
		return fail("tree: %#lx is no count of an eventfd", r->count);
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ns / 1000000000, ns % 1000000000};
}

/*
 * A timer set by the clock on the wall keeps its time of day; one set by a clock that a boot starts anew keeps what was
 * left. A periodic one that has expired and was not read stands still, without time left (fs/timerfd.c, timerfd_read_iter).
 */
static int arm(int fd, const struct rec_timerfd *r)
{
	struct itimerspec it = {.it_interval = to_timespec(r->interval_ns)};
	uint64_t value = r->left_ns;
	bool by_wall = r->clock == CLOCK_REALTIME || r->clock == CLOCK_REALTIME_ALARM;
	bool expired = !value && r->interval_ns;
	if (expired)
		value = 1;
	else if (value && r->settime_flags & TFD_TIMER_ABSTIME)
		value += by_wall ? r->now_ns : clock_now(r->clock);
	it.it_value = to_timespec(value);
	if (timerfd_settime(fd, r->settime_flags, &it, NULL))
		return fail_errno("arming a timerfd of clock %u", r->clock);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (expired && poll(&p, 1, 1000) < 0)
		return fail_errno("waiting for a timerfd");
	if (r->ticks && ioctl(fd, TFD_IOC_SET_TICKS, &r->ticks))
		return fail_errno("%lu ticks of a timerfd (that needs a kernel with CONFIG_CHECKPOINT_RESTORE)", r->ticks);
	return 0;
}

static int open_timerfd(const struct rec_timerfd *r)
{
	if (r->left_ns >> 62 || r->interval_ns >> 62 || r->now_ns >> 62)
		return fail("tree: timerfd %u has impossible times", r->d.id);
	autoclose int fd = timerfd_create(r->clock, TFD_CLOEXEC);
	if (fd < 0)
		return fail_errno("a timerfd of clock %u", r->clock);
	return arm(fd, r) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int open_record(struct restore *re, const struct record *rec, struct rec_description *d)
{
	struct rec_eventfd e;
	struct rec_timerfd t;
	struct rec_signalfd s;
	switch (rec->type) {
	case REC_EVENTFD:
		if (record_get(&re->tree, rec, &e, sizeof e))
			return -1;
		*d = e.d;
		return open_eventfd(&e);
	case REC_TIMERFD:
		if (record_get(&re->tree, rec, &t, sizeof t))
			return -1;
		*d = t.d;
		return open_timerfd(&t);
	default:
		if (record_get(&re->tree, rec, &s, sizeof s))
			return -1;
		*d = s.d;
		int fd = syscall(SYS_signalfd4, -1, &s.mask, sizeof s.mask, O_CLOEXEC);
		return fd >= 0 ? fd : fail_errno("a signalfd");
	}
}

static int events_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_description d;
	int fd = open_record(re, rec, &d);
	if (fd < 0)
		return -1;
	*id = d.id;
	if (fcntl(fd, F_SETFL, d.flags & (O_NONBLOCK | O_ASYNC)) < 0) {
		fail_errno("flags %o of object %u", d.flags, d.id);
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- show ---- */

static void print_eventfd(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_eventfd r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_hex(j, "count", r.count);
	json_bool(j, "semaphore", r.semaphore);
}

static void print_timerfd(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_timerfd r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_uint(j, "clock", r.clock);
	json_uint(j, "settime_flags", r.settime_flags);
	json_uint(j, "ticks", r.ticks);
	json_uint(j, "left_ns", r.left_ns);
	json_uint(j, "interval_ns", r.interval_ns);
}

static void print_signalfd(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_signalfd r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_hex(j, "mask", r.mask);
}

static const struct record_printer printers[] = {
	{REC_EVENTFD, "eventfd", print_eventfd},
	{REC_TIMERFD, "timerfd", print_timerfd},
	{REC_SIGNALFD, "signalfd", print_signalfd},
	{0},
};

const struct kind events_kind = {
	.name = "events",
	.collect_fd = events_collect_fd,
	.opens = {REC_EVENTFD, REC_TIMERFD, REC_SIGNALFD},
	.open = events_open,
	.printers = printers,
};
