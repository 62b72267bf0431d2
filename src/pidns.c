/*
 * Three processes: the one outside, which the user waits for; the namespace's init, which reaps and ends when nobody is left
 * (all else in it would end with init: so init ends last); and the one that restores, whose end says how it went.
 */
#include "pidns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "family.h"
#include "lib/proc.h"

static int to_outside = -1; /* the inner processes' end of the socket */

/* clone3 asks for the right before it looks whether the number is free, and 1 never is (kernel/pid.c, alloc_pid). */
static bool may_choose_pids(void)
{
	int tid = 1;
	struct clone_args a = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&tid, .set_tid_size = 1};
	long pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid == 0)
		_exit(0);
	return pid > 0 || errno != EPERM;
}

bool pidns_needed(const struct options *opt)
{
	return opt->pidns || !may_choose_pids();
}

/* ---- the process outside ---- */

static int write_pidfile(const char *path, pid_t pid)
{
	if (!path)
		return 0;
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return fd < 0 || dprintf(fd, "%d\n", pid) < 0 ? -1 : 0;
}

static void end_as(int status) __attribute__((noreturn));
static void end_as(int status)
{
	int sig = WTERMSIG(status);
	if (WIFEXITED(status))
		exit(WEXITSTATUS(status));
	signal(sig, SIG_DFL);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	exit(128 + sig);
}

/* Two messages come: the root's number, by its credentials, which the kernel translates; then how it ended. */
static void stay_outside(const struct restore *r, int sock) __attribute__((noreturn));
static void stay_outside(const struct restore *r, int sock)
{
	for (;;) {
		int word, answer = 0;
		struct iovec iov = {&word, sizeof word};
		union {
			struct cmsghdr h;
			char room[CMSG_SPACE(sizeof(struct ucred))];
		} c;
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c.room};
		ssize_t n = recvmsg(sock, &m, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != sizeof word)
			exit(1);
		if (word >= 0)
			end_as(word);
		struct ucred cred = {0};
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		if (h && h->cmsg_type == SCM_CREDENTIALS)
			memcpy(&cred, CMSG_DATA(h), sizeof cred);
		if (write_pidfile(r->opt->pidfile, cred.pid))
			answer = errno;
		if (send(sock, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer)
			exit(1);
	}
}

int pidns_root_made(const struct restore *r)
{
	int word = -1, answer;
	struct iovec iov = {&word, sizeof word};
	struct ucred cred = {.pid = r->rec.root_pid, .uid = geteuid(), .gid = getegid()};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof cred)];
	} c = {.h = {.cmsg_len = CMSG_LEN(sizeof cred), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS}};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c.room};
	if (to_outside < 0)
		return 0;
	memcpy(CMSG_DATA(&c.h), &cred, sizeof cred);
	if (sendmsg(to_outside, &m, MSG_NOSIGNAL) != sizeof word || recv(to_outside, &answer, sizeof answer, 0) != sizeof answer)
		return fail_errno("telling the process outside of the namespace");
	errno = answer;
	return answer ? fail_errno("the pid file %s", r->opt->pidfile) : 0;
}

/* ---- init ---- */

static void init_main(int sock, pid_t restoring) __attribute__((noreturn));
static void init_main(int sock, pid_t restoring)
{
	prctl(PR_SET_NAME, "criu-lite: init");
	setsid();
	if (chdir("/"))
		_exit(1);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	dup2(sock, 3);
	close_range(4, ~0u, 0);
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, __WALL);
		if (pid < 0 && errno == ECHILD) {
			/* somebody may have come in from outside, a dump that has just ended the tree: our end would be its end */
			if (kill(-1, 0))
				_exit(0);
			nanosleep(&(struct timespec){0, 10000000}, NULL);
		}
		if (pid != restoring)
			continue;
		send(3, &status, sizeof status, MSG_NOSIGNAL);
		close(3);
	}
}

static int own_proc(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return fail_errno("a mount namespace of its own");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return fail_errno("mounting /proc for the restored tree (a container that hides parts of /proc does not permit it)");
	return 0;
}

