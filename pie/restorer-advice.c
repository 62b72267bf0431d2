/*
 * What is said of memory beyond its mappings: policies, guard markers, seals, locking of what is to come.
 */
#include "restorer-parts.h"

enum {
	MADV_GUARD_INSTALL_ = 102,
	NR_MSEAL_ = 462, /* 6.10; Debian 12's headers are older */
	MPOL_BITS = 65,	 /* mbind(2) counts one more than it looks at */
};

static const struct restorer_range *range(const struct restorer_args *a, uint64_t i)
{
	return (const struct restorer_range *)a->ranges + i;
}

void restore_policies(const struct restorer_args *a)
{
	for (uint64_t i = 0; i < a->n_ranges; i++)
		if (range(a, i)->kind == RANGE_POLICY)
			check(a, SYS6(__NR_mbind, range(a, i)->start, range(a, i)->len, range(a, i)->mode, &range(a, i)->nodes,
				      MPOL_BITS, 0),
			      STEP_ADVISE, range(a, i)->start);
}

void restore_guards(const struct restorer_args *a)
{
	for (uint64_t i = 0; i < a->n_ranges; i++)
		if (range(a, i)->kind == RANGE_GUARD)
			check(a, SYS3(__NR_madvise, range(a, i)->start, range(a, i)->len, MADV_GUARD_INSTALL_), STEP_ADVISE,
			      range(a, i)->start);
}

void restore_seals(const struct restorer_args *a)
{
	const struct restorer_map *maps = (void *)a->maps;
	for (uint64_t i = 0; i < a->n_maps; i++)
		if (maps[i].vma_flags & VMA_SEALED)
			check(a, SYS3(NR_MSEAL_, maps[i].start, maps[i].len, 0), STEP_PROTECT, maps[i].start);
	if (a->lock_future)
		check(a, SYS1(__NR_mlockall, a->lock_future), STEP_LIMITS, 0);
}
