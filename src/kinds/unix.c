/*
 * Unix sockets. They are told apart by their inode; sock_diag(7) tells of each its name, state and peer.
 *
 * This kind comes before the descriptors' in the table: its settle finds the descriptors that are on their way in messages,
 * and enters them among the others before those are sorted.
 */
#include "kinds/unix.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"

enum { STATE_ESTABLISHED = 1, STATE_LISTEN = 10 }; /* include/net/tcp_states.h */

/* ---- dump ---- */

static struct unix_info *infos;
static size_t n_infos;
static uint32_t *in_tree; /* inodes, sorted */
static size_t n_in_tree, cap_in_tree;

static int compare_inos(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

const struct unix_info *unix_find(uint32_t ino)
{
	struct unix_info key = {.ino = ino};
	/* the inode is what a struct unix_info begins with */
	return n_infos ? bsearch(&key, infos, n_infos, sizeof *infos, compare_inos) : NULL;
}

bool unix_in_tree(uint32_t ino)
{
	return n_in_tree && bsearch(&ino, in_tree, n_in_tree, sizeof *in_tree, compare_inos);
}

bool unix_name_in_tree(const char *name, size_t len)
{
	for (size_t i = 0; i < n_in_tree; i++) {
		const struct unix_info *u = unix_find(in_tree[i]);
		if (u && u->name_len == len && memcmp(u->name, name, len) == 0)
			return true;
	}
	return false;
}

static int list_in_tree(struct dump *d)
{
	n_in_tree = 0;
	for (size_t i = 0; i < d->n_fds; i++) {
		if (!S_ISSOCK(d->fds[i].st.st_mode))
			continue;
		uint32_t *bigger = grow_array(in_tree, &cap_in_tree, n_in_tree + 1, sizeof *in_tree);
		if (!bigger)
			return -1;
		in_tree = bigger;
		in_tree[n_in_tree++] = d->fds[i].st.st_ino;
	}
	if (n_in_tree)
		qsort(in_tree, n_in_tree, sizeof *in_tree, compare_inos);
	return 0;
}

static int unix_settle(struct dump *d)
{
	if (list_in_tree(d))
		return -1;
	if (!n_in_tree)
		return 0;
	return sockdiag_unix(&infos, &n_infos) || unix_read_queues(d) || list_in_tree(d) ? -1 : 0;
}

static void unix_dump_end(struct dump *d)
{
	(void)d;
	sockdiag_free(infos, n_infos);
	free(in_tree);
	infos = NULL;
	in_tree = NULL;
	n_infos = n_in_tree = cap_in_tree = 0;
}

/* The client of a connection that a listening socket of the tree has not accepted. */
static bool find_pending(struct rec_unix *r)
{
	for (size_t i = 0; i < n_in_tree; i++) {
		const struct unix_info *l = unix_find(in_tree[i]);
		for (uint32_t k = 0; l && k < l->n_icons; k++)
			if (l->icons[k] == r->ino) {
				r->peer_kind = PEER_PENDING;
				r->peer = l->ino;
				r->order = k;
				return true;
			}
	}
	return false;
}

/* For people: its path, @ and its abstract name, or that it has none. */
static void name_text(const struct unix_info *u, char *text, size_t size)
{
	if (!u || !u->name_len)
		snprintf(text, size, "without a name");
	else if (!u->name[0])
		snprintf(text, size, "@%.*s", (int)u->name_len - 1, u->name + 1);
	else
		snprintf(text, size, "%.*s", (int)u->name_len, u->name);
}

static int refuse_peer(const struct dump *d, const struct fd_entry *f, const struct unix_info *u, const struct unix_info *peer)
{
	char text[128];
	name_text(peer, text, sizeof text);
	if (u->type == SOCK_DGRAM && peer && peer->name_len && !d->opt->ext_unix_sk)
		return refuse_fd(f, "a datagram socket connected to one outside the tree (%s); pass --ext-unix-sk to have it connected there "
				    "again",
				 text);
	return refuse_fd(f, "a unix socket whose peer (%s) is outside the tree; dump the process that both lie below, or have it close the "
			    "connection first",
			 text);
}

static int find_peer(struct dump *d, const struct fd_entry *f, const struct unix_info *u, struct rec_unix *r,
		     const struct unix_info **external)
{
	if (u->state == STATE_LISTEN || !u->has_peer)
		return 0;
	if (!u->peer) {
		if (u->type == SOCK_DGRAM || !find_pending(r))
			r->peer_kind = PEER_GONE;
		if (r->peer_kind == PEER_GONE && u->type != SOCK_DGRAM && u->shutdown != 3)
			return refuse_peer(d, f, u, NULL);
		return 0;
	}
	const struct unix_info *peer = unix_find(u->peer);
	if (unix_in_tree(u->peer)) {
		r->peer_kind = PEER_TREE;
		r->peer = u->peer;
		if (u->type == SOCK_DGRAM && peer && peer->peer != u->ino && !peer->name_len)
			return refuse_fd(f, "a datagram socket connected to one without a name that is not connected to it, which cannot "
					    "be made again");
		return 0;
	}
	if (u->type != SOCK_DGRAM || !d->opt->ext_unix_sk || !peer || !peer->name_len)
		return refuse_peer(d, f, u, peer);
	r->peer_kind = PEER_EXTERNAL;
	r->peer_name_len = peer->name_len;
	*external = peer;
	return 0;
}

static uint64_t get_time_us(int fd, int option)
{
	struct timeval t = {0};
	socklen_t len = sizeof t;
	getsockopt(fd, SOL_SOCKET, option, &t, &len);
	return t.tv_sec * 1000000ull + t.tv_usec;
}

static int get_int(int fd, int option)
{
	int v = 0;
	socklen_t len = sizeof v;
	getsockopt(fd, SOL_SOCKET, option, &v, &len);
	return v;
}

static int read_options(const struct fd_entry *f, const struct unix_info *u, struct rec_unix *r)
{
	struct ucred cred = {0};
	socklen_t len = sizeof cred;
	autoclose int fd = copy_fd(f);
	if (fd < 0)
		return -1;
	struct pollfd p = {.fd = fd, .events = POLLPRI};
	if (poll(&p, 1, 0) > 0 && p.revents & POLLPRI)
		return refuse_fd(f, "a unix socket with a byte out of band (MSG_OOB), which cannot be dumped; receive it first");
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.pid > 0) {
		r->cred_pid = cred.pid;
		r->cred_uid = cred.uid;
		r->cred_gid = cred.gid;
	}
	if (r->peer_kind == PEER_PENDING) { /* what whoever accepts it will be told */
		const char *uid = status_field(f->process->status ? f->process->status : "", "Uid");
		const char *gid = status_field(f->process->status ? f->process->status : "", "Gid");
		r->cred_pid = f->process->pid;
		r->cred_uid = uid ? strtoul(uid, NULL, 10) : 0;
		r->cred_gid = gid ? strtoul(gid, NULL, 10) : 0;
	}
	r->passcred = get_int(fd, SO_PASSCRED);
	r->passsec = get_int(fd, SO_PASSSEC);
	r->peek_off = get_int(fd, SO_PEEK_OFF);
	r->rcvlowat = get_int(fd, SO_RCVLOWAT);
	r->sndbuf = get_int(fd, SO_SNDBUF);
	r->rcvbuf = get_int(fd, SO_RCVBUF);
	r->rcvtimeo_us = get_time_us(fd, SO_RCVTIMEO);
	r->sndtimeo_us = get_time_us(fd, SO_SNDTIMEO);
	r->listening = u->state == STATE_LISTEN;
	r->backlog = r->listening ? u->wqueue : 0;
	return 0;
}

