/*
 * Pipes and FIFOs, one case a run (the first argument). Each check looks at what the kernel says and, of contents, reads a
 * part and leaves the rest: a second round finds it.
 */
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "target.h"

static int end[2], more[2], expect_size;
static unsigned int out, in; /* of the numbered bytes: the next to be read, and written */

static void put(size_t n)
{
	while (n--) {
		uint8_t b = in++ * 7;
		if (write(end[1], &b, 1) != 1)
			fatal("write");
	}
}

static int take(size_t n)
{
	while (n--) {
		uint8_t b, want = out++ * 7;
		ssize_t got = read(end[0], &b, 1);
		if (got != 1)
			return wrong("read: %zd, %s", got, strerror(errno));
		if (b != want)
			return wrong("byte %u is %u instead of %u", out - 1, b, want);
	}
	return 0;
}

static int size_is(int fd, int want)
{
	int size = fcntl(fd, F_GETPIPE_SZ);
	return size == want ? 0 : wrong("the pipe's size is %d instead of %d", size, want);
}

static int flags_are(int fd, int want)
{
	int flags = fcntl(fd, F_GETFL);
	return flags == want ? 0 : wrong("flags of %d are %o instead of %o", fd, flags, want);
}

static int same_pipe(int a, int b)
{
	struct stat x, y;
	if (fstat(a, &x) || fstat(b, &y) || x.st_ino != y.st_ino)
		return wrong("%d and %d are not ends of one pipe", a, b);
	return 0;
}

/* ---- contents: more than one page, a size of its own, descriptors with flags of their own ---- */

static void contents_set_up(void)
{
	if (pipe2(end, O_CLOEXEC) || fcntl(end[1], F_SETPIPE_SZ, 262144) != 262144)
		fatal("pipe2");
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", end[0]);
	more[0] = open(path, O_RDONLY | O_NONBLOCK);
	more[1] = dup(end[1]);
	if (more[0] < 0 || more[1] < 0)
		fatal("a second reader");
	expect_size = 262144;
	put(100000);
}

static int contents_check(void)
{
	int n = 0;
	if (size_is(end[0], expect_size) || flags_are(end[0], O_RDONLY) || flags_are(end[1], O_WRONLY) ||
	    flags_are(more[0], O_RDONLY | O_NONBLOCK | 0100000) || same_pipe(end[0], end[1]) || same_pipe(end[0], more[0]))
		return -1;
	if (ioctl(end[0], FIONREAD, &n) || n != (int)(in - out))
		return wrong("%d bytes are in it instead of %u", n, in - out);
	if (take(7001))
		return -1;
	put(101);
	/* what is done to one of two that share a description is seen by the other */
	if (fcntl(more[1], F_SETFL, O_NONBLOCK) || !(fcntl(end[1], F_GETFL) & O_NONBLOCK) || fcntl(more[1], F_SETFL, 0))
		return wrong("a dup is no dup any more");
	return 0;
}

/* ---- packets ---- */

static const size_t packet[] = {1, 10, 4096, 3, 100, 1, 5};
static unsigned int n_packets_read;

static void packets_set_up(void)
{
	static uint8_t text[4096];
	if (pipe2(end, O_DIRECT))
		fatal("pipe2");
	for (size_t i = 0; i < sizeof packet / sizeof *packet; i++) {
		memset(text, 'a' + (int)i, packet[i]);
		if (write(end[1], text, packet[i]) != (ssize_t)packet[i])
			fatal("write");
	}
}

static int packets_check(void)
{
	uint8_t text[8192];
	if (flags_are(end[0], O_RDONLY) || flags_are(end[1], O_WRONLY | O_DIRECT))
		return -1;
	if (n_packets_read == sizeof packet / sizeof *packet)
		return 0;
	ssize_t n = read(end[0], text, sizeof text);
	if (n != (ssize_t)packet[n_packets_read] || text[0] != 'a' + n_packets_read || text[n - 1] != text[0])
		return wrong("packet %u has %zd bytes instead of %zu", n_packets_read, n, packet[n_packets_read]);
	n_packets_read++;
	return 0;
}

/* ---- one end closed ---- */

static void ends_set_up(void)
{
	if (pipe(end) || pipe(more))
		fatal("pipe");
	put(50);
	close(end[1]);
	close(more[0]);
	signal(SIGPIPE, SIG_IGN);
}

static int ends_check(void)
{
	if (out < 40 && take(10))
		return -1;
	struct pollfd p = {.fd = end[0], .events = POLLIN};
	if (poll(&p, 1, 0) < 0 || p.revents != (POLLIN | POLLHUP))
		return wrong("poll says %x where nobody writes any more", p.revents);
	if (write(more[1], "x", 1) != -1 || errno != EPIPE)
		return wrong("a pipe that nobody reads takes a byte: %s", strerror(errno));
	return 0;
}

/* ---- a FIFO, by path, in the current directory ---- */

static void fifo_set_up(void)
{
	if (mkfifo("a fifo", 0600) || (end[0] = open("a fifo", O_RDONLY | O_NONBLOCK)) < 0 ||
	    (end[1] = open("a fifo", O_WRONLY)) < 0 || (more[0] = open("a fifo", O_RDWR)) < 0)
		fatal("a FIFO");
	put(3000);
}

static int fifo_check(void)
{
	char link[256] = "";
	struct stat a, b;
	if (take(500) || flags_are(end[0], O_RDONLY | O_NONBLOCK | 0100000) || flags_are(end[1], O_WRONLY | 0100000) ||
	    flags_are(more[0], O_RDWR | 0100000) || same_pipe(end[0], end[1]))
		return -1;
	if (readlink("/proc/self/fd/3", link, sizeof link - 1) < 0 || stat("a fifo", &a) || fstat(end[0], &b) || a.st_ino != b.st_ino)
		return wrong("it is not the FIFO at its path: %s", link);
	put(200);
	return 0;
}

/* ---- parent and child share a pipe with contents, the child answers through another ---- */

static int answer[2];

static void tree_set_up(void)
{
	if (pipe(end) || pipe(answer))
		fatal("pipe");
	pid_t pid = fork();
	if (pid < 0)
		fatal("fork");
	if (!pid) {
		uint8_t b;
		close(end[1]);
		close(answer[0]);
		while (read(end[0], &b, 1) == 1)
			if (b == 255 && write(answer[1], "!", 1) != 1)
				_exit(1);
		_exit(0);
	}
	close(end[0]);
	close(answer[1]);
}

static int tree_check(void)
{
	char c;
	uint8_t b[2] = {1, 255};
	if (write(end[1], b, 2) != 2 || read(answer[0], &c, 1) != 1 || c != '!')
		return wrong("the child does not answer");
	return 0;
}

static const struct {
	const char *name;
	void (*set_up)(void);
	int (*check)(void);
} cases[] = {
	{"contents", contents_set_up, contents_check}, {"packets", packets_set_up, packets_check},
	{"ends", ends_set_up, ends_check},	       {"fifo", fifo_set_up, fifo_check},
	{"tree", tree_set_up, tree_check},
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
