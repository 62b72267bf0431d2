#include "kinds.h"

extern const struct kind namespaces_kind, cgroup_kind, descriptors_kind, task_kind, threads_kind, signals_kind;
extern const struct kind limits_kind, files_kind, tty_kind, memory_kind, unix_kind, unix_queue_kind;
extern const struct kind pipes_kind, events_kind, epoll_kind, pidfd_kind, inotify_kind, mqueue_kind;
extern const struct kind timers_kind, creds_kind, sched_kind, prctl_kind, seccomp_kind, shmem_kind, ghost_kind;
extern const struct kind address_space_kind, locks_kind, sysv_shm_kind, root_kind, inet_kind;

/*
 * The order is that of the work. Descriptors come first: what others find by number lies in place by then. Those that
 * take mappings come before memory, which refuses what is left.
 */
const struct kind *const kinds[] = {
	&namespaces_kind,
	&unix_kind, /* enters descriptors that are in flight among the others */
	&descriptors_kind,
	&unix_queue_kind,
	&cgroup_kind,
	&task_kind,
	&threads_kind,
	&signals_kind,
	&mqueue_kind, /* regular files to stat(2): before files */
	&shmem_kind,
	&sysv_shm_kind,
	&ghost_kind,
	&files_kind,
	&tty_kind,
	&pipes_kind,
	&events_kind,
	&inotify_kind,
	&pidfd_kind,
	&inet_kind,
	&epoll_kind, /* after all that makes what it watches */
	&locks_kind,
	&timers_kind,
	&sched_kind,
	&prctl_kind,
	&seccomp_kind,
	&creds_kind,
	&limits_kind,
	&address_space_kind,
	&memory_kind,
	&root_kind,
	NULL,
};
