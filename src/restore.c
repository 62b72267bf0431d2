/*
 * restore: read and check everything, open what is shared, fork the tree, wait until every thread stands ready in its
 * restorer, then let all go at once. Until then any error ends what was made and says why.
 */
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86_64/cpu.h"
#include "family.h"
#include "lib/proc.h"
#include "lib/seize.h"
#include "pidns.h"

/* ---- reading ---- */

static int read_tree(struct restore *r)
{
	size_t cap = 0;
	if (image_file_open(&r->image, "tree", &r->tree))
		return -1;
	each_record(&r->tree, rec) {
		if (rec->type == REC_TREE && record_get(&r->tree, rec, &r->rec, sizeof r->rec))
			return -1;
		if (rec->type != REC_PROCESS)
			continue;
		struct rtask *bigger = grow_array(r->tasks, &cap, r->n + 1, sizeof *bigger);
		if (!bigger)
			return -1;
		r->tasks = bigger;
		struct rtask *t = &r->tasks[r->n++];
		memset(t, 0, sizeof *t);
		t->core.fd = -1;
		if (record_get(&r->tree, rec, &t->proc, sizeof t->proc))
			return -1;
		if (!t->proc.pid || t->proc.pid > 4194304)
			return fail("tree: %u is no process's number", t->proc.pid);
		if (t->proc.exit_signal > 65 || t->proc.sid > 4194304 || t->proc.pgid > 4194304)
			return fail("tree: process %u's exit signal %u, session %u or group %u is impossible", t->proc.pid,
				    t->proc.exit_signal, t->proc.sid, t->proc.pgid);
	}
	if (r->n && r->tasks[0].proc.outside && !r->opt->shell_job)
		return fail("pid %u belongs to a session outside of its tree: restore it with --shell-job too", r->tasks[0].proc.pid);
	if (r->rec.version != CRL_IMAGE_VERSION || !r->n || r->tasks[0].proc.pid != r->rec.root_pid)
		return fail("tree does not say what it is the tree of: the image is not whole");
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	const struct rtask *x = *(struct rtask *const *)a, *y = *(struct rtask *const *)b;
	return (x->proc.pid > y->proc.pid) - (x->proc.pid < y->proc.pid);
}

/* Parents come before their children, so that there can be no ring. */
static int link_parents(struct restore *r)
{
	autofree struct rtask **by_pid = alloc_zeroed(r->n, sizeof *by_pid);
	if (!by_pid)
		return -1;
	for (size_t i = 0; i < r->n; i++)
		by_pid[i] = &r->tasks[i];
	qsort(by_pid, r->n, sizeof *by_pid, compare_pids);
	for (size_t i = 1; i < r->n; i++)
		if (by_pid[i]->proc.pid == by_pid[i - 1]->proc.pid)
			return fail("tree names process %u twice", by_pid[i]->proc.pid);
	for (size_t i = 1; i < r->n; i++) {
		struct rtask key = {.proc.pid = r->tasks[i].proc.ppid}, *k = &key;
		struct rtask **found = bsearch(&k, by_pid, r->n, sizeof *by_pid, compare_pids);
		if (!found || *found >= &r->tasks[i] || (*found)->proc.state == PROCESS_ZOMBIE)
			return fail("tree: process %u's parent %u does not come before it", r->tasks[i].proc.pid,
				    r->tasks[i].proc.ppid);
		r->tasks[i].parent = *found;
	}
	return 0;
}

static int read_cores(struct restore *r)
{
	for (size_t i = 0; i < r->n; i++) {
		struct rtask *t = &r->tasks[i];
		char name[32];
		if (t->proc.state == PROCESS_ZOMBIE)
			continue;
		snprintf(name, sizeof name, "core.%u", t->proc.pid);
		if (image_file_open(&r->image, name, &t->core))
			return -1;
		bool found = false;
		each_record(&t->core, rec)
			if (rec->type == REC_TASK) {
				if (record_get(&t->core, rec, &t->task, sizeof t->task))
					return -1;
				found = true;
			}
		if (!found || t->task.pid != t->proc.pid || t->task.n_threads > 1u << 20)
			return fail("%s has no record of process %u", name, t->proc.pid);
	}
	return 0;
}

