/*
 * files CASE: open and mapped files in its working directory that were removed, renamed, locked…; it checks them itself.
 */
#include "target.h"

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE 4096ul

static int create(const char *name, int flags)
{
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0644);
	if (fd < 0)
		fatal(name);
	return fd;
}

static void put(int fd, const char *text, off_t at)
{
	if (pwrite(fd, text, strlen(text), at) != (ssize_t)strlen(text))
		fatal("pwrite");
}

static int holds(int fd, const char *text, off_t at)
{
	char buf[64] = "";
	ssize_t n = pread(fd, buf, strlen(text), at);
	return n != (ssize_t)strlen(text) || memcmp(buf, text, (size_t)n)
		       ? wrong("descriptor %d at %ld: \"%.60s\" instead of \"%s\"", fd, (long)at, buf, text)
		       : 0;
}

static int link_is(int fd, const char *end)
{
	char path[64], link[512];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, link, sizeof(link) - 1);
	link[n > 0 ? n : 0] = 0;
	size_t e = strlen(end);
	return (size_t)n < e || strcmp(link + n - e, end) ? wrong("descriptor %d is of %s, not %s", fd, link, end) : 0;
}

/* ---- removed files ---- */

#define FAR ((off_t)5 << 30)
static int fd_a, fd_a_again, fd_a_dup, fd_log, fd_empty, fd_tmp;
static char *map_shared, *map_private, *map_only;

static void set_up_removed(void)
{
	fd_a = create("a", 0);
	put(fd_a, "begin", 0);
	put(fd_a, "page one", PAGE);
	put(fd_a, "far away", FAR);
	if (fchmod(fd_a, 0600))
		fatal("fchmod");
	fd_a_again = open("a", O_RDONLY | O_CLOEXEC);
	fd_a_dup = dup(fd_a);
	map_shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd_a, 0);
	map_private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd_a, 0);
	if (fd_a_again < 0 || fd_a_dup < 0 || map_shared == MAP_FAILED || map_private == MAP_FAILED)
		fatal("a");
	strcpy(map_private + 100, "private");
	if (lseek(fd_a, 3, SEEK_SET) != 3 || lseek(fd_a_again, FAR, SEEK_SET) != FAR || unlink("a"))
		fatal("removing a");
	/* one that is mapped alone, in a directory that went with it */
	if (mkdir("d", 0755))
		fatal("mkdir");
	int fd = create("d/only", 0);
	put(fd, "only mapped", 0);
	map_only = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (map_only == MAP_FAILED || close(fd) || unlink("d/only") || rmdir("d"))
		fatal("d/only");
	/* one whose name is taken by another since */
	fd_log = create("log", O_APPEND);
	put(fd_log, "old log", 0);
	if (unlink("log"))
		fatal("removing log");
	fd = create("log", 0);
	put(fd, "new log", 0);
	close(fd);
	/* one that never had a name, where the filesystem can do that */
	fd_tmp = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd_tmp >= 0)
		put(fd_tmp, "without a name", 0);
	fd_empty = create("empty", 0);
	if (unlink("empty"))
		fatal("removing empty");
}

static int check_removed(void)
{
	struct stat a, b;
	static unsigned int n;
	char text[32];
	if (holds(fd_a, "begin", 0) || holds(fd_a_again, "page one", PAGE) || holds(fd_a_dup, "far away", FAR) ||
	    link_is(fd_a, "/a (deleted)") || link_is(fd_empty, "/empty (deleted)") || holds(fd_log, "old log", 0))
		return -1;
	if (fstat(fd_a, &a) || fstat(fd_a_again, &b) || a.st_ino != b.st_ino || a.st_dev != b.st_dev || a.st_nlink)
		return wrong("two descriptions of a are of two files, or it has a name again");
	if (a.st_size != FAR + 8 || (a.st_mode & 07777) != 0600 || a.st_blocks > 2048)
		return wrong("a: size %ld, mode %o, %ld blocks", (long)a.st_size, a.st_mode, (long)a.st_blocks);
	if (lseek(fd_a_again, 0, SEEK_CUR) != FAR || lseek(fd_a, 0, SEEK_CUR) != 3 + (off_t)n ||
	    lseek(fd_a_dup, 1, SEEK_CUR) != 4 + (off_t)n)
		return wrong("the positions are others");
	if ((fcntl(fd_a_again, F_GETFL) & O_ACCMODE) != O_RDONLY || !(fcntl(fd_log, F_GETFL) & O_APPEND))
		return wrong("the flags are others");
	snprintf(text, sizeof(text), "check %u", ++n);
	put(fd_a, text, 200);
	if (strcmp(map_shared + 200, text) || strcmp(map_shared + PAGE, "page one"))
		return wrong("the shared mapping is of another file");
	if (strcmp(map_private + 100, "private") || strcmp(map_private + PAGE, "page one"))
		return wrong("the private mapping is another");
	if (strcmp(map_only, "only mapped"))
		return wrong("the file that is mapped alone is another");
	if (!access("a", F_OK) || !access("d", F_OK) || access("log", F_OK))
		return wrong("a removed file is there again");
	if (fd_tmp >= 0 && holds(fd_tmp, "without a name", 0))
		return -1;
	if (fstat(fd_empty, &a) || a.st_size)
		return wrong("the empty file is not empty");
	int fd = open("log", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || holds(fd, "new log", 0))
		return wrong("the new log was touched");
	close(fd);
	return 0;
}

