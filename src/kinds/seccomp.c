/*
 * Seccomp. Our own calls in a filtered process must not meet its filter: what cannot be promised is refused.
 */
#include "lib/proc.h"
#include "plan.h"

static int seccomp_frozen(struct dump *d, struct process *p)
{
	(void)d;
	for (size_t i = 0; i < p->n_threads; i++) {
		autofree char *status = proc_read(NULL, "/proc/%d/task/%d/status", p->pid, p->threads[i].tid);
		if (!status)
			return fail_within("pid %d (%s)", p->pid, p->comm);
		if (status_number(status, "Seccomp", 10, 0))
			return fail("pid %d (%s): thread %d has a seccomp filter, which cannot be dumped; start it without its "
				    "sandbox",
				    p->pid, p->comm, p->threads[i].tid);
	}
	return 0;
}

const struct kind seccomp_kind = {
	.name = "seccomp",
	.frozen = seccomp_frozen,
};
