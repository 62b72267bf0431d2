/*
 * The order: a process's threads, again until no new one shows up; then its children, each the same way, again until no
 * new child shows up (an orphan may come to a subreaper meanwhile). A parent is stopped before its children: nobody is
 * born behind our back. The exception is a parent inside vfork, which cannot stop: its child runs on until it execs or
 * ends, as long as --timeout allows.
 */
#include "freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/proc.h"
#include "lib/seize.h"

static struct process *add_process(struct dump *d)
{
	/* so many are no tree but a fork bomb, which would win the race */
	if (d->n >= (size_t)d->opt->max_processes) {
		fail("there are more than %ld processes: the tree grows faster than it can be stopped, or --max-processes must be "
		     "higher",
		     d->opt->max_processes);
		return NULL;
	}
	struct process *bigger = grow_array(d->procs, &d->cap, d->n + 1, sizeof *bigger);
	if (!bigger)
		return NULL;
	d->procs = bigger;
	struct process *p = &d->procs[d->n++];
	memset(p, 0, sizeof *p);
	p->pidfd = p->mem = p->parasite.sock = -1;
	return p;
}

static bool known_thread(const struct process *p, pid_t tid)
{
	size_t lo = 0, hi = p->n_threads;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (p->threads[mid].tid == tid)
			return true;
		if (p->threads[mid].tid < tid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static int compare_threads(const void *a, const void *b)
{
	pid_t x = ((const struct thread *)a)->tid, y = ((const struct thread *)b)->tid;
	return (x > y) - (x < y);
}

/* Seizes the threads not yet known; the number of new ones, -1 with the error set. */
static int seize_new_threads(struct process *p, unsigned long options)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task", p->pid);
	autofree int *tids = NULL;
	size_t n, old = p->n_threads;
	if (proc_list_numbers(path, &tids, &n))
		return -1;
	for (size_t i = 0; i < n; i++) {
		struct proc_stat st;
		if (known_thread(p, tids[i]))
			continue;
		int gone = seize_start(tids[i], options);
		if (gone < 0 && errno == EPERM && proc_stat_read(p->pid, tids[i], &st) == 0 && strchr("ZX", st.state))
			gone = 1; /* a leader that has ended, its threads living on */
		if (gone < 0)
			return -1;
		if (gone)
			continue;
		struct thread *bigger = grow_array(p->threads, &p->cap_threads, p->n_threads + 1, sizeof *bigger);
		if (!bigger)
			return -1;
		p->threads = bigger;
		p->threads[p->n_threads++] = (struct thread){.tid = tids[i]};
		qsort(p->threads + old, p->n_threads - old, sizeof *p->threads, compare_threads);
	}
	return p->n_threads - old;
}

static int wait_new_threads(struct process *p, size_t from, int timeout_ms)
{
	for (size_t i = from; i < p->n_threads;) {
		struct thread *t = &p->threads[i];
		int gone = seize_wait_stopped(t->tid, timeout_ms, &t->stopped);
		if (gone < 0)
			return -1;
		if (gone) {
			memmove(t, t + 1, (p->n_threads - i - 1) * sizeof *t);
			p->n_threads--;
		} else {
			i++;
		}
	}
	return 0;
}

/* 1: it has ended meanwhile. */
static int freeze_threads(struct process *p, const struct options *opt)
{
	for (;;) {
		size_t before = p->n_threads;
		int n = seize_new_threads(p, 0);
		if (n < 0)
			return the_error.code == ENOENT || the_error.code == ESRCH ? 1 : -1;
		if (n == 0)
			break;
		if (wait_new_threads(p, before, opt->timeout_ms))
			return -1;
		qsort(p->threads, p->n_threads, sizeof *p->threads, compare_threads);
	}
	return p->n_threads ? 0 : 1;
}

/* The signals that wait for a thread, its own and the process's, as a mask. */
static uint64_t pending_signals(const struct process *p, pid_t tid)
{
	autofree char *text = proc_read(NULL, "/proc/%d/task/%d/status", p->pid, tid);
	return text ? status_number(text, "SigPnd", 16, 0) | status_number(text, "ShdPnd", 16, 0) : ~0ul;
}

/* What is known about a stopped process whatever it uses. */
static int describe(struct process *p)
{
	struct proc_stat st;
	if (proc_stat_read(p->pid, 0, &st))
		return -1;
	p->ppid = st.ppid;
	p->pgid = st.pgrp;
	p->sid = st.session;
	p->exit_signal = st.exit_signal;
	snprintf(p->comm, sizeof p->comm, "%s", st.comm);
	/* the leader first, or the first of those that live on without it: it alone can still be asked */
	p->host = &p->threads[0];
	p->state = p->host->tid == p->pid ? PROCESS_ALIVE : PROCESS_DEAD_LEADER;
	for (size_t i = 0; i < p->n_threads; i++)
		if (p->threads[i].tid == p->pid)
			p->host = &p->threads[i], p->state = PROCESS_ALIVE;
	p->status = proc_read(NULL, "/proc/%d/status", p->host->tid);
	if (!p->status)
		return -1;
	if (p->state == PROCESS_DEAD_LEADER)
		p->exit_status = st.exit_code;
	for (size_t i = 0; i < p->n_threads; i++)
		if (p->threads[i].stopped) {
			if (p->state == PROCESS_ALIVE)
				p->state = PROCESS_STOPPED;
			p->stop_signal = SIGSTOP; /* whichever it was: it ends by SIGCONT alone */
		}
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/mem", p->host->tid);
	p->mem = open(path, O_RDWR | O_CLOEXEC);
	if (p->mem < 0)
		return fail_errno("%s", path);
	p->pidfd = syscall(SYS_pidfd_open, p->host->tid, p->state == PROCESS_DEAD_LEADER ? O_EXCL /* PIDFD_THREAD */ : 0);
	if (p->pidfd < 0 && p->state == PROCESS_DEAD_LEADER && errno == EINVAL)
		return fail("pid %d (%s): its main thread has ended, its others live on: to dump that needs Linux 6.9", p->pid, p->comm);
	if (p->pidfd < 0)
		return fail_errno("pidfd of pid %d", p->pid);
	for (size_t i = 0; i < p->n_threads; i++)
		if (seize_read(&p->threads[i], pending_signals(p, p->threads[i].tid)))
			return fail_within("pid %d (%s)", p->pid, p->comm);
	return 0;
}

/* The children of all of a process's threads, ascending. */
static int list_children(const struct process *p, int **out, size_t *n)
{
	char path[64];
	size_t cap = 0, n_tids;
	autofree int *tids = NULL;
	*out = NULL;
	*n = 0;
	snprintf(path, sizeof path, "/proc/%d/task", p->pid);
	if (proc_list_numbers(path, &tids, &n_tids))
		return -1;
	for (size_t i = 0; i < n_tids; i++) {
		autofree char *text = proc_read(NULL, "/proc/%d/task/%d/children", p->pid, tids[i]);
		if (!text)
			return -1;
		for (char *s = text, *end;; s = end) {
			long pid = strtol(s, &end, 10);
			if (end == s)
				break;
			int *bigger = grow_array(*out, &cap, *n + 1, sizeof **out);
			if (!bigger)
				return -1;
			*out = bigger;
			(*out)[(*n)++] = pid;
		}
	}
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return (x > y) - (x < y);
}

static int freeze_process(struct dump *d, pid_t pid, size_t parent);

/* Freezes the children that are not yet known; their number, -1. d->procs may move: indices only. */
static int freeze_new_children(struct dump *d, size_t index, int **known, size_t *n_known)
{
	int *children;
	size_t n;
	int fresh = 0;
	if (list_children(&d->procs[index], &children, &n))
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (*n_known && bsearch(&children[i], *known, *n_known, sizeof **known, compare_pids))
			continue;
		int ret = freeze_process(d, children[i], index);
		if (ret < 0) {
			free(children);
			return -1;
		}
		fresh++;
	}
	free(*known);
	*known = children;
	*n_known = n;
	if (n)
		qsort(children, n, sizeof *children, compare_pids);
	return fresh;
}

