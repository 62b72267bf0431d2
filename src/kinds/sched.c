/*
 * Scheduling of each thread: policy, nice, clamps, affinity, I/O priority, timer slack, I/O flusher, speculation.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#define MASK_MAX 8192 /* bytes: 65,536 CPUs */

/* include/linux/sched.h; both are set by PR_SET_IO_FLUSHER, and together by nothing else that lasts */
#define PF_MEMALLOC_NOIO  0x00080000
#define PF_LOCAL_THROTTLE 0x00100000

enum {
	FLAG_RESET_ON_FORK = 1,
	FLAG_DEADLINE = 6, /* RECLAIM, DL_OVERRUN */
	FLAG_UTIL_CLAMP = 0x60,
	POLICY_BATCH = 3, POLICY_IDLE = 5, POLICY_DEADLINE = 6,
	IOPRIO_PROCESS = 1,
	PR_SCHED_CORE_ = 62,
};

/* include/uapi/linux/sched/types.h; glibc 2.36 has it not */
struct kernel_sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

static bool fair(uint32_t policy)
{
	return policy == 0 || policy == POLICY_BATCH || policy == POLICY_IDLE;
}

/* TID 0: our own. */
static int get_attr(pid_t tid, struct kernel_sched_attr *a)
{
	memset(a, 0, sizeof *a);
	return syscall(SYS_sched_getattr, tid, a, sizeof *a, 0) ? fail_errno("scheduling of thread %d", tid) : 0;
}

/* ---- dump ---- */

static int refuse_cookie(const struct process *p, pid_t tid)
{
	unsigned long cookie = 0;
	/* PR_SCHED_CORE_GET of one thread; EINVAL or ENODEV: there is no such thing here */
	if (prctl(PR_SCHED_CORE_, 0, tid, 0, &cookie) || !cookie)
		return 0;
	return fail("pid %d (%s): thread %d has a core-scheduling cookie, which cannot be made again; start it without (coresched)",
		    p->pid, p->comm, tid);
}

/* "Speculation_Store_Bypass: thread force mitigated": what prctl(PR_SET_SPECULATION_CTRL) has said, if anybody has. */
static uint32_t speculation(const char *status, const char *key)
{
	const char *s = status_field(status, key);
	if (s && (strncmp(s, "thread force mitigated", 22) == 0 || strncmp(s, "conditional force disabled", 26) == 0))
		return PR_SPEC_FORCE_DISABLE;
	if (s && (strncmp(s, "thread mitigated", 16) == 0 || strncmp(s, "conditional disabled", 20) == 0))
		return PR_SPEC_DISABLE;
	return 0;
}

/* How many bytes of mask, 0 with the error set. */
static size_t affinity(const struct process *p, pid_t tid, unsigned char *mask, bool *all)
{
	long len = syscall(SYS_sched_getaffinity, tid, MASK_MAX, mask);
	if (len <= 0) {
		fail_errno("pid %d (%s): affinity of thread %d", p->pid, p->comm, tid);
		return 0;
	}
	long cpus = 0;
	for (long i = 0; i < len; i++)
		cpus += __builtin_popcount(mask[i]);
	*all = cpus >= sysconf(_SC_NPROCESSORS_ONLN);
	return len;
}

static int collect_thread(struct process *p, const struct thread *t, const struct kernel_sched_attr *own)
{
	struct kernel_sched_attr a;
	struct proc_stat st;
	unsigned char mask[MASK_MAX];
	bool all;
	autofree char *status = proc_read(NULL, "/proc/%d/task/%d/status", p->pid, t->tid);
	if (!status || refuse_cookie(p, t->tid) || get_attr(t->tid, &a) || proc_stat_read(p->pid, t->tid, &st))
		return -1;
	size_t len = affinity(p, t->tid, mask, &all);
	if (!len)
		return -1;
	/* since 6.12 a fair thread's runtime is its slice: only one that was asked for is to be set again */
	if (fair(a.policy) && (!fair(own->policy) || a.runtime == own->runtime))
		a.runtime = 0;
	const uint64_t flusher = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE;
	long ioprio = syscall(SYS_ioprio_get, IOPRIO_PROCESS, t->tid);
	struct rec_sched r = {
		.tid = t->tid, .policy = a.policy, .sched_flags = a.flags & (FLAG_RESET_ON_FORK | FLAG_DEADLINE),
		.nice = a.nice, .priority = a.priority, .runtime = a.runtime, .deadline = a.deadline, .period = a.period,
		.util_min = a.util_min, .util_max = a.util_max, .ioprio = ioprio < 0 ? 0 : ioprio,
		.flags = (all ? SCHED_REC_ALL_CPUS : 0) | ((st.flags & flusher) == flusher ? SCHED_REC_IO_FLUSHER : 0),
		.timerslack = t->own.timerslack,
		.spec_store = speculation(status, "Speculation_Store_Bypass"),
		.spec_indirect = speculation(status, "SpeculationIndirectBranch"),
	};
	return notes_add_record(&p->core, REC_SCHED, &r, sizeof r, mask, len);
}

static int sched_collect(struct dump *d, struct process *p)
{
	(void)d;
	struct kernel_sched_attr own;
	if (get_attr(0, &own))
		return -1;
	for (size_t i = 0; i < p->n_threads; i++)
		if (collect_thread(p, &p->threads[i], &own))
			return fail_within("pid %d (%s)", p->pid, p->comm);
	return 0;
}

/* ---- restore ---- */

