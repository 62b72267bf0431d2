/*
 * The image's records: what a note of owner CRIULITE holds.
 *
 * Each is a little-endian struct of fixed-width fields that may only grow at its end: a shorter one is
 * zero-extended when read; a longer one must be zero past what is known (as clone3(2) and openat2(2) do).
 * Behind the fixed part a record may carry a tail of bytes (a path, an array): record_head says both lengths.
 */
#ifndef CRL_RECORDS_H
#define CRL_RECORDS_H

#include <stdint.h>

#define CRL_OWNER	  "CRIULITE"
#define CRL_IMAGE_VERSION 1

struct record_head {
	uint32_t size; /* bytes of the fixed part, this head included */
	uint32_t tail; /* bytes behind it */
};

/* readelf ignores a note's owner, so that low numbers would be printed under other tools' names. */
enum record_type {
	REC_SUMS = 0x43520000, /* CRC32C of each MiB of this file's contents */

	/* in core.PID */
	REC_TASK,
	REC_THREAD,
	REC_MM,
	REC_VMA,
	REC_SIGNALS,
	REC_SIGPENDING,
	REC_FDTABLE,
	REC_RLIMITS,
	REC_ITIMERS,
	REC_POSIX_TIMER,
	REC_CREDS,
	REC_SCHED,
	REC_PRCTL,
	REC_SECCOMP,
	REC_MM_STATE,

	/* in tree */
	REC_TREE = 0x43521000,
	REC_PROCESS, /* one a process: where it is in the tree */
	REC_FILE,    /* an open file description of a regular file, directory or device */
	REC_PIPE,
	REC_PIPE_END,
	REC_UNIX,
	REC_INET,
	REC_EVENTFD,
	REC_TIMERFD,
	REC_SIGNALFD,
	REC_EPOLL,
	REC_INOTIFY,
	REC_FANOTIFY,
	REC_PIDFD,
	REC_MQUEUE,
	REC_MEMFD,
	REC_SHMEM,
	REC_GHOST,
	REC_LOCK,
	REC_TTY,
	REC_EXTERNAL,
	REC_UNIX_QUEUE,
	REC_TCP_STREAM,
	REC_FD_OWNER,
	REC_NAMESPACE,
	REC_CGROUP,
	REC_SYSV,
	REC_GHOST_FILE,
};

/* What the whole image was made on and needs. One, first in tree. */
struct rec_tree {
	struct record_head head;
	uint32_t version;
	uint32_t root_pid;
	uint64_t xfeatures;	/* XCR0 bits that some thread's state uses */
	uint64_t monotonic_ns;	/* CLOCK_MONOTONIC at the dump */
	uint64_t boottime_ns;
	uint64_t cpu_features[4]; /* leaf 1 ecx|edx<<32, leaf 7.0 ebx|ecx<<32, leaf 7.0 edx|7.1 eax<<32, leaf 0xd.1 eax|0x80000001 ecx<<32 */
	uint8_t boot_id[16];
};

enum process_state { PROCESS_ALIVE = 1, PROCESS_ZOMBIE = 2, PROCESS_STOPPED = 3, PROCESS_DEAD_LEADER = 4 };

struct rec_process {
	struct record_head head;
	uint32_t pid, ppid, pgid, sid;
	uint32_t state;
	uint32_t exit_status; /* of a zombie: as wait(2) tells it */
	uint32_t shares;      /* reserved: CLONE_* shared with the process `shares_with` */
	uint32_t shares_with;
	uint32_t exit_signal; /* + 1; 0: SIGCHLD */
	char comm[16];
	uint32_t outside; /* bit 0: its session is that of whoever started the tree, bit 1: its group too (--shell-job) */
	uint32_t pad;
};

/* tail: cwd, root, exe: each with its NUL */
struct rec_task {
	struct record_head head;
	uint32_t pid;
	uint32_t umask;
	uint32_t personality;
	uint32_t stopped;	 /* the signal that stopped it, 0 if it runs */
	uint32_t oom_score_adj;	 /* as a signed number */
	uint32_t n_threads;
	uint64_t exe_size, exe_mtime_ns;
	uint32_t exe_deleted;
	uint32_t root_is_ours;	 /* its root is the dumper's own */
};

enum thread_flags {
	THREAD_LEADER = 1,
};

/* tail: xsave area in PTRACE_GETREGSET's layout (NT_X86_XSTATE) */
struct rec_thread {
	struct record_head head;
	uint32_t tid;
	uint32_t flags;
	uint64_t regs[27];	/* struct user_regs_struct: x86's order in <sys/user.h>, as they were stopped */
	uint64_t sigmask;
	uint64_t altstack_sp, altstack_size;
	uint32_t altstack_flags;
	uint32_t pdeath_signal;
	uint64_t robust_head, robust_len;
	uint64_t rseq_ptr;
	uint32_t rseq_len, rseq_sig;
	uint64_t tid_address;
	char comm[16];
};

