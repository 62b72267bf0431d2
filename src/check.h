#ifndef CRL_CHECK_H
#define CRL_CHECK_H

#include <sys/types.h>

/* What this kernel and this user can do, one line each: 0 if all that dump and restore need is there, else 1. */
int check_system(void);
/* All that stands against a dump of PID and what is below it, one line each; only /proc is read. 0: nothing, 1, -1. */
int check_tree(pid_t pid);

#endif
