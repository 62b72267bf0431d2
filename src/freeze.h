/* Stopping a tree, and letting it go. */
#ifndef CRL_FREEZE_H
#define CRL_FREEZE_H

#include "kinds.h"

/* Seizes every thread of PID and of all its descendants; fills d->procs. On failure everything seized is let go again. */
int freeze_tree(struct dump *d, pid_t pid);
/* Lets every thread go on; those stopped by job control stay stopped. */
void thaw_tree(struct dump *d);
/* SIGKILL to every process of the tree, and waits until they are dead. */
int kill_tree(struct dump *d);
void free_tree(struct dump *d);

#endif
