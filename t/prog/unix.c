/*
 * Unix sockets, one case a run (the first argument). What is in flight is read in the last of three rounds; before that the
 * program looks whether it is there by peeking.
 */
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "target.h"

#define LAST 4 /* rounds: before any dump, after dump -R, after each of two restores */
static int round_now;

static int pair[2], other[2], third[2];

static void make_pair(int type, int fd[2])
{
	if (socketpair(AF_UNIX, type, 0, fd))
		fatal("socketpair");
}

static void put(int fd, const void *data, size_t n)
{
	if (write(fd, data, n) != (ssize_t)n)
		fatal("write to a socket");
}

static int get_is(int fd, const char *want, int flags)
{
	char buf[65536];
	ssize_t n = recv(fd, buf, sizeof buf, flags | MSG_DONTWAIT);
	if (n != (ssize_t)strlen(want) || memcmp(buf, want, (size_t)n))
		return wrong("fd %d gave %zd bytes instead of \"%s\": %s", fd, n, want, n < 0 ? strerror(errno) : buf);
	return 0;
}

static int option_is(int fd, int option, int want, const char *what)
{
	int v = -1;
	socklen_t len = sizeof v;
	if (getsockopt(fd, SOL_SOCKET, option, &v, &len) || v != want)
		return wrong("fd %d: %s is %d instead of %d", fd, what, v, want);
	return 0;
}

/* Both ways, without touching what waits: only where nothing does. */
static int talks(int a, int b)
{
	return write(a, "there", 5) != 5 || get_is(b, "there", 0) || write(b, "back", 4) != 4 || get_is(a, "back", 0)
		       ? wrong("%d and %d do not talk: %s", a, b, strerror(errno))
		       : 0;
}

static int cred_is(int fd, pid_t pid)
{
	struct ucred c = {0};
	socklen_t len = sizeof c;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) || c.pid != pid || c.uid != geteuid() || c.gid != getegid())
		return wrong("the peer of %d is pid %d uid %u gid %u, not pid %d", fd, c.pid, c.uid, c.gid, pid);
	return 0;
}

static socklen_t address(struct sockaddr_un *a, const char *name)
{
	memset(a, 0, sizeof *a);
	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof a->sun_path, "%s", name);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1);
	if (name[0] == '@')
		a->sun_path[0] = 0, len--;
	return len;
}

static int name_is(int fd, int (*get)(int, struct sockaddr *, socklen_t *), const char *name)
{
	struct sockaddr_un want, got = {0};
	socklen_t want_len = name ? address(&want, name) : 2, len = sizeof got;
	if (get(fd, (void *)&got, &len) || len != want_len || (name && memcmp(got.sun_path, want.sun_path, want_len - 2)))
		return wrong("the name of %d or its peer is not %s but (%u bytes) %s", fd, name ? name : "empty", len,
			     got.sun_path + !got.sun_path[0]);
	return 0;
}

static int own_name(int fd, struct sockaddr *a, socklen_t *len)
{
	return getsockname(fd, a, len);
}

static int peer_name(int fd, struct sockaddr *a, socklen_t *len)
{
	return getpeername(fd, a, len);
}

static int bound(int type, const char *name)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, type, 0);
	socklen_t len = address(&a, name);
	if (fd < 0 || bind(fd, (void *)&a, len))
		fatal(name);
	return fd;
}

static void connect_name(int fd, const char *name)
{
	struct sockaddr_un a;
	socklen_t len = address(&a, name);
	if (connect(fd, (void *)&a, len))
		fatal(name);
}

/* ---- pairs of each type, their options ---- */

static int big;

static void pairs_set_up(void)
{
	int on = 1;
	struct timeval t = {5, 250000};
	make_pair(SOCK_STREAM, pair);
	make_pair(SOCK_DGRAM | SOCK_NONBLOCK, other);
	make_pair(SOCK_SEQPACKET, third);
	big = 50000;
	if (setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof big) || setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) ||
	    setsockopt(other[1], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t))
		fatal("setsockopt");
	if (fork() == 0) /* shares them, and talks to nobody */
		for (;;)
			pause();
}