/* ---- renamed ---- */

static void set_up_renamed(void)
{
	fd_a = create("before", 0);
	put(fd_a, "contents", 0);
	if (lseek(fd_a, 2, SEEK_SET) != 2 || rename("before", "after"))
		fatal("rename");
	/* and one that is called as if it were gone */
	fd_log = create("odd (deleted)", 0);
	put(fd_log, "odd", 0);
}

static int check_renamed(void)
{
	if (lseek(fd_a, 0, SEEK_CUR) != 2)
		return wrong("the position is another");
	return holds(fd_a, "contents", 0) || link_is(fd_a, "/after") || holds(fd_log, "odd", 0) ? -1 : 0;
}

/* ---- locks, asked from a process of its own: our own locks do not hinder us ---- */

static int fd_flock, fd_posix, fd_ofd, fd_lease;

static int asked(const char *name, short type, off_t start, off_t len, int cmd)
{
	/* which lock of another's would stand in the way: a description of our own, as OFD locks ask */
	int fd = open(name, O_RDWR | O_CLOEXEC);
	struct flock l = {.l_type = type, .l_start = start, .l_len = len};
	if (fd < 0 || fcntl(fd, cmd, &l) < 0)
		return wrong("%s: %s", name, strerror(errno));
	close(fd);
	return l.l_type;
}

static void lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_start = start, .l_len = len};
	if (fcntl(fd, cmd, &l))
		fatal("fcntl");
}

static void set_up_locks(void)
{
	fd_flock = create("flock", 0);
	fd_posix = create("posix", 0);
	fd_ofd = create("ofd", 0);
	int fd = create("lease", 0);
	close(fd);
	fd_lease = open("lease", O_RDONLY | O_CLOEXEC);
	if (flock(fd_flock, LOCK_EX) || fcntl(fd_lease, F_SETLEASE, F_RDLCK))
		fatal("flock");
	lock(fd_posix, F_SETLK, F_WRLCK, 10, 20);
	lock(fd_posix, F_SETLK, F_RDLCK, 1000, 0);
	lock(fd_ofd, F_OFD_SETLK, F_RDLCK, 5, 5);
	fd_a = dup(fd_ofd);
}

/* A POSIX lock ends when its owner closes any descriptor of the file, so another process must ask. */
static int posix_seen(short type, off_t start, off_t len, short want)
{
	pid_t pid = fork();
	if (!pid) {
		struct flock l = {.l_type = type, .l_start = start, .l_len = len};
		_exit(fcntl(fd_posix, F_GETLK, &l) || l.l_type != want || (want != F_UNLCK && l.l_pid != getppid()));
	}
	int status;
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return wrong("fork");
	return status ? wrong("the POSIX lock at %ld is another", (long)start) : 0;
}

static int check_locks(void)
{
	int fd = open("flock", O_RDWR | O_CLOEXEC);
	if (fd < 0 || !flock(fd, LOCK_SH | LOCK_NB) || errno != EWOULDBLOCK)
		return wrong("the flock is gone");
	close(fd);
	if (flock(fd_flock, LOCK_EX | LOCK_NB))
		return wrong("the flock is not ours");
	if (posix_seen(F_RDLCK, 10, 1, F_WRLCK) || posix_seen(F_RDLCK, 9, 1, F_UNLCK) || posix_seen(F_RDLCK, 30, 970, F_UNLCK) ||
	    posix_seen(F_WRLCK, 1 << 20, 1, F_RDLCK) || posix_seen(F_RDLCK, 1 << 20, 1, F_UNLCK))
		return -1;
	if (asked("ofd", F_WRLCK, 9, 1, F_OFD_GETLK) != F_RDLCK || asked("ofd", F_WRLCK, 10, 1, F_OFD_GETLK) != F_UNLCK)
		return wrong("the OFD lock is another");
	return fcntl(fd_lease, F_GETLEASE) == F_RDLCK ? 0 : wrong("the lease is gone");
}

