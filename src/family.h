/*
 * Who must be born when, by whom: so that every process has its session, its group and its parent again.
 */
#ifndef CRL_FAMILY_H
#define CRL_FAMILY_H

#include "kinds.h"

/* In rec_process.outside */
enum { OUTSIDE_SESSION = 1, OUTSIDE_GROUP = 2 };

/* dump, the tree frozen, nothing touched: refuses what cannot be rebuilt, and notes which leaders are outside. */
int family_check(struct dump *d);

/*
 * Plans the births of R's tasks, whose parents are linked: fills their `maker`, `born` and the like, and r->helpers, which
 * stand in for leaders that are gone.
 */
int family_plan(struct restore *r);

/* The I-th number for a helper that lives only for a moment; no process of the image has it. 0: none left. */
pid_t family_spare(const struct restore *r, size_t i);

/* Lists the numbers that the image needs, once its cores are open. */
int family_numbers(struct restore *r);

void family_free(struct restore *r);

#endif