/* The file that it is bound to, if it is still there. */
static int find_file(const struct fd_entry *f, const struct unix_info *u, struct rec_unix *r, const char *dir)
{
	struct stat st;
	autofree char *path = u->name[0] == '/' ? format_string("%.*s", (int)u->name_len, u->name)
						: format_string("%s/%.*s", dir, (int)u->name_len, u->name);
	(void)f;
	if (!path)
		return -1;
	r->removed = lstat(path, &st) || !S_ISSOCK(st.st_mode) || (uint32_t)st.st_ino != u->vfs_ino;
	if (!r->removed) {
		r->mode = st.st_mode & 07777;
		r->uid = st.st_uid;
		r->gid = st.st_gid;
	}
	return 0;
}

/* Data that were sent to a socket that nobody has accepted can only be read by accepting it. */
static int check_nothing_sent(const struct fd_entry *f, const struct rec_unix *r)
{
	if (r->peer_kind != PEER_PENDING)
		return 0;
	const struct unix_info *u = unix_find(r->ino);
	if (u && u->wqueue)
		return refuse_fd(f, "a unix socket that has sent data on a connection that is not accepted yet; wait until it is");
	return 0;
}

static int add_socket(struct dump *d, struct rec_unix *r, const struct unix_info *u, const struct unix_info *external, const char *dir)
{
	size_t at = 0, n = r->name_len + r->peer_name_len + strlen(dir) + 1;
	autofree char *tail = alloc_zeroed(n, 1);
	if (!tail)
		return -1;
	if (u->name_len)
		memcpy(tail, u->name, u->name_len);
	at += u->name_len;
	if (external)
		memcpy(tail + at, external->name, external->name_len);
	at += r->peer_name_len;
	memcpy(tail + at, dir, strlen(dir) + 1);
	return notes_add_record(&d->tree, REC_UNIX, r, sizeof *r, tail, n);
}