/* ---- who is signalled ---- */

static int fd_owned[2];

static void set_up_owner(void)
{
	struct f_owner_ex me = {F_OWNER_TID, (pid_t)syscall(SYS_gettid)};
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	sigaddset(&set, SIGIO);
	if (sigprocmask(SIG_BLOCK, &set, NULL) || pipe2(fd_owned, O_CLOEXEC) || fcntl(fd_owned[0], F_SETOWN_EX, &me) ||
	    fcntl(fd_owned[0], F_SETSIG, SIGRTMIN + 3) || fcntl(fd_owned[0], F_SETFL, O_ASYNC | O_NONBLOCK))
		fatal("a pipe with an owner");
	fd_a = create("owned", 0);
	if (fcntl(fd_a, F_SETOWN, -getpgrp()))
		fatal("F_SETOWN");
}

static int check_owner(void)
{
	struct f_owner_ex o;
	if (fcntl(fd_owned[0], F_GETOWN_EX, &o) || o.type != F_OWNER_TID || o.pid != (pid_t)syscall(SYS_gettid))
		return wrong("the owner is %d of type %d", o.pid, o.type);
	if (fcntl(fd_owned[0], F_GETSIG) != SIGRTMIN + 3 || !(fcntl(fd_owned[0], F_GETFL) & O_ASYNC))
		return wrong("the signal is %d, the flags %#o", fcntl(fd_owned[0], F_GETSIG), fcntl(fd_owned[0], F_GETFL));
	if (fcntl(fd_a, F_GETOWN_EX, &o) || o.type != F_OWNER_PGRP || o.pid != getpgrp())
		return wrong("the file's owner is %d of type %d", o.pid, o.type);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	struct timespec t = {60, 0};
	char c;
	siginfo_t info;
	if (write(fd_owned[1], "x", 1) != 1)
		return wrong("the pipe");
	int sig;
	while ((sig = sigtimedwait(&set, &info, &t)) < 0 && errno == EINTR)
		;
	if (sig < 0 || info.si_fd != fd_owned[0] || read(fd_owned[0], &c, 1) != 1)
		return wrong("no signal comes for the pipe");
	t.tv_sec = 0;
	while (sigtimedwait(&set, NULL, &t) >= 0)
		;
	return 0;
}

/* ---- another root ---- */

static void set_up_chroot(void)
{
	if (mkdir("root", 0755) || mkdir("root/inside", 0755))
		fatal("mkdir");
	fd_a = create("root/inside/file", 0);
	put(fd_a, "contents", 0);
	fd_log = create("root/gone", 0);
	put(fd_log, "removed", 0);
	map_private = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd_a, 0);
	map_shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd_log, 0);
	if (map_private == MAP_FAILED || map_shared == MAP_FAILED || unlink("root/gone") || chroot("root") || chdir("/inside"))
		fatal("chroot");
}

static int check_chroot(void)
{
	if (access("/inside/file", F_OK) || access("file", F_OK) || !access("/proc", F_OK))
		return wrong("the root is another");
	if (strcmp(map_private, "contents") || strcmp(map_shared, "removed"))
		return wrong("the mappings are others");
	return holds(fd_a, "contents", 0) || holds(fd_log, "removed", 0) ? -1 : 0;
}

/* ---- what is refused ---- */

static int check_nothing(void)
{
	return 0;
}

static void set_up_directory(void)
{
	if (mkdir("gone", 0755) || open("gone", O_RDONLY | O_DIRECTORY | O_CLOEXEC) < 0 || rmdir("gone"))
		fatal("gone");
}

static void set_up_linked(void)
{
	fd_a = create("one", 0);
	if (link("one", "other") || unlink("one"))
		fatal("link");
}

static const struct {
	const char *name;
	void (*set_up)(void);
	int (*check)(void);
} cases[] = {
	{"removed", set_up_removed, check_removed},
	{"renamed", set_up_renamed, check_renamed},
	{"chroot", set_up_chroot, check_chroot},
	{"locks", set_up_locks, check_locks},
	{"owner", set_up_owner, check_owner},
	{"directory", set_up_directory, check_nothing},
	{"linked", set_up_linked, check_nothing},
};

int main(int argc, char **argv)
{
	target_block_signals();
	for (size_t i = 0; argc > 1 && i < sizeof(cases) / sizeof(cases[0]); i++)
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].set_up();
			return target_loop(cases[i].check);
		}
	say("FAIL: no such case");
	return 1;
}
