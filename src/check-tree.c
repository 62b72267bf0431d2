/*
 * check -t: everything that stands against a dump of a running tree, all at once. Nothing but /proc is read, and what
 * is read can have changed by the time of the dump.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blockers.h"
#include "check.h"
#include "lib/error.h"
#include "lib/proc.h"

struct found {
	int n;
	pid_t pid;
	char comm[17];
};

static void blocker(struct found *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void blocker(struct found *f, const char *fmt, ...)
{
	char text[700];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	for (char *s = text; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 127)
			*s = '?';
	printf("pid %d (%s) %s\n", f->pid, f->comm, text);
	f->n++;
}

static void look_at_fds(struct found *f)
{
	char path[64];
	autofree int *fds = NULL;
	size_t n;
	snprintf(path, sizeof path, "/proc/%d/fd", f->pid);
	if (proc_list_numbers(path, &fds, &n)) {
		blocker(f, "is not yours to look at: be its user, or root");
		return;
	}
	for (size_t i = 0; i < n; i++) {
		autofree char *link = proc_readlink("/proc/%d/fd/%d", f->pid, fds[i]);
		const char *what = link ? unsupported_object(link) : NULL;
		if (what)
			blocker(f, "fd %d is %s", fds[i], what);
	}
}

static void look_at_threads(struct found *f)
{
	char path[64];
	autofree int *tids = NULL;
	size_t n;
	snprintf(path, sizeof path, "/proc/%d/task", f->pid);
	if (proc_list_numbers(path, &tids, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		autofree char *status = proc_read(NULL, "/proc/%d/task/%d/status", f->pid, tids[i]);
		if (!status)
			continue;
		int tracer = status_number(status, "TracerPid", 10, 0), seccomp = status_number(status, "Seccomp", 10, 0);
		if (tracer)
			blocker(f, "thread %d is being traced by pid %d: let its debugger detach first", tids[i], tracer);
		if (seccomp == 1)
			blocker(f, "thread %d is in seccomp's strict mode, which no other program may enter", tids[i]);
		if (seccomp == 2 && geteuid() != 0)
			blocker(f, "thread %d has a seccomp filter, which takes root to read", tids[i]);
		const char *features = status_field(status, "x86_Thread_features");
		if (features && strncmp(features, "shstk", 5) == 0)
			blocker(f, "thread %d has a shadow stack, which cannot be dumped; start it with "
				   "GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK", tids[i]);
	}
}

/* e_ident[EI_CLASS] of the program: ELFCLASS32 */
static void look_at_program(struct found *f)
{
	char path[64], ident[5];
	snprintf(path, sizeof path, "/proc/%d/exe", f->pid);
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && pread(fd, ident, sizeof ident, 0) == sizeof ident && ident[4] == 1)
		blocker(f, "runs 32-bit code, which cannot be dumped");
	static const char *const links[] = {"exe", "cwd", "root"};
	for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
		autofree char *link = proc_readlink("/proc/%d/%s", f->pid, links[i]);
		size_t n = link ? strlen(link) : 0;
		if (n > 10 && strcmp(link + n - 10, " (deleted)") == 0)
			blocker(f, "has a %s that was removed (%s); put it back before the dump", links[i], link);
	}
	autofree char *maps = proc_read(NULL, "/proc/%d/maps", f->pid);
	if (!maps)
		return;
	if (!strstr(maps, "[vdso]"))
		blocker(f, "has no vDSO, which is the way in; start it without vdso=0");
	if (!strstr(maps, "[stack]"))
		blocker(f, "has no [stack], where a signal frame could lie");
	if (strstr(maps, "[uprobes]"))
		blocker(f, "is probed (uprobes), which would be written into the image; end the tracing first");
}

static void look_at_label(struct found *f)
{
	autofree char *own = proc_read(NULL, "/proc/self/attr/current");
	autofree char *theirs = proc_read(NULL, "/proc/%d/attr/current", f->pid);
	if (own && theirs && strcmp(own, theirs))
		blocker(f, "runs under the security label %.*s, which cannot be put back; dump it from a shell with that label",
			(int)strcspn(theirs, "\n"), theirs);
}

static void look_at_namespaces(struct found *f)
{
	static const char *const kinds[] = {"mnt", "pid", "net", "ipc", "uts", "user", "time", "cgroup"};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		char ours[64], theirs[64];
		struct stat a, b;
		snprintf(ours, sizeof ours, "/proc/self/ns/%s", kinds[i]);
		snprintf(theirs, sizeof theirs, "/proc/%d/ns/%s", f->pid, kinds[i]);
		if (stat(ours, &a) == 0 && stat(theirs, &b) == 0 && a.st_ino != b.st_ino)
			blocker(f, "is in another %s namespace; run criu-lite in that one, with nsenter -t %d -a, if the whole tree is "
				   "in it", kinds[i], f->pid);
	}
}

static int look_at(pid_t pid, int depth, int *n);

static int look_below(pid_t pid, int depth, int *n)
{
	char path[64];
	autofree int *tids = NULL;
	size_t n_tids;
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	if (depth > 1000 || proc_list_numbers(path, &tids, &n_tids))
		return 0;
	for (size_t i = 0; i < n_tids; i++) {
		autofree char *text = proc_read(NULL, "/proc/%d/task/%d/children", pid, tids[i]);
		char *end;
		for (char *s = text; s; s = end) {
			long child = strtol(s, &end, 10);
			if (end == s)
				break;
			look_at(child, depth + 1, n);
		}
	}
	return 0;
}

static int look_at(pid_t pid, int depth, int *n)
{
	struct proc_stat st;
	struct found f = {.pid = pid};
	if (proc_stat_read(pid, 0, &st))
		return depth ? 0 : fail("there is no process %d; `ps` lists those that are", pid);
	memcpy(f.comm, st.comm, sizeof f.comm);
	for (char *s = f.comm; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 127)
			*s = '?';
	if (st.flags & 0x00200000) /* PF_KTHREAD, include/linux/sched.h */
		blocker(&f, "is a thread of the kernel, which cannot be dumped");
	else if (st.state == 'Z' && !depth)
		blocker(&f, "has ended and waits for its parent (a zombie): nothing is left to dump");
	else if (st.state != 'Z') {
		look_at_threads(&f);
		look_at_program(&f);
		look_at_namespaces(&f);
		look_at_label(&f);
		look_at_fds(&f);
	}
	*n += f.n;
	return look_below(pid, depth, n);
}

int check_tree(pid_t pid)
{
	int n = 0;
	if (look_at(pid, 0, &n))
		return -1;
	if (!n)
		printf("nothing is known that stands against a dump of pid %d\n", pid);
	return n ? 1 : 0;
}