static int check_cpu(const struct restore *r)
{
	uint64_t here[4];
	cpu_features(here);
	const char *missing = cpu_missing(r->rec.cpu_features, here);
	if (missing)
		return fail("this CPU has no %s, which the programs may use: it was there at the dump; restore on a CPU that has it",
			    missing);
	if (r->rec.xfeatures & ~cpu_xfeatures())
		return fail("this CPU and kernel do not keep all register state of the image (XCR0 %#lx is needed, %#lx is here)",
			    r->rec.xfeatures, cpu_xfeatures());
	return 0;
}

static int read_image(struct restore *r)
{
	if (image_open(&r->image, r->opt->dir) || read_tree(r) || link_parents(r) || read_cores(r) || family_plan(r) || family_numbers(r) || check_cpu(r))
		return -1;
	return 0;
}

/* ---- opening what is shared ---- */

static int raise_to(const struct rec_fd *f, void *max)
{
	if (f->fd > *(uint32_t *)max)
		*(uint32_t *)max = f->fd;
	return 0;
}

/* The lowest number that no task of the image uses. */
static int highest_fd(const struct restore *r, uint32_t *max)
{
	*max = 2;
	for (size_t i = 0; i < r->n; i++)
		if (each_descriptor(&r->tasks[i].core, raise_to, max))
			return -1;
	return 0;
}

/* Our own descriptors, and those that are opened for the tasks, go above every number that a task needs. */
static int move_up(struct restore *r)
{
	uint32_t max;
	struct rlimit lim;
	if (highest_fd(r, &max) || getrlimit(RLIMIT_NOFILE, &lim))
		return -1;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	r->keep_from = max + 1;
	if (r->keep_from < 64)
		r->keep_from = 64;
	int *own[] = {&r->image.dirfd, &r->tree.fd};
	for (size_t i = 0; i < r->n + 2; i++) {
		int *fd = i < r->n ? &r->tasks[i].core.fd : own[i - r->n];
		if (*fd < 0)
			continue;
		int high = fcntl(*fd, F_DUPFD_CLOEXEC, r->keep_from);
		if (high < 0)
			return fail_errno("a descriptor above %u (the limit RLIMIT_NOFILE is %lu)", max, lim.rlim_max);
		close(*fd);
		*fd = high;
	}
	return 0;
}

static int make_shared(struct restore *r)
{
	int fd = memfd_create("criu-lite", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 4096))
		return fail_errno("a page to share with the tasks");
	r->shared_fd = fcntl(fd, F_DUPFD_CLOEXEC, r->keep_from);
	close(fd);
	r->shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r->shared_fd, 0);
	if (r->shared_fd < 0 || r->shared == MAP_FAILED)
		return fail_errno("a page to share with the tasks");
	r->regions = mmap(NULL, r->n * sizeof *r->regions, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return r->regions != MAP_FAILED ? 0 : fail_errno("memory to share with the tasks");
}

int keep_object(struct restore *r, uint32_t id, int fd, const struct record *rec)
{
	if (!id || id > r->tree.n_records + 1)
		return fail("tree: %u is no object's number", id);
	if (id > r->n_opened) {
		struct opened *bigger = grow_array(r->opened, &r->cap_opened, id, sizeof *bigger);
		if (!bigger)
			return -1;
		r->opened = bigger;
		for (; r->n_opened < id; r->n_opened++)
			r->opened[r->n_opened] = (struct opened){.id = r->n_opened + 1, .fd = -1};
	}
	struct opened *o = &r->opened[id - 1];
	if (o->fd >= 0)
		return fail("tree: object %u is there twice", id);
	o->record = rec;
	o->fd = fcntl(fd, F_DUPFD_CLOEXEC, r->keep_from);
	close(fd);
	return o->fd >= 0 ? 0 : fail_errno("a descriptor for object %u (restore needs as many again as the programs have: raise ulimit -n)", id);
}

static bool opens(const struct kind *k, uint32_t type)
{
	for (size_t i = 0; i < sizeof k->opens / sizeof *k->opens; i++)
		if (k->opens[i] && k->opens[i] == type)
			return true;
	return false;
}

