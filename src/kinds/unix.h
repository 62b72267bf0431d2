/*
 * What the two parts of unix sockets share: unix.c has the sockets, unix-queue.c what is on its way in them, unix-make.c makes
 * them again.
 */
#ifndef CRL_UNIX_H
#define CRL_UNIX_H

#include <sys/socket.h>

#include "lib/sockdiag.h"
#include "plan.h"

enum unix_peer {
	PEER_NONE = 0,
	PEER_TREE,     /* `peer` is another record's ino */
	PEER_GONE,     /* it was closed */
	PEER_PENDING,  /* `peer` is the listening socket that has not accepted yet */
	PEER_EXTERNAL, /* a datagram socket outside, by the name in the tail */
};

/* tail: own name (name_len bytes), the external peer's (peer_name_len), the directory that a relative name is in, its NUL */
struct rec_unix {
	struct rec_description d;
	uint32_t ino, type;
	uint32_t listening, backlog;
	uint32_t peer_kind, peer;
	uint32_t order; /* of pending connections: which comes first */
	uint32_t shutdown;
	uint32_t name_len, peer_name_len;
	uint32_t removed; /* bound to a path that is not there any more */
	uint32_t mode, uid, gid; /* of the file it is bound to */
	uint32_t cred_pid, cred_uid, cred_gid; /* SO_PEERCRED */
	uint32_t passcred, passsec;
	int32_t peek_off, rcvlowat;
	uint32_t sndbuf, rcvbuf; /* as read: twice what is set */
	uint64_t rcvtimeo_us, sndtimeo_us;
};

/* tail: description ids (n_fds), the sender's name, the data */
struct rec_unix_queue {
	struct record_head head;
	uint32_t ino; /* the receiver */
	uint32_t n_fds, name_len, data_len;
	uint32_t has_cred, pid, uid, gid;
};

/* The socket's entry, or NULL: no unix socket of ours. */
const struct unix_info *unix_find(uint32_t ino);
/* Somebody in the tree, or a message on its way, has it. */
bool unix_in_tree(uint32_t ino);
/* Some socket of the tree has this name. */
bool unix_name_in_tree(const char *name, size_t len);

/* For descriptors.c's table: a descriptor FD of P is one more entry. */
int add_fd_entry(struct dump *d, struct process *p, int fd, bool in_flight);

/* unix-queue.c */
int unix_read_queues(struct dump *d);

/* ---- restore ---- */

/* A socket being made. */
struct usock {
	struct rec_unix r;
	const struct record *rec;
	const char *name, *peer_name, *dir; /* in the record */
	int fd;	     /* -1: not yet */
	int gone_fd; /* of PEER_GONE: the other end, until its data are sent */
	int gone_named;
};
struct usock *usock_find(uint32_t ino);
struct usock *usock_named(const char *name, size_t len, const struct usock *but);
size_t usock_all(struct usock **all);

int usock_make_all(struct restore *re);
void usock_undo(void);
void usock_keep(void);
/* connect(2) or sendmsg(2) need an address: of NAME (LEN bytes), seen from DIR. */
int usock_in_dir(const char *dir, const char *name, size_t len, int (*act)(const struct sockaddr *a, socklen_t len, void *arg),
		 void *arg);

/* unix-queue.c */
int unix_fill_queues(struct restore *re);

#endif
