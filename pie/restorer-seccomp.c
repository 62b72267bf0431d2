/*
 * Seccomp filters, the oldest first. What all threads have in common the first one puts into all of them, so that they
 * share it again (SECCOMP_FILTER_FLAG_TSYNC, which the plan sets).
 */
#include "restorer-parts.h"

enum { SECCOMP_SET_MODE_FILTER_ = 1 };

void restore_seccomp(const struct restorer_args *a, const struct restorer_thread *t)
{
	const struct restorer_filter *f = (void *)t->filters;
	for (uint64_t i = 0; i < t->n_filters; i++) {
		struct {
			uint16_t len;
			uint64_t code;
		} prog = {f[i].len, f[i].code};
		long ret = SYS3(__NR_seccomp, SECCOMP_SET_MODE_FILTER_, f[i].flags, &prog);
		check(a, ret > 0 ? -ESRCH : ret, STEP_SECCOMP, t->tid); /* TSYNC: the thread that cannot have it */
	}
}
