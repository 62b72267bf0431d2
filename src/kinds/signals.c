/*
 * Signals: what each does, and those that wait (each thread's queue and the process's).
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "lib/proc.h"
#include "plan.h"

/* The kernel's own struct, as rt_sigaction(2) takes it on x86-64. */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

/* ---- dump ---- */

static int collect_actions(struct process *p)
{
	struct rec_signals r = {0};
	batch_begin();
	long at = batch_room(64 * sizeof(struct kernel_sigaction));
	if (at < 0)
		return -1;
	for (int i = 0; i < 64; i++)
		if (batch_add(1 << 2, SYS_rt_sigaction, i + 1, 0, at + i * sizeof(struct kernel_sigaction), 8, 0, 0) < 0)
			return -1;
	if (parasite_run(p))
		return -1;
	for (int i = 0; i < 64; i++) {
		if (batch_result(i)) {
			errno = -batch_result(i);
			return fail_errno("pid %d (%s): asking for the action of signal %d", p->pid, p->comm, i + 1);
		}
		struct kernel_sigaction a;
		memcpy(&a, batch_data(at + i * sizeof a), sizeof a);
		r.action[i].handler = a.handler;
		r.action[i].flags = a.flags;
		r.action[i].restorer = a.restorer;
		r.action[i].mask = a.mask;
	}
	return notes_add_record(&p->core, REC_SIGNALS, &r, sizeof r, NULL, 0);
}

/* ptrace(2) PTRACE_PEEKSIGINFO leaves the queue as it is. TID 0: the process's own. */
static int collect_queue(struct process *p, pid_t tid)
{
	siginfo_t info[32];
	autofree siginfo_t *all = NULL;
	size_t n = 0, cap = 0;
	_Static_assert(sizeof(siginfo_t) == 128, "as the record has it");
	for (;;) {
		struct __ptrace_peeksiginfo_args a = {.off = n, .flags = tid ? 0 : PTRACE_PEEKSIGINFO_SHARED, .nr = 32};
		long got = ptrace(PTRACE_PEEKSIGINFO, tid ? tid : p->host->tid, &a, info);
		if (got < 0)
			return fail_errno("pid %d (%s): its pending signals", p->pid, p->comm);
		if (got == 0)
			break;
		siginfo_t *bigger = grow_array(all, &cap, n + got, sizeof *all);
		if (!bigger)
			return -1;
		all = bigger;
		for (long i = 0; i < got; i++)
			p->pending |= 1ull << ((info[i].si_signo - 1) & 63);
		memcpy(all + n, info, got * sizeof *info);
		n += got;
	}
	struct rec_sigpending r = {.tid = tid, .n = n};
	return n ? notes_add_record(&p->core, REC_SIGPENDING, &r, sizeof r, all, n * sizeof *all) : 0;
}

static int signals_collect(struct dump *d, struct process *p)
{
	(void)d;
	return collect_actions(p);
}

/* Only a stopped thread's queues can be looked into: not the host's, once it serves as parasite. */
static int signals_frozen(struct dump *d, struct process *p)
{
	(void)d;
	if (collect_queue(p, 0))
		return -1;
	for (size_t i = 0; i < p->n_threads; i++)
		if (collect_queue(p, p->threads[i].tid))
			return -1;
	return 0;
}

/* ---- restore ---- */

static int plan_queue(struct rtask *t, struct plan *plan, const struct record *rec)
{
	struct rec_sigpending r;
	if (record_get(&t->core, rec, &r, sizeof r))
		return -1;
	if (r.n > rec->tail_len / sizeof(siginfo_t))
		return fail("%s: %u pending signals do not fit in their record", t->core.name, r.n);
	void *queue = plan_alloc(plan, r.n * sizeof(siginfo_t));
	if (!queue)
		return -1;
	memcpy(queue, rec->tail, r.n * sizeof(siginfo_t));
	if (!r.tid) {
		plan->args->pending = (uintptr_t)queue;
		plan->args->n_pending = r.n;
		return 0;
	}
	struct restorer_thread *threads = (void *)plan->args->threads;
	for (size_t i = 0; i < plan->args->n_threads; i++)
		if ((uint32_t)threads[i].tid == r.tid) {
			threads[i].pending = (uintptr_t)queue;
			threads[i].n_pending = r.n;
			return 0;
		}
	return fail("%s: signals are pending for thread %u, which is not there", t->core.name, r.tid);
}

static int signals_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	each_record(&t->core, rec) {
		if (rec->type == REC_SIGPENDING && plan_queue(t, plan, rec))
			return -1;
		if (rec->type != REC_SIGNALS)
			continue;
		struct rec_signals s;
		if (record_get(&t->core, rec, &s, sizeof s))
			return -1;
		struct restorer_sigaction *a = plan_alloc(plan, 64 * sizeof *a);
		if (!a)
			return -1;
		for (int i = 0; i < 64; i++)
			a[i] = (struct restorer_sigaction){s.action[i].handler, s.action[i].flags, s.action[i].restorer,
							   s.action[i].mask};
		plan->args->actions = (uintptr_t)a;
	}
	return plan->args->actions ? 0 : fail("%s has no signal actions", t->core.name);
}

const struct kind signals_kind = {
	.name = "signals",
	.frozen = signals_frozen,
	.collect = signals_collect,
	.plan = signals_plan,
};