static int open_objects(struct restore *r)
{
	for (const struct kind *const *k = kinds; *k; k++)
		each_record(&r->tree, rec) {
			uint32_t id = 0;
			if (!(*k)->open || !opens(*k, rec->type))
				continue;
			int fd = (*k)->open(r, rec, &id);
			if (fd == OPEN_LATER)
				continue;
			if (fd < 0 || keep_object(r, id, fd, rec))
				return -1;
		}
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->opened && (*k)->opened(r))
			return -1;
	return 0;
}

/* ---- the tasks ---- */

static const char *const step_text[] = {
	[STEP_UNMAP] = "unmapping criu-lite's own memory",
	[STEP_MOVE_VDSO] = "moving the vDSO",
	[STEP_MAP] = "mapping memory",
	[STEP_FILL] = "reading memory from its core",
	[STEP_PROTECT] = "protecting memory",
	[STEP_ADVISE] = "giving advice on memory",
	[STEP_MM] = "telling the kernel where code, data and stack are",
	[STEP_THREAD] = "making a thread, or its state (is its number taken?)",
	[STEP_FDS] = "closing descriptors",
	[STEP_SIGNALS] = "setting signal actions",
	[STEP_PENDING] = "queueing a pending signal",
	[STEP_TIMERS] = "setting timers",
	[STEP_CREDS] = "setting credentials",
	[STEP_SCHED] = "setting scheduling",
	[STEP_SECCOMP] = "putting a seccomp filter back",
	[STEP_PRCTL] = "setting a property of the process (prctl)",
	[STEP_LIMITS] = "setting a resource limit",
	[STEP_LOCKS] = "taking a file lock or lease again, which somebody else may hold by now, on descriptor",
	[STEP_RSEQ] = "registering restartable sequences",
};

/* What a task has left in the shared page becomes the error. */
int restore_take_failure(struct restore *r)
{
	struct shared *s = r->shared;
	if (s->text_len) {
		s->text[sizeof s->text - 1] = 0;
		return fail("%s", s->text);
	}
	if (s->step == STEP_SUM)
		return fail("core.%u: MiB %lu of its contents has another checksum than was written: the image was altered or its "
			    "disk is failing; take another copy",
			    s->failed_pid, s->where);
	const char *text = s->step < sizeof step_text / sizeof *step_text ? step_text[s->step] : NULL;
	errno = -s->code;
	return fail_errno("pid %u: %s (%#lx)", s->failed_pid, text ? text : "in the restorer", s->where);
}

/* A task that died without a word: its number, 0: none. Only asked when nothing has happened for a while. */
static pid_t dead_task(struct restore *r)
{
	for (size_t i = 0; i < r->n; i++) {
		struct proc_stat st;
		if (r->tasks[i].proc.state == PROCESS_ZOMBIE)
			continue;
		if (kill(r->tasks[i].proc.pid, 0) || (proc_stat_read(r->tasks[i].proc.pid, 0, &st) == 0 && st.state == 'Z' &&
						       r->tasks[i].proc.state != PROCESS_DEAD_LEADER))
			return r->tasks[i].proc.pid;
	}
	return 0;
}

/* Waits until N threads have counted themselves in. */
static int wait_arrived(struct restore *r, uint32_t n)
{
	struct shared *s = r->shared;
	for (;;) {
		uint32_t now = __atomic_load_n(&s->arrived, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&s->failed, __ATOMIC_SEQ_CST))
			return restore_take_failure(r);
		if (now >= n)
			return 0;
		struct timespec t = {0, 100000000};
		if (syscall(SYS_futex, &s->arrived, FUTEX_WAIT, now, &t, NULL, 0) && errno == ETIMEDOUT && r->forked) {
			pid_t dead = dead_task(r);
			if (dead && !__atomic_load_n(&s->failed, __ATOMIC_SEQ_CST))
				return fail("pid %d died while it was restored", dead);
		}
	}
}

static uint32_t count_threads(const struct restore *r)
{
	uint32_t n = 0;
	for (size_t i = 0; i < r->n; i++)
		if (r->tasks[i].proc.state != PROCESS_ZOMBIE)
			n += r->tasks[i].task.n_threads + (r->tasks[i].proc.state == PROCESS_DEAD_LEADER);
	return n;
}

