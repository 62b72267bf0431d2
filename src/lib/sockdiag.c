#include "lib/sockdiag.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/error.h"

static int ask(int s)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req r;
	} m = {
		.h = {.nlmsg_len = sizeof m, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		.r = {.sdiag_family = AF_UNIX,
		      .udiag_states = -1,
		      .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN},
	};
	return send(s, &m, sizeof m, 0) == sizeof m ? 0 : fail_errno("asking the kernel for its unix sockets (CONFIG_UNIX_DIAG)");
}

static void *copy_of(const void *from, size_t len)
{
	void *to = alloc_zeroed(len ? len : 1, 1);
	if (to)
		memcpy(to, from, len);
	return to;
}

static int take_attribute(struct unix_info *u, unsigned type, const void *data, size_t len)
{
	struct unix_diag_vfs vfs = {0};
	struct unix_diag_rqlen q = {0};
	switch (type) {
	case UNIX_DIAG_NAME:
		u->name = copy_of(data, len);
		u->name_len = len;
		return u->name ? 0 : -1;
	case UNIX_DIAG_VFS:
		memcpy(&vfs, data, len < sizeof vfs ? len : sizeof vfs);
		u->vfs_ino = vfs.udiag_vfs_ino;
		return 0;
	case UNIX_DIAG_PEER:
		u->has_peer = true;
		memcpy(&u->peer, data, len < 4 ? len : 4);
		return 0;
	case UNIX_DIAG_ICONS:
		u->icons = copy_of(data, len);
		u->n_icons = len / 4;
		return u->icons ? 0 : -1;
	case UNIX_DIAG_RQLEN:
		memcpy(&q, data, len < sizeof q ? len : sizeof q);
		u->rqueue = q.udiag_rqueue;
		u->wqueue = q.udiag_wqueue;
		return 0;
	case UNIX_DIAG_SHUTDOWN:
		memcpy(&u->shutdown, data, len < 1 ? len : 1);
		return 0;
	default:
		return 0;
	}
}

static int take_socket(const struct nlmsghdr *h, struct unix_info *u)
{
	const struct unix_diag_msg *m = NLMSG_DATA(h);
	int left = h->nlmsg_len - NLMSG_LENGTH(sizeof *m);
	*u = (struct unix_info){.ino = m->udiag_ino, .type = m->udiag_type, .state = m->udiag_state};
	for (const struct rtattr *a = (const void *)(m + 1); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (take_attribute(u, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a)))
			return -1;
	return 0;
}

/* 1: that was the last. */
static int take_all(const char *buf, int len, struct unix_info **out, size_t *n, size_t *cap)
{
	for (const struct nlmsghdr *h = (const void *)buf; NLMSG_OK(h, (unsigned)len); h = NLMSG_NEXT(h, len)) {
		if (h->nlmsg_type == NLMSG_DONE)
			return 1;
		if (h->nlmsg_type == NLMSG_ERROR) {
			errno = -((const struct nlmsgerr *)NLMSG_DATA(h))->error;
			return fail_errno("asking the kernel for its unix sockets (CONFIG_UNIX_DIAG)");
		}
		struct unix_info *bigger = grow_array(*out, cap, *n + 1, sizeof *bigger);
		if (!bigger)
			return -1;
		*out = bigger;
		if (take_socket(h, &bigger[(*n)++]))
			return -1;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = ((const struct unix_info *)a)->ino, y = ((const struct unix_info *)b)->ino;
	return (x > y) - (x < y);
}

int sockdiag_unix(struct unix_info **out, size_t *n)
{
	static char buf[65536] __attribute__((aligned(8)));
	size_t cap = 0;
	int ret = -1;
	*out = NULL;
	*n = 0;
	autoclose int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (s < 0)
		return fail_errno("a netlink socket");
	if (ask(s))
		return -1;
	do {
		ssize_t len = recv(s, buf, sizeof buf, 0);
		ret = len < 0 ? fail_errno("reading the kernel's unix sockets") : take_all(buf, len, out, n, &cap);
	} while (ret == 0);
	if (ret < 0) {
		sockdiag_free(*out, *n);
		*out = NULL;
		*n = 0;
		return -1;
	}
	if (*n)
		qsort(*out, *n, sizeof **out, compare);
	return 0;
}

void sockdiag_free(struct unix_info *all, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(all[i].name);
		free(all[i].icons);
	}
	free(all);
}
