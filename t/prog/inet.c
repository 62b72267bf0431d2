/*
 * Internet sockets on loopback. inet CASE:
 *
 *     all          TCP and UDP, IPv4 and IPv6, in every state but connected TCP, with options; all must work
 *     pending      a listening socket with a connection that nobody has accepted
 *     connection   both ends of a TCP connection; once there is a file "closed" they must have ended
 *     multicast    a UDP socket in a group
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "target.h"

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	unsigned char bytes[28];
};

struct option {
	int level, name, set;
	int got[2]; /* as told when ready */
	socklen_t len;
};

struct sock {
	int fd, domain, type;
	union address local, remote;
	socklen_t local_len, remote_len;
	struct option option[12];
	int n_options;
};
static struct sock socks[16];
static int n_socks;
static int have_v6;

static struct sock *new_socket(int domain, int type)
{
	struct sock *s = &socks[n_socks++];
	s->domain = domain;
	s->type = type;
	s->fd = socket(domain, type, 0);
	if (s->fd < 0)
		fatal("socket");
	return s;
}

static void option(struct sock *s, int level, int name, int value)
{
	if (setsockopt(s->fd, level, name, &value, sizeof value) < 0)
		fatal("setsockopt");
	s->option[s->n_options++] = (struct option){.level = level, .name = name};
}

static void bind_loopback(struct sock *s)
{
	union address a = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
	if (s->domain == AF_INET6)
		a.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	if (bind(s->fd, &a.any, s->domain == AF_INET6 ? sizeof a.v6 : sizeof a.v4) < 0)
		fatal("bind");
}

static void take_names(struct sock *s)
{
	s->local_len = sizeof s->local;
	s->remote_len = sizeof s->remote;
	if (getsockname(s->fd, &s->local.any, &s->local_len) < 0)
		s->local_len = 0;
	if (getpeername(s->fd, &s->remote.any, &s->remote_len) < 0)
		s->remote_len = 0;
}

static void take_all(void)
{
	for (int i = 0; i < n_socks; i++) {
		take_names(&socks[i]);
		for (int k = 0; k < socks[i].n_options; k++) {
			struct option *o = &socks[i].option[k];
			o->len = sizeof o->got;
			if (getsockopt(socks[i].fd, o->level, o->name, o->got, &o->len) < 0)
				fatal("getsockopt");
		}
	}
}

static int check_same(struct sock *s)
{
	struct sock now = *s;
	memset(&now.local, 0, sizeof now.local);
	memset(&now.remote, 0, sizeof now.remote);
	take_names(&now);
	if (now.local_len != s->local_len || memcmp(&now.local, &s->local, s->local_len))
		return wrong("fd %d has another address: port %d, then %d", s->fd, ntohs(s->local.v4.sin_port), ntohs(now.local.v4.sin_port));
	if (now.remote_len != s->remote_len || memcmp(&now.remote, &s->remote, s->remote_len))
		return wrong("fd %d is connected to another address", s->fd);
	for (int k = 0; k < s->n_options; k++) {
		const struct option *o = &s->option[k];
		int got[2] = {0};
		socklen_t len = sizeof got;
		if (getsockopt(s->fd, o->level, o->name, got, &len) < 0 || len != o->len || memcmp(got, o->got, len))
			return wrong("fd %d: option %d of level %d was %d %d and is %d %d", s->fd, o->name, o->level, o->got[0],
				     o->got[1], got[0], got[1]);
	}
	return 0;
}

/* ---- what works ---- */

static int exchange(int from, int to, const char *what)
{
	char c = 0;
	struct pollfd p = {.fd = to, .events = POLLIN};
	if (send(from, "x", 1, MSG_NOSIGNAL) != 1 || poll(&p, 1, 20000) != 1 || recv(to, &c, 1, MSG_DONTWAIT) != 1 || c != 'x')
		return wrong("%s: nothing comes through: %s", what, strerror(errno));
	return 0;
}

static int check_listening(const struct sock *s)
{
	int client = socket(s->domain, SOCK_STREAM, 0);
	struct linger at_once = {1, 0}; /* nothing stays in TIME_WAIT */
	setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	if (connect(client, &s->local.any, s->local_len) < 0)
		return wrong("connecting to fd %d: %s", s->fd, strerror(errno));
	int server = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
	if (server < 0)
		return wrong("accepting from fd %d: %s", s->fd, strerror(errno));
	int ret = exchange(client, server, "client to server") || exchange(server, client, "server to client");
	close(client);
	close(server);
	return ret;
}

static struct sock *tcp4, *tcp6, *udp_server, *udp_client;

