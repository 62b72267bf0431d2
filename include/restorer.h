/*
 * What the restorer is given: one struct with absolute addresses, in memory that survives the unmapping of everything else.
 *
 * The region is one stretch of addresses that neither criu-lite nor the target uses:
 *
 *	[ blob, r-x ][ its data and stack, rw- ][ struct shared, a shared page ][ plan: args, arrays, frames, stacks, rw- ]
 */
#ifndef CRL_RESTORER_H
#define CRL_RESTORER_H

#include <stdint.h>

/* Between the coordinator and all tasks: a page that all of them map. */
struct shared {
	uint32_t stage;	  /* futex: what threads that are ready wait on; never woken: the coordinator takes them away */
	uint32_t arrived; /* futex: threads that have come to the end of their stage */
	uint32_t failed;  /* somebody has failed: 1 + index of the task */
	uint32_t step;	  /* enum restorer_step, of a failure in the restorer */
	int64_t code;	  /* -errno */
	uint64_t where;	  /* an address, a number: what the step is about */
	uint32_t forked; /* futex: all processes are there */
	uint32_t busy;	 /* somebody writes the text */
	uint32_t failed_pid;
	uint32_t text_len; /* of a failure before the restorer: an error's text */
	char text[1024];
};

enum restorer_step {
	STEP_NONE,
	STEP_UNMAP,
	STEP_MOVE_VDSO,
	STEP_MAP,
	STEP_FILL,
	STEP_SUM,
	STEP_PROTECT,
	STEP_ADVISE,
	STEP_MM,
	STEP_THREAD,
	STEP_FDS,
	STEP_SIGNALS,
	STEP_PENDING,
	STEP_TIMERS,
	STEP_CREDS,
	STEP_LIMITS,
	STEP_RSEQ,
	STEP_SCHED,
	STEP_SECCOMP,
	STEP_PRCTL,
	STEP_OTHER,
	STEP_LOCKS,
};

struct restorer_map {
	uint64_t start, len, offset;
	uint64_t vma_flags;  /* enum vma_flag */
	uint32_t prot;	     /* at the end */
	uint32_t map_flags;  /* MAP_* */
	int32_t fd;	     /* -1: anonymous */
	uint32_t pad2;
	uint64_t name;	     /* address of a string for PR_SET_VMA_ANON_NAME, or 0 */
	uint32_t first_prot; /* until it is filled */
	uint32_t pkey;
	uint32_t mpol_mode, pad;
	uint64_t mpol_nodes;
};

/* A run of contents: segments lie one behind the other in the core. */
struct restorer_run {
	uint64_t start, len;
};

/* A mapping that the kernel made for every process: it cannot be made again, but moved. */
struct restorer_vdso {
	uint64_t from, park, to, len;
};

struct restorer_thread {
	int32_t tid;
	uint32_t pdeath_signal;
	uint64_t fs_base, gs_base;
	uint64_t frame; /* rsp at rt_sigreturn */
	uint64_t stack; /* top of the one used until then */
	uint64_t robust_head, robust_len;
	uint64_t rseq_ptr;
	uint32_t rseq_len, rseq_sig;
	uint64_t tid_address;
	uint64_t altstack_sp, altstack_size;
	uint32_t altstack_flags;
	uint32_t n_pending;
	uint64_t pending; /* siginfo_t array */
	char comm[16];
	uint64_t creds;	  /* struct restorer_creds, 0: as they are */
	uint64_t sched;	  /* struct restorer_sched, 0: as it is */
	uint32_t last;	  /* __export_restorer_last has something to do for it */
	uint32_t suspend; /* ... which a seccomp filter must not see */
	uint64_t n_filters, filters; /* struct restorer_filter */
};

enum creds_todo {
	CREDS_GROUPS = 1,
	CREDS_IDS = 2,
	CREDS_CAPS = 4,
	CREDS_BITS = 8,
	CREDS_NO_NEW_PRIVS = 16,
};

struct restorer_creds {
	uint32_t todo; /* enum creds_todo: what differs from criu-lite's own */
	uint32_t uid[4], gid[4];
	uint32_t n_groups;
	uint64_t groups; /* uint32_t */
	uint32_t securebits, pad;
	uint64_t cap[5]; /* as struct rec_creds has them */
	uint64_t drop;	 /* of the bounding set */
};

enum sched_todo {
	SCHED_ATTR = 1,
	SCHED_AFFINITY = 2,
	SCHED_IOPRIO = 4,
	SCHED_SLACK = 8,
	SCHED_FLUSHER = 16,
};

struct restorer_sched {
	uint32_t todo; /* enum sched_todo */
	uint32_t ioprio;
	uint64_t attr; /* struct sched_attr */
	uint64_t mask, mask_len;
	uint64_t timerslack;
	uint32_t io_flusher;
	uint32_t spec_store, spec_indirect, pad;
};

struct restorer_filter {
	uint32_t flags; /* of seccomp(2) */
	uint16_t len;
	uint16_t pad;
	uint64_t code; /* struct sock_filter */
};

struct restorer_timer {
	int32_t id, clock;
	uint32_t notify, signo;
	int32_t tid;
	uint32_t pad;
	uint64_t sival;
	uint64_t value_ns, interval_ns;
};

struct restorer_sigaction {
	uint64_t handler, flags, restorer, mask;
};

/* struct prctl_mm_map of 6.18: 104 bytes */
struct restorer_mm {
	uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end;
	uint64_t auxv;
	uint32_t auxv_size;
	int32_t exe_fd;
};

/* Guard markers and memory policies: enum range_kind. */
struct restorer_range {
	uint64_t start, len;
	uint32_t kind, mode;
	uint64_t nodes;
};

/* fcntl(FD, CMD, ARG), or with the range; CMD -1: flock(FD, ARG). */
struct restorer_lock {
	int32_t fd, cmd;
	uint32_t arg, with_range;
	struct {
		int16_t type, whence;
		int32_t pad;
		int64_t start, len;
		int32_t pid, pad2;
	} range;
};

struct restorer_limit {
	uint32_t resource, pad;
	uint64_t soft, hard;
};

struct restorer_args {
	uint64_t region, region_len;
	uint64_t shared; /* struct shared */
	uint32_t index;	 /* of this task, for shared->failed */
	int32_t pid;
	int32_t core_fd;
	int32_t close_from;    /* this descriptor and all above it are ours, closed at the end */
	uint64_t park;
	uint64_t contents;     /* file offset in the core */
	uint64_t n_vdso, vdso; /* struct restorer_vdso */
	uint64_t n_maps, maps;
	uint64_t n_runs, runs;
	uint64_t n_sums, sums; /* uint32_t */
	uint64_t n_threads, threads; /* the leader first */
	uint64_t actions;	     /* struct restorer_sigaction[64] */
	uint64_t n_pending, pending; /* the process's own queue: siginfo_t */
	uint64_t n_limits, limits;
	struct restorer_mm mm;
	uint64_t own_rseq, own_rseq_len, own_rseq_sig; /* criu-lite's own registration, to be taken back */
	uint32_t thp_disabled, mdwe;
	uint32_t dead_leader, pad; /* the leader is none of `threads`: it makes them and is ended by the coordinator */
	uint64_t n_ranges, ranges; /* struct restorer_range */
	uint32_t lock_future, pad_lock;
	uint64_t n_locks, locks; /* struct restorer_lock */
	uint64_t n_timers, timers; /* struct restorer_timer */
	uint64_t itimers;	   /* struct itimerval[3], 0: none is armed */
	uint32_t dumpable, child_subreaper;
};

#endif
