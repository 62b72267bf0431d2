/*
 * dump: parse, freeze, parasites in, collect, write, parasites out, publish, and only then kill (or let go).
 *
 * Until image_publish has returned, any error undoes what was done in reverse order: the tree goes on as it was, and
 * no file is left.
 */
#include "dump.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86_64/cpu.h"
#include "core-notes.h"
#include "family.h"
#include "freeze.h"
#include "kinds/memory.h"
#include "lib/inject.h"
#include "lib/proc.h"
#include "lib/seize.h"
#include "pidns.h"

int refuse_fd(const struct fd_entry *f, const char *fmt, ...)
{
	char what[700];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	if (f->in_flight)
		return fail("a descriptor that was sent by a message and not yet received is %s", what);
	return fail("pid %d (%s) fd %d is %s", f->process->pid, f->process->comm, f->fd, what);
}

static int each_kind_collects(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct process *p = &d->procs[i];
		if (p->state == PROCESS_ZOMBIE)
			continue;
		for (const struct kind *const *k = kinds; *k; k++)
			if ((*k)->collect && (*k)->collect(d, p))
				return -1;
	}
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->settle && (*k)->settle(d))
			return -1;
	return 0;
}

static int kinds_frozen(struct dump *d, struct process *p)
{
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->frozen && (*k)->frozen(d, p))
			return -1;
	return 0;
}

static int parasites_in(struct dump *d)
{
	/* what must be refused before anything is touched is refused before anything of all is touched */
	for (size_t i = 0; i < d->n; i++)
		if (d->procs[i].state != PROCESS_ZOMBIE && kinds_frozen(d, &d->procs[i]))
			return -1;
	for (size_t i = 0; i < d->n; i++) {
		struct process *p = &d->procs[i];
		if (p->state == PROCESS_ZOMBIE)
			continue;
		if (maps_read(p->host->tid, &p->maps) || inject_prepare(p))
			return -1;
		for (size_t k = 0; k < p->n_threads; k++)
			if (inject_measure(p, &p->threads[k]))
				return -1;
		if (inject_parasite(p))
			return -1;
	}
	return 0;
}

static int parasites_out(struct dump *d)
{
	int ret = 0;
	for (size_t i = d->n; i-- > 0;)
		if (inject_leave(&d->procs[i]))
			ret = -1;
	return ret;
}

static int add_process_record(struct dump *d, const struct process *p)
{
	struct rec_process r = {
		.pid = p->pid,
		.ppid = p->parent ? p->ppid : 0,
		.pgid = p->pgid,
		.sid = p->sid,
		.state = p->state,
		.exit_status = p->exit_status,
		.exit_signal = p->exit_signal + 1,
		.outside = p->outside,
	};
	memcpy(r.comm, p->comm, sizeof r.comm);
	return notes_add_record(&d->tree, REC_PROCESS, &r, sizeof r, NULL, 0);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* First in tree, though some of it is known last: the notes collected so far follow it. */
static int write_tree(struct dump *d)
{
	struct notes all = {0};
	struct rec_tree r = {
		.version = CRL_IMAGE_VERSION,
		.root_pid = d->procs[0].pid,
		.xfeatures = d->xfeatures,
		.monotonic_ns = clock_ns(CLOCK_MONOTONIC),
		.boottime_ns = clock_ns(CLOCK_BOOTTIME),
	};
	struct notes collected = d->tree;
	d->tree = (struct notes){0};
	cpu_features(r.cpu_features);
	int ret = notes_add_record(&all, REC_TREE, &r, sizeof r, NULL, 0);
	if (!ret) {
		d->tree = all;
		for (size_t i = 0; !ret && i < d->n; i++)
			ret = add_process_record(d, &d->procs[i]);
		all = d->tree;
		ret = ret ? ret : notes_append(&all, &collected);
		ret = ret ? ret : image_notes_file(d->writer, "tree", &all);
	}
	notes_free(&all);
	notes_free(&collected);
	d->tree = (struct notes){0};
	return ret;
}

static int write_cores(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct process *p = &d->procs[i];
		if (p->state != PROCESS_ZOMBIE && memory_write(d, p))
			return -1;
	}
	return 0;
}

