/*
 * What a new process does, from its birth to the restorer's entry:
 *
 *   1. it is born with its number; those of its children that belong to the session it was born into follow
 *   2. its own session, if it leads one; the other children; all are counted in
 *   3. when all processes are there: its process group
 *   4. a zombie ends here, as the one before it did
 *   5. the kinds install what is its own, descriptors first
 *   6. the kinds plan for the restorer, which it enters
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plan.h"
#include "restore.h"

/* The first error of all tasks is the one that is told. */
static void task_fail(struct restore *r, struct rtask *t) __attribute__((noreturn));
static void task_fail(struct restore *r, struct rtask *t)
{
	struct shared *s = r->shared;
	uint32_t nobody = 0;
	if (__atomic_compare_exchange_n(&s->busy, &nobody, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		snprintf(s->text, sizeof s->text, "%s", the_error.text);
		s->text_len = strlen(s->text);
		s->failed_pid = t->proc.pid;
		__atomic_store_n(&s->failed, t - r->tasks + 1, __ATOMIC_SEQ_CST);
	}
	syscall(SYS_futex, &s->arrived, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
	_exit(1);
}

pid_t task_fork(struct rtask *t)
{
	int tid = t->proc.pid;
	struct clone_args a = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&tid, .set_tid_size = 1};
	pid_t pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid >= 0)
		return pid;
	if (errno == EEXIST)
		return fail("pid %d is taken: end that process, or restore with --pidns", tid);
	if (errno == EPERM)
		return fail("you may not choose pid %d: that needs root or CAP_CHECKPOINT_RESTORE; restore with --pidns", tid);
	return fail_errno("making process %d", tid);
}

/* Children that are born before (or, if AFTER, once) T has a session of its own. */
static int fork_children(struct restore *r, struct rtask *t, bool after)
{
	bool leads = t->proc.sid == t->proc.pid;
	for (size_t i = 0; i < r->n; i++) {
		struct rtask *c = &r->tasks[i];
		bool needs_own = c->proc.sid == t->proc.sid || c->proc.sid == c->proc.pid || !leads;
		if (c->parent != t || needs_own != after)
			continue;
		pid_t pid = task_fork(c);
		if (pid < 0)
			return -1;
		if (pid == 0)
			task_main(r, c);
	}
	return 0;
}

static void count_in(struct restore *r)
{
	struct shared *s = r->shared;
	__atomic_add_fetch(&s->arrived, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &s->arrived, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
	while (!__atomic_load_n(&s->forked, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &s->forked, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static int join_session_and_group(struct restore *r, struct rtask *t)
{
	if (t->proc.sid == t->proc.pid && setsid() < 0)
		return fail_errno("pid %u: leading a session", t->proc.pid);
	for (const struct kind *const *k = kinds; t->proc.sid == t->proc.pid && *k; k++)
		if ((*k)->lead && (*k)->lead(r, t))
			return -1;
	if (t->proc.pgid == t->proc.pid && t->proc.sid != t->proc.pid && setpgid(0, 0))
		return fail_errno("pid %u: leading a process group", t->proc.pid);
	if (fork_children(r, t, true))
		return -1;
	count_in(r);
	bool own = t->proc.pgid == t->proc.pid || getpgrp() == (pid_t)t->proc.pgid;
	if (!own && setpgid(0, t->proc.pgid) && !(t == &r->tasks[0] && r->opt->shell_job))
		return fail_errno("pid %u: joining process group %u", t->proc.pid, t->proc.pgid);
	return 0;
}

/* Ends as wait(2) shall tell it. */
static void become_zombie(struct rtask *t) __attribute__((noreturn));
static void become_zombie(struct rtask *t)
{
	char comm[17] = {0};
	memcpy(comm, t->proc.comm, 16);
	prctl(PR_SET_NAME, comm);
	int sig = t->proc.exit_status & 0x7f;
	if (!sig)
		syscall(SYS_exit_group, t->proc.exit_status >> 8 & 0xff);
	/* a core would be another program's: ours */
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	signal(sig, SIG_DFL);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	for (;;)
		_exit(128 + sig);
}

/* What glibc has registered for criu-lite itself, which goes with its memory. */
static void plan_own_rseq(struct plan *p)
{
	if (!__rseq_size)
		return;
	p->args->own_rseq = (uintptr_t)__builtin_thread_pointer() + __rseq_offset;
	p->args->own_rseq_len = __rseq_size < 32 ? 32 : __rseq_size;
	p->args->own_rseq_sig = RSEQ_SIG;
}

static int become_target(struct restore *r, struct rtask *t)
{
	struct plan plan = {.keep_from = r->keep_from};
	/* the numbers below are the target's; ours lie above */
	if (close_range(0, r->keep_from - 1, 0))
		return fail_errno("pid %u: closing descriptors", t->proc.pid);
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->install && (*k)->install(r, t))
			return -1;
	if (plan_create(r, t, &plan))
		return -1;
	plan.args->close_from = r->keep_from;
	plan_own_rseq(&plan);
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->plan && (*k)->plan(r, t, &plan))
			return -1;
	r->regions[t - r->tasks] = (struct region){plan.region, plan.len, plan.args->threads};
	plan_enter(&plan);
}

/* Until the coordinator holds it with PTRACE_O_EXITKILL, a task ends with its parent: nobody runs half restored. */
static void die_with_parent(struct restore *r, struct rtask *t)
{
	pid_t parent = t->parent ? (pid_t)t->parent->proc.pid : r->coordinator;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

void task_main(struct restore *r, struct rtask *t)
{
	die_with_parent(r, t);
	if (t->proc.sid == t->proc.pid && fork_children(r, t, false))
		task_fail(r, t);
	if (join_session_and_group(r, t))
		task_fail(r, t);
	if (t->proc.state == PROCESS_ZOMBIE)
		become_zombie(t);
	become_target(r, t);
	task_fail(r, t);
}
