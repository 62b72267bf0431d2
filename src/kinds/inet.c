/*
 * IPv4 and IPv6 sockets: TCP that is closed, bound or listening, and UDP, with their options.
 *
 * A TCP connection is refused, or with --tcp-close comes back as one whose other side has closed: reading ends, writing
 * fails (EPIPE). Datagrams that wait in a UDP socket make the dump wait for another moment.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define BUF_LOCK_SEND 1 /* include/uapi/linux/socket.h: SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK */
#define BUF_LOCK_RECEIVE 2
#define OPTION_MAX 24

enum inet_state { INET_PLAIN = 1, INET_LISTENING, INET_CONNECTED, INET_CLOSED };

/* tail: struct rec_inet_option array */
struct rec_inet {
	struct rec_description d;
	uint32_t domain, type, protocol;
	uint32_t state; /* enum inet_state */
	uint32_t backlog;
	uint32_t n_options;
	uint32_t local_len, remote_len; /* 0: none */
	uint8_t local[28], remote[28];	/* struct sockaddr_in or sockaddr_in6 */
	uint32_t send_buffer, receive_buffer; /* as setsockopt takes them, 0: never set */
};

struct rec_inet_option {
	uint32_t level, name, len;
	uint8_t value[OPTION_MAX];
};

/* What getsockopt tells in the form that setsockopt takes, all before bind(2). */
static const struct {
	int level, name, len;
} options[] = {
	{SOL_SOCKET, SO_REUSEADDR, 4}, {SOL_SOCKET, SO_REUSEPORT, 4}, {SOL_SOCKET, SO_KEEPALIVE, 4}, {SOL_SOCKET, SO_BROADCAST, 4},
	{SOL_SOCKET, SO_LINGER, 8}, {SOL_SOCKET, SO_MARK, 4}, {SOL_SOCKET, SO_BINDTODEVICE, 16},
	{SOL_SOCKET, SO_OOBINLINE, 4}, {SOL_SOCKET, SO_DONTROUTE, 4}, {SOL_SOCKET, SO_RCVLOWAT, 4}, {SOL_SOCKET, SO_RCVTIMEO, 16},
	{SOL_SOCKET, SO_SNDTIMEO, 16}, {SOL_SOCKET, SO_TIMESTAMP, 4}, {SOL_SOCKET, SO_RXQ_OVFL, 4}, {SOL_SOCKET, SO_NO_CHECK, 4},
	{IPPROTO_IP, IP_TOS, 4}, {IPPROTO_IP, IP_TTL, 4}, {IPPROTO_IP, IP_MTU_DISCOVER, 4}, {IPPROTO_IP, IP_RECVERR, 4},
	{IPPROTO_IP, IP_PKTINFO, 4}, {IPPROTO_IP, IP_FREEBIND, 4}, {IPPROTO_IP, IP_TRANSPARENT, 4}, {IPPROTO_IP, IP_RECVTOS, 4},
	{IPPROTO_IP, IP_RECVTTL, 4}, {IPPROTO_IP, IP_MULTICAST_TTL, 4}, {IPPROTO_IP, IP_MULTICAST_LOOP, 4},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 4}, {IPPROTO_IP, IP_MINTTL, 4},
	{IPPROTO_IPV6, IPV6_V6ONLY, 4}, {IPPROTO_IPV6, IPV6_UNICAST_HOPS, 4}, {IPPROTO_IPV6, IPV6_TCLASS, 4},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, 4}, {IPPROTO_IPV6, IPV6_RECVERR, 4}, {IPPROTO_IPV6, IPV6_MTU_DISCOVER, 4},
	{IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 4}, {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 4}, {IPPROTO_IPV6, IPV6_RECVTCLASS, 4},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 4},
	{IPPROTO_TCP, TCP_NODELAY, 4}, {IPPROTO_TCP, TCP_KEEPIDLE, 4}, {IPPROTO_TCP, TCP_KEEPINTVL, 4}, {IPPROTO_TCP, TCP_KEEPCNT, 4},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, 4}, {IPPROTO_TCP, TCP_CONGESTION, 16}, {IPPROTO_TCP, TCP_FASTOPEN, 4},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, 4}, {IPPROTO_TCP, TCP_SYNCNT, 4}, {IPPROTO_TCP, TCP_LINGER2, 4}, {IPPROTO_TCP, TCP_CORK, 4},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4}, {IPPROTO_UDP, UDP_SEGMENT, 4}, {IPPROTO_UDP, UDP_GRO, 4},
	{SOL_SOCKET, SO_PRIORITY, 4}, /* IP_TOS changes it */
};
#define N_OPTIONS (sizeof options / sizeof *options)

