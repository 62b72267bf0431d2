/*
 * Verbs on a traced thread. PTRACE_SEIZE only: a thread that is let go, by us or by our death, goes on as it was.
 */
#ifndef CRL_SEIZE_H
#define CRL_SEIZE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "task.h"

enum stop {
	STOP_NONE,    /* the time is over */
	STOP_TRAP,    /* PTRACE_INTERRUPT's */
	STOP_GROUP,   /* job control's */
	STOP_SYSCALL, /* entry or exit */
	STOP_SIGNAL,  /* before a signal's delivery */
	STOP_EVENT,
	STOP_GONE,
};

/* Blocks SIGCHLD, which the waiting below takes with a time limit. Once, at the start. */
void seize_begin(void);

/* Becomes the tracer of a thread, which runs on. 1: no such thread any more. -1 with the error set. */
int seize_hold(pid_t tid, unsigned long options);
/* Becomes the tracer and asks for a stop. 1: no such thread any more. -1 with the error set. */
int seize_start(pid_t tid, unsigned long options);

/* Asks a traced thread for a stop. 1: gone. */
int seize_interrupt(pid_t tid);

/* Waits up to MS milliseconds (-1: for ever) for TID to stop; *sig: its signal or event. */
enum stop seize_wait(pid_t tid, int ms, int *sig);

/*
 * Waits until TID has come to PTRACE_INTERRUPT's stop; signals on their way are let in. *group tells whether job
 * control has stopped it. 1: gone; -1 with the error set (time over).
 */
int seize_wait_stopped(pid_t tid, int ms, bool *group);

/*
 * Reads registers, extended state, signal mask and rseq's registration of the stopped thread into T. PENDING: no call is
 * made again that a signal which waits has ended.
 */
int seize_read(struct thread *t, uint64_t pending);

int seize_set_regs(pid_t tid, const struct user_regs_struct *regs);
int seize_get_regs(pid_t tid, struct user_regs_struct *regs);
int seize_set_sigmask(pid_t tid, uint64_t mask);

/* Runs TID to its next system call stop (entry or exit). -1 with the error set. */
int seize_to_syscall(pid_t tid);
/* Lets TID run until we interrupt it: leaves it in PTRACE_INTERRUPT's stop from a system call's exit. */
int seize_interrupt_here(pid_t tid);

void seize_release(pid_t tid);

#endif
