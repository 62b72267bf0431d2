/*
 * Descriptor tables: which number refers to which open file description. Descriptions shared by dup, fork or a message are
 * found by kcmp(2) among those that look alike; what each is, other kinds know (collect_fd, open).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blockers.h"
#include "lib/proc.h"
#include "kinds/unix.h"
#include "plan.h"

/* ---- dump ---- */

static int describe_fd(struct fd_entry *f)
{
	char path[64];
	pid_t pid = f->process->host->tid;
	f->link = proc_readlink("/proc/%d/fd/%d", pid, f->fd);
	f->fdinfo = proc_read(NULL, "/proc/%d/fdinfo/%d", pid, f->fd);
	snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, f->fd);
	if (!f->link || !f->fdinfo)
		return -1;
	if (stat(path, &f->st))
		return fail_errno("%s", path);
	uint32_t flags = status_number(f->fdinfo, "flags", 8, 0);
	f->cloexec = flags & O_CLOEXEC;
	f->flags = flags & ~O_CLOEXEC;
	f->pos = status_number(f->fdinfo, "pos", 10, 0);
	return 0;
}

int copy_fd(const struct fd_entry *f)
{
	int fd = syscall(SYS_pidfd_getfd, f->process->pidfd, f->fd, 0);
	return fd >= 0 ? fd : fail_errno("pid %d (%s) fd %d cannot be looked at", f->process->pid, f->process->comm, f->fd);
}

int add_fd_entry(struct dump *d, struct process *p, int fd, bool in_flight)
{
	struct fd_entry *bigger = grow_array(d->fds, &d->cap_fds, d->n_fds + 1, sizeof *d->fds);
	if (!bigger)
		return -1;
	d->fds = bigger;
	struct fd_entry *f = &d->fds[d->n_fds++];
	*f = (struct fd_entry){.process = p, .fd = fd, .in_flight = in_flight};
	return describe_fd(f) ? fail_within("pid %d (%s) fd %d", p->pid, p->comm, fd) : 0;
}

static int descriptors_collect(struct dump *d, struct process *p)
{
	char path[64];
	autofree int *fds = NULL;
	size_t n;
	snprintf(path, sizeof path, "/proc/%d/fd", p->host->tid);
	if (proc_list_numbers(path, &fds, &n))
		return -1;
	for (size_t i = 0; i < n; i++)
		if (fds[i] != p->parasite.their_sock && add_fd_entry(d, p, fds[i], false))
			return -1;
	return 0;
}

/* Those that may be one: same object, flags and position. Then by the kernel's own order; then by process and number. */
static int compare_fds(const void *a, const void *b)
{
	const struct fd_entry *x = a, *y = b;
#define BY(field)                                                                                                                \
	if (x->field != y->field)                                                                                                \
	return x->field < y->field ? -1 : 1
	BY(st.st_dev);
	BY(st.st_ino);
	BY(flags);
	BY(pos);
	long k = x->process == y->process && x->fd == y->fd
			 ? 0
			 : syscall(SYS_kcmp, x->process->host->tid, y->process->host->tid, KCMP_FILE, x->fd, y->fd);
	if (k == 1 || k == 2)
		return k == 1 ? -1 : 1;
	BY(process);
	BY(fd);
#undef BY
	return 0;
}

static bool same_description(const struct fd_entry *x, const struct fd_entry *y)
{
	return x->st.st_dev == y->st.st_dev && x->st.st_ino == y->st.st_ino &&
	       syscall(SYS_kcmp, x->process->host->tid, y->process->host->tid, KCMP_FILE, x->fd, y->fd) == 0;
}

static const char *type_name(const struct fd_entry *f)
{
	switch (f->st.st_mode & S_IFMT) {
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFCHR:
		return strncmp(f->link, "/dev/pts/", 9) == 0 || strncmp(f->link, "/dev/tty", 8) == 0 ||
				       strcmp(f->link, "/dev/ptmx") == 0 || strcmp(f->link, "/dev/console") == 0
			       ? "a terminal"
			       : "a device";
	default:
		return "an object";
	}
}