static bool has_option(const struct rec_inet *r, int level, int name)
{
	/* told of an accepted connection (inet_csk_clone_lock), but not to be set */
	if (r->type == SOCK_STREAM && level == IPPROTO_IP && (name == IP_MULTICAST_TTL || name == IP_MULTICAST_LOOP))
		return false;
	if (r->type == SOCK_STREAM && level == IPPROTO_IPV6 && (name == IPV6_MULTICAST_HOPS || name == IPV6_MULTICAST_LOOP))
		return false;
	return level == SOL_SOCKET || level == IPPROTO_IP || (level == IPPROTO_IPV6 && r->domain == AF_INET6) ||
	       level == (int)r->protocol;
}

static int get_int(int fd, int level, int name, int otherwise)
{
	int v;
	socklen_t len = sizeof v;
	return getsockopt(fd, level, name, &v, &len) ? otherwise : v;
}

/* ---- dump ---- */

static void address_text(const uint8_t *address, char *text, size_t size)
{
	char ip[INET6_ADDRSTRLEN] = "?";
	struct sockaddr_in6 a6;
	struct sockaddr_in a4;
	memcpy(&a6, address, sizeof a6);
	memcpy(&a4, address, sizeof a4);
	if (a4.sin_family == AF_INET6)
		inet_ntop(AF_INET6, &a6.sin6_addr, ip, sizeof ip);
	else
		inet_ntop(AF_INET, &a4.sin_addr, ip, sizeof ip);
	snprintf(text, size, a4.sin_family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, ntohs(a4.sin_port));
}

static int refuse_connection(const struct fd_entry *f, const struct rec_inet *r, bool asked)
{
	char local[80], remote[80];
	address_text(r->local, local, sizeof local);
	address_text(r->remote, remote, sizeof remote);
	if (asked)
		return refuse_fd(f, "a TCP connection from %s to %s, which cannot be kept yet (--tcp-established); --tcp-close closes it",
				 local, remote);
	return refuse_fd(f, "a TCP connection from %s to %s; use --tcp-close to have it closed in the restored program, or "
			    "--tcp-established to keep it", local, remote);
}

/* Connections that wait to be accepted: include/uapi/linux/tcp.h has no names for what net/ipv4/tcp.c tells here. */
static int collect_listener(struct dump *d, struct fd_entry *f, struct rec_inet *r, const struct tcp_info *info)
{
	char local[80];
	r->state = INET_LISTENING;
	r->backlog = info->tcpi_sacked;
	address_text(r->local, local, sizeof local);
	if (info->tcpi_unacked && !d->opt->tcp_close)
		return refuse_fd(f, "a TCP socket listening on %s where %u connections wait to be accepted; try again, or reset them with "
				    "--tcp-close", local, info->tcpi_unacked);
	return 0;
}

/* New, or what is left of a connection: poll(2) tells its end, and the ends of a new one are not shut. */
static int collect_closed(struct dump *d, struct fd_entry *f, int fd, struct rec_inet *r)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};
	int unread = 0;
	r->state = poll(&p, 1, 0) == 1 && p.revents & POLLRDHUP ? INET_CLOSED : INET_PLAIN;
	if (ioctl(fd, FIONREAD, &unread) == 0 && unread > 0 && !d->opt->tcp_close)
		return refuse_fd(f, "a TCP connection that has ended, with %d bytes that were not read; --tcp-close drops them", unread);
	return 0;
}