static bool same_attr(const struct kernel_sched_attr *own, const struct rec_sched *r)
{
	return own->policy == r->policy && (own->flags & FLAG_RESET_ON_FORK) == r->sched_flags && own->nice == r->nice &&
	       own->priority == r->priority && !r->runtime && own->util_min == r->util_min && own->util_max == r->util_max;
}

static int plan_attr(struct plan *plan, const struct rec_sched *r, struct restorer_sched *s)
{
	struct kernel_sched_attr own, *a = plan_alloc(plan, sizeof *a);
	if (!a || get_attr(0, &own))
		return -1;
	if (same_attr(&own, r))
		return 0;
	*a = (struct kernel_sched_attr){
		.size = sizeof *a, .policy = r->policy, .flags = r->sched_flags, .nice = r->nice, .priority = r->priority,
		.runtime = r->runtime, .deadline = r->deadline, .period = r->period,
	};
	/* a kernel without CONFIG_UCLAMP_TASK tells 0 and takes none */
	if (own.util_min != r->util_min || own.util_max != r->util_max) {
		a->flags |= FLAG_UTIL_CLAMP;
		a->util_min = r->util_min;
		a->util_max = r->util_max;
	}
	s->attr = (uintptr_t)a;
	s->todo |= SCHED_ATTR;
	return 0;
}

static int plan_affinity(struct plan *plan, const struct rec_sched *r, const struct record *rec, struct restorer_sched *s)
{
	unsigned char now[MASK_MAX] = {0}, want[MASK_MAX] = {0};
	bool all = r->flags & SCHED_REC_ALL_CPUS;
	if (all)
		memset(want, 0xff, sizeof want);
	else
		memcpy(want, rec->tail, rec->tail_len);
	long len = syscall(SYS_sched_getaffinity, 0, sizeof now, now), cpus = 0;
	for (long i = 0; i < len; i++)
		cpus += __builtin_popcount(now[i]);
	if (memcmp(now, want, sizeof now) == 0 || (all && cpus >= sysconf(_SC_NPROCESSORS_ONLN)))
		return 0;
	s->mask_len = all ? sizeof want : rec->tail_len;
	unsigned char *mask = plan_alloc(plan, s->mask_len);
	if (!mask)
		return -1;
	memcpy(mask, want, s->mask_len);
	s->mask = (uintptr_t)mask;
	s->todo |= SCHED_AFFINITY;
	return 0;
}

static int plan_thread(struct rtask *t, struct plan *plan, const struct record *rec, struct restorer_thread *th)
{
	struct rec_sched r;
	struct proc_stat st;
	struct restorer_sched *s = plan_alloc(plan, sizeof *s);
	if (!s || record_get(&t->core, rec, &r, sizeof r) || proc_stat_read(getpid(), 0, &st))
		return -1;
	if (rec->tail_len > MASK_MAX || r.tid != (uint32_t)th->tid)
		return fail("%s: scheduling of thread %u: the record is not what it should be", t->core.name, r.tid);
	if (plan_attr(plan, &r, s) || plan_affinity(plan, &r, rec, s))
		return -1;
	const uint64_t both = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE;
	bool flusher = (st.flags & both) == both;
	s->ioprio = r.ioprio;
	if (syscall(SYS_ioprio_get, IOPRIO_PROCESS, 0) != (long)r.ioprio)
		s->todo |= SCHED_IOPRIO;
	s->timerslack = r.timerslack;
	if (r.timerslack && (uint64_t)prctl(PR_GET_TIMERSLACK) != r.timerslack)
		s->todo |= SCHED_SLACK;
	s->io_flusher = r.flags & SCHED_REC_IO_FLUSHER ? 1 : 0;
	if (flusher != s->io_flusher)
		s->todo |= SCHED_FLUSHER;
	s->spec_store = r.spec_store;
	s->spec_indirect = r.spec_indirect;
	if (s->todo || s->spec_store || s->spec_indirect) {
		th->sched = (uintptr_t)s;
		th->last = 1;
	}
	return 0;
}

static int sched_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	struct restorer_thread *threads = (void *)plan->args->threads;
	size_t n = 0;
	each_record(&t->core, rec)
	{
		if (rec->type != REC_SCHED)
			continue;
		if (n == plan->args->n_threads)
			return fail("%s has scheduling for more than its threads", t->core.name);
		if (plan_thread(t, plan, rec, &threads[n++]))
			return -1;
	}
	return 0;
}

/* ---- show ---- */

static void print_sched(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_sched r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "tid", r.tid);
	json_uint(j, "policy", r.policy);
	json_int(j, "nice", r.nice);
	json_uint(j, "priority", r.priority);
	if (r.runtime || r.deadline || r.period) {
		json_uint(j, "runtime", r.runtime);
		json_uint(j, "deadline", r.deadline);
		json_uint(j, "period", r.period);
	}
	json_uint(j, "util_min", r.util_min);
	json_uint(j, "util_max", r.util_max);
	json_uint(j, "ioprio", r.ioprio);
	json_uint(j, "timerslack", r.timerslack);
	json_bool(j, "all_cpus", r.flags & SCHED_REC_ALL_CPUS);
	json_bool(j, "io_flusher", r.flags & SCHED_REC_IO_FLUSHER);
	json_uint(j, "spec_store", r.spec_store);
	json_uint(j, "spec_indirect", r.spec_indirect);
}

static const struct record_printer printers[] = {{REC_SCHED, "sched", print_sched}, {0}};

const struct kind sched_kind = {
	.name = "sched",
	.collect = sched_collect,
	.plan = sched_plan,
	.printers = printers,
};
