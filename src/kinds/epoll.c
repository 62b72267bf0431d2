/*
 * epoll: what is watched, found by number and, where that was closed or given to something else, by kcmp(2).
 *
 * The kernel keeps an entry under the number that its target had when it was added. It is added again under that number,
 * in a task that has every descriptor in place; what lies at the number is put aside for that moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

/* fs/eventpoll.c EP_PRIVATE_BITS: what is left of an EPOLLONESHOT entry's events once it has fired */
#define PRIVATE_BITS (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)

/* tail: struct rec_epoll_entry array */
struct rec_epoll {
	struct rec_description d;
	uint32_t pid; /* who had it: its task adds the entries; 0: the root's */
	uint32_t n;
};

struct rec_epoll_entry {
	uint32_t tfd, events;
	uint64_t data;
	uint32_t target; /* an open file description's id */
	uint32_t pad;
};

/* ---- dump ---- */

/* Those seen by collect_fd: their targets have ids only when all have been seen. */
struct seen {
	struct process *process;
	int fd;
	uint32_t id, flags;
	char *fdinfo;
};
static struct seen *seen;
static size_t n_seen, cap_seen;

static int epoll_collect_fd(struct dump *d, struct fd_entry *f)
{
	(void)d;
	if (f->flags & O_PATH || strcmp(f->link, "anon_inode:[eventpoll]") != 0)
		return 0;
	struct seen *bigger = grow_array(seen, &cap_seen, n_seen + 1, sizeof *seen);
	if (!bigger)
		return -1;
	seen = bigger;
	char *fdinfo = format_string("%s", f->fdinfo);
	if (!fdinfo)
		return -1;
	seen[n_seen++] = (struct seen){f->process, f->fd, f->description, f->flags, fdinfo};
	return 1;
}

/* Is F the OCCURRENCE-th target that S has under number TFD? */
static bool is_target(const struct seen *s, const struct fd_entry *f, uint32_t tfd, uint32_t occurrence)
{
	struct kcmp_epoll_slot slot = {.efd = s->fd, .tfd = tfd, .toff = occurrence};
	return syscall(SYS_kcmp, f->process->host->tid, s->process->host->tid, KCMP_EPOLL_TFD, f->fd, &slot) == 0;
}

/* Among all descriptors of a process, by number. */
static const struct fd_entry *find_fd(const struct dump *d, const struct process *p, int fd)
{
	size_t low = 0, high = d->n_fds;
	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct fd_entry *f = &d->fds[mid];
		if (!f->in_flight && (f->process < p || (f->process == p && f->fd < fd)))
			low = mid + 1;
		else
			high = mid;
	}
	return low < d->n_fds && d->fds[low].process == p && d->fds[low].fd == fd ? &d->fds[low] : NULL;
}

static uint32_t find_target(const struct dump *d, const struct seen *s, uint32_t tfd, uint32_t occurrence, uint64_t ino)
{
	const struct fd_entry *f = find_fd(d, s->process, tfd);
	if (f && is_target(s, f, tfd, occurrence))
		return f->description;
	for (f = d->fds; f < d->fds + d->n_fds; f++)
		if (f->st.st_ino == ino && is_target(s, f, tfd, occurrence))
			return f->description;
	return 0;
}

struct entries {
	struct rec_epoll_entry *e;
	size_t n, cap;
};

/* "tfd: %8d events: %8x data: %16llx  pos:%lli ino:%lx sdev:%x" */
static int add_entry(const struct dump *d, const struct seen *s, const char *line, struct entries *all)
{
	struct rec_epoll_entry e = {0};
	unsigned long ino;
	uint32_t occurrence = 0;
	if (sscanf(line, "tfd: %" SCNu32 " events: %" SCNx32 " data: %" SCNx64 " pos:%*d ino:%lx", &e.tfd, &e.events, &e.data, &ino) != 4)
		return fail("pid %d (%s) fd %d: this line of its fdinfo is not in the form that is known: %.80s", s->process->pid,
			    s->process->comm, s->fd, line);
	/* the tree that the kernel keeps them in has equal numbers next to one another or not: they are counted */
	for (size_t i = 0; i < all->n; i++)
		occurrence += all->e[i].tfd == e.tfd;
	e.target = find_target(d, s, e.tfd, occurrence, ino);
	if (!e.target)
		return fail("pid %d (%s) fd %d is an epoll that watches a file which was fd %u and is open nowhere in the tree now; "
			    "close it before the dump, or take the process along that has it",
			    s->process->pid, s->process->comm, s->fd, e.tfd);
	struct rec_epoll_entry *bigger = grow_array(all->e, &all->cap, all->n + 1, sizeof e);
	if (!bigger)
		return -1;
	all->e = bigger;
	all->e[all->n++] = e;
	return 0;
}

static int add_epoll(struct dump *d, const struct seen *s)
{
	struct entries all = {0};
	int ret = 0;
	for (const char *line = s->fdinfo; !ret && line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, "tfd:", 4) == 0)
			ret = add_entry(d, s, line, &all);
	}
	struct rec_epoll r = {.d = {.id = s->id, .flags = s->flags}, .pid = s->process->pid, .n = all.n};
	if (s->process->pid == getpid())
		r.pid = 0;
	if (!ret)
		ret = notes_add_record(&d->tree, REC_EPOLL, &r, sizeof r, all.e, all.n * sizeof *all.e);
	free(all.e);
	return ret;
}

static int epoll_settle(struct dump *d)
{
	for (size_t i = 0; i < n_seen; i++)
		if (add_epoll(d, &seen[i]))
			return -1;
	return 0;
}

