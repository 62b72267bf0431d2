/*
 * Who holds what of a file: flock, POSIX and OFD locks, leases; and who is signalled for it (F_SETOWN, F_SETSIG).
 *
 * dump     locks stand in fdinfo, each under the descriptors that it was taken with (fs/locks.c, show_fd_locks). Between
 *          dump and restore nobody holds them: that is for the user to say, with --file-locks.
 * restore  the owner takes them again in its restorer: closing any descriptor of the file would end a POSIX lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#define F_GETOWNER_UIDS_ 17 /* include/uapi/linux/fcntl.h */

/* ---- dump ---- */

struct lock {
	struct rec_lock rec;
	pid_t pid; /* who took it */
	const char *name;
};

static const char *const kind_names[] = {
	[LOCK_FLOCK] = "FLOCK", [LOCK_POSIX] = "POSIX", [LOCK_OFD] = "OFDLCK", [LOCK_LEASE] = "LEASE", [LOCK_ASYNC] = "O_ASYNC"};

/* "lock:\t1: POSIX  ADVISORY  WRITE 412 08:01:1234 0 EOF" */
static int parse_lock(const struct fd_entry *f, const char *line, struct lock *l)
{
	char kind[16], mode[16], type[16], end[24];
	unsigned long start;
	*l = (struct lock){.rec.fd = f->fd};
	if (sscanf(line, "lock:\t%*d: %15s %15s %15s %d %*x:%*x:%*u %lu %23s", kind, mode, type, &l->pid, &start, end) != 6)
		return refuse_fd(f, "locked in a way that is not known");
	for (uint32_t k = LOCK_FLOCK; k <= LOCK_LEASE; k++)
		if (strcmp(kind, kind_names[k]) == 0) {
			l->rec.kind = k;
			l->name = kind_names[k];
		}
	if (!l->rec.kind || (strcmp(type, "READ") && strcmp(type, "WRITE")))
		return refuse_fd(f, "locked in a way that cannot be carried over (%s %s)", kind, type);
	if (l->rec.kind == LOCK_LEASE && strcmp(mode, "ACTIVE"))
		return refuse_fd(f, "under a lease that is just being broken (%s); try again", mode);
	l->rec.type = strcmp(type, "WRITE") ? F_RDLCK : F_WRLCK;
	l->rec.start = start;
	if (strcmp(end, "EOF")) {
		unsigned long last;
		if (sscanf(end, "%lu", &last) != 1 || last < start)
			return refuse_fd(f, "locked in a range that is not known");
		l->rec.len = last - start + 1;
	}
	return 0;
}

/*
 * A lock of a description is taken once, by who took it if that is here; DONE has a bit for each kind. POSIX locks are
 * each process's own.
 */
static int add_locks(struct dump *d, struct fd_entry *f, uint8_t *done, bool anybody)
{
	uint8_t now = 0;
	for (const char *line = f->fdinfo; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		struct lock l;
		if (strncmp(line, "lock:", 5))
			continue;
		if (parse_lock(f, line, &l))
			return -1;
		if (!d->opt->file_locks)
			return refuse_fd(f, "of %s, on which it holds a lock (%s); --file-locks carries it over", f->link, l.name);
		bool mine = l.pid == f->process->pid, posix = l.rec.kind == LOCK_POSIX;
		if (posix ? anybody : *done & 1 << l.rec.kind || (!mine && !anybody))
			continue;
		now |= posix ? 0 : 1 << l.rec.kind;
		if (notes_add_record(&f->process->core, REC_LOCK, &l.rec, sizeof l.rec, NULL, 0))
			return -1;
	}
	*done |= now;
	return 0;
}

/* A thread of the tree, a process of it, or a group that somebody in it belongs to. */
static bool is_here(const struct dump *d, int type, pid_t id)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct process *p = &d->procs[i];
		if (type == F_OWNER_PGRP ? p->pgid == id : p->pid == id)
			return true;
		for (size_t k = 0; type == F_OWNER_TID && k < p->n_threads; k++)
			if (p->threads[k].tid == id)
				return true;
	}
	return false;
}

/* Asked of a copy of the descriptor: that changes nothing. */
static int add_owner(struct dump *d, const struct fd_entry *f)
{
	struct f_owner_ex owner = {0};
	uint32_t uids[2] = {0};
	if (f->flags & O_PATH)
		return 0;
	autoclose int fd = syscall(SYS_pidfd_getfd, f->process->pidfd, f->fd, 0);
	if (fd < 0)
		return fail_errno("pid %d (%s) fd %d: a copy of it", f->process->pid, f->process->comm, f->fd);
	int sig = fcntl(fd, F_GETSIG);
	if (sig < 0 || fcntl(fd, F_GETOWN_EX, &owner))
		return fail_errno("pid %d (%s) fd %d: whom it signals", f->process->pid, f->process->comm, f->fd);
	if (!owner.pid && !sig && !(f->flags & O_ASYNC))
		return 0;
	if (owner.pid && !is_here(d, owner.type, owner.pid))
		return refuse_fd(f, "of %s, for which %d is signalled (F_SETOWN), who is not dumped with it", f->link, owner.pid);
	if (fcntl(fd, F_GETOWNER_UIDS_, uids))
		uids[0] = uids[1] = geteuid();
	struct rec_fd_owner r = {
		.description = f->description, .type = owner.type, .pid = owner.pid, .sig = sig, .uid = uids[0], .euid = uids[1],
	};
	/* signals tell the number of the descriptor that the flag was set by */
	struct rec_lock async = {.fd = f->fd, .kind = LOCK_ASYNC, .type = F_WRLCK, .start = f->flags};
	if (f->flags & O_ASYNC && notes_add_record(&f->process->core, REC_LOCK, &async, sizeof async, NULL, 0))
		return -1;
	return notes_add_record(&d->tree, REC_FD_OWNER, &r, sizeof r, NULL, 0);
}

