/*
 * Getting into a frozen process, and out, so that our death at any instruction leaves it as it was.
 *
 * In this order:
 *   inject_prepare  finds the vDSO's padding and room for a frame in the stack, writes the trampoline
 *   inject_measure  one thread at a time: what only the thread itself can ask the kernel
 *   inject_parasite the host maps the blob, gets its code, and serves its socket
 *   inject_leave    the parasite goes; every register is as it was
 * Each of the last three sends a thread to the trampoline with rsp at a frame that describes it exactly. Registers
 * are set before the mask is changed, and put back after it: in the other order our death leaves a thread deaf.
 */
#ifndef CRL_INJECT_H
#define CRL_INJECT_H

#include "task.h"

int inject_prepare(struct process *p);
int inject_measure(struct process *p, struct thread *t);
int inject_parasite(struct process *p);
int inject_leave(struct process *p);

#endif
