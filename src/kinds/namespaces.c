/*
 * Namespaces: a tree is dumped from within those it lives in. One that is in others, or has made its own, is refused by name.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kinds.h"
#include "lib/proc.h"

static const struct {
	const char *file, *what;
} namespaces[] = {
	{"mnt", "mount"}, {"pid", "pid"}, {"pid_for_children", "pid (for its children)"}, {"net", "network"}, {"ipc", "IPC"},
	{"uts", "UTS"}, {"user", "user"}, {"time", "time"}, {"time_for_children", "time (for its children)"},
	{"cgroup", "cgroup"},
};

/* Before the parasite is in: nothing was touched yet. */
static int namespaces_frozen(struct dump *d, struct process *p)
{
	(void)d;
	for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
		char ours[64], theirs[64];
		struct stat a, b;
		snprintf(ours, sizeof ours, "/proc/self/ns/%s", namespaces[i].file);
		snprintf(theirs, sizeof theirs, "/proc/%d/ns/%s", p->host->tid, namespaces[i].file);
		if (stat(ours, &a) || stat(theirs, &b)) {
			if (errno == ENOENT)
				continue; /* a kernel without this kind */
			return fail_errno("%s", theirs);
		}
		if (a.st_ino != b.st_ino || a.st_dev != b.st_dev)
			return fail("pid %d (%s) is in another %s namespace; run criu-lite in that one, with nsenter -t %d -a, if "
				    "the whole tree is in it",
				    p->pid, p->comm, namespaces[i].what, p->pid);
	}
	return 0;
}

const struct kind namespaces_kind = {
	.name = "namespaces",
	.frozen = namespaces_frozen,
};
