#include "lib/parasite.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/error.h"

static struct batch the_batch;
static size_t data_used;

struct batch *batch_begin(void)
{
	the_batch.n = 0;
	data_used = 0;
	return &the_batch;
}

long batch_room(size_t len)
{
	len = (len + 15) & ~15ul;
	if (len > sizeof the_batch.data - data_used)
		return fail("a request to the parasite is too large");
	long at = data_used;
	memset(the_batch.data + at, 0, len);
	data_used += len;
	return at;
}

void *batch_data(long offset)
{
	return the_batch.data + offset;
}

int batch_add(uint32_t data_args, long nr, long a, long b, long c, long d, long e, long f)
{
	if (the_batch.n == BATCH_CALLS)
		return fail("a request to the parasite has too many calls");
	the_batch.calls[the_batch.n] = (struct batch_call){.nr = nr, .args = {a, b, c, d, e, f}, .data_args = data_args};
	return the_batch.n++;
}

int64_t batch_result(int index)
{
	return the_batch.calls[index].ret;
}

/* The batch's used parts, here and there. */
static int copy(struct process *p, bool out)
{
	size_t head = offsetof(struct batch, calls) + the_batch.n * sizeof(struct batch_call);
	size_t data = offsetof(struct batch, data);
	struct iovec here[2] = {{&the_batch, head}, {(char *)&the_batch + data, data_used}};
	struct iovec there[2] = {{(void *)p->parasite.area, head}, {(void *)(p->parasite.area + data), data_used}};
	int n = data_used ? 2 : 1;
	ssize_t got = out ? process_vm_writev(p->host->tid, here, n, there, n, 0) : process_vm_readv(p->host->tid, here, n, there, n, 0);
	if (got != (ssize_t)(head + data_used))
		return fail_errno("pid %d (%s): the parasite's memory cannot be reached", p->pid, p->comm);
	return 0;
}

static int ask(struct process *p, int fd)
{
	uint32_t word = 0;
	struct iovec iov = {&word, sizeof word};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} c;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fd >= 0) {
		m.msg_control = &c;
		m.msg_controllen = sizeof c.room;
		c.h = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&c.h), &fd, sizeof fd);
	}
	if (sendmsg(p->parasite.sock, &m, MSG_NOSIGNAL) != sizeof word)
		return fail_errno("pid %d (%s): sending to the parasite", p->pid, p->comm);
	return 0;
}

static int answer(struct process *p)
{
	uint32_t word;
	ssize_t n;
	do
		n = recv(p->parasite.sock, &word, sizeof word, 0);
	while (n < 0 && errno == EINTR);
	if (n != sizeof word)
		return fail("pid %d (%s): the parasite does not answer: the process may have been killed", p->pid, p->comm);
	return 0;
}

int parasite_run(struct process *p)
{
	return parasite_start(p) || parasite_finish(p) ? -1 : 0;
}

int parasite_start(struct process *p)
{
	return copy(p, true) || ask(p, -1) ? -1 : 0;
}

int parasite_finish(struct process *p)
{
	return answer(p) || copy(p, false) ? -1 : 0;
}

int parasite_give(struct process *p, int fd)
{
	batch_begin();
	if (copy(p, true) || ask(p, fd) || answer(p) || copy(p, false))
		return -1;
	if (the_batch.received < 0)
		return fail("pid %d (%s): a descriptor could not be handed to it (its limit RLIMIT_NOFILE may be reached)", p->pid,
			    p->comm);
	return the_batch.received;
}

int parasite_drop(struct process *p, int fd)
{
	int64_t ret;
	return parasite_call(p, &ret, SYS_close, fd, 0, 0, 0, 0, 0);
}

int parasite_call(struct process *p, int64_t *ret, long nr, long a, long b, long c, long d, long e, long f)
{
	batch_begin();
	batch_add(0, nr, a, b, c, d, e, f);
	if (parasite_run(p))
		return -1;
	*ret = batch_result(0);
	return 0;
}