static int unix_collect_fd(struct dump *d, struct fd_entry *f)
{
	const struct unix_info *external = NULL, *u = S_ISSOCK(f->st.st_mode) && !(f->flags & O_PATH) ? unix_find(f->st.st_ino) : NULL;
	if (!u)
		return 0;
	struct rec_unix r = {
		.d = {.id = f->description, .flags = f->flags},
		.ino = u->ino,
		.type = u->type,
		.shutdown = u->shutdown,
		.name_len = u->name_len,
	};
	autofree char *dir = proc_readlink("/proc/%d/cwd", f->process->host->tid);
	if (!dir || find_peer(d, f, u, &r, &external) || read_options(f, u, &r) || check_nothing_sent(f, &r))
		return -1;
	if (u->name_len && u->name[0] && find_file(f, u, &r, dir))
		return -1;
	return add_socket(d, &r, u, external, dir) ? -1 : 1;
}

/* ---- restore ---- */

static int unix_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	(void)re;
	(void)rec;
	(void)id;
	return OPEN_LATER;
}

static int unix_opened(struct restore *re)
{
	return usock_make_all(re);
}

static int unix_ready(struct restore *re)
{
	if (unix_fill_queues(re))
		return -1;
	usock_keep();
	return 0;
}

static void unix_undo(struct restore *re)
{
	(void)re;
	usock_undo();
}

/* ---- show ---- */

static void print_name(struct json *j, const char *key, const char *name, size_t len)
{
	char text[128];
	if (!len)
		return;
	struct unix_info u = {.name = (char *)name, .name_len = len < 110 ? len : 110};
	name_text(&u, text, sizeof text);
	json_string(j, key, text);
}

static void print_unix(struct json *j, const struct image_file *f, const struct record *rec)
{
	static const char *const types[] = {NULL, "stream", "dgram", NULL, NULL, "seqpacket"};
	static const char *const peers[] = {"none", "tree", "gone", "pending", "external"};
	struct rec_unix r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_uint(j, "ino", r.ino);
	if (r.type <= 5 && types[r.type])
		json_string(j, "type", types[r.type]);
	if (r.name_len <= rec->tail_len)
		print_name(j, "name", rec->tail, r.name_len);
	if (r.listening)
		json_uint(j, "backlog", r.backlog);
	if (r.peer_kind <= PEER_EXTERNAL)
		json_string(j, "peer_kind", peers[r.peer_kind]);
	if (r.peer)
		json_uint(j, "peer", r.peer);
	json_uint(j, "shutdown", r.shutdown);
	json_bool(j, "removed", r.removed);
}

static const struct record_printer printers[] = {{REC_UNIX, "unix-socket", print_unix}, {0}};

const struct kind unix_kind = {
	.name = "unix sockets",
	.settle = unix_settle,
	.collect_fd = unix_collect_fd,
	.dump_end = unix_dump_end,
	.opens = {REC_UNIX},
	.open = unix_open,
	.opened = unix_opened,
	.ready = unix_ready,
	.undo = unix_undo,
	.printers = printers,
};
