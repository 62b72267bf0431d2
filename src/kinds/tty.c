/*
 * Terminals.
 *
 * A pseudo terminal with both ends in the tree (tmux, script, a shell with jobs) is made anew, under its old number where
 * that is free: settings, window size, foreground group, whose controlling terminal it is. What was written and not
 * yet read cannot be looked at without taking it away: then the dump is refused.
 *
 * A terminal whose other end is outside is the one that the program was started in. With --shell-job the terminal that
 * restore runs in takes its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

/* <asm/termbits.h> struct termios2, which <termios.h> hides behind its own. */
struct kernel_termios {
	uint32_t iflag, oflag, cflag, lflag;
	uint8_t line, cc[19];
	uint32_t ispeed, ospeed;
};
#define TCGETS2_ _IOR('T', 0x2A, struct kernel_termios)
#define TCSETS2_ _IOW('T', 0x2B, struct kernel_termios)
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

enum tty_role { TTY_MASTER = 1, TTY_SLAVE = 2, TTY_CURRENT = 3 };

struct rec_tty {
	struct rec_description d;
	uint32_t role, index;
	uint32_t packet, locked;
	uint32_t foreground; /* process group, 0: none or outside */
	uint32_t session;    /* whose controlling terminal it is, 0: nobody's in the tree */
	uint16_t winsize[4];
	struct kernel_termios termios;
};

/* ---- dump ---- */

/* Documentation/admin-guide/devices.txt: 136 to 143 are the slaves, 5:2 is ptmx, 5:0 is whatever controls the caller. */
static bool is_slave(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && major(st->st_rdev) >= 136 && major(st->st_rdev) <= 143;
}

static bool is_master(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(5, 2);
}

static bool is_terminal(const struct stat *st)
{
	return is_slave(st) || is_master(st) ||
	       (S_ISCHR(st->st_mode) && (major(st->st_rdev) == 4 || major(st->st_rdev) == 5));
}

static uint32_t slave_index(dev_t rdev)
{
	return (major(rdev) - 136) * 256 + minor(rdev);
}

/* A process's controlling terminal and its foreground group: fields 7 and 8 of proc_pid_stat(5). */
static int controlling(const struct process *p, dev_t *tty, pid_t *foreground)
{
	struct proc_stat st;
	if (proc_stat_read(p->pid, p->host->tid == p->pid ? 0 : p->host->tid, &st))
		return -1;
	*tty = makedev(st.tty_nr >> 8 & 0xfff, (st.tty_nr & 0xff) | (st.tty_nr >> 12 & 0xfff00));
	*foreground = st.tpgid;
	return 0;
}

static const struct fd_entry *find_master(const struct dump *d, uint32_t index)
{
	for (size_t i = 0; i < d->n_fds; i++)
		if (is_master(&d->fds[i].st) && status_number(d->fds[i].fdinfo, "tty-index", 10, -1) == index)
			return &d->fds[i];
	return NULL;
}

static bool in_tree_group(const struct dump *d, pid_t group)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->procs[i].pgid == group)
			return true;
	return false;
}

static int find_session(struct dump *d, dev_t rdev, struct rec_tty *r)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct process *p = &d->procs[i];
		dev_t tty;
		pid_t foreground;
		if (p->state == PROCESS_ZOMBIE)
			continue;
		if (controlling(p, &tty, &foreground))
			return -1;
		if (tty != rdev)
			continue;
		r->session = p->sid;
		r->foreground = foreground > 0 && in_tree_group(d, foreground) ? foreground : 0;
		return 0;
	}
	return 0;
}

/* Nothing is read: what waits in either direction makes the dump wait for another moment. */
static int check_empty(const struct fd_entry *f, int fd)
{
	int n = 0;
	if (ioctl(fd, FIONREAD, &n) == 0 && n > 0)
		return refuse_fd(f, "a terminal (%s) with %d bytes that nobody has read yet; try again when they are read", f->link, n);
	return 0;
}

static int read_settings(const struct fd_entry *f, struct rec_tty *r)
{
	autoclose int fd = syscall(SYS_pidfd_getfd, f->process->pidfd, f->fd, 0);
	int packet = 0, locked = 0;
	if (fd < 0)
		return fail_errno("pid %d (%s) fd %d", f->process->pid, f->process->comm, f->fd);
	if (r->role != TTY_CURRENT && check_empty(f, fd))
		return -1;
	if (ioctl(fd, TCGETS2_, &r->termios) || ioctl(fd, TIOCGWINSZ, r->winsize))
		return refuse_fd(f, "a terminal (%s) that was hung up, which cannot be dumped", f->link);
	if (r->role == TTY_MASTER && (ioctl(fd, TIOCGPKT, &packet) || ioctl(fd, TIOCGPTLCK, &locked)))
		return fail_errno("pid %d (%s) fd %d: the state of %s", f->process->pid, f->process->comm, f->fd, f->link);
	r->packet = packet;
	r->locked = locked;
	return 0;
}

