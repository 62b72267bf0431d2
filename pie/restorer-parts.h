/*
 * The restorer's parts. Each does one thing for the task or for the calling thread, and gives up through restorer_fail.
 */
#ifndef CRL_PIE_RESTORER_H
#define CRL_PIE_RESTORER_H

#include <stdbool.h>

#include "pie.h"
#include "records.h"
#include "restorer.h"

/* Says what failed to the coordinator and ends the process; never returns. */
void restorer_fail(const struct restorer_args *a, uint32_t step, long code, uint64_t where) __attribute__((noreturn));
static inline void check(const struct restorer_args *a, long ret, uint32_t step, uint64_t where)
{
	if (ret < 0 && ret > -4096)
		restorer_fail(a, step, ret, where);
}

/* restorer-memory.c: an empty address space becomes the target's, contents and sums included */
void restore_memory(const struct restorer_args *a);
/* restorer-advice.c: policies before pages are there; markers before locks; seals after everything else */
void restore_policies(const struct restorer_args *a);
void restore_guards(const struct restorer_args *a);
void restore_seals(const struct restorer_args *a);
/* restorer-locks.c: when nothing is closed any more, for that would end POSIX locks */
void restore_locks(const struct restorer_args *a);
/* restorer-thread.c: what belongs to the calling thread alone */
void restore_thread(const struct restorer_args *a, const struct restorer_thread *t);
/* What libc has told the kernel of the calling thread, which shall end without a trace in memory. */
void forget_thread(const struct restorer_args *a);
/* Makes all threads but the leader; each runs restore_thread and waits. */
void make_threads(const struct restorer_args *a);
/* Counts the calling thread in and waits for ever: the coordinator takes it from there. */
void arrive(const struct restorer_args *a) __attribute__((noreturn));

/* The rest for the calling thread, or for the process: called by restorer-last.c */
void restore_sched(const struct restorer_args *a, const struct restorer_thread *t);
void restore_seccomp(const struct restorer_args *a, const struct restorer_thread *t);
void restore_creds(const struct restorer_args *a, const struct restorer_thread *t);
void restore_timers(const struct restorer_args *a);

#endif
