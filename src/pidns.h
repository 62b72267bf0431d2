/*
 * A user, pid and mount namespace of restore's own, so that the numbers that an image needs are free, whoever asks.
 */
#ifndef CRL_PIDNS_H
#define CRL_PIDNS_H

#include "kinds.h"

/* Must restore make one: asked for, or the user may not choose numbers? */
bool pidns_needed(const struct options *opt);

/*
 * Goes on inside: the caller is a new process with a number that R's image does not need, child of the namespace's init.
 * The process that called stays outside, ends as the one inside does, and never returns. -1 with the error set.
 */
int pidns_enter(struct restore *r);

/* Inside, the root is there: has the process outside write the pid file, with the number that it has there. */
int pidns_root_made(const struct restore *r);

/*
 * dump: PID is in a pid namespace as pidns_enter makes them: goes on in a process inside it, where *pid is its number there. The caller stays
 * outside as with pidns_enter. 0 at once when it is in ours.
 */
int pidns_follow(pid_t *pid);

#endif
