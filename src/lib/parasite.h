/*
 * Asking the parasite: batches of system calls made in the target.
 */
#ifndef CRL_PARASITE_H
#define CRL_PARASITE_H

#include "protocol.h"
#include "task.h"

/* A batch being put together. One at a time in the whole program: batch_begin clears it. */
struct batch *batch_begin(void);
/* Room for LEN bytes in the batch's data: their offset, which an argument may be (see `data_args`). -1: too much. */
long batch_room(size_t len);
void *batch_data(long offset);
/* Appends a call. DATA_ARGS: bit i says that args[i] is an offset from batch_room. Its index, or -1. */
int batch_add(uint32_t data_args, long nr, long a, long b, long c, long d, long e, long f);
int64_t batch_result(int index);

/* Makes the calls in P and takes their results and data. -1 with the error set: the parasite cannot be reached. */
int parasite_run(struct process *p);
/* The same in two steps: between them the parasite works, and so may we, but for the batch. */
int parasite_start(struct process *p);
int parasite_finish(struct process *p);
/* Hands a descriptor to the target; its number there, or -1. parasite_drop closes it there again. */
int parasite_give(struct process *p, int fd);
int parasite_drop(struct process *p, int fd);
/* One call without data: *ret as the kernel returned it. */
int parasite_call(struct process *p, int64_t *ret, long nr, long a, long b, long c, long d, long e, long f);

#endif