/* A queue of datagrams can only be read by taking them. */
static int collect_udp(const struct fd_entry *f, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (get_int(fd, IPPROTO_UDP, UDP_CORK, 0))
		return refuse_fd(f, "a UDP socket with a datagram begun (UDP_CORK)");
	if (poll(&p, 1, 0) == 1 && p.revents & POLLIN)
		return refuse_fd(f, "a UDP socket with datagrams that nobody has read yet; try again when they are read");
	return 0;
}

static int collect_state(struct dump *d, struct fd_entry *f, int fd, struct rec_inet *r)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof info;
	r->state = r->remote_len ? INET_CONNECTED : INET_PLAIN;
	if (r->protocol == IPPROTO_UDP)
		return collect_udp(f, fd);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return fail_errno("pid %d (%s) fd %d: the state of its TCP socket", f->process->pid, f->process->comm, f->fd);
	if (info.tcpi_state == TCP_LISTEN)
		return collect_listener(d, f, r, &info);
	r->remote_len = info.tcpi_state == TCP_CLOSE ? 0 : r->remote_len;
	if (info.tcpi_state == TCP_CLOSE)
		return collect_closed(d, f, fd, r);
	if (!d->opt->tcp_close)
		return refuse_connection(f, r, d->opt->tcp_established);
	r->state = INET_CLOSED;
	return 0;
}

/* A socket that is in the group is told its filter, others EADDRNOTAVAIL (net/ipv4/igmp.c ip_mc_gsfget). */
static bool is_member(int fd, int level, uint32_t interface, const void *address, size_t len)
{
	struct group_filter g = {.gf_interface = interface};
	socklen_t size = sizeof g;
	memcpy(&g.gf_group, address, len);
	return getsockopt(fd, level, MCAST_MSFILTER, &g, &size) == 0;
}

static bool in_group4(int fd, const char *text)
{
	uint32_t interface = 0, group;
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (*line >= '0' && *line <= '9')
			interface = strtoul(line, NULL, 10);
		else if (sscanf(line, "\t\t\t\t%8X", &group) == 1) {
			struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = group};
			if (is_member(fd, IPPROTO_IP, interface, &a, sizeof a))
				return true;
		}
	}
	return false;
}

static bool in_group6(int fd, const char *text)
{
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		uint32_t interface, byte;
		char hex[33];
		line += *line == '\n';
		struct sockaddr_in6 a = {.sin6_family = AF_INET6};
		if (sscanf(line, "%u %*s %32[0-9a-f]", &interface, hex) != 2 || strlen(hex) != 32)
			continue;
		for (int i = 0; i < 16; i++) {
			sscanf(hex + 2 * i, "%2x", &byte);
			a.sin6_addr.s6_addr[i] = byte;
		}
		if (is_member(fd, IPPROTO_IPV6, interface, &a, sizeof a))
			return true;
	}
	return false;
}

static int check_groups(const struct fd_entry *f, int fd, const struct rec_inet *r)
{
	autofree char *v4 = proc_read(NULL, "/proc/%d/net/igmp", f->process->host->tid);
	autofree char *v6 = r->domain == AF_INET6 ? proc_read(NULL, "/proc/%d/net/igmp6", f->process->host->tid) : NULL;
	if ((v4 && in_group4(fd, v4)) || (v6 && in_group6(fd, v6)))
		return refuse_fd(f, "a socket that has joined a multicast group, which cannot be dumped");
	return 0;
}

static int collect_options(struct fd_entry *f, int fd, struct rec_inet *r, struct rec_inet_option *out)
{
	int locked = get_int(fd, SOL_SOCKET, SO_BUF_LOCK, BUF_LOCK_SEND | BUF_LOCK_RECEIVE);
	socklen_t len = 0;
	/* SO_GET_FILTER: how many instructions are attached */
	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &len) == 0 && len)
		return refuse_fd(f, "a socket with a packet filter (SO_ATTACH_FILTER), which cannot be dumped");
	for (size_t i = 0; i < N_OPTIONS; i++) {
		struct rec_inet_option *o = &out[r->n_options];
		*o = (struct rec_inet_option){.level = options[i].level, .name = options[i].name};
		len = options[i].len;
		if (!has_option(r, options[i].level, options[i].name) || getsockopt(fd, options[i].level, options[i].name, o->value, &len))
			continue;
		o->len = len;
		r->n_options++;
	}
	/* what is told is twice what was asked for: net/core/sock.c __sock_set_rcvbuf */
	if (locked & BUF_LOCK_SEND)
		r->send_buffer = get_int(fd, SOL_SOCKET, SO_SNDBUF, 0) / 2;
	if (locked & BUF_LOCK_RECEIVE)
		r->receive_buffer = get_int(fd, SOL_SOCKET, SO_RCVBUF, 0) / 2;
	return check_groups(f, fd, r);
}

