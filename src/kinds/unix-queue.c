/*
 * What is on its way in unix sockets: data, descriptors, credentials.
 *
 * It is looked at with MSG_PEEK on a copy of the socket. To see behind the first message SO_PEEK_OFF must be on, which is
 * a change of the target: the parasite makes it, and takes it back, also when we are gone (pie/parasite.c). Descriptors that
 * are seen so become ours: they are entered among the tree's, as being in flight.
 *
 * Known to be lost: an empty datagram behind others that was peeked at before, by an earlier dump -R or by the program. The
 * kernel marks it as seen and shows it to no second peek (net/core/datagram.c, __skb_try_recv_from_queue).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "kinds/unix.h"
#include "lib/json.h"

#define LARGEST	 (4u << 20)
#define MOST_FDS 253 /* SCM_MAX_FD, include/net/scm.h */

/* ---- dump ---- */

struct message {
	struct rec_unix_queue r;
	int *fds;
	char *name, *data;
};
static struct message *messages;
static size_t n_messages, cap_messages;
static uint32_t *done; /* inodes of sockets that were read, in the order of reading */
static size_t n_done, cap_done;

/* The dumper itself, as holder of what is in flight. */
static struct thread self_thread;
static struct process self = {.comm = "criu-lite", .host = &self_thread, .threads = &self_thread, .n_threads = 1, .pidfd = -1};

static int prepare_self(void)
{
	struct rlimit lim;
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	self.pid = self_thread.tid = getpid();
	self.pidfd = syscall(SYS_pidfd_open, self.pid, 0);
	return self.pidfd >= 0 ? 0 : fail_errno("a pidfd of our own");
}

static int set_peek_off(struct process *p, int fd, int value)
{
	batch_begin();
	long at = batch_room(sizeof value);
	if (at < 0)
		return -1;
	memcpy(batch_data(at), &value, sizeof value);
	batch_add(1 << 3, SYS_setsockopt, fd, SOL_SOCKET, SO_PEEK_OFF, at, sizeof value, 0);
	if (parasite_run(p))
		return -1;
	errno = -batch_result(0);
	return batch_result(0) ? fail_errno("pid %d (%s) fd %d: SO_PEEK_OFF", p->pid, p->comm, fd) : 0;
}

static int take_control(struct dump *d, struct msghdr *h, struct message *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		size_t len = c->cmsg_len - CMSG_LEN(0);
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred cred;
			memcpy(&cred, CMSG_DATA(c), sizeof cred);
			m->r.has_cred = 1;
			m->r.pid = cred.pid;
			m->r.uid = cred.uid;
			m->r.gid = cred.gid;
		} else if (c->cmsg_type == SCM_RIGHTS) {
			m->fds = alloc_zeroed(len, 1);
			if (!m->fds)
				return -1;
			memcpy(m->fds, CMSG_DATA(c), len);
			m->r.n_fds = len / sizeof(int);
		}
	}
	for (uint32_t i = 0; i < m->r.n_fds; i++)
		if (add_fd_entry(d, &self, m->fds[i], true))
			return -1;
	return 0;
}

static struct message *new_message(uint32_t ino)
{
	struct message *bigger = grow_array(messages, &cap_messages, n_messages + 1, sizeof *messages);
	if (!bigger)
		return NULL;
	messages = bigger;
	messages[n_messages] = (struct message){.r.ino = ino};
	return &messages[n_messages++];
}

static int keep_bytes(char **to, const void *from, size_t len)
{
	*to = alloc_zeroed(len ? len : 1, 1);
	if (*to)
		memcpy(*to, from, len);
	return *to ? 0 : -1;
}

/* 1: there was one, 0: no more. */
static int read_message(struct dump *d, int fd, const struct unix_info *u, char *buf)
{
	static char control[4096] __attribute__((aligned(8)));
	struct sockaddr_un from;
	struct iovec iov = {buf, LARGEST};
	struct msghdr h = {&from, sizeof from, &iov, 1, control, sizeof control, 0};
	ssize_t n = recvmsg(fd, &h, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == ECONNRESET))
		return 0;
	if (n < 0)
		return fail_errno("looking at the messages of a unix socket");
	if (n == 0 && (u->type == SOCK_STREAM || (u->type == SOCK_SEQPACKET && u->shutdown & 1)))
		return 0;
	struct message *m = new_message(u->ino);
	if (!m || take_control(d, &h, m))
		return -1;
	if (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return fail("a message in a unix socket is larger than can be read (or we may not have as many descriptors as it carries)");
	m->r.data_len = n;
	size_t head = offsetof(struct sockaddr_un, sun_path);
	m->r.name_len = u->type == SOCK_DGRAM && h.msg_namelen > head ? h.msg_namelen - head : 0;
	return keep_bytes(&m->data, buf, n) || keep_bytes(&m->name, from.sun_path, m->r.name_len) ? -1 : 1;
}

