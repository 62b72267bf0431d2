/* Writing a process's core: its notes and the pages that are its own. */
#ifndef CRL_MEMORY_H
#define CRL_MEMORY_H

#include "kinds.h"

/* Adds gdb's notes and writes core.PID with P's pages. Nothing may be added to p->core after it. */
int memory_write(struct dump *d, struct process *p);

#endif