static uint32_t take_address(int (*get)(int, struct sockaddr *restrict, socklen_t *restrict), int fd, uint8_t *out)
{
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof a;
	if (get(fd, (void *)&a, &len) || len > 28)
		return 0;
	memcpy(out, &a, len);
	return len;
}

static bool is_bound(const uint8_t *address)
{
	struct sockaddr_in a;
	memcpy(&a, address, sizeof a);
	return a.sin_port; /* sin6_port lies at the same place */
}

static int get_local(int fd, struct sockaddr *restrict a, socklen_t *restrict len)
{
	return getsockname(fd, a, len);
}

static int get_remote(int fd, struct sockaddr *restrict a, socklen_t *restrict len)
{
	return getpeername(fd, a, len);
}

static int collect_socket(struct dump *d, struct fd_entry *f, int fd, int domain)
{
	struct rec_inet r = {
		.d = {.id = f->description, .flags = f->flags},
		.domain = domain,
		.type = get_int(fd, SOL_SOCKET, SO_TYPE, 0),
		.protocol = get_int(fd, SOL_SOCKET, SO_PROTOCOL, 0),
	};
	struct rec_inet_option found[N_OPTIONS];
	if (r.protocol != IPPROTO_TCP && r.protocol != IPPROTO_UDP)
		return refuse_fd(f, "an internet socket of type %u and protocol %u, neither TCP nor UDP, which cannot be dumped", r.type,
				 r.protocol);
	r.local_len = take_address(get_local, fd, r.local);
	r.remote_len = take_address(get_remote, fd, r.remote);
	if (collect_state(d, f, fd, &r) || collect_options(f, fd, &r, found))
		return -1;
	if (!is_bound(r.local) || r.state == INET_CLOSED)
		r.local_len = 0;
	return notes_add_record(&d->tree, REC_INET, &r, sizeof r, found, r.n_options * sizeof *found);
}

static int inet_collect_fd(struct dump *d, struct fd_entry *f)
{
	if (!S_ISSOCK(f->st.st_mode) || f->flags & O_PATH)
		return 0;
	autoclose int fd = copy_fd(f);
	if (fd < 0)
		return -1;
	int domain = get_int(fd, SOL_SOCKET, SO_DOMAIN, 0);
	if (domain != AF_INET && domain != AF_INET6)
		return 0;
	return collect_socket(d, f, fd, domain) ? -1 : 1;
}

/* ---- restore ---- */

static int check_record(const struct restore *re, const struct record *rec, const struct rec_inet *r)
{
	if ((r->domain != AF_INET && r->domain != AF_INET6) || r->n_options > rec->tail_len / sizeof(struct rec_inet_option) ||
	    r->local_len > sizeof r->local || r->remote_len > sizeof r->remote || r->state < INET_PLAIN || r->state > INET_CLOSED ||
	    (r->protocol != IPPROTO_TCP && r->protocol != IPPROTO_UDP) || (r->type != SOCK_STREAM && r->type != SOCK_DGRAM))
		return fail("%s: the socket at offset %zu is impossible", re->tree.name, rec->offset);
	return 0;
}