/* A datagram is sent again by who sent it: so that is to be there, and its receiver must be reached. */
static int check_senders(const struct fd_entry *f, const struct unix_info *u, size_t first)
{
	const struct unix_info *peer = u->peer ? unix_find(u->peer) : NULL;
	bool mutual = peer && peer->peer == u->ino && unix_in_tree(u->peer);
	for (size_t i = first; u->type == SOCK_DGRAM && i < n_messages; i++) {
		const struct message *m = &messages[i];
		if (m->r.name_len && !unix_name_in_tree(m->name, m->r.name_len))
			return refuse_fd(f, "a datagram socket with a message from %s%.*s outside the tree; have it received first",
					 m->name[0] ? "" : "@", (int)m->r.name_len - !m->name[0], m->name + !m->name[0]);
		if (!mutual && !u->name_len && !u->has_peer)
			return refuse_fd(f, "a datagram socket without a name with a message from one that it is not connected to");
	}
	return 0;
}

static int read_queue(struct dump *d, const struct fd_entry *f, struct process *p, int fd, const struct unix_info *u, char *buf)
{
	int got, off;
	socklen_t len = sizeof off;
	size_t first = n_messages;
	autoclose int own = copy_fd(f);
	struct pollfd poll_in = {.fd = own, .events = POLLIN};
	if (own < 0)
		return -1;
	if (u->state == 10 || poll(&poll_in, 1, 0) != 1 || !(poll_in.revents & POLLIN))
		return 0;
	if (u->type == SOCK_STREAM && !u->rqueue)
		return 0; /* readable is the end of the stream alone */
	if (getsockopt(own, SOL_SOCKET, SO_PEEK_OFF, &off, &len) || off >= 0)
		return refuse_fd(f, "a unix socket that has data and SO_PEEK_OFF set, which cannot be dumped; have the data received first");
	if (set_peek_off(p, fd, 0))
		return -1;
	do
		got = read_message(d, own, u, buf);
	while (got > 0);
	struct error first_error = the_error;
	if (set_peek_off(p, fd, -1))
		return -1;
	if (got < 0) {
		the_error = first_error;
		return fail_within("pid %d (%s) fd %d", f->process->pid, f->process->comm, f->fd);
	}
	return check_senders(f, u, first);
}

static bool was_read(uint32_t ino)
{
	for (size_t i = n_done; i-- > 0;)
		if (done[i] == ino)
			return true;
	return false;
}

/* One that is in flight itself no parasite has yet: the root's takes it for the moment. */
static int read_one(struct dump *d, size_t at, char *buf)
{
	struct fd_entry f = d->fds[at]; /* the array moves while descriptors are found */
	const struct unix_info *u = S_ISSOCK(f.st.st_mode) && !(f.flags & O_PATH) ? unix_find(f.st.st_ino) : NULL;
	if (!u || (!u->rqueue && u->type == SOCK_STREAM) || was_read(u->ino))
		return 0;
	uint32_t *bigger = grow_array(done, &cap_done, n_done + 1, sizeof *done);
	if (!bigger)
		return -1;
	done = bigger;
	done[n_done++] = u->ino;
	if (!f.in_flight)
		return read_queue(d, &f, f.process, f.fd, u, buf);
	int theirs = parasite_give(&d->procs[0], f.fd);
	if (theirs < 0)
		return -1;
	int ret = read_queue(d, &f, &d->procs[0], theirs, u, buf);
	return parasite_drop(&d->procs[0], theirs) ? -1 : ret;
}

