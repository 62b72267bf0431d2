/*
 * Scheduling of the calling thread. Affinity first: a deadline policy forbids to change it afterwards.
 */
#include "restorer-parts.h"

enum {
	PR_SET_TIMERSLACK_ = 29,
	PR_SET_SPECULATION_CTRL_ = 53,
	PR_SPEC_STORE_BYPASS_ = 0,
	PR_SPEC_INDIRECT_BRANCH_ = 1,
	PR_SET_IO_FLUSHER_ = 57,
	IOPRIO_WHO_PROCESS_ = 1,
};

void restore_sched(const struct restorer_args *a, const struct restorer_thread *t)
{
	const struct restorer_sched *s = (void *)t->sched;
	if (!s)
		return;
	if (s->todo & SCHED_AFFINITY)
		check(a, SYS3(__NR_sched_setaffinity, 0, s->mask_len, s->mask), STEP_SCHED, t->tid);
	if (s->todo & SCHED_ATTR)
		check(a, SYS3(__NR_sched_setattr, 0, s->attr, 0), STEP_SCHED, t->tid);
	if (s->todo & SCHED_IOPRIO)
		check(a, SYS3(__NR_ioprio_set, IOPRIO_WHO_PROCESS_, 0, s->ioprio), STEP_SCHED, t->tid);
	if (s->todo & SCHED_SLACK)
		check(a, SYS2(__NR_prctl, PR_SET_TIMERSLACK_, s->timerslack), STEP_SCHED, t->tid);
	if (s->todo & SCHED_FLUSHER)
		check(a, SYS5(__NR_prctl, PR_SET_IO_FLUSHER_, s->io_flusher, 0, 0, 0), STEP_SCHED, t->tid);
	if (s->spec_store)
		check(a, SYS5(__NR_prctl, PR_SET_SPECULATION_CTRL_, PR_SPEC_STORE_BYPASS_, s->spec_store, 0, 0), STEP_SCHED, t->tid);
	if (s->spec_indirect)
		check(a, SYS5(__NR_prctl, PR_SET_SPECULATION_CTRL_, PR_SPEC_INDIRECT_BRANCH_, s->spec_indirect, 0, 0), STEP_SCHED,
		      t->tid);
}
