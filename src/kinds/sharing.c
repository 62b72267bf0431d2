/*
 * What processes can share beside what fork makes: memory, descriptor table, directories, signal actions (clone(2) without
 * CLONE_THREAD). Found by sorting with kcmp(2), never by comparing all pairs; refused by name.
 */
#include <linux/kcmp.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kinds.h"

static int sorted_by; /* qsort has no argument of its own to hand on */

/* 0 equal, else the kernel's own order, which holds as long as nobody runs. */
static long compare(const struct process *x, const struct process *y)
{
	return x == y ? 0 : syscall(SYS_kcmp, x->host->tid, y->host->tid, sorted_by, 0, 0);
}

static int compare_processes(const void *a, const void *b)
{
	long k = compare(*(struct process *const *)a, *(struct process *const *)b);
	return k == 1 ? -1 : k == 2 ? 1 : 0;
}

static int sharing_settle(struct dump *d)
{
	static const struct {
		int type;
		const char *what;
	} shared[] = {
		{KCMP_VM, "memory (CLONE_VM)"},
		{KCMP_FILES, "descriptors (CLONE_FILES)"},
		{KCMP_FS, "working directory (CLONE_FS)"},
		{KCMP_SIGHAND, "signal actions (CLONE_SIGHAND)"},
	};
	autofree struct process **p = alloc_zeroed(d->n, sizeof *p);
	size_t n = 0;
	if (!p)
		return -1;
	for (size_t i = 0; i < d->n; i++)
		if (d->procs[i].state != PROCESS_ZOMBIE)
			p[n++] = &d->procs[i];
	for (size_t s = 0; n > 1 && s < sizeof shared / sizeof *shared; s++) {
		sorted_by = shared[s].type;
		qsort(p, n, sizeof *p, compare_processes);
		for (size_t i = 1; i < n; i++)
			if (compare(p[i - 1], p[i]) == 0)
				return fail("pids %d and %d (%s) share their %s without being threads of one process, which cannot be "
					    "dumped",
					    p[i - 1]->pid, p[i]->pid, p[i]->comm, shared[s].what);
	}
	return 0;
}

const struct kind sharing_kind = {
	.name = "sharing",
	.settle = sharing_settle,
};