int unix_read_queues(struct dump *d)
{
	autofree char *buf = alloc_zeroed(LARGEST, 1);
	if (!buf || prepare_self())
		return -1;
	/* what is found on the way comes at the end, and may have its own queue */
	for (size_t i = 0; i < d->n_fds; i++)
		if (read_one(d, i, buf))
			return -1;
	return 0;
}

static uint32_t description_of(const struct dump *d, int fd)
{
	for (size_t i = d->n_fds; i-- > 0 && d->fds[i].in_flight;)
		if (d->fds[i].fd == fd)
			return d->fds[i].description;
	return 0;
}

static int add_message(struct dump *d, struct message *m)
{
	size_t k = m->r.n_fds * 4ul, n = k + m->r.name_len + m->r.data_len;
	autofree char *tail = alloc_zeroed(n ? n : 1, 1);
	if (!tail)
		return -1;
	for (uint32_t i = 0; i < m->r.n_fds; i++) {
		uint32_t id = description_of(d, m->fds[i]);
		memcpy(tail + 4ul * i, &id, 4);
	}
	memcpy(tail + k, m->name, m->r.name_len);
	memcpy(tail + k + m->r.name_len, m->data, m->r.data_len);
	return notes_add_record(&d->tree, REC_UNIX_QUEUE, &m->r, sizeof m->r, tail, n);
}

/* All descriptions have their ids. */
static int queue_settle(struct dump *d)
{
	for (size_t i = 0; i < n_messages; i++)
		if (add_message(d, &messages[i]))
			return -1;
	return 0;
}

static void queue_dump_end(struct dump *d)
{
	(void)d;
	for (size_t i = 0; i < n_messages; i++) {
		for (uint32_t k = 0; k < messages[i].r.n_fds; k++)
			close(messages[i].fds[k]);
		free(messages[i].fds);
		free(messages[i].name);
		free(messages[i].data);
	}
	free(messages);
	free(done);
	messages = NULL;
	done = NULL;
	n_messages = cap_messages = n_done = cap_done = 0;
	close_fd(&self.pidfd);
	self.pidfd = -1;
}

/* ---- restore ---- */

struct sending {
	int fd;
	struct msghdr h;
};

static int send_to(const struct sockaddr *a, socklen_t len, void *arg)
{
	struct sending *s = arg;
	s->h.msg_name = (void *)a;
	s->h.msg_namelen = len;
	return sendmsg(s->fd, &s->h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int add_control(struct restore *re, const struct rec_unix_queue *q, const char *ids, struct msghdr *h)
{
	struct cmsghdr *c = h->msg_control;
	size_t used = 0;
	if (q->has_cred) {
		struct ucred cred = {q->pid, q->uid, q->gid};
		*c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof cred), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS};
		memcpy(CMSG_DATA(c), &cred, sizeof cred);
		used = CMSG_SPACE(sizeof cred);
		c = (void *)((char *)h->msg_control + used);
	}
	if (q->n_fds) {
		size_t len = q->n_fds * sizeof(int);
		*c = (struct cmsghdr){.cmsg_len = CMSG_LEN(len), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		for (uint32_t i = 0; i < q->n_fds; i++) {
			uint32_t id;
			memcpy(&id, ids + 4ul * i, 4);
			int fd = opened_fd(re, id);
			if (fd < 0)
				return -1;
			memcpy(CMSG_DATA(c) + i * sizeof fd, &fd, sizeof fd);
		}
		used += CMSG_SPACE(len);
	}
	h->msg_controllen = used;
	return 0;
}

/* Who sends it: the other end; the one of that name; or somebody without a name. */
static int find_sender(struct restore *re, struct usock *to, const struct rec_unix_queue *q, const char *name, int *temporary)
{
	struct usock *peer = to->r.peer_kind == PEER_TREE ? usock_find(to->r.peer) : NULL;
	struct usock *named = q->name_len ? usock_named(name, q->name_len, NULL) : NULL;
	if (to->gone_fd >= 0)
		return to->gone_fd;
	if (named)
		return opened_fd(re, named->r.d.id);
	if (peer && (to->r.type != SOCK_DGRAM || peer->r.peer == to->r.ino))
		return opened_fd(re, peer->r.d.id);
	*temporary = socket(AF_UNIX, to->r.type | SOCK_CLOEXEC, 0);
	return *temporary >= 0 ? *temporary : fail_errno("a socket to send from");
}

static int set_buffer(int fd, int force, int plain, int value)
{
	return setsockopt(fd, SOL_SOCKET, force, &value, sizeof value) && setsockopt(fd, SOL_SOCKET, plain, &value, sizeof value)
		       ? fail_errno("the size of a unix socket's buffer")
		       : 0;
}

static int send_message(struct usock *to, int fd, const struct rec_unix_queue *q, struct sending *s)
{
	struct usock *peer = to->r.peer_kind == PEER_TREE ? usock_find(to->r.peer) : NULL;
	bool connected = to->r.type != SOCK_DGRAM || to->gone_fd == fd || (peer && peer->r.peer == to->r.ino);
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, 2 * LARGEST);
	s->fd = fd;
	int ret = connected ? (sendmsg(fd, &s->h, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)q->data_len ? 0 : -1)
			    : usock_in_dir(to->dir, to->name, to->r.name_len, send_to, s);
	return ret ? fail_errno("putting %u bytes that were on their way into unix socket %u", q->data_len, to->r.ino) : 0;
}

