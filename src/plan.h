/*
 * The restorer's region in a task being restored, and the memory in it that the plan's arrays lie in.
 */
#ifndef CRL_PLAN_H
#define CRL_PLAN_H

#include "kinds.h"

struct plan {
	uint64_t region, len;	/* all of it: what is unmapped at the very end */
	uint64_t park;		/* room for the vDSO while everything else goes */
	uint64_t shared;	/* where the shared page is mapped */
	char *memory;		/* arrays, frames, stacks: at its final address already */
	size_t used, size;
	struct restorer_args *args;
	int keep_from;		/* descriptors from here on are ours: closed at the end */
};

/*
 * Maps the region for task T of R where neither this process nor the target has anything: blob, shared page, plan. -1
 * with the error set.
 */
int plan_create(struct restore *r, struct rtask *t, struct plan *p);

/* LEN zeroed bytes, aligned to 64, at an address that holds in the restorer; NULL with the error set. */
void *plan_alloc(struct plan *p, size_t len);

/* Jumps into the restorer; never returns. */
void plan_enter(struct plan *p) __attribute__((noreturn));

/* Where an exported symbol of the restorer's blob lies in the region. */
#define plan_symbol(region, offset) ((region) + (offset))

#endif