static int pairs_check(void)
{
	struct timeval t;
	socklen_t len = sizeof t;
	if (talks(pair[0], pair[1]) || talks(other[0], other[1]) || talks(third[0], third[1]) || cred_is(pair[0], getpid()) ||
	    cred_is(third[1], getpid()) || option_is(pair[0], SO_SNDBUF, 2 * big, "SO_SNDBUF") ||
	    option_is(pair[1], SO_PASSCRED, 1, "SO_PASSCRED") || option_is(pair[0], SO_PASSCRED, 0, "SO_PASSCRED") ||
	    option_is(other[0], SO_TYPE, SOCK_DGRAM, "SO_TYPE") || option_is(third[0], SO_PEEK_OFF, -1, "SO_PEEK_OFF") ||
	    name_is(pair[0], own_name, NULL))
		return -1;
	if (getsockopt(other[1], SOL_SOCKET, SO_RCVTIMEO, &t, &len) || t.tv_sec != 5)
		return wrong("SO_RCVTIMEO");
	if (fcntl(other[0], F_GETFL) != (O_RDWR | O_NONBLOCK) || fcntl(pair[0], F_GETFL) != O_RDWR)
		return wrong("flags");
	return 0;
}

/* ---- in flight: data, several messages, descriptors, credentials ---- */

static int pipe_end[2], shut[2];
static uint8_t stream[100000];

static void send_fd(int to, int fd, const char *text)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c = {.h = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {(void *)text, strlen(text)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c.room};
	memcpy(CMSG_DATA(&c.h), &fd, sizeof fd);
	if (sendmsg(to, &m, 0) < 0)
		fatal("sendmsg");
}

/* Text, and whatever came with it: a descriptor (-1: none), who sent it (0: not told). */
static int receive(int from, const char *want, int *fd, pid_t *pid)
{
	char control[256] __attribute__((aligned(8))), buf[256];
	struct iovec iov = {buf, sizeof buf};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(from, &m, MSG_DONTWAIT);
	*fd = -1;
	*pid = 0;
	if (n != (ssize_t)strlen(want) || memcmp(buf, want, (size_t)n))
		return wrong("instead of \"%s\" came %zd bytes: %s", want, n, n < 0 ? strerror(errno) : buf);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_type == SCM_RIGHTS)
			memcpy(fd, CMSG_DATA(c), sizeof *fd);
		if (c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred u;
			memcpy(&u, CMSG_DATA(c), sizeof u);
			*pid = u.pid;
		}
	}
	return 0;
}

