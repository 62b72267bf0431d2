/*
 * What dump knows of a frozen process and its threads.
 */
#ifndef CRL_TASK_H
#define CRL_TASK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "lib/image.h"
#include "lib/maps.h"

struct thread {
	pid_t tid;
	struct user_regs_struct regs; /* exactly as stopped: what goes back by PTRACE_SETREGSET */
	void *xstate;		      /* NT_X86_XSTATE, allocated */
	size_t xstate_len;
	uint64_t sigmask;
	uint64_t rseq_ptr;
	uint32_t rseq_len, rseq_sig;
	bool stopped; /* by job control, before us */
	bool moved;   /* its registers are ours: inject has sent it somewhere */
	struct {      /* inject_measure */
		uint64_t altstack_sp;
		uint32_t altstack_flags, pad;
		uint64_t altstack_size;
		uint64_t tid_address;
		uint32_t pdeath_signal;
		uint32_t securebits;
		uint64_t timerslack;
	} own;
};

/* The parasite in a process, once it is in. */
struct parasite {
	int sock;	    /* our end, -1: not in */
	int their_sock;	    /* its end's number in the target */
	uint64_t base, len; /* of the blob in the target */
	uint64_t area;	    /* where its batch lies in the target */
};

struct process {
	pid_t pid, ppid, pgid, sid;
	uint32_t state; /* enum process_state */
	uint32_t exit_status;
	uint32_t outside; /* family.h */
	int exit_signal;  /* what its parent is told of its end by */
	struct process *parent; /* in the tree, NULL: the root */
	char comm[17];
	struct thread *threads;
	size_t n_threads, cap_threads;
	struct thread *host; /* the one that runs the parasite */
	uint32_t stop_signal;
	int pidfd;
	int mem; /* /proc/PID/mem */
	struct maps maps;
	char *status; /* /proc/PID/status */
	uint64_t pending; /* signals of which the image has at least one, of any queue */
	uint64_t trampoline; /* in its vDSO's padding */
	uint64_t frame; /* room for one signal frame, in unused stack: of one thread at a time */
	struct parasite parasite;
	struct notes core;
};

#endif