static int fill_one(struct restore *re, const struct record *rec)
{
	static char control[4096] __attribute__((aligned(8)));
	struct rec_unix_queue q;
	int temporary = -1;
	if (record_get(&re->tree, rec, &q, sizeof q))
		return -1;
	struct usock *to = usock_find(q.ino);
	if (!to || q.n_fds > MOST_FDS || q.name_len > 108 || 4ul * q.n_fds + q.name_len + q.data_len != rec->tail_len)
		return fail("tree: a message to unix socket %u is not whole", q.ino);
	/* the kernel takes the number of a process that is there alone (scm_check_creds, __scm_send) */
	if (q.has_cred && (q.pid < 1 || q.pid > 4194304 || (kill((pid_t)q.pid, 0) && errno == ESRCH))) {
		verbose("a message to unix socket %u was sent by process %u, which is gone: it will be told as ours", q.ino, q.pid);
		q.has_cred = 0;
	}
	const char *name = rec->tail + 4ul * q.n_fds;
	struct iovec iov = {(char *)name + q.name_len, q.data_len};
	struct sending s = {.h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control}};
	int fd = find_sender(re, to, &q, name, &temporary);
	int ret = fd < 0 || add_control(re, &q, rec->tail, &s.h) ? -1 : send_message(to, fd, &q, &s);
	close_fd(&temporary);
	return ret;
}

/* What was only for the time of sending: the senders' buffers, other ends that were closed, directions not yet shut. */
static int finish_socket(struct restore *re, struct usock *u)
{
	int fd = opened_fd(re, u->r.d.id);
	if (fd < 0)
		return -1;
	close_fd(&u->gone_fd);
	u->gone_fd = -1;
	if (u->r.shutdown & 3 && u->r.peer_kind != PEER_GONE && shutdown(fd, (u->r.shutdown & 3) - 1))
		return fail_errno("shutting down unix socket %u", u->r.ino);
	if (set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, u->r.sndbuf / 2) || set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, u->r.rcvbuf / 2))
		return -1;
	if (u->r.peek_off >= 0 && setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &u->r.peek_off, sizeof u->r.peek_off))
		return fail_errno("SO_PEEK_OFF of unix socket %u", u->r.ino);
	return 0;
}

int unix_fill_queues(struct restore *re)
{
	struct usock *all;
	size_t n = usock_all(&all);
	each_record(&re->tree, rec)
		if (rec->type == REC_UNIX_QUEUE && fill_one(re, rec))
			return -1;
	for (size_t i = 0; i < n; i++)
		if (finish_socket(re, &all[i]))
			return -1;
	return 0;
}

static void print_queue(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_unix_queue q;
	if (json_record(j, f, rec, &q, sizeof q) < 0)
		return;
	json_uint(j, "to", q.ino);
	json_uint(j, "bytes", q.data_len);
	json_uint(j, "fds", q.n_fds);
	if (q.has_cred)
		json_uint(j, "pid", q.pid);
}

static const struct record_printer printers[] = {{REC_UNIX_QUEUE, "unix-message", print_queue}, {0}};

const struct kind unix_queue_kind = {
	.name = "unix sockets' messages",
	.settle = queue_settle,
	.dump_end = queue_dump_end,
	.printers = printers,
};
