/*
 * Making unix sockets again, in the coordinator: first those that listen or are alone, then connections, then what waits to be
 * accepted.
 *
 * SO_PEERCRED tells who made a connection. A helper with that number and user makes it, and ends: the number comes from what
 * the kernel keeps of the dead helper, and is that of the process restored next.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kinds/unix.h"

static struct usock *socks; /* by ino */
static size_t n_socks, cap_socks;

/* Paths where we have put a socket: what lay there waits under another name until all has gone well. */
struct placed {
	char *path, *aside;
};
static struct placed *placed;
static size_t n_placed, cap_placed;

/* Listeners of connections whose own is gone. */
struct listener {
	const struct usock *like;
	int fd;
};
static struct listener *listeners;
static size_t n_listeners, cap_listeners;

static int compare(const void *a, const void *b)
{
	uint32_t x = ((const struct usock *)a)->r.ino, y = ((const struct usock *)b)->r.ino;
	return (x > y) - (x < y);
}

struct usock *usock_find(uint32_t ino)
{
	struct usock key = {.r.ino = ino};
	return n_socks ? bsearch(&key, socks, n_socks, sizeof *socks, compare) : NULL;
}

size_t usock_all(struct usock **all)
{
	*all = socks;
	return n_socks;
}

static bool same_name(const struct usock *u, const char *name, size_t len)
{
	return len && u->r.name_len == len && memcmp(u->name, name, len) == 0;
}

struct usock *usock_named(const char *name, size_t len, const struct usock *but)
{
	for (size_t i = 0; i < n_socks; i++)
		if (&socks[i] != but && same_name(&socks[i], name, len))
			return &socks[i];
	return NULL;
}

static struct usock *listening_like(const struct usock *u)
{
	for (size_t i = 0; i < n_socks; i++)
		if (socks[i].r.listening && same_name(&socks[i], u->name, u->r.name_len))
			return &socks[i];
	return NULL;
}

/* ---- as whom ---- */

struct job {
	int (*act)(void *arg);
	void *arg;
	const struct rec_unix *as;
};

static int helper(const struct job *j)
{
	if (syscall(SYS_setresgid, j->as->cred_gid, j->as->cred_gid, -1) || syscall(SYS_setresuid, j->as->cred_uid, j->as->cred_uid, -1))
		return errno;
	return j->act(j->arg) ? errno : 0;
}