static void kinds_end(struct dump *d)
{
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->dump_end)
			(*k)->dump_end(d);
}

/* From the frozen tree to an image that is whole but not published; the parasites are out again, whatever happened. */
static int make_image(struct dump *d)
{
	int ret = family_check(d) || parasites_in(d) ? -1 : 0;
	if (!ret)
		ret = each_kind_collects(d);
	if (!ret)
		ret = write_cores(d);
	struct error first = the_error;
	if (parasites_out(d) && !ret)
		return -1;
	if (ret)
		the_error = first;
	return ret ? ret : write_tree(d);
}

static int kinds_published(struct dump *d)
{
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->published && (*k)->published(d))
			return -1;
	return 0;
}

/* An error from here on cannot take the image back: it is said, and the tree goes on. */
static int finish(struct dump *d)
{
	if (kinds_published(d))
		return -1;
	kinds_end(d);
	if (!d->opt->leave_running && !d->opt->leave_stopped)
		return kill_tree(d);
	if (d->opt->leave_stopped)
		for (size_t i = 0; i < d->n; i++)
			if (d->procs[i].state != PROCESS_ZOMBIE && kill(d->procs[i].pid, SIGSTOP))
				return fail_errno("stopping pid %d", d->procs[i].pid);
	thaw_tree(d);
	return 0;
}

static int check_pid(pid_t pid)
{
	struct proc_stat st;
	if (pid <= 0)
		return fail("%d is no process's number", pid);
	if (pid == getpid())
		return fail("pid %d is criu-lite itself", pid);
	if (proc_stat_read(pid, 0, &st)) {
		if (the_error.code == ENOENT || the_error.code == ESRCH)
			return fail("there is no process %d; `ps` lists those that are", pid);
		return -1;
	}
	autofree char *status = proc_read(NULL, "/proc/%d/status", pid);
	if (!status)
		return -1;
	pid_t tgid = status_number(status, "Tgid", 10, pid);
	if (tgid != pid)
		return fail("%d is a thread of process %d: dump that", pid, tgid);
	if (st.flags & 0x00200000) /* PF_KTHREAD, include/linux/sched.h */
		return fail("pid %d (%s) is a thread of the kernel, which cannot be dumped", pid, st.comm);
	if (st.state == 'Z' && status_number(status, "Threads", 10, 1) <= 1)
		return fail("pid %d (%s) has ended and waits for its parent %d (a zombie): nothing is left to dump", pid, st.comm,
			    st.ppid);
	pid_t tracer = status_number(status, "TracerPid", 10, 0);
	if (tracer)
		return fail("pid %d (%s) is being traced by pid %d: let its debugger detach first", pid, st.comm, tracer);
	return 0;
}

int dump_tree(const struct options *opt)
{
	struct options inner = *opt;
	struct dump d = {.opt = opt};
	if (check_pid(opt->pid) || pidns_follow(&inner.pid))
		return -1;
	d.opt = opt = &inner;
	d.writer = image_create(opt->dir, opt->replace);
	if (!d.writer)
		return -1;
	int ret = freeze_tree(&d, opt->pid);
	if (ret && the_error.code == EPERM)
		fail("pid %d is not yours to dump (ptrace is not permitted): be its user or root, and see "
		     "/proc/sys/kernel/yama/ptrace_scope",
		     opt->pid);
	if (!ret) {
		ret = make_image(&d);
		if (!ret)
			ret = image_publish(d.writer);
		if (!ret) {
			ret = finish(&d);
		} else {
			kinds_end(&d);
			thaw_tree(&d);
		}
	}
	free_tree(&d);
	notes_free(&d.tree);
	for (size_t i = 0; i < d.n_fds; i++) {
		free(d.fds[i].link);
		free(d.fds[i].fdinfo);
	}
	free(d.fds);
	image_discard(d.writer);
	return ret;
}
