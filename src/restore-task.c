/*
 * What a new process does, from its birth to the restorer's entry:
 *
 *   1. it is born with its number, into the session that it needs (family.c); some of its children before it leads its own
 *   2. its own session, if it leads one; the other children; its own group
 *   3. when all processes are there: it joins its group; when all have: it leaves one that it has only founded
 *   4. helpers end and are reaped; a zombie ends as the one before it did
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
#include <time.h>
#include <unistd.h>

#include "family.h"
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
		__atomic_store_n(&s->failed, t->helper ? 1 : t - r->tasks + 1, __ATOMIC_SEQ_CST);
	}
	syscall(SYS_futex, &s->arrived, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
	_exit(1);
}

pid_t task_fork(struct rtask *t)
{
	int tid = t->proc.pid;
	/* a helper's end sends nothing; the root's is for whoever waits here */
	uint64_t sig = t->helper ? 0 : t->proc.exit_signal && t->parent ? t->proc.exit_signal - 1 : SIGCHLD;
	struct clone_args a = {.exit_signal = sig, .set_tid = (uintptr_t)&tid, .set_tid_size = 1};
	pid_t pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid >= 0)
		return pid;
	if (errno == EEXIST)
		return fail("pid %d is taken: end that process, or restore with --pidns", tid);
	if (errno == EPERM)
		return fail("you may not choose pid %d: that needs root or CAP_CHECKPOINT_RESTORE; restore with --pidns", tid);
	return fail_errno("making process %d", tid);
}

static int make_child(struct restore *r, struct rtask *c)
{
	pid_t pid = task_fork(c);
	if (pid == 0)
		task_main(r, c);
	return pid < 0 ? -1 : 0;
}

/* C is born of a helper that dies: it goes to the subreaper that shall be its parent. */
static int make_orphan(struct restore *r, struct rtask *t, struct rtask *c)
{
	pid_t pid = -1;
	errno = EEXIST;
	for (size_t i = c->orphan; pid < 0 && errno == EEXIST; i += r->n_orphans) {
		int tid = family_spare(r, i);
		struct clone_args a = {.set_tid = (uintptr_t)&tid, .set_tid_size = 1};
		if (!tid)
			return fail("pid %u: no process's number is free for a helper", t->proc.pid);
		pid = syscall(SYS_clone3, &a, sizeof a);
	}
	if (pid < 0)
		return fail_errno("pid %u: making a helper", t->proc.pid);
	if (pid == 0) {
		if (make_child(r, c))
			task_fail(r, t);
		_exit(0);
	}
	return waitpid(pid, NULL, __WALL) == pid ? 0 : fail_errno("pid %u: waiting for a helper", t->proc.pid);
}

static int make_children(struct restore *r, struct rtask *t, bool after)
{
	for (struct rtask *c = t->born[after]; c; c = c->next)
		if (c->adopted ? make_orphan(r, t, c) : make_child(r, c))
			return -1;
	return 0;
}

/* Counts this task in, and waits until all have come as far. */
static void all_reach(struct restore *r, uint32_t stage)
{
	struct shared *s = r->shared;
	uint32_t now;
	__atomic_add_fetch(&s->arrived, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &s->arrived, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
	while ((now = __atomic_load_n(&s->forked, __ATOMIC_SEQ_CST)) < stage)
		syscall(SYS_futex, &s->forked, FUTEX_WAIT, now, NULL, NULL, 0);
}

static int join_group(struct rtask *t)
{
	/* the group outside is the one that all are born into */
	if (t->proc.outside & OUTSIDE_GROUP || getpgrp() == (pid_t)t->proc.pgid)
		return 0;
	if (setpgid(0, t->proc.pgid))
		return fail_errno("pid %u: joining process group %u", t->proc.pid, t->proc.pgid);
	return 0;
}

static int lead_session(struct restore *r, struct rtask *t)
{
	if (make_children(r, t, false))
		return -1;
	if (t->proc.sid != t->proc.pid)
		return 0;
	if (setsid() < 0)
		return fail_errno("pid %u: leading a session", t->proc.pid);
	if (t->helper)
		return 0;
	for (const struct kind *const *k = kinds; *k; k++)
		if ((*k)->lead && (*k)->lead(r, t))
			return -1;
	return 0;
}

/* Session and group as they were. A group that its first process has left lives on: it leaves when others are in. */
static int take_place(struct restore *r, struct rtask *t)
{
	bool own_group = t->proc.pgid == t->proc.pid || t->led_group;
	if (lead_session(r, t) || make_children(r, t, true))
		return -1;
	if (own_group && t->proc.sid != t->proc.pid && setpgid(0, 0))
		return fail_errno("pid %u: leading a process group", t->proc.pid);
	all_reach(r, FAMILY_BORN);
	if (!own_group && join_group(t))
		return -1;
	all_reach(r, FAMILY_JOINED);
	if (join_group(t))
		return -1;
	all_reach(r, FAMILY_LEFT);
	return 0;
}

/*
 * Helpers are reaped; zombies are awaited but left, and the signals that their ends send are taken: the program has had
 * them, or has them among those that wait in the image.
 */
static int settle_ended(struct rtask *t)
{
	sigset_t set;
	sigfillset(&set);
	for (struct rtask *c = t->ended; c; c = c->next_ended) {
		siginfo_t info;
		while (waitid(P_PID, c->proc.pid, &info, WEXITED | __WALL | (c->helper ? 0 : WNOWAIT)))
			if (errno != EINTR)
				return fail_errno("pid %u: waiting for its child %u to end", t->proc.pid, c->proc.pid);
	}
	for (struct timespec none = {0, 0}; t->ended;)
		if (sigtimedwait(&set, NULL, &none) < 0)
			break;
	if (t->adopts && prctl(PR_SET_CHILD_SUBREAPER, 0))
		return fail_errno("pid %u: being no subreaper", t->proc.pid);
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
	if (t->proc.state == PROCESS_DEAD_LEADER) { /* no thread's record has its name */
		char comm[17] = {0};
		memcpy(comm, t->proc.comm, 16);
		prctl(PR_SET_NAME, comm);
	}
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
	r->regions[t - r->tasks] = (struct region){plan.region, plan.len, plan.args->threads, (uintptr_t)plan.args};
	plan_enter(&plan);
}

/* Until the coordinator holds it with PTRACE_O_EXITKILL, a task ends with its parent: nobody runs half restored. */
static void die_with_parent(struct restore *r, struct rtask *t)
{
	pid_t parent = t->parent ? (pid_t)t->parent->proc.pid : r->coordinator;
	/* its helper's end must not be its own */
	if (t->adopted)
		for (struct timespec ms = {0, 1000000}; getppid() != parent && kill(r->coordinator, 0) == 0;)
			nanosleep(&ms, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

void task_main(struct restore *r, struct rtask *t)
{
	if (t->adopts)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	die_with_parent(r, t);
	if (take_place(r, t))
		task_fail(r, t);
	if (settle_ended(t))
		task_fail(r, t);
	if (t->helper)
		_exit(0);
	if (t->proc.state == PROCESS_ZOMBIE)
		become_zombie(t);
	become_target(r, t);
	task_fail(r, t);
}
