/*
 * The last act of restore. Every thread waits in its restorer; each is seized, with the promise that it dies if we do,
 * and taken through rt_sigreturn: then it is the target's, registers and signal mask, but for the restorer's region, which
 * one thread of each process unmaps from the padding of its vDSO. When all of that has gone well, all are let go.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86_64/trampoline.h"
#include "lib/proc.h"
#include "lib/seize.h"
#include "plan.h"
#include "restore.h"
#include "restorer-offsets.h"

struct caught {
	struct rtask *task;
	uint64_t frame;
	uint64_t stack, thread; /* for its last call of the restorer, and its argument */
	bool last, suspend;	/* as struct restorer_thread has them */
	pid_t tid;
};

/* The frames are where the task has planned them. */
static int read_frames(struct restore *r, struct rtask *t, struct caught *c)
{
	size_t n = t->task.n_threads;
	autofree struct restorer_thread *threads = alloc_zeroed(n, sizeof *threads);
	if (!threads)
		return -1;
	struct iovec here = {threads, n * sizeof *threads};
	struct iovec there = {(void *)r->regions[t - r->tasks].threads, n * sizeof *threads};
	if (process_vm_readv(c->tid, &here, 1, &there, 1, 0) != (ssize_t)here.iov_len)
		return fail_errno("pid %u: reading its restorer's plan", t->proc.pid);
	for (size_t i = 0; i < n; i++)
		c[i] = (struct caught){.task = c[i].task, .tid = c[i].tid, .frame = threads[i].frame, .stack = threads[i].stack,
				       .last = threads[i].last, .suspend = threads[i].suspend,
				       .thread = r->regions[t - r->tasks].threads + i * sizeof *threads};
	return 0;
}

static int list_threads(struct restore *r, struct caught **out, size_t *n)
{
	size_t cap = 0;
	for (size_t i = 0; i < r->n; i++) {
		struct rtask *t = &r->tasks[i];
		if (t->proc.state == PROCESS_ZOMBIE)
			continue;
		each_record(&t->core, rec) {
			struct rec_thread th;
			if (rec->type != REC_THREAD)
				continue;
			if (record_get(&t->core, rec, &th, sizeof th))
				return -1;
			struct caught *bigger = grow_array(*out, &cap, *n + 1, sizeof **out);
			if (!bigger)
				return -1;
			*out = bigger;
			(*out)[(*n)++] = (struct caught){.task = t, .tid = th.tid};
		}
		if (read_frames(r, t, *out + *n - t->task.n_threads))
			return -1;
	}
	return 0;
}

static int seize_all(struct caught *c, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool held = c[i].task->seized && c[i].tid == (pid_t)c[i].task->proc.pid;
		if (held ? seize_interrupt(c[i].tid) : seize_start(c[i].tid, PTRACE_O_EXITKILL))
			return fail_within("pid %u", c[i].task->proc.pid);
	}
	for (size_t i = 0; i < n; i++) {
		bool group;
		if (seize_wait_stopped(c[i].tid, -1, &group))
			return fail("thread %d died while it was restored", c[i].tid);
	}
	return 0;
}

/* From here on no seccomp filter is asked, neither about the thread's calls nor about ours, until we let it go. */
static int suspend_seccomp(const struct caught *c)
{
	unsigned long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP;
	if (ptrace(PTRACE_SETOPTIONS, c->tid, 0, options) == 0)
		return 0;
	return fail_errno("it has a seccomp filter, which must be suspended while it is restored: this needs CAP_SYS_ADMIN in the "
			  "first user namespace, and a criu-lite without a filter of its own");
}

/* Through what the restorer does last for the thread, and the rt_sigreturn at its end. */
static int through_last(struct restore *r, struct caught *c)
{
	struct user_regs_struct regs;
	const struct region *region = &r->regions[c->task - r->tasks];
	if ((c->suspend && suspend_seccomp(c)) || seize_get_regs(c->tid, &regs))
		return -1;
	regs.rip = region->start + restorer_blob_offset____export_restorer_last;
	regs.rdi = region->args;
	regs.rsi = c->thread;
	regs.rsp = c->stack - 64 - 8; /* as after a call */
	regs.orig_rax = -1;
	if (seize_set_regs(c->tid, &regs))
		return -1;
	do {
		if (seize_to_syscall(c->tid) || seize_get_regs(c->tid, &regs) || seize_to_syscall(c->tid))
			return -1;
		/* not one step further: of a leader's end we would hear only after that of its threads */
		if (r->shared->failed)
			return restore_take_failure(r);
	} while (regs.orig_rax != SYS_rt_sigreturn);
	return 0;
}

static int through_sigreturn(struct restore *r, struct caught *c)
{
	struct user_regs_struct regs;
	uint64_t region = r->regions[c->task - r->tasks].start;
	if (seize_get_regs(c->tid, &regs))
		return -1;
	regs.rip = region + restorer_blob_offset____export_restorer_sigreturn;
	regs.rsp = c->frame;
	regs.orig_rax = -1;
	if (seize_set_regs(c->tid, &regs) || seize_to_syscall(c->tid) || seize_to_syscall(c->tid))
		return -1;
	return 0;
}

