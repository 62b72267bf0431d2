/*
 * Serves one socket until it ends. It makes system calls that the dumper asks for, and nothing else; what it decides
 * itself is how to leave when the dumper is gone: it closes what it was given and returns to its head, which unmaps us.
 */
#include "pie.h"
#include "protocol.h"

enum { AF_UNIX_ = 1, SOCK_SEQPACKET_ = 5, SOCK_CLOEXEC_ = 02000000, MSG_NOSIGNAL_ = 0x4000, SOL_SOCKET_ = 1, SCM_RIGHTS_ = 1, SO_PEEK_OFF_ = 42 };

struct pie_iovec {
	void *base;
	size_t len;
};
struct pie_msghdr {
	void *name;
	int namelen;
	struct pie_iovec *iov;
	size_t iovlen;
	void *control;
	size_t controllen;
	unsigned flags;
};
struct pie_cmsg_fd {
	size_t len;
	int level, type;
	int fd, pad;
};

struct batch __export_parasite_batch __attribute__((visibility("hidden")));
int __export_parasite_socks[2] __attribute__((visibility("hidden")));

static int kept[BATCH_FDS];
static unsigned n_kept;

/* The socket whose SO_PEEK_OFF the dumper has had set: what it does not take back itself, we do when it is gone. */
static int peeked = -1;

/* What a call leaves that would outlive us. */
static void take_note(const struct batch_call *c, const uint64_t *a)
{
	if (c->nr == __NR_setsockopt && a[1] == SOL_SOCKET_ && a[2] == SO_PEEK_OFF_ && c->ret == 0)
		peeked = *(const int *)a[3] >= 0 ? (int)a[0] : -1;
	if (c->nr == __NR_close)
		for (unsigned i = 0; i < n_kept; i++)
			if (kept[i] == (int)a[0]) {
				kept[i] = kept[--n_kept];
				break;
			}
}

static void run_batch(struct batch *b)
{
	for (unsigned i = 0; i < b->n && i < BATCH_CALLS; i++) {
		struct batch_call *c = &b->calls[i];
		uint64_t a[6];
		for (int k = 0; k < 6; k++)
			a[k] = c->data_args & 1u << k ? (uint64_t)b->data + c->args[k] : c->args[k];
		c->ret = pie_syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
		take_note(c, a);
	}
}

/* 1: a request has come; 0: the dumper is gone. */
static int receive(int sock, struct batch *b)
{
	uint32_t word;
	struct pie_iovec iov = {&word, sizeof word};
	struct pie_cmsg_fd c;
	struct pie_msghdr m = {.iov = &iov, .iovlen = 1, .control = &c, .controllen = sizeof c};
	long n;
	do
		n = SYS3(__NR_recvmsg, sock, &m, 0);
	while (n == -EINTR);
	if (n != sizeof word)
		return 0;
	b->received = -1;
	if (m.controllen >= 20 && c.level == SOL_SOCKET_ && c.type == SCM_RIGHTS_) {
		if (n_kept < BATCH_FDS) {
			kept[n_kept++] = c.fd;
			b->received = c.fd;
		} else {
			SYS1(__NR_close, c.fd);
		}
	}
	return 1;
}

int parasite_main(void)
{
	int *socks = __export_parasite_socks;
	if (SYS4(__NR_socketpair, AF_UNIX_, SOCK_SEQPACKET_ | SOCK_CLOEXEC_, 0, socks) < 0)
		return -1;
	/* The tracer stops us at this call's entry and takes its end; if it does not, end of file follows at once. */
	SYS1(__NR_close, socks[1]);
	while (receive(socks[0], &__export_parasite_batch)) {
		run_batch(&__export_parasite_batch);
		uint32_t word = 0;
		if (SYS6(__NR_sendto, socks[0], &word, sizeof word, MSG_NOSIGNAL_, 0, 0) < 0)
			break;
	}
	const int off = -1;
	if (peeked >= 0)
		SYS5(__NR_setsockopt, peeked, SOL_SOCKET_, SO_PEEK_OFF_, &off, sizeof off);
	for (unsigned i = 0; i < n_kept; i++)
		SYS1(__NR_close, kept[i]);
	return socks[0];
}