static int collect_description(struct dump *d, struct fd_entry *f)
{
	const char *unsupported = unsupported_object(f->link);
	if (unsupported)
		return refuse_fd(f, "%s", unsupported);
	for (const struct kind *const *k = kinds; *k; k++) {
		int mine = (*k)->collect_fd ? (*k)->collect_fd(d, f) : 0;
		if (mine)
			return mine < 0 ? -1 : 0;
	}
	return refuse_fd(f, "%s (%s), which cannot be dumped", type_name(f), f->link);
}

static int add_table(struct dump *d, struct process *p, size_t *at)
{
	size_t n = 0;
	while (*at + n < d->n_fds && d->fds[*at + n].process == p)
		n++;
	autofree struct rec_fd *fds = alloc_zeroed(n, sizeof *fds);
	if (!fds)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const struct fd_entry *f = &d->fds[*at + i];
		fds[i] = (struct rec_fd){f->fd, f->cloexec, f->description};
	}
	*at += n;
	struct rec_fdtable r = {.n = n, .fd_size = sizeof *fds};
	return notes_add_record(&p->core, REC_FDTABLE, &r, sizeof r, fds, n * sizeof *fds);
}

static int compare_places(const void *a, const void *b)
{
	const struct fd_entry *x = a, *y = b;
	if (x->in_flight != y->in_flight)
		return x->in_flight ? 1 : -1;
	if (x->process != y->process)
		return x->process < y->process ? -1 : 1;
	return (x->fd > y->fd) - (x->fd < y->fd);
}

static int descriptors_settle(struct dump *d)
{
	if (d->n_fds)
		qsort(d->fds, d->n_fds, sizeof *d->fds, compare_fds);
	for (size_t i = 0; i < d->n_fds; i++) {
		if (i && same_description(&d->fds[i - 1], &d->fds[i])) {
			d->fds[i].description = d->fds[i - 1].description;
			continue;
		}
		d->fds[i].description = new_id(d);
		if (collect_description(d, &d->fds[i]))
			return -1;
	}
	if (d->n_fds)
		qsort(d->fds, d->n_fds, sizeof *d->fds, compare_places);
	size_t at = 0;
	for (size_t i = 0; i < d->n; i++)
		if (d->procs[i].state != PROCESS_ZOMBIE && add_table(d, &d->procs[i], &at))
			return -1;
	return 0;
}

/* ---- restore ---- */

int opened_fd(const struct restore *r, uint32_t id)
{
	if (!id || id > r->n_opened || r->opened[id - 1].fd < 0)
		return fail("object %u, which is referred to, is not in the image", id);
	return r->opened[id - 1].fd;
}

int each_descriptor(const struct image_file *core, int (*act)(const struct rec_fd *f, void *arg), void *arg)
{
	each_record(core, rec) {
		struct rec_fdtable table;
		if (rec->type != REC_FDTABLE)
			continue;
		if (record_get(core, rec, &table, sizeof table))
			return -1;
		if (table.fd_size < sizeof(struct rec_fd) || table.n > rec->tail_len / table.fd_size)
			return fail("%s: a table of %u descriptors does not fit in its record", core->name, table.n);
		for (uint32_t i = 0; i < table.n; i++) {
			struct rec_fd f;
			memcpy(&f, rec->tail + (size_t)i * table.fd_size, sizeof f);
			int ret = act(&f, arg);
			if (ret)
				return ret;
		}
	}
	return 0;
}

static int install_one(const struct rec_fd *f, void *arg)
{
	int fd = opened_fd(arg, f->description);
	if (fd < 0)
		return fail_within("fd %u", f->fd);
	return dup3(fd, f->fd, f->cloexec ? O_CLOEXEC : 0) < 0 ? fail_errno("fd %u", f->fd) : 0;
}

static int descriptors_install(struct restore *r, struct rtask *t)
{
	return each_descriptor(&t->core, install_one, r) ? fail_within("pid %u", t->proc.pid) : 0;
}

const struct kind descriptors_kind = {
	.name = "descriptors",
	.collect = descriptors_collect,
	.settle = descriptors_settle,
	.install = descriptors_install,
};
