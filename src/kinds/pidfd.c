/*
 * pidfds of processes in the tree, and of such that are gone.
 *
 * A process has none before it is born, and descriptors are inherited: each task opens its own once all are there. So a
 * pidfd that processes shared is one for each of them afterwards; nothing but its O_NONBLOCK could tell.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

struct rec_pidfd {
	struct rec_description d;
	uint32_t pid; /* 0: of a process that was gone */
	uint32_t pad;
};

static bool in_tree(const struct dump *d, pid_t pid)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->procs[i].pid == pid)
			return true;
	return false;
}

static int pidfd_collect_fd(struct dump *d, struct fd_entry *f)
{
	if (f->flags & O_PATH || strcmp(f->link, "anon_inode:[pidfd]") != 0)
		return 0;
	/* Pid: -1 of one that was reaped, 0 of one in no namespace of ours: pidfd_show_fdinfo, fs/pidfs.c */
	int pid = status_number(f->fdinfo, "Pid", 10, 0);
	if (pid >= 0 && !in_tree(d, pid))
		return refuse_fd(f, "a pidfd of process %d, which is outside the tree, or a thread; close it before the dump", pid);
	if (f->in_flight)
		return refuse_fd(f, "a pidfd of process %d, which cannot be dumped on its way; receive it first", pid);
	struct rec_pidfd r = {.d = {.id = f->description, .flags = f->flags}, .pid = pid > 0 ? pid : 0};
	return notes_add_record(&d->tree, REC_PIDFD, &r, sizeof r, NULL, 0) ? -1 : 1;
}

/* Of a process of our own that has ended and was reaped. */
static int open_dead(void)
{
	int fd = -1;
	struct clone_args a = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&fd, .exit_signal = SIGCHLD};
	pid_t pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid == 0)
		syscall(SYS_exit_group, 0);
	if (pid < 0)
		return fail_errno("a process that ends, for a pidfd of one that has ended");
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	return fd;
}

/* Until the process is there something else keeps the place. */
static int pidfd_open_record(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_pidfd r;
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	*id = r.d.id;
	int fd = r.pid ? open("/", O_PATH | O_CLOEXEC) : open_dead();
	return fd >= 0 ? fd : fail_errno("a descriptor in the place of a pidfd");
}

/* The process's pidfd, and the description that it is of. */
struct placing {
	uint32_t description;
	int fd;
};

static int install_number(const struct rec_fd *f, void *arg)
{
	const struct placing *p = arg;
	if (f->description == p->description && dup3(p->fd, f->fd, f->cloexec ? O_CLOEXEC : 0) < 0)
		return fail_errno("a pidfd as descriptor %u", f->fd);
	return 0;
}

static int install_one(struct restore *re, struct rtask *t, const struct rec_pidfd *r)
{
	int place = opened_fd(re, r->d.id);
	if (place < 0)
		return -1;
	autoclose int fd = syscall(SYS_pidfd_open, r->pid, r->d.flags & (O_NONBLOCK | O_EXCL));
	if (fd < 0)
		return fail_errno("a pidfd of process %u", r->pid);
	/* for those that find it by its object's number: epoll */
	if (dup3(fd, place, O_CLOEXEC) < 0)
		return fail_errno("a pidfd of process %u", r->pid);
	return each_descriptor(&t->core, install_number, &(struct placing){r->d.id, place});
}

static int pidfd_install(struct restore *re, struct rtask *t)
{
	each_record(&re->tree, rec) {
		struct rec_pidfd r;
		if (rec->type != REC_PIDFD)
			continue;
		if (record_get(&re->tree, rec, &r, sizeof r))
			return -1;
		if (r.pid && install_one(re, t, &r))
			return fail_within("pid %u", t->proc.pid);
	}
	return 0;
}

static void print_pidfd(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_pidfd r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	if (r.pid)
		json_uint(j, "pid", r.pid);
	else
		json_bool(j, "gone", true);
}

static const struct record_printer printers[] = {{REC_PIDFD, "pidfd", print_pidfd}, {0}};

const struct kind pidfd_kind = {
	.name = "pidfds",
	.collect_fd = pidfd_collect_fd,
	.opens = {REC_PIDFD},
	.open = pidfd_open_record,
	.install = pidfd_install,
	.printers = printers,
};