static void set_up_tcp(void)
{
	struct sock *s = new_socket(AF_INET, SOCK_STREAM);
	struct linger linger = {1, 7};
	option(s, SOL_SOCKET, SO_KEEPALIVE, 1);
	option(s, IPPROTO_TCP, TCP_KEEPIDLE, 61);
	option(s, IPPROTO_TCP, TCP_KEEPINTVL, 11);
	option(s, IPPROTO_TCP, TCP_KEEPCNT, 4);
	option(s, IPPROTO_TCP, TCP_NODELAY, 1);
	option(s, IPPROTO_TCP, TCP_USER_TIMEOUT, 4321);
	option(s, IPPROTO_IP, IP_TOS, 0x10);
	option(s, SOL_SOCKET, SO_PRIORITY, 3);
	option(s, IPPROTO_IP, IP_TTL, 33);
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	s->option[s->n_options++] = (struct option){.level = SOL_SOCKET, .name = SO_LINGER};

	s = new_socket(AF_INET, SOCK_STREAM); /* bound, but no more */
	bind_loopback(s);

	s = tcp4 = new_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
	option(s, SOL_SOCKET, SO_REUSEADDR, 1);
	option(s, SOL_SOCKET, SO_RCVBUF, 30000);
	option(s, SOL_SOCKET, SO_SNDBUF, 50000);
	option(s, IPPROTO_TCP, TCP_FASTOPEN, 5);
	bind_loopback(s);
	if (listen(s->fd, 17) < 0)
		fatal("listen");
	if (!have_v6)
		return;
	s = tcp6 = new_socket(AF_INET6, SOCK_STREAM);
	option(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	option(s, SOL_SOCKET, SO_REUSEPORT, 1);
	bind_loopback(s);
	if (listen(s->fd, 3) < 0)
		fatal("listen");
}

static void set_up_udp(void)
{
	struct sock *s = new_socket(AF_INET, SOCK_DGRAM);
	option(s, SOL_SOCKET, SO_BROADCAST, 1);
	option(s, IPPROTO_IP, IP_MULTICAST_TTL, 3);

	udp_server = new_socket(have_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM);
	option(udp_server, SOL_SOCKET, SO_REUSEADDR, 1);
	bind_loopback(udp_server);
	take_names(udp_server);
	udp_client = new_socket(udp_server->domain, SOCK_DGRAM);
	if (connect(udp_client->fd, &udp_server->local.any, udp_server->local_len) < 0)
		fatal("connect");
}

static int check_all(void)
{
	for (int i = 0; i < n_socks; i++)
		if (check_same(&socks[i]))
			return -1;
	int backlog = 0;
	struct tcp_info info;
	socklen_t len = sizeof info;
	if (getsockopt(tcp4->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
		backlog = (int)info.tcpi_sacked;
	if (backlog != 17)
		return wrong("the backlog is %d, not 17", backlog);
	if (!(fcntl(tcp4->fd, F_GETFL) & O_NONBLOCK) || fcntl(socks[0].fd, F_GETFL) & O_NONBLOCK)
		return wrong("O_NONBLOCK is not as it was");
	if (check_listening(tcp4) || (tcp6 && check_listening(tcp6)))
		return -1;
	return exchange(udp_client->fd, udp_server->fd, "UDP");
}

/* ---- pending, connection ---- */

static int client, server = -1;

static void connect_client(void)
{
	tcp4 = new_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
	option(tcp4, SOL_SOCKET, SO_REUSEADDR, 1);
	bind_loopback(tcp4);
	if (listen(tcp4->fd, 5) < 0)
		fatal("listen");
	take_names(tcp4);
	client = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(client, &tcp4->local.any, tcp4->local_len) < 0)
		fatal("connect");
}

static int check_connection(void)
{
	char c;
	if (check_same(tcp4))
		return -1;
	if (access("closed", F_OK))
		return server < 0 ? 0 : exchange(client, server, "client to server");
	int ends[] = {client, server};
	for (int i = 0; i < 2; i++) {
		if (ends[i] < 0)
			continue;
		ssize_t n = recv(ends[i], &c, 1, MSG_DONTWAIT);
		if (n > 0 || (n < 0 && errno != ECONNRESET))
			return wrong("reading of a closed connection gives %zd: %s", n, strerror(errno));
		if (send(ends[i], "x", 1, MSG_NOSIGNAL) >= 0 || (errno != EPIPE && errno != ECONNRESET))
			return wrong("writing to a closed connection: %s", strerror(errno));
	}
	return check_listening(tcp4);
}

/* ---- */

/* In a network namespace of the test's own loopback is down at first. */
static void raise_loopback(void)
{
	struct ifreq r = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ioctl(fd, SIOCGIFFLAGS, &r) == 0 && !(r.ifr_flags & IFF_UP)) {
		r.ifr_flags |= IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &r);
	}
	close(fd);
	union address a = {.v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}};
	fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	have_v6 = fd >= 0 && bind(fd, &a.any, sizeof a.v6) == 0;
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "all";
	int (*check)(void) = check_connection;
	target_block_signals();
	raise_loopback();
	if (!strcmp(what, "pending") || !strcmp(what, "connection")) {
		connect_client();
		if (what[0] == 'c')
			while ((server = accept(tcp4->fd, NULL, NULL)) < 0)
				pause_ms(1);
	} else if (!strcmp(what, "multicast")) {
		tcp4 = new_socket(AF_INET, SOCK_DGRAM);
		struct ip_mreqn m = {.imr_multiaddr.s_addr = inet_addr("239.1.2.3"), .imr_address.s_addr = htonl(INADDR_LOOPBACK)};
		if (setsockopt(tcp4->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m) < 0)
			fatal("IP_ADD_MEMBERSHIP");
	} else {
		set_up_tcp();
		set_up_udp();
		check = check_all;
	}
	take_all();
	return target_loop(check);
}
