/*
 * What the kernel tells of the unix sockets of our network namespace: sock_diag(7).
 */
#ifndef CRL_SOCKDIAG_H
#define CRL_SOCKDIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct unix_info {
	uint32_t ino;
	uint8_t type;	  /* SOCK_* */
	uint8_t state;	  /* TCP_ESTABLISHED, TCP_LISTEN, TCP_CLOSE */
	uint8_t shutdown; /* bit 0: receiving, bit 1: sending */
	bool has_peer;
	uint32_t peer; /* 0: one that no process has: closed, or not accepted yet */
	uint32_t vfs_ino;
	uint32_t rqueue, wqueue; /* of a listening one: connections waiting, backlog */
	uint32_t name_len;
	uint32_t n_icons;
	char *name;	 /* as sun_path */
	uint32_t *icons; /* of a listening one: the clients of connections not yet accepted, in order */
};

/* All, by inode. -1 with the error set. */
int sockdiag_unix(struct unix_info **out, size_t *n);
void sockdiag_free(struct unix_info *all, size_t n);

#endif
