/* The standard notes by which gdb reads a core. */
#ifndef CRL_CORE_NOTES_H
#define CRL_CORE_NOTES_H

#include "task.h"

/* NT_PRSTATUS, NT_FPREGSET, NT_X86_XSTATE of every thread, NT_PRPSINFO, NT_AUXV, NT_FILE: to p->core. */
int core_notes_add(struct process *p);

#endif