/* Only what differs from a new socket's is set: what needs privilege is not touched without need. */
static int set_options(int fd, const struct rec_inet *r, const struct record *rec)
{
	for (uint32_t i = 0; i < r->n_options; i++) {
		struct rec_inet_option o;
		uint8_t now[OPTION_MAX] = {0};
		socklen_t len = sizeof now;
		memcpy(&o, rec->tail + i * sizeof o, sizeof o);
		if (o.len > sizeof o.value)
			return fail("tree: socket option %u of %u bytes is impossible", o.name, o.len);
		if (getsockopt(fd, o.level, o.name, now, &len) == 0 && len == o.len && memcmp(now, o.value, len) == 0)
			continue;
		if (setsockopt(fd, o.level, o.name, o.value, o.len))
			return fail_errno("socket option %u of level %u (SO_MARK and the like need CAP_NET_ADMIN)", o.name, o.level);
	}
	const struct {
		int forced, plain;
		uint32_t size;
	} buffers[] = {{SO_SNDBUFFORCE, SO_SNDBUF, r->send_buffer}, {SO_RCVBUFFORCE, SO_RCVBUF, r->receive_buffer}};
	for (int i = 0; i < 2; i++)
		/* more than net.core.rmem_max needs CAP_NET_ADMIN: without it as much as there is */
		if (buffers[i].size && setsockopt(fd, SOL_SOCKET, buffers[i].forced, &buffers[i].size, 4) &&
		    setsockopt(fd, SOL_SOCKET, buffers[i].plain, &buffers[i].size, 4))
			return fail_errno("the size of a socket's buffer");
	return 0;
}

/* The connections of the program that was dumped may still be winding up: its address is taken all the same. */
static int take_name(int fd, const struct rec_inet *r)
{
	char text[80];
	int on = 1, before = get_int(fd, SOL_SOCKET, SO_REUSEADDR, 0);
	address_text(r->local, text, sizeof text);
	if (r->protocol == IPPROTO_TCP)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (const void *)r->local, r->local_len))
		return fail_errno("a socket's address %s", text);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &before, sizeof before);
	return 0;
}

static int make_socket(int fd, const struct rec_inet *r, const struct record *rec)
{
	char text[80];
	if (set_options(fd, r, rec) || (r->local_len && take_name(fd, r)))
		return -1;
	address_text(r->state == INET_CONNECTED ? r->remote : r->local, text, sizeof text);
	if (r->state == INET_LISTENING && listen(fd, r->backlog))
		return fail_errno("listening on %s", text);
	if (r->state == INET_CONNECTED && connect(fd, (const void *)r->remote, r->remote_len))
		return fail_errno("connecting a UDP socket to %s", text);
	/* ENOTCONN is what it says; it is shut all the same (net/ipv4/af_inet.c inet_shutdown) */
	if (r->state == INET_CLOSED)
		shutdown(fd, SHUT_RDWR);
	if (fcntl(fd, F_SETFL, r->d.flags & (O_NONBLOCK | O_ASYNC)))
		return fail_errno("the flags of a socket");
	return 0;
}

static int inet_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_inet r;
	if (record_get(&re->tree, rec, &r, sizeof r) || check_record(re, rec, &r))
		return -1;
	*id = r.d.id;
	int fd = socket(r.domain, r.type | SOCK_CLOEXEC, r.protocol);
	if (fd < 0)
		return fail_errno("a socket");
	if (make_socket(fd, &r, rec)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- show ---- */

static void print_inet(struct json *j, const struct image_file *f, const struct record *rec)
{
	static const char *const states[] = {"?", "plain", "listening", "connected", "closed"};
	struct rec_inet r;
	char text[80];
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_string(j, "protocol", r.protocol == IPPROTO_TCP ? "tcp" : "udp");
	json_string(j, "state", r.state <= INET_CLOSED ? states[r.state] : states[0]);
	if (r.local_len) {
		address_text(r.local, text, sizeof text);
		json_string(j, "local", text);
	}
	if (r.remote_len) {
		address_text(r.remote, text, sizeof text);
		json_string(j, "remote", text);
	}
	if (r.state == INET_LISTENING)
		json_uint(j, "backlog", r.backlog);
	json_octal(j, "flags", r.d.flags);
	json_uint(j, "options", r.n_options);
}

static const struct record_printer printers[] = {{REC_INET, "inet", print_inet}, {0, NULL, NULL}};

const struct kind inet_kind = {
	.name = "inet",
	.collect_fd = inet_collect_fd,
	.opens = {REC_INET},
	.open = inet_open,
	.printers = printers,
};
