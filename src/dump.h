#ifndef CRL_DUMP_H
#define CRL_DUMP_H

#include "kinds.h"

/* Dumps opt->pid and all below it to opt->dir. -1 with the error set: nothing was changed. */
int dump_tree(const struct options *opt);

#endif