static int check_numbers_free(const struct restore *r)
{
	for (size_t i = 0; i < r->n + r->n_helpers; i++) {
		pid_t pid = i < r->n ? r->tasks[i].proc.pid : r->helpers[i - r->n].proc.pid;
		struct proc_stat st;
		bool known = proc_stat_read(pid, 0, &st) == 0;
		/* just dumped, it may be on its way out, or its parent may be slow to ask for its status */
		for (int tick = 0; known && strchr("ZX", st.state) && tick < 200; tick++) {
			nanosleep(&(struct timespec){0, 10000000}, NULL);
			known = proc_stat_read(pid, 0, &st) == 0;
		}
		if (kill(pid, 0) == 0 || errno == EPERM)
			return fail("pid %d is taken (by %s): end that process, or restore with --pidns", pid,
				    known ? st.comm : "another process");
	}
	return 0;
}

/* SIGKILL to all that was made. They are ours to reap, or our tasks'. */
static void end_tasks(struct restore *r)
{
	if (!r->forked)
		return;
	for (size_t i = 0; i < r->n; i++)
		if (r->tasks[i].seized || i == 0)
			kill(r->tasks[i].proc.pid, SIGKILL);
	/* a leader's end is told after that of its threads, which are told to us, their tracer */
	int status;
	pid_t got;
	do
		got = waitpid(-1, &status, __WALL);
	while (got > 0 ? got != (pid_t)r->tasks[0].proc.pid || WIFSTOPPED(status) : errno == EINTR);
}

static int make_tasks(struct restore *r)
{
	if (check_numbers_free(r))
		return -1;
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	pid_t pid = task_fork(&r->tasks[0]);
	if (pid < 0)
		return -1;
	if (pid == 0)
		task_main(r, &r->tasks[0]);
	r->forked = true;
	/* first all processes are there, so that groups can be joined, and left; then all threads */
	for (uint32_t stage = FAMILY_BORN; stage < FAMILY_DONE; stage++) {
		if (wait_arrived(r, r->n + r->n_helpers) || (stage == FAMILY_BORN && catch_leaders(r)))
			return -1;
		r->shared->arrived = 0;
		__atomic_store_n(&r->shared->forked, stage, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &r->shared->forked, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
	}
	if (wait_arrived(r, count_threads(r)))
		return -1;
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->ready && (*k)->ready(r))
			return -1;
	return pidns_root_made(r) ? -1 : catch_all(r);
}

static int write_pidfile(const struct restore *r)
{
	if (!r->opt->pidfile)
		return 0;
	FILE *f = fopen(r->opt->pidfile, "we");
	if (!f || fprintf(f, "%u\n", r->rec.root_pid) < 0 || fflush(f)) {
		fail_errno("the pid file %s", r->opt->pidfile);
		if (f)
			fclose(f);
		return -1;
	}
	fclose(f);
	return 0;
}

static void undo(struct restore *r)
{
	struct error first = the_error;
	end_tasks(r);
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->undo)
			(*k)->undo(r);
	if (r->opt->pidfile && r->pidfile_written)
		unlink(r->opt->pidfile);
	the_error = first;
}

static void free_restore(struct restore *r)
{
	for (size_t i = 0; i < r->n; i++)
		image_file_close(&r->tasks[i].core);
	image_file_close(&r->tree);
	image_close(&r->image);
	free(r->tasks);
	/* restore may go on to wait for the program, which must not miss the end of a pipe because of us */
	for (size_t i = 0; i < r->n_opened; i++)
		if (r->opened[i].fd >= 0)
			close(r->opened[i].fd);
	family_free(r);
	free(r->opened);
}

int restore_tree(const struct options *opt, int *status)
{
	struct restore r = {.opt = opt, .coordinator = getpid(), .tree.fd = -1, .image.dirfd = -1, .shared_fd = -1};
	seize_begin();
	int ret = read_image(&r);
	bool inside = !ret && pidns_needed(opt);
	if (inside)
		ret = pidns_enter(&r);
	if (!ret)
		ret = move_up(&r) || make_shared(&r) || open_objects(&r) ? -1 : 0;
	if (!ret && !inside) {
		ret = write_pidfile(&r);
		r.pidfile_written = !ret;
	}
	if (!ret)
		ret = make_tasks(&r);
	if (ret)
		undo(&r);
	pid_t root = r.rec.root_pid;
	free_restore(&r);
	if (!ret && !opt->detach)
		while (waitpid(root, status, __WALL) < 0)
			if (errno != EINTR)
				return fail_errno("waiting for pid %d", root);
	return ret;
}