/* prctl(2) PR_SET_MM_MAP's fields; tail: auxv */
struct rec_mm {
	struct record_head head;
	uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end;
	uint64_t vdso;	     /* where the vDSO's code is mapped */
	uint64_t vdso_size;
	uint64_t vvar;	     /* the lowest of its data pages */
	uint64_t vvar_size;
	uint32_t vdso_crc;   /* of its text as the kernel made it, 0: unknown */
	uint32_t thp_disabled;
	uint32_t mdwe;
};

enum vma_kind {
	VMA_ANON_PRIVATE = 1,
	VMA_FILE_PRIVATE,
	VMA_FILE_SHARED,
	VMA_ANON_SHARED, /* object: shmem id in tree */
	VMA_VDSO,
	VMA_VVAR,
	VMA_VSYSCALL,
};

enum vma_flag {
	VMA_GROWSDOWN	 = 1u << 0,
	VMA_LOCKED	 = 1u << 1,
	VMA_NORESERVE	 = 1u << 2,
	VMA_HUGETLB	 = 1u << 3,
	VMA_HUGEPAGE	 = 1u << 4,
	VMA_NOHUGEPAGE	 = 1u << 5,
	VMA_DONTFORK	 = 1u << 6,
	VMA_WIPEONFORK	 = 1u << 7,
	VMA_DONTDUMP	 = 1u << 8,
	VMA_MERGEABLE	 = 1u << 9,
	VMA_SEALED	 = 1u << 10,
	VMA_SEQ_READ	 = 1u << 11,
	VMA_RAND_READ	 = 1u << 12,
	VMA_STACK	 = 1u << 13, /* it is the [stack] */
	VMA_HEAP	 = 1u << 14,
	VMA_FILE_WRITABLE = 1u << 15, /* the file was opened for writing */
	VMA_DROPPABLE	 = 1u << 16,
	VMA_SYSV	 = 1u << 17,
	VMA_LOCKONFAULT	 = 1u << 18,
	VMA_AIO		 = 1u << 19,
};

/* tail: the file's path with its NUL, or an anonymous mapping's name (PR_SET_VMA_ANON_NAME), or nothing */
struct rec_vma {
	struct record_head head;
	uint64_t start, end;
	uint64_t offset;	/* in the file */
	uint32_t prot, kind, flags;
	uint32_t object;	/* of VMA_ANON_SHARED and files that another record carries: its id in tree; else 0 */
	uint64_t file_size, file_mtime_ns;
	uint32_t pkey;
	uint32_t mpol_mode;
	uint64_t mpol_nodes;
	uint64_t page_size;	/* of hugetlb mappings */
};

/* All 64 actions. */
struct rec_signals {
	struct record_head head;
	struct rec_sigaction {
		uint64_t handler, flags, restorer, mask;
	} action[64];
};

/* tail: siginfo_t array (128 bytes each), in order. tid 0: the process's own queue */
struct rec_sigpending {
	struct record_head head;
	uint32_t tid;
	uint32_t n;
};

/* tail: struct rec_fd array */
struct rec_fdtable {
	struct record_head head;
	uint32_t n;
	uint32_t fd_size; /* sizeof struct rec_fd when written */
};
struct rec_fd {
	uint32_t fd;
	uint32_t cloexec;
	uint32_t description; /* id of an open file description in tree */
};

struct rec_rlimits {
	struct record_head head;
	uint32_t n;
	uint32_t pad;
	struct {
		uint64_t soft, hard;
	} limit[16];
};

/* setitimer(2)'s three: what is left, and the interval; 0, 0: not armed */
struct rec_itimers {
	struct record_head head;
	struct {
		uint64_t value_us, interval_us;
	} timer[3];
};

struct rec_posix_timer {
	struct record_head head;
	int32_t id;
	int32_t clock;
	uint32_t notify; /* sigevent(3)'s sigev_notify, SIGEV_THREAD_ID included */
	uint32_t signo;
	int32_t tid; /* of SIGEV_THREAD_ID */
	uint32_t overrun; /* told, not put back: the kernel has no way to */
	uint64_t sival;
	uint64_t value_ns, interval_ns;
};

/* One a thread. tail: its n_groups supplementary groups, uint32_t */
struct rec_creds {
	struct record_head head;
	uint32_t tid;
	uint32_t uid[4], gid[4]; /* real, effective, saved, of the file system */
	uint32_t n_groups;
	uint32_t securebits;
	uint32_t no_new_privs;
	uint64_t cap[5]; /* inheritable, permitted, effective, bounding, ambient */
};

