/*
 * A process as a whole: working directory, root, program, umask, personality; and what stops it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/x86_64/cpu.h"
#include "lib/proc.h"
#include "plan.h"

static const char deleted[] = " (deleted)";

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), e = strlen(end);
	return n > e && strcmp(s + n - e, end) == 0;
}

static int check_link(const struct process *p, const char *what, const char *path)
{
	if (ends_in(path, deleted))
		return fail("pid %d (%s): %s (%.*s) was removed; put it back before the dump", p->pid, p->comm, what,
			    (int)(strlen(path) - strlen(deleted)), path);
	return 0;
}

static int task_collect(struct dump *d, struct process *p)
{
	(void)d;
	autofree char *cwd = proc_readlink("/proc/%d/cwd", p->host->tid);
	autofree char *root = proc_readlink("/proc/%d/root", p->host->tid);
	autofree char *exe = proc_readlink("/proc/%d/exe", p->host->tid);
	autofree char *personality = proc_read(NULL, "/proc/%d/personality", p->host->tid);
	autofree char *oom = proc_read(NULL, "/proc/%d/oom_score_adj", p->host->tid);
	if (!cwd || !root || !exe || !personality || !oom)
		return fail_within("pid %d (%s)", p->pid, p->comm);
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/proc/%d/exe", p->host->tid);
	if (stat(path, &st))
		return fail_errno("pid %d (%s): its program %s", p->pid, p->comm, exe);
	/* its code is mapped: the file travels in the image, as every removed file does */
	if (strncmp(exe, "/memfd:", 7) == 0)
		return fail("pid %d (%s) runs a program from a memfd (%s), which cannot be dumped: while it is made again it is open "
			    "for writing, and no program then; start it from a file",
			    p->pid, p->comm, exe);
	bool exe_deleted = !st.st_nlink && ends_in(exe, deleted);
	if (exe_deleted)
		exe[strlen(exe) - strlen(deleted)] = 0;
	if (check_link(p, "its working directory", cwd) || check_link(p, "its root", root) || check_link(p, "its program", exe))
		return -1;
	struct rec_task r = {
		.pid = p->pid,
		.umask = status_number(p->status, "Umask", 8, 022),
		.personality = strtoul(personality, NULL, 16),
		.stopped = p->stop_signal,
		.oom_score_adj = atoi(oom),
		.n_threads = p->n_threads,
		.exe_size = st.st_size,
		.exe_deleted = exe_deleted,
		.exe_mtime_ns = st.st_mtim.tv_sec * 1000000000ull + st.st_mtim.tv_nsec,
		.root_is_ours = strcmp(root, "/") == 0,
	};
	size_t a = strlen(cwd) + 1, b = strlen(root) + 1, c = strlen(exe) + 1;
	autofree char *tail = alloc_zeroed(a + b + c, 1);
	if (!tail)
		return -1;
	memcpy(tail, cwd, a);
	memcpy(tail + a, root, b);
	memcpy(tail + a + b, exe, c);
	return notes_add_record(&p->core, REC_TASK, &r, sizeof r, tail, a + b + c);
}

static const struct record *task_record(const struct image_file *core)
{
	each_record(core, rec)
		if (rec->type == REC_TASK)
			return rec;
	fail("%s has no record of its task", core->name);
	return NULL;
}

/* Its number, or 0 may be kept by a user for itself: never lowered without privilege. */
static int set_oom_score(int adj)
{
	char text[16];
	autofree char *now = proc_read(NULL, "/proc/self/oom_score_adj");
	if (now && atoi(now) == adj)
		return 0;
	int len = snprintf(text, sizeof text, "%d", adj);
	autoclose int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, len) != len)
		return fail_errno("setting oom_score_adj to %d (lowering it needs CAP_SYS_RESOURCE)", adj);
	return 0;
}

static int task_install(struct restore *r, struct rtask *t)
{
	(void)r;
	if (set_oom_score((int)t->task.oom_score_adj))
		return -1;
	umask(t->task.umask);
	if (personality(t->task.personality) < 0)
		return fail_errno("personality %#x", t->task.personality);
	return 0;
}

const struct kind task_kind = {
	.name = "task",
	.collect = task_collect,
	.install = task_install,
};

/*
 * Last of all that a task does on the way to its restorer: paths and /proc are as the coordinator sees them until then.
 * Both paths are as the dumper saw them from its own root, so that the directory comes before the root.
 */
static int root_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	(void)plan;
	const struct record *rec = task_record(&t->core);
	size_t pos = 0;
	const char *cwd = rec ? record_string(&t->core, rec, &pos) : NULL;
	const char *root = cwd ? record_string(&t->core, rec, &pos) : NULL;
	if (!root)
		return -1;
	if (chdir(cwd))
		return fail_errno("the working directory %s", cwd);
	if (strcmp(root, "/") && chroot(root))
		return fail_errno("changing the root to %s", root);
	return 0;
}

const struct kind root_kind = {
	.name = "root",
	.plan = root_plan,
};
