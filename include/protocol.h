/*
 * Between the dumper and its parasite: one batch of system calls that lies in the parasite's data, and a socket that says
 * "go" and "done". A request may carry one descriptor, whose number in the target is left in `received`.
 */
#ifndef CRL_PROTOCOL_H
#define CRL_PROTOCOL_H

#include <stdint.h>

#define BATCH_CALLS 64
#define BATCH_DATA  32768
#define BATCH_FDS   16 /* descriptors that the parasite keeps for us, and closes when we are gone */

struct batch_call {
	uint64_t nr;
	uint64_t args[6];
	int64_t ret;	   /* -errno on failure */
	uint32_t data_args; /* bit i: args[i] is an offset into `data` */
	uint32_t pad;
};

struct batch {
	uint32_t n;
	int32_t received;
	struct batch_call calls[BATCH_CALLS];
	unsigned char data[BATCH_DATA];
};

#endif
