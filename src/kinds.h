/*
 * A kind of resource is one file with both its sides, and one line in the table of kinds.c. The order of the table is the
 * order of the work, nothing else.
 */
#ifndef CRL_KINDS_H
#define CRL_KINDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "lib/error.h"
#include "lib/image.h"

#include "lib/parasite.h"
#include "restorer.h"
#include "task.h"

struct plan;
struct record_printer; /* show.h */

struct options {
	const char *dir;
	pid_t pid;
	bool leave_running, leave_stopped, replace;
	bool tcp_established, tcp_close, ext_unix_sk, shell_job, file_locks;
	int timeout_ms;
	long max_processes;
	/* restore */
	bool detach, pidns, no_cgroup;
	const char *pidfile;
	const char *root;
};

/* One descriptor of a frozen process. */
struct fd_entry {
	struct process *process;
	int fd;
	bool cloexec;
	uint32_t flags; /* of the open file description, without O_CLOEXEC */
	uint64_t pos;
	char *link;   /* /proc/PID/fd/N's target */
	char *fdinfo; /* /proc/PID/fdinfo/N */
	struct stat st;
	uint32_t description; /* id of its open file description: the same for all that share one */
	bool in_flight;	      /* it waits in a socket: no process has it yet, and FD is our own copy's number */
};

struct dump {
	const struct options *opt;
	struct process *procs; /* the root first, parents before children */
	size_t n, cap;
	struct image_writer *writer;
	struct notes tree;
	struct fd_entry *fds; /* of all processes, those that share a description one behind the other after collecting */
	size_t n_fds, cap_fds;
	uint32_t n_objects; /* ids of records given away */
	uint64_t xfeatures;
	bool shared_files_known;
	struct objects *objects; /* objects.h: what was saved already */
};

/* A new id for a record in tree. */
static inline uint32_t new_id(struct dump *d)
{
	return ++d->n_objects;
}

/* ---- restore ---- */

/* An open file description in the coordinator, by id. */
struct opened {
	uint32_t id;
	int fd; /* high number; -1: not opened (yet) */
	const struct record *record;
};

/* A process to be restored. */
struct rtask {
	struct rec_process proc;
	struct rec_task task;
	struct image_file core;
	struct rtask *parent;
	bool seized; /* its leader is held, and dies if we do */
	/* family.c */
	struct rtask *maker;	/* who gives birth to it */
	struct rtask *born[2];	/* whom it makes before, and once it has its session; linked by `next` */
	struct rtask *next;
	struct rtask *ended;	/* children that end before it runs: zombies, helpers; linked by `next_ended` */
	struct rtask *next_ended;
	uint32_t depth;
	uint32_t birth_session; /* of a leader: where it must be born, 0: anywhere */
	uint32_t orphan;	/* its number among those that are adopted */
	bool born_after, adopted, adopts, helper;
	bool led_group;		/* its number is a group's that others are in */
};

/* Where a task's restorer lies: told by the task in memory that it shares with the coordinator. */
struct region {
	uint64_t start, len;
	uint64_t threads; /* its struct restorer_thread array */
	uint64_t args;	  /* its struct restorer_args */
};

struct restore {
	const struct options *opt;
	struct image image;
	struct image_file tree;
	struct rec_tree rec;
	struct rtask *tasks; /* the root first, parents before children */
	size_t n;
	struct rtask *helpers; /* for leaders that are gone: family.c */
	size_t n_helpers, n_orphans;
	uint32_t *numbers; /* what the image needs, sorted */
	size_t n_numbers;
	struct opened *opened; /* index: id - 1 */
	size_t n_opened, cap_opened;
	struct shared *shared; /* page of the barrier: restorer.h */
	int shared_fd;
	struct region *regions; /* one a task, shared with them */
	int keep_from; /* descriptors from here on are ours */
	bool forked, pidfile_written;
	pid_t coordinator;
};

struct kind {
	const char *name;

	/* dump, all in the frozen tree; every one may be NULL */
	int (*frozen)(struct dump *d, struct process *p);    /* every thread is stopped, the parasite not yet in */
	int (*collect)(struct dump *d, struct process *p);   /* records of one process: into p->core */
	int (*collect_fd)(struct dump *d, struct fd_entry *f); /* 1: mine, a record is in d->tree; 0: not mine */
	int (*settle)(struct dump *d);			     /* after all processes: what is found by looking at all */
	int (*published)(struct dump *d);		     /* the image is there, nothing is killed yet */
	void (*dump_end)(struct dump *d);		     /* always, before the tree is let go */

	/* restore */
	uint32_t opens[4]; /* record types that `open` turns into descriptors */
	int (*open)(struct restore *r, const struct record *rec, uint32_t *id); /* in the coordinator: descriptor, or -1 */
	int (*opened)(struct restore *r);		/* in the coordinator: all are open: what refers to others */
	int (*lead)(struct restore *r, struct rtask *t);    /* in the task, just after setsid, before children inherit */
	int (*install)(struct restore *r, struct rtask *t); /* in the task, its descriptors in place */
	int (*plan)(struct restore *r, struct rtask *t, struct plan *plan); /* in the task: what the restorer shall do */
	int (*ready)(struct restore *r);		/* in the coordinator: every task stands in its restorer */
	void (*undo)(struct restore *r);		/* in the coordinator, after an error: remove what was made */

	const struct record_printer *printers; /* ended by one without a print function */
};

extern const struct kind *const kinds[]; /* ended by NULL */

/* What `open` returns for an object that another record's open has made, or that `opened` will make. */
#define OPEN_LATER (-2)
/* Gives the open FD to the restore as object ID; it moves to a high number. */
int keep_object(struct restore *r, uint32_t id, int fd, const struct record *rec);

/*
 * ACT with ARG on each entry of CORE's descriptor table, whose bounds are checked here and nowhere else; ends with the
 * first that does not return 0, and returns what it did. -1 with the error set for a table that does not fit.
 */
int each_descriptor(const struct image_file *core, int (*act)(const struct rec_fd *f, void *arg), void *arg);

/* The fd of a description that was opened, by id, or -1 with the error set. */
int opened_fd(const struct restore *r, uint32_t id);

/* Refusals all look alike: "pid N (comm) fd F is WHAT". Always -1. */
int refuse_fd(const struct fd_entry *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A copy of F in this process: only for what changes nothing, for the description is shared. -1 with the error set. */
int copy_fd(const struct fd_entry *f);

#define each_record(f, rec) \
	for (const struct record *rec = (f)->records; rec < (f)->records + (f)->n_records; rec++)

#endif