static int find_role(struct dump *d, const struct fd_entry *f, struct rec_tty *r)
{
	dev_t rdev = f->st.st_rdev;
	pid_t foreground;
	if (is_master(&f->st)) {
		r->role = TTY_MASTER;
		r->index = status_number(f->fdinfo, "tty-index", 10, -1);
		rdev = makedev(136 + r->index / 256, r->index % 256);
	} else {
		if (rdev == makedev(5, 0) && controlling(f->process, &rdev, &foreground))
			return -1;
		r->role = major(rdev) >= 136 && major(rdev) <= 143 && find_master(d, slave_index(rdev)) ? TTY_SLAVE : TTY_CURRENT;
		r->index = r->role == TTY_SLAVE ? slave_index(rdev) : (uint32_t)rdev;
	}
	if (r->role == TTY_CURRENT && !d->opt->shell_job)
		return refuse_fd(f, "a terminal (%s) whose other end is outside the tree; pass --shell-job to dump and to restore, which "
				    "then gives it the terminal it runs in",
				 f->link);
	return find_session(d, rdev, r);
}

static int tty_collect_fd(struct dump *d, struct fd_entry *f)
{
	if (f->flags & O_PATH || !is_terminal(&f->st))
		return 0;
	struct rec_tty r = {.d = {.id = f->description, .flags = f->flags}};
	if (find_role(d, f, &r) || read_settings(f, &r))
		return -1;
	return notes_add_record(&d->tree, REC_TTY, &r, sizeof r, NULL, 0) ? -1 : 1;
}

/* ---- restore ---- */

/* The pairs that were made, by their number at the dump. */
struct pair {
	uint32_t index;
	int master; /* -1 once it was given to its description */
	int keep;   /* a duplicate, for the slaves that are opened through it */
};
static struct pair *pairs;
static size_t n_pairs, cap_pairs;

/* The lowest free number is the kernel's choice: those below are held while the wanted one comes up. */
static int open_master(uint32_t index)
{
	int held[256], n = 0, fd = -1;
	char path[32];
	snprintf(path, sizeof path, "/dev/pts/%u", index);
	bool wanted_free = access(path, F_OK) != 0;
	while (n < 256) {
		unsigned got;
		fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, TIOCGPTN, &got) || got >= index || !wanted_free)
			break;
		held[n++] = fd;
		fd = -1;
	}
	while (n)
		close(held[--n]);
	return fd >= 0 ? fd : fail_errno("a pseudo terminal for the old /dev/pts/%u", index);
}

static struct pair *get_pair(struct restore *re, uint32_t index)
{
	for (size_t i = 0; i < n_pairs; i++)
		if (pairs[i].index == index)
			return &pairs[i];
	struct pair *bigger = grow_array(pairs, &cap_pairs, n_pairs + 1, sizeof *pairs);
	if (!bigger)
		return NULL;
	pairs = bigger;
	int fd = open_master(index), unlock = 0;
	if (fd < 0)
		return NULL;
	int keep = fcntl(fd, F_DUPFD_CLOEXEC, re->keep_from);
	if (keep < 0 || ioctl(fd, TIOCSPTLCK, &unlock)) {
		fail_errno("unlocking a pseudo terminal");
		close(fd);
		return NULL;
	}
	pairs[n_pairs] = (struct pair){index, fd, keep};
	return &pairs[n_pairs++];
}

static int open_current(void)
{
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	for (int i = 0; fd < 0 && i < 3; i++)
		if (isatty(i))
			fd = fcntl(i, F_DUPFD_CLOEXEC, 3);
	return fd >= 0 ? fd : fail("the program was started in a terminal: run restore in one");
}

