/*
 * inotify, pidfds and POSIX message queues: one case a run (the first argument).
 */
#include <mqueue.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "target.h"

/* ---- inotify ---- */

static int in, wd_dir, wd_file, wd_late;

static void touch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || write(fd, "x", 1) != 1)
		fatal(path);
	close(fd);
}

/* The next event must be of this watch, with this mask and name. */
static int event_is(int wd, uint32_t mask, const char *name)
{
	char buf[sizeof(struct inotify_event) + 256] __attribute__((aligned(8)));
	struct inotify_event *e = (void *)buf;
	ssize_t n = read(in, buf, sizeof(struct inotify_event) + 16);
	if (n < (ssize_t)sizeof *e)
		return wrong("no event of watch %d, %x %s: %s", wd, mask, name, strerror(errno));
	if (e->wd != wd || e->mask != mask || (*name && strcmp(e->name, name)))
		return wrong("an event of watch %d, %x %s instead of %d, %x %s", e->wd, e->mask, e->len ? e->name : "", wd, mask, name);
	return 0;
}

static void inotify_set_up(void)
{
	if (mkdir("dir", 0700) || (in = inotify_init1(IN_NONBLOCK)) < 0)
		fatal("inotify");
	touch("file");
	inotify_rm_watch(in, inotify_add_watch(in, "file", IN_ATTRIB)); /* number 1 is gone */
	wd_dir = inotify_add_watch(in, "dir", IN_CREATE | IN_DELETE);
	wd_file = inotify_add_watch(in, "file", IN_MODIFY);
	wd_late = inotify_add_watch(in, ".", IN_ONLYDIR | IN_MOVED_TO | IN_EXCL_UNLINK);
	if (wd_dir < 2 || wd_late < wd_file || rename("file", "moved"))
		fatal("inotify");
	char buf[4096];
	while (read(in, buf, sizeof buf) > 0)
		;
}

static int inotify_check(void)
{
	touch("dir/new");
	if (event_is(wd_dir, IN_CREATE, "new"))
		return -1;
	unlink("dir/new");
	touch("moved");
	if (event_is(wd_dir, IN_DELETE, "new") || event_is(wd_file, IN_MODIFY, ""))
		return -1;
	touch("dir/other");
	if (event_is(wd_dir, IN_CREATE, "other") || rename("dir/other", "other") || event_is(wd_late, IN_MOVED_TO, "other"))
		return wrong("moving into the current directory: %s", strerror(errno));
	char buf[512];
	return read(in, buf, sizeof buf) < 0 && errno == EAGAIN ? 0 : wrong("events that should not be there");
}

static void unread_set_up(void)
{
	inotify_set_up();
	touch("moved");
}

static int unread_check(void)
{
	touch("moved");
	return 0;
}

/* ---- pidfds ---- */

static int of_child, of_self, of_zombie, of_dead;
static pid_t child, zombie;

static pid_t forked(int then)
{
	pid_t pid = fork();
	if (pid < 0)
		fatal("fork");
	if (!pid && then)
		_exit(5);
	if (!pid)
		for (;;)
			pause();
	return pid;
}

static int opened(pid_t pid, unsigned int flags)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, flags);
	if (fd < 0)
		fatal("pidfd_open");
	return fd;
}

static void pidfd_set_up(void)
{
	child = forked(0);
	zombie = forked(1);
	of_child = opened(child, 0);
	of_self = opened(getpid(), O_NONBLOCK);
	of_zombie = opened(zombie, 0);
	pid_t dead = forked(1);
	of_dead = opened(dead, 0);
	if (waitpid(dead, NULL, 0) != dead || waitid(P_PID, (id_t)zombie, NULL, WEXITED | WNOWAIT))
		fatal("wait");
}

static int is_of(int fd, pid_t pid)
{
	char path[40], text[512], *at;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	if (slurp(path, text, sizeof text) < 0 || !(at = strstr(text, "\nPid:")) || atoi(at + 5) != pid)
		return wrong("fd %d is not of %d: %s", fd, pid, text);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int ended = pid == zombie || pid < 0;
	if (poll(&p, 1, 0) != ended)
		return wrong("fd %d of %d says that it has%s ended", fd, pid, ended ? " not" : "");
	return 0;
}

static int pidfd_check(void)
{
	if (is_of(of_child, child) || is_of(of_self, getpid()) || is_of(of_zombie, zombie) || is_of(of_dead, -1))
		return -1;
	if (syscall(SYS_pidfd_send_signal, of_child, 0, NULL, 0))
		return wrong("a signal by pidfd: %s", strerror(errno));
	if (syscall(SYS_pidfd_send_signal, of_dead, 0, NULL, 0) != -1 || errno != ESRCH)
		return wrong("a process that has ended takes a signal");
	if ((fcntl(of_self, F_GETFL) & O_NONBLOCK) == 0)
		return wrong("O_NONBLOCK is gone");
	return 0;
}

static void outside_set_up(void)
{
	of_self = opened(getppid(), 0);
}

static int outside_check(void)
{
	return 0;
}

/* ---- message queues ---- */

static mqd_t both, writer;
static char queue[64];

static void mqueue_set_up(void)
{
	struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 77};
	snprintf(queue, sizeof queue, "/criu-lite-test-%d", getpid());
	mq_unlink(queue);
	if ((both = mq_open(queue, O_RDWR | O_CREAT | O_NONBLOCK, 0620, &attr)) < 0 || (writer = mq_open(queue, O_WRONLY)) < 0)
		fatal("mq_open");
}

static int mqueue_check(void)
{
	struct mq_attr attr;
	char text[77];
	unsigned int prio;
	struct stat st;
	if (mq_getattr(both, &attr) || attr.mq_maxmsg != 3 || attr.mq_msgsize != 77 || attr.mq_curmsgs || attr.mq_flags != O_NONBLOCK)
		return wrong("attributes of the queue: %ld of %ld, %ld, flags %lo", attr.mq_maxmsg, attr.mq_msgsize, attr.mq_curmsgs,
			     attr.mq_flags);
	if (fstat(both, &st) || (st.st_mode & 0777) != 0600)
		return wrong("mode %o", st.st_mode);
	if (mq_send(writer, "hello", 6, 9) || mq_receive(both, text, sizeof text, &prio) != 6 || prio != 9 || strcmp(text, "hello"))
		return wrong("a message does not come: %s", strerror(errno));
	return 0;
}

static void full_set_up(void)
{
	mqueue_set_up();
	if (mq_send(writer, "x", 1, 0))
		fatal("mq_send");
}

static int full_check(void)
{
	struct mq_attr attr;
	return mq_getattr(both, &attr) || attr.mq_curmsgs != 1 ? wrong("the message is gone") : 0;
}

static const struct {
	const char *name;
	void (*set_up)(void);
	int (*check)(void);
} cases[] = {
	{"inotify", inotify_set_up, inotify_check}, {"unread", unread_set_up, unread_check},
	{"pidfd", pidfd_set_up, pidfd_check},	    {"outside", outside_set_up, outside_check},
	{"mqueue", mqueue_set_up, mqueue_check},    {"full", full_set_up, full_check},
};

int main(int argc, char **argv)
{
	umask(077);
	target_block_signals();
	for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].set_up();
			int status = target_loop(cases[i].check);
			if (*queue)
				mq_unlink(queue);
			return status;
		}
	fatal("which case?");
}