enum sched_record_flags {
	SCHED_REC_IO_FLUSHER = 1,
	SCHED_REC_ALL_CPUS = 2, /* every CPU of the machine: no mask */
};

/* One a thread. tail: sched_setaffinity(2)'s mask */
struct rec_sched {
	struct record_head head;
	uint32_t tid;
	uint32_t policy;
	uint64_t sched_flags; /* of sched_setattr(2) */
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
	uint32_t ioprio;
	uint32_t flags; /* enum sched_record_flags */
	uint64_t timerslack;
	uint32_t spec_store, spec_indirect; /* PR_SPEC_* to set, 0: as it comes */
};

/* One a thread that has filters. tail: for each, the oldest first: uint32_t instructions, uint32_t flags, the instructions */
struct rec_seccomp {
	struct record_head head;
	uint32_t tid;
	uint32_t mode;
	uint32_t n;
	uint32_t same_as; /* not 0: no tail, but the filters of that thread, whose record came before */
};

/* prctl(2)'s of a process as a whole */
struct rec_prctl {
	struct record_head head;
	uint32_t dumpable;
	uint32_t child_subreaper;
	uint32_t thp_disable;
	uint32_t mdwe;
};

/*
 * What every open file description's record begins with. Ids count from 1 and are unique in an image.
 */
struct rec_description {
	struct record_head head;
	uint32_t id;
	uint32_t flags;	  /* of open(2), as F_GETFL and /proc/PID/fdinfo tell them */
	uint64_t pos;
	uint32_t owner;	    /* F_GETOWN_EX: pid; 0: none */
	uint32_t owner_type;
	uint32_t owner_sig; /* F_GETSIG */
	uint32_t owner_uid, owner_euid; /* F_GETOWNER_UIDS */
	uint32_t reserved;
};

/* tail: path with its NUL */
struct rec_file {
	struct rec_description d;
	uint64_t size, mtime_ns;
	uint64_t ino;
	uint32_t mode; /* st_mode */
	uint32_t ghost; /* id of the record that carries a removed file's contents, else 0 */
	uint64_t rdev;
};

enum object_kind {
	OBJECT_ANON = 1, /* memory shared by MAP_SHARED | MAP_ANONYMOUS or /dev/zero */
	OBJECT_MEMFD,
	OBJECT_FILE, /* a file that was removed */
	OBJECT_SYSV,
};

/*
 * REC_SHMEM, REC_GHOST: what no path leads to; its contents lie in mem.ID or file.ID, where it has any.
 * tail: struct rec_extent array, then the name with its NUL
 */
struct rec_object {
	struct record_head head;
	uint32_t id;
	uint32_t kind;
	uint64_t size;
	uint64_t huge_size; /* of a hugetlb page, else 0 */
	uint32_t mode, uid, gid;
	uint32_t seals;
	uint32_t n_extents;
	uint32_t noreserve;
	int32_t shmid, shm_key;
	uint32_t shm_mode, shm_uid, shm_gid, reserved;
};
struct rec_extent {
	uint64_t offset, len; /* ascending; the bytes lie one behind the other in the contents */
};

/* REC_MEMFD, REC_GHOST_FILE: an open file description of an object. */
struct rec_object_file {
	struct rec_description d;
	uint32_t object;
	uint32_t reserved;
};

/* What of an address space no mapping's line tells. tail: struct rec_range array */
struct rec_mm_state {
	struct record_head head;
	uint32_t n;
	uint32_t range_size;  /* sizeof struct rec_range when written */
	uint32_t lock_future; /* mlockall(2)'s flags for mappings to come */
	uint32_t reserved;
};
enum range_kind { RANGE_GUARD = 1, RANGE_POLICY };
struct rec_range {
	uint64_t start, end;
	uint32_t kind;
	uint32_t mode; /* of mbind(2), with its flags */
	uint64_t nodes;
};

enum lock_kind { LOCK_FLOCK = 1, LOCK_POSIX, LOCK_OFD, LOCK_LEASE, LOCK_ASYNC };

/* REC_LOCK, in the core of the process that takes it again. */
struct rec_lock {
	struct record_head head;
	uint32_t fd;
	uint32_t kind;
	uint32_t type; /* F_RDLCK, F_WRLCK */
	uint32_t reserved;
	uint64_t start, len; /* of POSIX and OFD locks; len 0: to the end. LOCK_ASYNC: the flags, O_ASYNC among them */
};

/* REC_FD_OWNER: who gets signals for an open file description. */
struct rec_fd_owner {
	struct record_head head;
	uint32_t description;
	uint32_t type; /* of F_SETOWN_EX */
	uint32_t pid;
	uint32_t sig; /* of F_SETSIG */
	uint32_t uid, euid;
	uint32_t reserved;
};

#endif
