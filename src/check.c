/*
 * check: what this kernel and this user can do. Each thing is tried, not looked up by version, where trying is harmless.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/pagemap.h"
#include "lib/proc.h"

enum { CAP_SYS_PTRACE_ = 19, CAP_SYS_ADMIN_ = 21 };

static bool capable(int cap)
{
	autofree char *status = proc_read(NULL, "/proc/self/status");
	return status && status_number(status, "CapEff", 16, 0) >> cap & 1;
}

/* A child that waits to be killed. */
static pid_t sleeper(void)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, __WALL);
}

static bool can_kernel(void)
{
	struct utsname u;
	int major = 0, minor = 0;
	return uname(&u) == 0 && sscanf(u.release, "%d.%d", &major, &minor) == 2 && (major > 6 || (major == 6 && minor >= 7));
}

static bool can_ptrace(void)
{
	pid_t pid = sleeper();
	bool ok = pid > 0 && ptrace(PTRACE_SEIZE, pid, 0, 0) == 0;
	if (pid > 0)
		end(pid);
	return ok;
}

/* Others than our children: what Yama forbids. */
static bool can_ptrace_others(void)
{
	autofree char *scope = proc_read(NULL, "/proc/sys/kernel/yama/ptrace_scope");
	return !scope || atoi(scope) == 0 || (atoi(scope) < 3 && capable(CAP_SYS_PTRACE_));
}

static bool can_pagemap(void)
{
	struct page_run run;
	uint64_t page = (uintptr_t)&run & ~4095ul;
	return pagemap_scan(getpid(), page, page + 4096, PAGES_TOUCHED, &run, 1) >= 0;
}

static bool can_kcmp(void)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILES, 0, 0) == 0;
}

static bool can_pidfd(void)
{
	pid_t pid = sleeper();
	int pidfd = pid > 0 ? syscall(SYS_pidfd_open, pid, 0) : -1;
	int fd = pidfd >= 0 ? syscall(SYS_pidfd_getfd, pidfd, 2, 0) : -1;
	bool ok = fd >= 0 || (pidfd >= 0 && errno == EBADF);
	if (fd >= 0)
		close(fd);
	if (pidfd >= 0)
		close(pidfd);
	if (pid > 0)
		end(pid);
	return ok;
}

/* The number of a child that has just ended is free. */
static bool can_set_tid(void)
{
	pid_t pid = sleeper();
	if (pid < 0)
		return false;
	end(pid);
	struct clone_args a = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};
	pid_t again = syscall(SYS_clone3, &a, sizeof a);
	if (again == 0)
		_exit(0);
	if (again > 0)
		waitpid(again, NULL, __WALL);
	return again > 0 || errno == EEXIST;
}

/* CONFIG_CHECKPOINT_RESTORE: PR_SET_MM_MAP_SIZE answers, and /proc/PID/timers is there. */
static bool can_set_mm(void)
{
	unsigned int size = 0;
	return prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) == 0 && size >= 104;
}

static bool can_timers(void)
{
	return access("/proc/self/timers", R_OK) == 0;
}

static bool can_vdso(void)
{
	return getauxval(AT_SYSINFO_EHDR) != 0;
}

static bool can_timer_ids(void)
{
	return prctl(77 /* PR_TIMER_CREATE_RESTORE_IDS */, 2 /* GET */, 0, 0, 0) >= 0;
}

/* Only where both hold can a filter be suspended: include/uapi/linux/ptrace.h PTRACE_O_SUSPEND_SECCOMP. */
static bool can_seccomp(void)
{
	pid_t pid = sleeper();
	bool ok = pid > 0 && ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_SUSPEND_SECCOMP) == 0;
	if (pid > 0)
		end(pid);
	return ok;
}

static bool can_be_others(void)
{
	return capable(6) && capable(7) && capable(8) && capable(CAP_SYS_PTRACE_);
}

static bool can_namespaces(void)
{
	pid_t pid = fork();
	int status = 1;
	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWPID) ? 1 : 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool can_numbers(void)
{
	return can_set_tid() || can_namespaces();
}

static bool can_raise_limits(void)
{
	return capable(24);
}

static const struct {
	bool (*can)(void);
	bool needed;
	const char *what, *way_out;
} things[] = {
	{can_kernel, true, "Linux 6.7 or later", "boot a newer kernel"},
	{can_ptrace, true, "tracing processes (ptrace)", "leave the container's seccomp profile, or allow ptrace in it"},
	{can_ptrace_others, false, "tracing processes that criu-lite has not started",
	 "be root, or set /proc/sys/kernel/yama/ptrace_scope to 0"},
	{can_pagemap, true, "asking which pages are there (PAGEMAP_SCAN)", "boot Linux 6.7 or later"},
	{can_kcmp, true, "comparing what processes share (kcmp)", "a kernel with CONFIG_KCMP, a sandbox that allows it"},
	{can_pidfd, true, "taking descriptors (pidfd_getfd)", "leave the container's seccomp profile, or allow it there"},
	{can_vdso, true, "a vDSO, which is the way into a process", "boot without vdso=0"},
	{can_set_mm, true, "putting memory's landmarks back (PR_SET_MM_MAP)", "a kernel with CONFIG_CHECKPOINT_RESTORE"},
	{can_timers, true, "reading timers (/proc/PID/timers)", "a kernel with CONFIG_CHECKPOINT_RESTORE"},
	{can_numbers, true, "old process numbers, here or with --pidns", "be root, or allow user namespaces"},
	{can_set_tid, false, "choosing process numbers here (clone3 with set_tid)",
	 "restore with --pidns, or be root, or have CAP_CHECKPOINT_RESTORE"},
	{can_timer_ids, false, "choosing timers' numbers", "Linux 6.15; without it they are counted up to"},
	{can_seccomp, false, "programs with a seccomp filter", "be root in the first user namespace, without a filter of your own"},
	{can_be_others, false, "programs of other users", "be root (CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_SYS_PTRACE)"},
	{can_namespaces, false, "namespaces of one's own", "allow them: /proc/sys/user/max_user_namespaces, and what "
							     "AppArmor restricts"},
	{can_raise_limits, false, "raising hard resource limits", "have CAP_SYS_RESOURCE; seldom needed"},
};

int check_system(void)
{
	int missing = 0;
	for (size_t i = 0; i < sizeof things / sizeof *things; i++) {
		fflush(stdout); /* a child must not say it again */
		if (things[i].can()) {
			printf("yes  %s\n", things[i].what);
			continue;
		}
		printf("no   %s: %s%s\n", things[i].what, things[i].way_out, things[i].needed ? "" : " (not always needed)");
		missing |= things[i].needed;
	}
	return missing;
}