static void epoll_dump_end(struct dump *d)
{
	(void)d;
	for (size_t i = 0; i < n_seen; i++)
		free(seen[i].fdinfo);
	free(seen);
	seen = NULL;
	n_seen = cap_seen = 0;
}

/* ---- restore ---- */

static int epoll_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_epoll r;
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	*id = r.d.id;
	if (r.n > rec->tail_len / sizeof(struct rec_epoll_entry))
		return fail("tree: epoll %u has more entries than its record holds", r.d.id);
	int fd = epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0 || fcntl(fd, F_SETFL, r.d.flags & (O_NONBLOCK | O_ASYNC)) < 0)
		return fail_errno("an epoll");
	return fd;
}

/*
 * An EPOLLONESHOT entry that has fired is deaf until it is armed again. epoll_ctl(2) always adds EPOLLERR and EPOLLHUP; so
 * it is let fire. Where the target is not ready for anything, those two stay: then an error may be told once.
 */
static int add_fired(int ep, int tfd, const struct rec_epoll_entry *e)
{
	struct epoll_event ev = {.events = e->events | EPOLLIN | EPOLLOUT, .data.u64 = e->data}, got;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, tfd, &ev))
		return -1;
	if (epoll_wait(ep, &got, 1, 0) == 1)
		return 0;
	ev.events = e->events;
	return epoll_ctl(ep, EPOLL_CTL_MOD, tfd, &ev);
}

static bool fired(const struct rec_epoll_entry *e)
{
	return e->events & EPOLLONESHOT && !(e->events & ~PRIVATE_BITS);
}

static int add_at_number(int ep, const struct rec_epoll_entry *e)
{
	struct epoll_event ev = {.events = e->events, .data.u64 = e->data};
	return fired(e) ? add_fired(ep, e->tfd, e) : epoll_ctl(ep, EPOLL_CTL_ADD, e->tfd, &ev);
}

/* TARGET stands at the number for this moment, and what was there returns. */
static int add_entry_back(struct restore *re, int ep, const struct rec_epoll_entry *e)
{
	int target = opened_fd(re, e->target), flags = fcntl(e->tfd, F_GETFD), aside = -1, ret = -1;
	if (target < 0 || e->tfd > 1u << 30)
		return target < 0 ? -1 : fail("tree: an epoll has an entry under the impossible number %u", e->tfd);
	autoclose int own = fcntl(ep, F_DUPFD_CLOEXEC, re->keep_from), from = fcntl(target, F_DUPFD_CLOEXEC, re->keep_from);
	if (flags >= 0)
		aside = fcntl(e->tfd, F_DUPFD_CLOEXEC, re->keep_from);
	/* the copies are the lowest that are free from keep_from on: one of them may have come to lie there */
	if (own < 0 || from < 0 || (flags >= 0 && aside < 0))
		return fail_errno("putting a descriptor aside");
	if (own == (int)e->tfd || from == (int)e->tfd || aside == (int)e->tfd)
		fail("an epoll has an entry under number %u, which restore needs for itself", e->tfd);
	else if (dup2(from, e->tfd) < 0)
		fail_errno("descriptor %u, under which an epoll has an entry", e->tfd);
	else if (add_at_number(own, e))
		fail_errno("adding descriptor %u to an epoll", e->tfd);
	else
		ret = 0;
	if (aside >= 0) {
		if (dup3(aside, e->tfd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0 && !ret)
			ret = fail_errno("putting descriptor %u back", e->tfd);
		close(aside);
	} else if (!ret) {
		close(e->tfd);
	}
	return ret;
}

static int install_epoll(struct restore *re, const struct record *rec, const struct rec_epoll *r)
{
	int ep = opened_fd(re, r->d.id);
	if (ep < 0)
		return -1;
	/* first what is to fire: other entries' events would be taken with it */
	for (int turn = 0; turn < 2; turn++)
		for (uint32_t i = 0; i < r->n; i++) {
			struct rec_epoll_entry e;
			memcpy(&e, rec->tail + i * sizeof e, sizeof e);
			if (fired(&e) == (turn == 0) && add_entry_back(re, ep, &e))
				return -1;
		}
	return 0;
}

static int epoll_install(struct restore *re, struct rtask *t)
{
	each_record(&re->tree, rec) {
		struct rec_epoll r;
		if (rec->type != REC_EPOLL)
			continue;
		if (record_get(&re->tree, rec, &r, sizeof r))
			return -1;
		bool mine = r.pid ? r.pid == t->proc.pid : t == &re->tasks[0];
		if (mine && install_epoll(re, rec, &r))
			return fail_within("pid %u", t->proc.pid);
	}
	return 0;
}

static void print_epoll(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_epoll r;
	if (json_record(j, f, rec, &r, sizeof r) < 0 || json_tail_array(j, f, rec, r.n, sizeof(struct rec_epoll_entry)) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_begin_array(j, "entries");
	for (uint32_t i = 0; i < r.n; i++) {
		struct rec_epoll_entry e;
		memcpy(&e, rec->tail + i * sizeof e, sizeof e);
		json_begin_object(j, NULL);
		json_uint(j, "fd", e.tfd);
		json_uint(j, "target", e.target);
		json_hex(j, "events", e.events);
		json_hex(j, "data", e.data);
		json_end_object(j);
	}
	json_end_array(j);
}

static const struct record_printer printers[] = {{REC_EPOLL, "epoll", print_epoll}, {0}};

const struct kind epoll_kind = {
	.name = "epoll",
	.collect_fd = epoll_collect_fd,
	.settle = epoll_settle,
	.dump_end = epoll_dump_end,
	.opens = {REC_EPOLL},
	.open = epoll_open,
	.install = epoll_install,
	.printers = printers,
};