static int add_zombie(struct process *p, const struct proc_stat *st)
{
	p->state = PROCESS_ZOMBIE;
	p->ppid = st->ppid;
	p->pgid = st->pgrp;
	p->sid = st->session;
	p->exit_signal = st->exit_signal;
	p->exit_status = st->exit_code;
	snprintf(p->comm, sizeof p->comm, "%s", st->comm);
	return 0;
}

/* PID and all below it. 0 also when it has ended meanwhile. PARENT: its index, -1 for the root. */
static int freeze_process(struct dump *d, pid_t pid, size_t parent)
{
	if (pid == getpid())
		return fail("pid %d is criu-lite itself: start it outside the tree that it dumps", pid);
	struct process *p = add_process(d);
	if (!p)
		return -1;
	size_t index = p - d->procs;
	p->pid = pid;
	int ret = freeze_threads(p, d->opt);
	if (ret < 0)
		return -1;
	if (ret) {
		struct proc_stat st;
		if (proc_stat_read(pid, 0, &st) == 0 && st.state == 'Z' && parent != (size_t)-1)
			return add_zombie(p, &st);
		d->n--;
		return parent == (size_t)-1 ? fail("pid %d has ended", pid) : 0;
	}
	if (describe(p))
		return -1;
	autofree int *known = NULL;
	size_t n_known = 0;
	do
		ret = freeze_new_children(d, index, &known, &n_known);
	while (ret > 0);
	return ret;
}