/* As init: makes the process that restores, with a number that no task needs. 0: in it. */
static int begin_inside(struct restore *r, int sock)
{
	if (own_proc())
		return -1;
	pid_t pid = -1;
	errno = EEXIST;
	for (size_t i = 0; pid < 0 && errno == EEXIST; i++) {
		int tid = family_spare(r, i);
		struct clone_args a = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&tid, .set_tid_size = 1};
		pid = tid ? syscall(SYS_clone3, &a, sizeof a) : -1;
	}
	if (pid < 0)
		return fail_errno("a process in a pid namespace");
	if (pid > 0)
		init_main(sock, pid);
	r->coordinator = getpid();
	to_outside = fcntl(sock, F_DUPFD_CLOEXEC, 512);
	if (to_outside < 0)
		to_outside = sock;
	else
		close(sock);
	return 0;
}

/* ---- entering ---- */

static int write_file(const char *path, const char *text)
{
	autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : fail_errno("%s", path);
}

/* An own user namespace is made only where it is needed: it maps nobody but its maker. */
static int make_namespaces(void)
{
	char text[64];
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (unshare(CLONE_NEWPID) == 0)
		return 0;
	if (errno != EPERM)
		return fail_errno("a pid namespace");
	if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
		return fail_errno("a user namespace, so that pids can be chosen (see /proc/sys/user/max_user_namespaces, and "
				  "kernel.apparmor_restrict_unprivileged_userns)");
	if (write_file("/proc/self/setgroups", "deny"))
		return -1;
	snprintf(text, sizeof text, "%u %u 1", uid, uid);
	if (write_file("/proc/self/uid_map", text))
		return -1;
	snprintf(text, sizeof text, "%u %u 1", gid, gid);
	return write_file("/proc/self/gid_map", text);
}

int pidns_enter(struct restore *r)
{
	int socks[2], on = 1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) || setsockopt(socks[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on))
		return fail_errno("a socket pair");
	if (make_namespaces())
		return -1;
	fflush(NULL);
	pid_t init = fork();
	if (init < 0)
		return fail_errno("the init of a pid namespace");
	if (init > 0) {
		close(socks[1]);
		stay_outside(r, socks[0]);
	}
	close(socks[0]);
	return begin_inside(r, socks[1]);
}

/* ---- dump ---- */

static int same_namespace(pid_t pid, const char *name)
{
	char ours[64], theirs[64];
	struct stat a, b;
	snprintf(ours, sizeof ours, "/proc/self/ns/%s", name);
	snprintf(theirs, sizeof theirs, "/proc/%d/ns/%s", pid, name);
	if (stat(ours, &a) || stat(theirs, &b))
		return 1; /* whoever needs it will say so */
	return a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

/* As restore has made it: all else is ours. A container, whose files are others, is not gone into unasked. */
static bool is_ours(pid_t pid)
{
	char path[64];
	struct stat a, b;
	snprintf(path, sizeof path, "/proc/%d/root/", pid);
	return same_namespace(pid, "net") && same_namespace(pid, "ipc") && same_namespace(pid, "uts") && stat("/", &a) == 0 &&
	       stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int pidns_follow(pid_t *pid)
{
	if (*pid <= 0 || same_namespace(*pid, "pid") || !is_ours(*pid))
		return 0; /* the kind of namespaces refuses by name what is left */
	autofree char *status = proc_read(NULL, "/proc/%d/status", *pid);
	autofree char *cwd = proc_readlink("/proc/self/cwd");
	const char *numbers = status ? status_field(status, "NSpid") : NULL;
	autoclose int pidfd = syscall(SYS_pidfd_open, *pid, 0);
	if (!numbers || !cwd || pidfd < 0)
		return fail_errno("pid %d is in another pid namespace, which cannot be entered", *pid);
	int flags = CLONE_NEWPID | CLONE_NEWNS | (same_namespace(*pid, "user") ? 0 : CLONE_NEWUSER);
	pid_t inner = *pid;
	for (char *end; *numbers && *numbers != '\n'; numbers = end + strspn(end, " \t"))
		inner = strtol(numbers, &end, 10);
	if (setns(pidfd, flags))
		return fail_errno("pid %d is in another pid namespace, which cannot be entered", *pid);
	if (chdir(cwd))
		return fail_errno("%s, seen from the namespace of pid %d", cwd, *pid);
	fflush(NULL);
	pid_t child = fork();
	if (child < 0)
		return fail_errno("a process in the pid namespace of pid %d", *pid);
	int ret;
	while (child > 0)
		if (waitpid(child, &ret, 0) == child)
			end_as(ret);
	*pid = inner;
	return 0;
}