static void flight_set_up(void)
{
	int on = 1, inner[2];
	make_pair(SOCK_STREAM, pair);
	make_pair(SOCK_DGRAM, other);
	make_pair(SOCK_SEQPACKET, third);
	make_pair(SOCK_STREAM, shut);
	if (pipe(pipe_end) || setsockopt(third[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on))
		fatal("pipe");
	put(pipe_end[1], "in the pipe", 11);
	for (size_t i = 0; i < sizeof stream; i++)
		stream[i] = (uint8_t)(i * 31 >> 3);
	put(pair[0], stream, sizeof stream);
	put(other[0], "first", 5);
	send_fd(other[0], pipe_end[0], "with a pipe");
	put(other[0], "last", 4);
	/* a socket that is on its way, with a message of its own */
	make_pair(SOCK_STREAM, inner);
	put(inner[0], "inner", 5);
	put(third[0], "one", 3);
	pid_t pid = fork();
	if (!pid)
		_exit(write(third[0], "from one that is gone", 21) != 21);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		fatal("fork");
	send_fd(third[0], inner[1], "two");
	close(inner[1]);
	close(inner[0]);
	close(pipe_end[0]);
	put(shut[0], "before the end", 14);
	shutdown(shut[0], SHUT_WR);
}

static int flight_take(void)
{
	static uint8_t got[sizeof stream];
	char text[16];
	int fd, none;
	pid_t pid;
	if (recv(pair[1], got, sizeof got, MSG_WAITALL | MSG_DONTWAIT) != sizeof got || memcmp(got, stream, sizeof got))
		return wrong("the stream's data are not what was sent");
	if (receive(other[1], "first", &none, &pid) || none >= 0 || receive(other[1], "with a pipe", &fd, &pid))
		return wrong("a descriptor with the first message");
	if (read(fd, text, sizeof text) != 11 || memcmp(text, "in the pipe", 11))
		return wrong("the pipe that was on its way is not what it was");
	close(fd);
	if (receive(other[1], "last", &none, &pid) || receive(third[1], "one", &none, &pid))
		return -1;
	if (pid != getpid())
		return wrong("the sender is told as %d", pid);
	if (receive(third[1], "from one that is gone", &none, &pid) || receive(third[1], "two", &fd, &pid) || get_is(fd, "inner", 0) || recv(fd, text, 1, MSG_DONTWAIT) != 0)
		return wrong("the socket that was on its way: %s", strerror(errno));
	close(fd);
	return get_is(shut[1], "before the end", 0);
}

static int flight_check(void)
{
	char c;
	if (++round_now < LAST) {
		if (get_is(other[1], "first", MSG_PEEK) || get_is(third[1], "one", MSG_PEEK) || get_is(shut[1], "before the end", MSG_PEEK))
			return -1;
	} else if (round_now == LAST && flight_take()) {
		return -1;
	}
	if (send(shut[0], "x", 1, MSG_NOSIGNAL) != -1 || errno != EPIPE)
		return wrong("a direction that was shut takes a byte");
	if (round_now >= LAST && recv(shut[1], &c, 1, MSG_DONTWAIT) != 0)
		return wrong("the end of a stream is not seen");
	return write(shut[1], "there", 5) == 5 ? get_is(shut[0], "there", 0) : wrong("the open direction: %s", strerror(errno));
}

/* For a dumper that is killed: nothing is taken, and nothing of the sockets' state may stay changed. */
static int peek_check(void)
{
	if (get_is(other[1], "first", MSG_PEEK) || get_is(third[1], "one", MSG_PEEK) || get_is(shut[1], "before the end", MSG_PEEK))
		return -1;
	for (int fd = pair[0]; fd <= shut[1]; fd++)
		if (option_is(fd, SO_PEEK_OFF, -1, "SO_PEEK_OFF"))
			return -1;
	return 0;
}

/* ---- listening, accepted, waiting ---- */

static int by_path, by_name, client, server, waiting, gone_server;
static pid_t client_pid;
static int to_client[2];

static void listen_child(const char *name)
{
	char c;
	client = socket(AF_UNIX, SOCK_STREAM, 0);
	connect_name(client, name);
	while (read(to_client[0], &c, 1) == 1)
		if (cred_is(client, getppid()) || write(client, "child", 5) != 5)
			_exit(1);
	_exit(0);
}

static char abstract[64], gone_name[64];

static void listen_set_up(void)
{
	snprintf(abstract, sizeof abstract, "@criu-lite-test-%d", getpid());
	snprintf(gone_name, sizeof gone_name, "@criu-lite-gone-%d", getpid());
	by_path = bound(SOCK_STREAM, "a socket"); /* relative to where we are */
	by_name = bound(SOCK_SEQPACKET, abstract);
	if (listen(by_path, 5) || listen(by_name, 3) || chmod("a socket", 0640) || pipe(to_client))
		fatal("listen");
	if ((client_pid = fork()) == 0)
		listen_child("a socket");
	if ((server = accept(by_path, NULL, NULL)) < 0)
		fatal("accept");
	waiting = bound(SOCK_SEQPACKET, "waiting");
	connect_name(waiting, abstract);
	/* a connection whose listener was closed: both ends here */
	int l = bound(SOCK_STREAM, gone_name);
	if (listen(l, 1) || (gone_server = socket(AF_UNIX, SOCK_STREAM, 0)) < 0)
		fatal("listen");
	connect_name(gone_server, gone_name);
	other[0] = gone_server;
	if ((other[1] = accept(l, NULL, NULL)) < 0)
		fatal("accept");
	close(l);
}

static int one_more(int l, int type, const char *name)
{
	int c = socket(AF_UNIX, type, 0);
	connect_name(c, name);
	int s = accept(l, NULL, NULL);
	int ret = s < 0 || talks(c, s) ? wrong("%s does not accept: %s", name, strerror(errno)) : 0;
	close(c);
	close(s);
	return ret;
}

static int listen_check(void)
{
	struct stat st;
	char buf[8];
	if (option_is(by_path, SO_ACCEPTCONN, 1, "SO_ACCEPTCONN") || name_is(by_path, own_name, "a socket") ||
	    name_is(by_name, own_name, abstract) || name_is(server, own_name, "a socket") || name_is(server, peer_name, NULL) ||
	    name_is(other[1], own_name, gone_name) || talks(other[0], other[1]) || cred_is(server, client_pid) ||
	    one_more(by_path, SOCK_STREAM, "a socket"))
		return -1;
	if (stat("a socket", &st) || (st.st_mode & 0777) != 0640)
		return wrong("its file's mode is %o", st.st_mode);
	if (write(to_client[1], "", 1) != 1 || recv(server, buf, sizeof buf, 0) != 5)
		return wrong("the client does not write: %s", strerror(errno));
	if (++round_now < LAST) {
		struct pollfd p = {.fd = by_name, .events = POLLIN};
		return poll(&p, 1, 0) == 1 ? 0 : wrong("nobody waits to be accepted");
	}
	if (round_now > LAST)
		return 0;
	int s = accept(by_name, NULL, NULL);
	return s < 0 || name_is(s, peer_name, "waiting") || cred_is(s, getpid()) || talks(s, waiting) ? -1 : 0;
}

/* ---- datagrams: names of every kind, connected one way, messages from several ---- */

static int receiver, sender, nameless;

static void dgram_set_up(void)
{
	char path[128];
	if (!getcwd(path, sizeof path - 16))
		fatal("getcwd");
	strcat(path, "/receiver");
	receiver = bound(SOCK_DGRAM, strlen(path) < 100 ? path : "receiver");
	snprintf(abstract, sizeof abstract, "@criu-lite-test-%d", getpid());
	sender = bound(SOCK_DGRAM, abstract);
	connect_name(sender, strlen(path) < 100 ? path : "receiver");
	nameless = socket(AF_UNIX, SOCK_DGRAM, 0);
	connect_name(nameless, "receiver");
	put(sender, "named", 5);
	put(nameless, "nameless", 8);
	put(sender, "again", 5);
}

static int from_is(const char *want, const char *name, int flags)
{
	char buf[64];
	struct sockaddr_un a, expected;
	socklen_t len = sizeof a, expect = name ? address(&expected, name) : 0;
	ssize_t n = recvfrom(receiver, buf, sizeof buf, flags | MSG_DONTWAIT, (void *)&a, &len);
	if (n != (ssize_t)strlen(want) || memcmp(buf, want, (size_t)n))
		return wrong("instead of %s came %zd: %s", want, n, strerror(errno));
	if (name ? len != expect || memcmp(a.sun_path, expected.sun_path, len - 2) : len > 2)
		return wrong("%s came from another name (%u bytes)", want, len);
	return 0;
}

static int dgram_check(void)
{
	if (++round_now < LAST)
		return from_is("named", abstract, MSG_PEEK);
	if (round_now == LAST && (from_is("named", abstract, 0) || from_is("nameless", NULL, 0) || from_is("again", abstract, 0)))
		return -1;
	put(nameless, "x", 1);
	put(sender, "y", 1);
	return from_is("x", NULL, 0) || from_is("y", abstract, 0) ? -1 : 0;
}

/* ---- the other end was closed ---- */

static void closed_set_up(void)
{
	make_pair(SOCK_STREAM, pair);
	make_pair(SOCK_DGRAM, other);
	put(pair[0], "left", 4);
	close(pair[0]);
	put(other[0], "left too", 8);
	close(other[0]);
}

static int closed_check(void)
{
	char c;
	if (++round_now <= LAST &&
	    (get_is(pair[1], "left", round_now < LAST ? MSG_PEEK : 0) || get_is(other[1], "left too", round_now < LAST ? MSG_PEEK : 0)))
		return -1;
	if (send(pair[1], "x", 1, MSG_NOSIGNAL) != -1 || errno != EPIPE || (round_now >= LAST && recv(pair[1], &c, 1, 0) != 0))
		return wrong("a closed stream: %s", strerror(errno));
	return 0;
}

/* ---- half of a pair in the child, for refusals; a datagram socket outside ---- */

static void half_set_up(void)
{
	make_pair(SOCK_STREAM, pair);
	pid_t pid = fork();
	if (!pid) {
		close(pair[0]);
		for (;;)
			pause();
	}
	close(pair[1]);
}

static int half_check(void)
{
	return write(pair[0], "x", 1) == 1 ? 0 : wrong("write: %s", strerror(errno));
}

static void external_set_up(void)
{
	sender = socket(AF_UNIX, SOCK_DGRAM, 0);
	connect_name(sender, getenv("EXTERNAL"));
}

static int external_check(void)
{
	return write(sender, "x", 1) == 1 ? name_is(sender, peer_name, getenv("EXTERNAL")) : wrong("write: %s", strerror(errno));
}

static void log_set_up(void)
{
	receiver = bound(SOCK_DGRAM, getenv("EXTERNAL"));
}

static int log_check(void)
{
	return get_is(receiver, "x", 0);
}

static const struct {
	const char *name;
	void (*set_up)(void);
	int (*check)(void);
} cases[] = {
	{"pairs", pairs_set_up, pairs_check}, {"flight", flight_set_up, flight_check}, {"peek", flight_set_up, peek_check},
	{"listen", listen_set_up, listen_check},
	{"dgram", dgram_set_up, dgram_check}, {"closed", closed_set_up, closed_check}, {"half", half_set_up, half_check},
	{"external", external_set_up, external_check}, {"log", log_set_up, log_check},
};

int main(int argc, char **argv)
{
	target_block_signals();
	for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].set_up();
			return target_loop(cases[i].check);
		}
	fatal("which case?");
}
