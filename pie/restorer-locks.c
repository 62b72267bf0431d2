/*
 * File locks and leases, and O_ASYNC, which the process itself must take: it is their owner, and the
 * number of its descriptor is noted.
 */
#include "restorer-parts.h"

void restore_locks(const struct restorer_args *a)
{
	const struct restorer_lock *l = (void *)a->locks;
	for (uint64_t i = 0; i < a->n_locks; i++, l++) {
		long ret = l->cmd < 0 ? SYS2(__NR_flock, l->fd, l->arg)
				      : SYS3(__NR_fcntl, l->fd, l->cmd, l->with_range ? (uint64_t)&l->range : l->arg);
		check(a, ret, STEP_LOCKS, l->fd);
	}
}