#define OWNER_DONE 1

static int locks_settle(struct dump *d)
{
	autofree uint8_t *done = alloc_zeroed(d->n_objects + 1, 1);
	if (!done)
		return -1;
	for (size_t i = 0; i < d->n_fds; i++) {
		struct fd_entry *f = &d->fds[i];
		uint8_t *bits = &done[f->description];
		if (!(*bits & OWNER_DONE) && add_owner(d, f))
			return -1;
		*bits |= OWNER_DONE;
		if (add_locks(d, f, bits, false))
			return -1;
	}
	for (size_t i = 0; i < d->n_fds; i++)
		if (add_locks(d, &d->fds[i], &done[d->fds[i].description], true))
			return -1;
	return 0;
}

/* ---- restore ---- */

static int plan_lock(const struct image_file *core, const struct rec_lock *l, struct restorer_lock *out)
{
	if (l->fd > INT32_MAX || (l->type != F_RDLCK && l->type != F_WRLCK) || l->start > INT64_MAX || l->len > INT64_MAX)
		return fail("%s: a lock on descriptor %u is impossible", core->name, l->fd);
	*out = (struct restorer_lock){.fd = l->fd};
	switch (l->kind) {
	case LOCK_FLOCK:
		out->cmd = -1;
		out->arg = (l->type == F_WRLCK ? LOCK_EX : LOCK_SH) | LOCK_NB;
		return 0;
	case LOCK_LEASE:
		out->cmd = F_SETLEASE;
		out->arg = l->type;
		return 0;
	case LOCK_ASYNC:
		out->cmd = F_SETFL;
		out->arg = l->start;
		return 0;
	case LOCK_POSIX:
	case LOCK_OFD:
		out->with_range = 1;
		out->cmd = l->kind == LOCK_POSIX ? F_SETLK : F_OFD_SETLK;
		out->range.type = l->type;
		out->range.start = l->start;
		out->range.len = l->len;
		return 0;
	default:
		return fail("%s: a lock of unknown kind %u", core->name, l->kind);
	}
}

static int locks_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	size_t n = 0;
	each_record(&t->core, rec)
		n += 2 * (rec->type == REC_LOCK);
	struct restorer_lock *out = plan_alloc(plan, n * sizeof *out);
	if (!out)
		return -1;
	plan->args->locks = (uintptr_t)out;
	each_record(&t->core, rec) {
		struct rec_lock l;
		if (rec->type != REC_LOCK)
			continue;
		if (record_get(&t->core, rec, &l, sizeof l) || plan_lock(&t->core, &l, &out[plan->args->n_locks++]))
			return -1;
		if (l.kind != LOCK_ASYNC)
			continue;
		/* opened with the flag it has it, but the file was not told: only a change counts */
		out[plan->args->n_locks] = out[plan->args->n_locks - 1];
		out[plan->args->n_locks++ - 1].arg &= ~(uint32_t)O_ASYNC;
	}
	return 0;
}

/* The kernel notes who sets an owner, and later signals as that one may: so it is set by one who is alike. */
static int set_owner(int fd, const struct rec_fd_owner *o)
{
	uid_t real, effective, saved;
	struct f_owner_ex owner = {o->type, o->pid};
	getresuid(&real, &effective, &saved);
	bool other = real != o->uid || effective != o->euid;
	if (other && syscall(SYS_setresuid, o->uid, o->euid, effective))
		other = false; /* without privilege all are ours */
	int ret = o->pid ? fcntl(fd, F_SETOWN_EX, &owner) : 0;
	int err = errno;
	if (other && syscall(SYS_setresuid, real, effective, saved))
		return fail_errno("becoming user %u again", effective);
	errno = err;
	return ret || fcntl(fd, F_SETSIG, o->sig) ? fail_errno("object %u: that %d is signalled for it", o->description, o->pid) : 0;
}

static int locks_ready(struct restore *r)
{
	each_record(&r->tree, rec) {
		struct rec_fd_owner o;
		if (rec->type != REC_FD_OWNER)
			continue;
		if (record_get(&r->tree, rec, &o, sizeof o))
			return -1;
		int fd = opened_fd(r, o.description);
		if (fd < 0 || set_owner(fd, &o))
			return -1;
	}
	return 0;
}

/* ---- show ---- */

static void print_lock(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_lock l;
	if (json_record(j, f, rec, &l, sizeof l) < 0)
		return;
	json_uint(j, "fd", l.fd);
	json_string(j, "kind", l.kind && l.kind <= LOCK_ASYNC ? kind_names[l.kind] : "?");
	json_string(j, "type", l.type == F_WRLCK ? "write" : "read");
	json_uint(j, "start", l.start);
	json_uint(j, "len", l.len);
}

static void print_owner(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_fd_owner o;
	if (json_record(j, f, rec, &o, sizeof o) < 0)
		return;
	json_uint(j, "description", o.description);
	json_uint(j, "pid", o.pid);
	json_uint(j, "type", o.type);
	json_uint(j, "sig", o.sig);
	json_uint(j, "uid", o.uid);
}

static const struct record_printer printers[] = {
	{REC_LOCK, "lock", print_lock},
	{REC_FD_OWNER, "fd_owner", print_owner},
	{0},
};

const struct kind locks_kind = {
	.name = "locks",
	.settle = locks_settle,
	.plan = locks_plan,
	.ready = locks_ready,
	.printers = printers,
};
