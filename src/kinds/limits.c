/*
 * Resource limits. Set last of all, by the restorer: RLIMIT_AS may lie below what the process uses.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "plan.h"

static int limits_collect(struct dump *d, struct process *p)
{
	(void)d;
	struct rec_rlimits r = {.n = 16};
	struct rlimit lim[16];
	/* prlimit(2) asks another user's process only with CAP_SYS_RESOURCE: the process itself may always */
	batch_begin();
	long at = batch_room(sizeof lim);
	if (at < 0)
		return -1;
	for (int i = 0; i < 16; i++)
		if (batch_add(1 << 3, SYS_prlimit64, 0, i, 0, at + i * sizeof *lim, 0, 0) < 0)
			return -1;
	if (parasite_run(p))
		return -1;
	memcpy(lim, batch_data(at), sizeof lim);
	for (int i = 0; i < 16; i++) {
		if (batch_result(i))
			return fail("pid %d (%s): its resource limit %d cannot be read", p->pid, p->comm, i);
		r.limit[i].soft = lim[i].rlim_cur;
		r.limit[i].hard = lim[i].rlim_max;
	}
	return notes_add_record(&p->core, REC_RLIMITS, &r, sizeof r, NULL, 0);
}

/* Only what differs from ours is set: what need not be raised never fails for want of CAP_SYS_RESOURCE. */
static int limits_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	each_record(&t->core, rec) {
		struct rec_rlimits l;
		if (rec->type != REC_RLIMITS)
			continue;
		if (record_get(&t->core, rec, &l, sizeof l))
			return -1;
		struct restorer_limit *out = plan_alloc(plan, 16 * sizeof *out);
		if (!out)
			return -1;
		for (uint32_t i = 0; i < l.n && i < 16; i++) {
			struct rlimit now;
			if (getrlimit(i, &now))
				return fail_errno("resource limit %u", i);
			if (now.rlim_max < l.limit[i].hard && now.rlim_max != RLIM_INFINITY)
				verbose("pid %u: its hard resource limit %u stays at %lu", t->proc.pid, i, now.rlim_max);
			if (l.limit[i].hard > now.rlim_max)
				l.limit[i].hard = now.rlim_max;
			if (l.limit[i].soft > l.limit[i].hard)
				return fail("pid %u needs a soft resource limit %u of %lu, above the hard one of %lu here; raise it "
					    "with ulimit -H, or as root",
					    t->proc.pid, i, l.limit[i].soft, l.limit[i].hard);
			if (now.rlim_cur != l.limit[i].soft || now.rlim_max != l.limit[i].hard)
				out[plan->args->n_limits++] =
					(struct restorer_limit){i, 0, l.limit[i].soft, l.limit[i].hard};
		}
		plan->args->limits = (uintptr_t)out;
	}
	return 0;
}

const struct kind limits_kind = {
	.name = "limits",
	.collect = limits_collect,
	.plan = limits_plan,
};