static int open_end(struct restore *re, const struct rec_tty *r)
{
	if (r->role == TTY_CURRENT)
		return re->opt->shell_job ? open_current()
					  : fail("the program was dumped with --shell-job: pass it to restore, in a terminal");
	if ((r->role != TTY_MASTER && r->role != TTY_SLAVE) || r->index > 1u << 20)
		return fail("tree: terminal %u is of an impossible kind", r->index);
	struct pair *p = get_pair(re, r->index);
	if (!p)
		return -1;
	if (r->role == TTY_SLAVE) {
		int fd = ioctl(p->keep, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		return fd >= 0 ? fd : fail_errno("opening the slave of pseudo terminal %u", r->index);
	}
	if (p->master < 0)
		return fail("tree: terminal %u has two masters", r->index);
	int fd = p->master, packet = r->packet;
	p->master = -1;
	if (ioctl(fd, TIOCPKT, &packet)) {
		close(fd);
		return fail_errno("packet mode of pseudo terminal %u", r->index);
	}
	return fd;
}

static int tty_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_tty r;
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	*id = r.d.id;
	int fd = open_end(re, &r);
	if (fd < 0)
		return -1;
	if (ioctl(fd, TCSETS2_, &r.termios) || (r.role != TTY_CURRENT && ioctl(fd, TIOCSWINSZ, r.winsize)) ||
	    fcntl(fd, F_SETFL, r.d.flags) < 0) {
		fail_errno("the settings of terminal %u", r.index);
		close(fd);
		return -1;
	}
	return fd;
}

/* The masters have been given away; a pair without one would be a slave that is hung up. */
static int tty_opened(struct restore *re)
{
	(void)re;
	for (size_t i = 0; i < n_pairs; i++) {
		if (pairs[i].master >= 0)
			return fail("tree: terminal %u has no master", pairs[i].index);
		close(pairs[i].keep);
	}
	free(pairs);
	pairs = NULL;
	n_pairs = cap_pairs = 0;
	return 0;
}

/* For each terminal of T's session that is in the image. */
static int each_own(struct restore *re, struct rtask *t, int (*act)(int fd, const struct rec_tty *r))
{
	if (t->proc.sid != t->proc.pid)
		return 0;
	each_record(&re->tree, rec) {
		struct rec_tty r;
		if (rec->type != REC_TTY)
			continue;
		if (record_get(&re->tree, rec, &r, sizeof r))
			return -1;
		if (r.session != t->proc.sid || r.role != TTY_SLAVE)
			continue;
		int fd = opened_fd(re, r.d.id);
		return fd < 0 ? -1 : act(fd, &r);
	}
	return 0;
}

static int take_terminal(int fd, const struct rec_tty *r)
{
	return ioctl(fd, TIOCSCTTY, 0) ? fail_errno("making pseudo terminal %u the session's", r->index) : 0;
}

/* Its leader has just made the session: those that are born into it inherit the terminal, and have no other way to it. */
static int tty_lead(struct restore *re, struct rtask *t)
{
	return each_own(re, t, take_terminal);
}

static int set_foreground(int fd, const struct rec_tty *r)
{
	/* SIGTTOU is blocked, as every signal is: a background group may do it */
	if (r->foreground && tcsetpgrp(fd, r->foreground))
		return fail_errno("making process group %u the foreground of pseudo terminal %u", r->foreground, r->index);
	return 0;
}

static int tty_install(struct restore *re, struct rtask *t)
{
	return each_own(re, t, set_foreground);
}

/* A group whose leader is not in the image has become restore's own. */
static bool group_is_made(const struct restore *re, uint32_t group)
{
	for (size_t i = 0; i < re->n; i++)
		if (re->tasks[i].proc.pid == group)
			return true;
	return false;
}

/* The terminal that restore runs in: what was in its foreground is so again. */
static int tty_ready(struct restore *re)
{
	each_record(&re->tree, rec) {
		struct rec_tty r;
		if (rec->type != REC_TTY)
			continue;
		if (record_get(&re->tree, rec, &r, sizeof r))
			return -1;
		if (r.role != TTY_CURRENT || !group_is_made(re, r.foreground) || re->opt->detach)
			continue;
		int fd = opened_fd(re, r.d.id);
		if (fd < 0)
			return -1;
		if (tcgetpgrp(fd) == getpgrp() && tcsetpgrp(fd, r.foreground))
			return fail_errno("making process group %u the terminal's foreground", r.foreground);
	}
	return 0;
}

static void print_tty(struct json *out, const struct image_file *f, const struct record *rec)
{
	static const char *const roles[] = {"?", "master", "slave", "current"};
	struct rec_tty r;
	if (json_record(out, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(out, "id", r.d.id);
	json_string(out, "role", roles[r.role <= TTY_CURRENT ? r.role : 0]);
	json_uint(out, "index", r.index);
	json_uint(out, "session", r.session);
	json_uint(out, "foreground", r.foreground);
}

static const struct record_printer printers[] = {{REC_TTY, "terminal", print_tty}, {0}};

const struct kind tty_kind = {
	.name = "terminals",
	.collect_fd = tty_collect_fd,
	.opens = {REC_TTY},
	.open = tty_open,
	.opened = tty_opened,
	.lead = tty_lead,
	.install = tty_install,
	.ready = tty_ready,
	.printers = printers,
};
