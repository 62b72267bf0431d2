/*
 * Timers: armed with what was left at the dump, as late as can be.
 */
#include "restorer-parts.h"

enum {
	PR_TIMER_CREATE_RESTORE_IDS_ = 77, /* since 6.15: timer_create takes the id that it finds */
	SIGEV_THREAD_ID_ = 4,
	NS = 1000000000,
};

struct timespec_ {
	int64_t sec, nsec;
};

/* sigevent(3) as the kernel has it */
struct sigevent_ {
	uint64_t value;
	int32_t signo, notify, tid;
	int32_t pad[11];
};

static long create(const struct restorer_timer *t, int32_t *id)
{
	struct sigevent_ e = {.value = t->sival, .signo = (int32_t)t->signo, .notify = (int32_t)t->notify, .tid = t->tid};
	return SYS3(__NR_timer_create, t->clock, &e, id);
}

/* Before 6.15 ids only count upwards: timers are made and deleted until the one wanted comes. */
static long create_by_counting(const struct restorer_timer *t)
{
	for (;;) {
		int32_t id = -1;
		long ret = create(t, &id);
		if (ret < 0 || id == t->id)
			return ret;
		SYS1(__NR_timer_delete, id);
		if (id > t->id)
			return -EBUSY;
	}
}

void restore_timers(const struct restorer_args *a)
{
	const struct restorer_timer *t = (void *)a->timers;
	bool by_id = a->n_timers && SYS5(__NR_prctl, PR_TIMER_CREATE_RESTORE_IDS_, 1, 0, 0, 0) == 0;
	for (uint64_t i = 0; i < a->n_timers; i++) {
		int32_t id = t[i].id;
		check(a, by_id ? create(&t[i], &id) : create_by_counting(&t[i]), STEP_TIMERS, t[i].id);
	}
	if (by_id)
		check(a, SYS5(__NR_prctl, PR_TIMER_CREATE_RESTORE_IDS_, 0, 0, 0, 0), STEP_TIMERS, 0);
	for (uint64_t i = 0; i < a->n_timers; i++) {
		struct timespec_ s[2] = {{t[i].interval_ns / NS, t[i].interval_ns % NS}, {t[i].value_ns / NS, t[i].value_ns % NS}};
		check(a, SYS4(__NR_timer_settime, t[i].id, 0, s, 0), STEP_TIMERS, t[i].id);
	}
	const struct timespec_ *v = (void *)a->itimers;
	for (int i = 0; v && i < 3; i++)
		if (v[2 * i + 1].sec || v[2 * i + 1].nsec)
			check(a, SYS3(__NR_setitimer, i, &v[2 * i], 0), STEP_TIMERS, i);
}