/* Descriptors are shared with it: what it connects is connected. Where its number cannot be had we do it ourselves. */
static int act_as(const struct rec_unix *as, int (*act)(void *arg), void *arg)
{
	const struct job j = {act, arg, as};
	pid_t tid = as->cred_pid;
	int status;
	struct clone_args a = {.flags = CLONE_FILES, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&tid, .set_tid_size = 1};
	if (!tid)
		return act(arg);
	pid_t pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid == 0)
		syscall(SYS_exit_group, helper(&j));
	if (pid < 0)
		return act(arg);
	while (waitpid(pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	/* that user may not (the path may not be its own): better connected by us than not */
	return act(arg);
}

/* ---- names ---- */

int usock_in_dir(const char *dir, const char *name, size_t len, int (*act)(const struct sockaddr *a, socklen_t len, void *arg),
		 void *arg)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (!len || len > sizeof a.sun_path) {
		errno = EINVAL;
		return -1;
	}
	memcpy(a.sun_path, name, len);
	bool relative = name[0] && name[0] != '/';
	autoclose int here = relative ? open(".", O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (relative && (here < 0 || chdir(dir)))
		return -1;
	int ret = act((void *)&a, offsetof(struct sockaddr_un, sun_path) + len, arg), why = errno;
	if (relative && fchdir(here))
		return -1;
	errno = why;
	return ret;
}

static int bind_act(const struct sockaddr *a, socklen_t len, void *arg)
{
	return bind(*(int *)arg, a, len);
}

/* Only once the place is free it is ours to clear: PATH is set last. */
static int put_aside(const char *path, struct placed *p)
{
	struct stat st;
	autofree char *copy = format_string("%s", path), *aside = format_string("%s.criu-lite.%d", path, getpid());
	if (!copy || !aside)
		return -1;
	if (lstat(path, &st) == 0) {
		if (rename(path, aside))
			return fail_errno("putting %s aside", path);
		p->aside = aside;
		aside = NULL;
	} else if (errno != ENOENT) {
		return fail_errno("%s", path);
	}
	p->path = copy;
	copy = NULL;
	return 0;
}

/* What is there now goes, what was there comes back. */
static void put_back(struct placed *p)
{
	if (p->path)
		unlink(p->path);
	if (p->aside)
		rename(p->aside, p->path);
	free(p->aside);
	free(p->path);
	*p = (struct placed){0};
}

static struct placed *new_place(void)
{
	struct placed *bigger = grow_array(placed, &cap_placed, n_placed + 1, sizeof *placed);
	if (!bigger)
		return NULL;
	placed = bigger;
	placed[n_placed] = (struct placed){0};
	return &placed[n_placed++];
}

static int bind_path(int fd, const struct usock *u, bool keep)
{
	struct placed *p = new_place();
	autofree char *path = u->name[0] == '/' ? format_string("%.*s", (int)u->r.name_len, u->name)
						: format_string("%s/%.*s", u->dir, (int)u->r.name_len, u->name);
	if (!p || !path || put_aside(path, p))
		return -1;
	if (usock_in_dir(u->dir, u->name, u->r.name_len, bind_act, &fd))
		return fail_errno("binding a unix socket to %s", path);
	if (!keep)
		put_back(p);
	else if (chmod(path, u->r.mode) || lchown(path, u->r.uid, u->r.gid))
		return fail_errno("mode and owner of %s", path);
	return 0;
}

static int bind_socket(int fd, const struct usock *u)
{
	if (!u->r.name_len)
		return 0;
	if (u->name[0])
		return bind_path(fd, u, !u->r.removed);
	if (usock_in_dir(u->dir, u->name, u->r.name_len, bind_act, &fd))
		return fail_errno("binding a unix socket to the name @%.*s", (int)u->r.name_len - 1, u->name + 1);
	return 0;
}

/* ---- making ---- */

static int new_socket(const struct usock *u)
{
	int fd = socket(AF_UNIX, u->r.type | SOCK_CLOEXEC, 0);
	return fd >= 0 ? fd : fail_errno("a unix socket");
}

struct listen_job {
	int fd, backlog;
};

static int listen_act(void *arg)
{
	const struct listen_job *j = arg;
	return listen(j->fd, j->backlog);
}

static int make_alone(struct usock *u)
{
	u->fd = new_socket(u);
	if (u->fd < 0 || bind_socket(u->fd, u))
		return -1;
	struct listen_job j = {u->fd, (int)u->r.backlog};
	if (u->r.listening && act_as(&u->r, listen_act, &j))
		return fail_errno("listening on unix socket %u", u->r.ino);
	return 0;
}

struct pair_job {
	int type, *pair;
};

/* The numbers are told through a pipe of our own when somebody else makes it: with shared descriptors they hold here too. */
static int pair_act(void *arg)
{
	const struct pair_job *j = arg;
	int fd[2];
	if (socketpair(AF_UNIX, j->type | SOCK_CLOEXEC, 0, fd))
		return -1;
	/* both places are taken: they are ours, and known by number to whoever shares our descriptors */
	int ret = dup3(fd[0], j->pair[0], O_CLOEXEC) < 0 || dup3(fd[1], j->pair[1], O_CLOEXEC) < 0 ? -1 : 0;
	close(fd[0]);
	close(fd[1]);
	return ret;
}

static int make_pair(const struct usock *u, int pair[2])
{
	struct pair_job j = {u->r.type, pair};
	pair[0] = open("/", O_PATH | O_CLOEXEC);
	pair[1] = open("/", O_PATH | O_CLOEXEC);
	if (pair[0] < 0 || pair[1] < 0 || act_as(&u->r, pair_act, &j))
		return fail_errno("a pair of unix sockets");
	return 0;
}

struct connect_job {
	int fd;
	const struct usock *to;
};

static int connect_address(const struct sockaddr *a, socklen_t len, void *arg)
{
	return connect(*(int *)arg, a, len);
}

static int connect_act(void *arg)
{
	struct connect_job *j = arg;
	return usock_in_dir(j->to->dir, j->to->name, j->to->r.name_len, connect_address, &j->fd);
}

/* FD's connection is seen from the other side as made by AS. Never waits: a full listener is an error. */
static int connect_to(int fd, const struct usock *to, const struct rec_unix *as)
{
	struct connect_job j = {fd, to};
	if (fcntl(fd, F_SETFL, O_NONBLOCK) || act_as(as, connect_act, &j) || fcntl(fd, F_SETFL, 0))
		return fail_errno("connecting to unix socket %u", to->r.ino);
	return 0;
}

/* The one that listens under U's name, or one made for the moment. */
static int get_listener(const struct usock *u)
{
	const struct usock *l = listening_like(u);
	if (l)
		return l->fd;
	for (size_t i = 0; i < n_listeners; i++)
		if (same_name(listeners[i].like, u->name, u->r.name_len))
			return listeners[i].fd;
	struct listener *bigger = grow_array(listeners, &cap_listeners, n_listeners + 1, sizeof *listeners);
	if (!bigger)
		return -1;
	listeners = bigger;
	int fd = new_socket(u);
	if (fd < 0)
		return -1;
	listeners[n_listeners++] = (struct listener){u, fd};
	if (u->name[0] ? bind_path(fd, u, true) : bind_socket(fd, u))
		return -1;
	struct listen_job j = {fd, 16};
	return act_as(&u->r, listen_act, &j) ? fail_errno("listening for unix socket %u", u->r.ino) : fd;
}

static bool was_accepted(const struct usock *u)
{
	return u->r.type != SOCK_DGRAM && u->r.name_len && usock_named(u->name, u->r.name_len, u);
}

/* SERVER has the name of the one that accepted it; CLIENT (NULL: closed since) had its own, or none. */
static int make_accepted(struct usock *server, struct usock *client, int fd[2])
{
	int l = get_listener(server);
	fd[0] = l < 0 ? -1 : new_socket(server);
	if (fd[0] < 0 || (client && bind_socket(fd[0], client)) || connect_to(fd[0], server, &server->r))
		return -1;
	fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	return fd[1] >= 0 ? 0 : fail_errno("accepting unix socket %u", server->r.ino);
}

static int make_connected(struct usock *u)
{
	struct usock *peer = u->r.peer_kind == PEER_TREE ? usock_find(u->r.peer) : NULL;
	int fd[2] = {-1, -1};
	if (u->r.peer_kind == PEER_TREE && (!peer || peer == u || peer->fd >= 0 || peer->r.type != u->r.type))
		return fail("tree: the peer of unix socket %u is not in the image", u->r.ino);
	if (peer && was_accepted(peer)) {
		if (make_accepted(peer, u, fd))
			return -1;
		u->fd = fd[0];
		peer->fd = fd[1];
		return 0;
	}
	if (was_accepted(u)) {
		if (make_accepted(u, peer, fd))
			return -1;
	} else if (make_pair(u, fd) || bind_socket(fd[1], u) || (peer && bind_socket(fd[0], peer))) {
		return -1;
	}
	u->fd = fd[1];
	*(peer ? &peer->fd : &u->gone_fd) = fd[0];
	return 0;
}

static bool is_mutual(const struct usock *u)
{
	const struct usock *peer = u->r.peer_kind == PEER_TREE ? usock_find(u->r.peer) : NULL;
	return u->r.peer_kind == PEER_GONE || (peer && peer->r.peer_kind == PEER_TREE && peer->r.peer == u->r.ino);
}

/* Datagram sockets that are connected one way, and clients that wait. */
static int connect_one_way(struct usock *u)
{
	struct usock *to = usock_find(u->r.peer);
	if (u->r.peer_kind == PEER_EXTERNAL)
		return usock_in_dir(u->dir, u->peer_name, u->r.peer_name_len, connect_address, &u->fd)
			       ? fail_errno("connecting unix socket %u to the one outside it was connected to (%.*s)", u->r.ino,
					    (int)u->r.peer_name_len - !u->peer_name[0], u->peer_name + !u->peer_name[0])
			       : 0;
	if (!to || !to->r.name_len || (u->r.peer_kind == PEER_PENDING && !to->r.listening))
		return fail("tree: the peer of unix socket %u is not in the image, or cannot be connected to", u->r.ino);
	return connect_to(u->fd, to, &u->r);
}

/* ---- all ---- */

static int read_one(struct restore *re, const struct record *rec)
{
	struct usock *bigger = grow_array(socks, &cap_socks, n_socks + 1, sizeof *socks);
	if (!bigger)
		return -1;
	socks = bigger;
	struct usock *u = &socks[n_socks];
	*u = (struct usock){.rec = rec, .fd = -1, .gone_fd = -1};
	if (record_get(&re->tree, rec, &u->r, sizeof u->r))
		return -1;
	size_t names = (size_t)u->r.name_len + u->r.peer_name_len;
	if (u->r.name_len > 109 || u->r.peer_name_len > 109 || names > rec->tail_len)
		return fail("tree: the names of unix socket %u are too long", u->r.ino);
	u->name = rec->tail;
	u->peer_name = rec->tail + u->r.name_len;
	u->dir = record_string(&re->tree, rec, &names);
	n_socks++;
	return u->dir ? 0 : -1;
}

static int set_time(int fd, int option, uint64_t us)
{
	struct timeval t = {us / 1000000, us % 1000000};
	return us && setsockopt(fd, SOL_SOCKET, option, &t, sizeof t) ? -1 : 0;
}

static int set_int(int fd, int option, int v)
{
	return setsockopt(fd, SOL_SOCKET, option, &v, sizeof v);
}

static int set_options(const struct usock *u)
{
	const struct rec_unix *r = &u->r;
	if ((r->passcred && set_int(u->fd, SO_PASSCRED, 1)) || (r->passsec && set_int(u->fd, SO_PASSSEC, 1)) ||
	    (r->rcvlowat > 1 && set_int(u->fd, SO_RCVLOWAT, r->rcvlowat)) || set_time(u->fd, SO_RCVTIMEO, r->rcvtimeo_us) ||
	    set_time(u->fd, SO_SNDTIMEO, r->sndtimeo_us) || fcntl(u->fd, F_SETFL, r->d.flags & (O_NONBLOCK | O_ASYNC)))
		return fail_errno("options of unix socket %u", r->ino);
	return 0;
}

static int make_each(int (*make)(struct usock *u), bool (*which)(const struct usock *u))
{
	for (size_t i = 0; i < n_socks; i++)
		if (which(&socks[i]) && make(&socks[i]))
			return -1;
	return 0;
}

static bool is_alone(const struct usock *u)
{
	return !is_mutual(u) && (u->r.type == SOCK_DGRAM || u->r.peer_kind != PEER_TREE);
}

static bool is_connection(const struct usock *u)
{
	return u->fd < 0;
}

static bool is_one_way(const struct usock *u)
{
	return !is_mutual(u) && (u->r.peer_kind == PEER_TREE || u->r.peer_kind == PEER_EXTERNAL);
}

static int compare_order(const void *a, const void *b)
{
	const struct usock *x = *(struct usock *const *)a, *y = *(struct usock *const *)b;
	if (x->r.peer != y->r.peer)
		return x->r.peer < y->r.peer ? -1 : 1;
	return (x->r.order > y->r.order) - (x->r.order < y->r.order);
}

/* In the order in which they will be accepted. */
static int connect_pending(void)
{
	size_t n = 0;
	autofree struct usock **wait = alloc_zeroed(n_socks + 1, sizeof *wait);
	if (!wait)
		return -1;
	for (size_t i = 0; i < n_socks; i++)
		if (socks[i].r.peer_kind == PEER_PENDING)
			wait[n++] = &socks[i];
	qsort(wait, n, sizeof *wait, compare_order);
	for (size_t i = 0; i < n; i++)
		if (connect_one_way(wait[i]))
			return -1;
	return 0;
}

/* Listeners of the moment go, and so do the paths they lay at. */
static void end_listeners(void)
{
	for (size_t i = 0; i < n_listeners; i++) {
		const struct usock *u = listeners[i].like;
		close(listeners[i].fd);
		autofree char *path = u->name[0] == '/' ? format_string("%.*s", (int)u->r.name_len, u->name)
							: format_string("%s/%.*s", u->dir, (int)u->r.name_len, u->name);
		for (size_t k = 0; path && u->name[0] && k < n_placed; k++)
			if (placed[k].path && strcmp(placed[k].path, path) == 0)
				put_back(&placed[k]);
	}
	free(listeners);
	listeners = NULL;
	n_listeners = cap_listeners = 0;
}

int usock_make_all(struct restore *re)
{
	each_record(&re->tree, rec)
		if (rec->type == REC_UNIX && read_one(re, rec))
			return -1;
	if (!n_socks)
		return 0;
	qsort(socks, n_socks, sizeof *socks, compare);
	if (make_each(make_alone, is_alone) || make_each(make_connected, is_connection) || make_each(connect_one_way, is_one_way) ||
	    connect_pending())
		return -1;
	end_listeners();
	for (size_t i = 0; i < n_socks; i++) {
		struct usock *u = &socks[i];
		if (set_options(u) || keep_object(re, u->r.d.id, u->fd, u->rec))
			return -1;
		if (u->gone_fd >= 0) {
			int high = fcntl(u->gone_fd, F_DUPFD_CLOEXEC, re->keep_from);
			close(u->gone_fd);
			u->gone_fd = high;
			if (high < 0)
				return fail_errno("the other end of unix socket %u", u->r.ino);
		}
	}
	return 0;
}

void usock_undo(void)
{
	end_listeners();
	while (n_placed)
		put_back(&placed[--n_placed]);
}

/* All went well: what lay at our paths was of the dumped processes. */
void usock_keep(void)
{
	while (n_placed) {
		struct placed *p = &placed[--n_placed];
		if (p->aside)
			unlink(p->aside);
		free(p->aside);
		free(p->path);
		*p = (struct placed){0};
	}
}