static int compare_by_pid(const void *a, const void *b)
{
	const struct process *x = *(struct process *const *)a, *y = *(struct process *const *)b;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* Parents by number, now that d->procs moves no more. */
static int link_parents(struct dump *d)
{
	autofree struct process **by_pid = alloc_zeroed(d->n, sizeof *by_pid);
	if (!by_pid)
		return -1;
	for (size_t i = 0; i < d->n; i++)
		by_pid[i] = &d->procs[i];
	qsort(by_pid, d->n, sizeof *by_pid, compare_by_pid);
	for (size_t i = 1; i < d->n; i++) {
		struct process key = {.pid = d->procs[i].ppid}, *k = &key;
		struct process **found = bsearch(&k, by_pid, d->n, sizeof *by_pid, compare_by_pid);
		if (!found)
			return fail("pid %d's parent %d is not in the tree: it changed while it was stopped; try again",
				    d->procs[i].pid, d->procs[i].ppid);
		d->procs[i].parent = *found;
	}
	return 0;
}

int freeze_tree(struct dump *d, pid_t pid)
{
	seize_begin();
	if (freeze_process(d, pid, -1) || link_parents(d)) {
		thaw_tree(d);
		return -1;
	}
	return 0;
}

void thaw_tree(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++)
		for (size_t k = 0; k < d->procs[i].n_threads; k++)
			seize_release(d->procs[i].threads[k].tid);
}

int kill_tree(struct dump *d)
{
	int ret = 0;
	for (size_t i = 0; i < d->n; i++)
		if (d->procs[i].pidfd >= 0 && kill(d->procs[i].pid, SIGKILL) && errno != ESRCH)
			ret = fail_errno("killing pid %d", d->procs[i].pid);
	/* As their tracer we see each thread's end; the real parent sees it after that. */
	for (size_t i = 0; i < d->n; i++)
		for (size_t k = d->procs[i].n_threads; k-- > 0;) {
			int status;
			while (waitpid(d->procs[i].threads[k].tid, &status, __WALL) > 0 && !WIFEXITED(status) &&
			       !WIFSIGNALED(status))
				;
		}
	return ret;
}

void free_tree(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct process *p = &d->procs[i];
		for (size_t k = 0; k < p->n_threads; k++)
			free(p->threads[k].xstate);
		free(p->threads);
		free(p->status);
		maps_free(&p->maps);
		notes_free(&p->core);
		if (p->pidfd >= 0)
			close(p->pidfd);
		if (p->mem >= 0)
			close(p->mem);
		if (p->parasite.sock >= 0)
			close(p->parasite.sock);
	}
	free(d->procs);
}