/* The vDSO's padding has room for the few instructions that outlive the region. */
static int unmap_region(struct restore *r, struct caught *c)
{
	size_t index = c->task - r->tasks;
	struct user_regs_struct final, regs;
	struct rec_mm mm = {0};
	char path[64];
	each_record(&c->task->core, rec)
		if (rec->type == REC_MM && record_get(&c->task->core, rec, &mm, sizeof mm))
			return -1;
	uint64_t at = mm.vdso + mm.vdso_size - ((trampoline_end - trampoline_start + 15) & ~15ul);
	snprintf(path, sizeof path, "/proc/%d/mem", c->tid);
	autoclose int mem = open(path, O_RDWR | O_CLOEXEC);
	size_t len = trampoline_end - trampoline_start;
	if (mem < 0 || pwrite(mem, trampoline_start, len, at) != (ssize_t)len)
		return fail_errno("pid %u: writing behind its vDSO", c->task->proc.pid);
	if (seize_get_regs(c->tid, &final))
		return -1;
	regs = final;
	regs.rip = at + (trampoline_leave - trampoline_start);
	regs.rdi = -1;
	regs.r12 = r->regions[index].start;
	regs.r13 = r->regions[index].len;
	regs.orig_rax = -1;
	/* a signal that waits comes after us */
	uint64_t mask;
	if (ptrace(PTRACE_GETSIGMASK, c->tid, 8, &mask))
		return fail_errno("reading the signal mask of thread %d", c->tid);
	if (seize_set_sigmask(c->tid, ~0ul) || seize_set_regs(c->tid, &regs))
		return -1;
	for (int i = 0; i < 4; i++)
		if (seize_to_syscall(c->tid))
			return -1;
	if (seize_get_regs(c->tid, &regs))
		return -1;
	if ((long)regs.rax < 0) {
		errno = -(long)regs.rax;
		return fail_errno("pid %u: unmapping the restorer", c->task->proc.pid);
	}
	final.orig_rax = -1;
	return seize_set_regs(c->tid, &final) || seize_set_sigmask(c->tid, mask) ? -1 : 0;
}

int catch_leaders(struct restore *r)
{
	for (size_t i = 0; i < r->n; i++) {
		if (r->tasks[i].proc.state == PROCESS_ZOMBIE)
			continue; /* its parent shall be told of its end, not we */
		if (seize_hold(r->tasks[i].proc.pid, PTRACE_O_EXITKILL))
			return fail_within("pid %u, which is being restored", r->tasks[i].proc.pid);
		r->tasks[i].seized = true;
	}
	return 0;
}

/* A leader that shall be dead: it exits alone, with the status that counts if its threads end one by one. */
static int end_leader(struct restore *r, struct rtask *t)
{
	struct user_regs_struct regs;
	struct proc_stat st;
	pid_t pid = t->proc.pid;
	bool group;
	if (seize_interrupt(pid) || seize_wait_stopped(pid, -1, &group) || seize_get_regs(pid, &regs))
		return fail("pid %d died while it was restored", pid);
	/* the syscall instruction behind mov $15, %eax */
	regs.rip = r->regions[t - r->tasks].start + restorer_blob_offset____export_restorer_sigreturn + 5;
	regs.rax = SYS_exit;
	regs.rdi = t->proc.exit_status >> 8 & 0xff;
	regs.orig_rax = -1;
	if (seize_set_regs(pid, &regs))
		return -1;
	seize_release(pid);
	do {
		nanosleep(&(struct timespec){0, 100000}, NULL);
		if (proc_stat_read(pid, 0, &st))
			return -1;
	} while (st.state != 'Z');
	return 0;
}

/*
 * While EXITKILL is taken from one thread after the other, our death would leave half a tree. A guardian kills all that is
 * left if we end before we have said that the tree is free.
 */
static pid_t start_guardian(const struct restore *r, int *pipe_end)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return fail_errno("a pipe for the guardian of the last moment");
	pid_t pid = fork();
	if (pid < 0)
		fail_errno("the guardian of the last moment");
	if (pid == 0) {
		char word;
		close(ends[1]);
		if (read(ends[0], &word, 1) != 1)
			for (size_t i = 0; i < r->n; i++)
				if (r->tasks[i].proc.state != PROCESS_ZOMBIE)
					kill(r->tasks[i].proc.pid, SIGKILL);
		_exit(0);
	}
	close(ends[0]);
	*pipe_end = ends[1];
	if (pid < 0)
		close(ends[1]);
	return pid;
}

static int drop_exitkill(const struct caught *c, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (ptrace(PTRACE_SETOPTIONS, c[i].tid, 0, 0))
			return fail_errno("thread %d", c[i].tid);
	return 0;
}

static int let_go(const struct restore *r, const struct caught *c, size_t n)
{
	int guard = -1, status;
	pid_t guardian = start_guardian(r, &guard);
	if (guardian < 0)
		return -1;
	int ret = drop_exitkill(c, n);
	/* from this byte on the tree is free: if we end, all of it goes on */
	if (!ret && write(guard, "", 1) != 1)
		ret = fail_errno("telling the guardian of the last moment");
	close(guard);
	while (waitpid(guardian, &status, 0) < 0 && errno == EINTR)
		;
	for (size_t i = 0; !ret && i < n; i++) {
		uint32_t sig = c[i].task->task.stopped;
		if (sig && (i == 0 || c[i - 1].task != c[i].task))
			kill(c[i].task->proc.pid, SIGSTOP);
		seize_release(c[i].tid);
	}
	return ret;
}

int catch_all(struct restore *r)
{
	autofree struct caught *c = NULL;
	size_t n = 0;
	if (list_threads(r, &c, &n) || seize_all(c, n))
		return -1;
	for (size_t i = 0; i < n; i++)
		if (c[i].last ? through_last(r, &c[i]) : through_sigreturn(r, &c[i]))
			return fail_within("pid %u: the end of restoring thread %d", c[i].task->proc.pid, c[i].tid);
	for (size_t i = 0; i < r->n; i++)
		if (r->tasks[i].proc.state == PROCESS_DEAD_LEADER && end_leader(r, &r->tasks[i]))
			return -1;
	for (size_t i = 0; i < n; i++)
		if ((i == 0 || c[i - 1].task != c[i].task) && unmap_region(r, &c[i]))
			return -1;
	return let_go(r, c, n);
}
