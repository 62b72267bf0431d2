/*
 * Pipes and FIFOs: their size, what is in them, and the ends that are open.
 *
 * Contents are looked at with tee(2), which leaves them where they are. A pipe is one record, each open file description of
 * it another.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/json.h"
#include "plan.h"

/* What open(2) adds and pipe2(2) does not; glibc's O_LARGEFILE is 0 here. */
#define O_LARGEFILE_KERNEL 0100000

/* tail: the path of a FIFO with its NUL (of a pipe: the NUL alone), struct rec_pipe_chunk array, the bytes */
struct rec_pipe {
	struct record_head head;
	uint32_t id;
	uint32_t size; /* F_GETPIPE_SZ */
	uint32_t fifo;
	uint32_t n_chunks;
	uint64_t ino;
};

/* What one read(2) returns: a packet, or a stretch of a stream. */
struct rec_pipe_chunk {
	uint32_t len, packet;
};

struct rec_pipe_end {
	struct rec_description d;
	uint32_t pipe; /* the record's id */
	uint32_t pad;
};

/* ---- dump ---- */

/* Descriptions of one pipe come one behind the other. */
static struct {
	dev_t dev;
	ino_t ino;
	uint32_t id;
} last;

static bool reads(const struct fd_entry *f)
{
	return (f->flags & O_ACCMODE) != O_WRONLY;
}

static bool writes(const struct fd_entry *f)
{
	return (f->flags & O_ACCMODE) != O_RDONLY;
}

/* A pipe with one end in the tree: its other end must be closed, or it is outside. poll(2) tells. */
static int check_other_end(const struct fd_entry *f, int fd, bool has_reader, bool has_writer)
{
	struct pollfd p = {.fd = fd, .events = has_reader ? POLLIN : POLLOUT};
	if (has_reader && has_writer)
		return 0;
	if (poll(&p, 1, 0) < 0)
		return fail_errno("pid %d (%s) fd %d: poll", f->process->pid, f->process->comm, f->fd);
	if (p.revents & (has_reader ? POLLHUP : POLLERR))
		return 0;
	return refuse_fd(f, "a pipe (%s) whose %s end is outside the tree; dump the process that both ends lie below, or start the "
			    "program with a file or /dev/null there",
			 f->link, has_reader ? "writing" : "reading");
}

struct contents {
	struct rec_pipe_chunk *chunk;
	size_t n, cap;
	char *bytes;
	size_t len, room;
};

/* Chunks are what reads return; one that ends before the pipe is empty was a packet (fs/pipe.c, PIPE_BUF_FLAG_PACKET). */
static int drain(int fd, size_t total, bool packets, struct contents *c)
{
	c->bytes = alloc_zeroed(total ? total : 1, 1);
	if (!c->bytes)
		return -1;
	while (c->len < total) {
		ssize_t n = read(fd, c->bytes + c->len, total - c->len);
		if (n <= 0)
			return fail_errno("reading the copy of a pipe's contents");
		struct rec_pipe_chunk *bigger = grow_array(c->chunk, &c->cap, c->n + 1, sizeof *bigger);
		if (!bigger)
			return -1;
		c->chunk = bigger;
		c->len += n;
		c->chunk[c->n++] = (struct rec_pipe_chunk){n, c->len < total || packets};
	}
	return 0;
}

static int read_contents(const struct fd_entry *f, int fd, uint32_t size, bool packets, struct contents *c)
{
	int total, copied, own[2];
	if (ioctl(fd, FIONREAD, &total))
		return fail_errno("%s: FIONREAD", f->link);
	if (!total)
		return 0;
	if (pipe2(own, O_CLOEXEC | O_NONBLOCK))
		return fail_errno("a pipe for the contents of %s", f->link);
	int ret = -1;
	if (fcntl(own[1], F_SETPIPE_SZ, size) < 0)
		fail_errno("a pipe of %u bytes for the contents of %s (see /proc/sys/fs/pipe-max-size)", size, f->link);
	else if (tee(fd, own[1], total, SPLICE_F_NONBLOCK) < 0)
		fail_errno("copying the contents of %s", f->link);
	else if (ioctl(own[0], FIONREAD, &copied) || copied != total)
		fail("%s holds %d bytes, of which only %d can be copied; give its reader time to read, then try again", f->link, total,
		     copied);
	else
		ret = drain(own[0], total, packets, c);
	close(own[0]);
	close(own[1]);
	return ret;
}

static int add_pipe(struct dump *d, const struct fd_entry *f, int size, const struct contents *c)
{
	bool fifo = f->link[0] == '/';
	const char *path = fifo ? f->link : "";
	struct rec_pipe r = {.id = last.id, .size = size, .fifo = fifo, .n_chunks = c->n, .ino = f->st.st_ino};
	size_t p = strlen(path) + 1, k = c->n * sizeof *c->chunk;
	autofree char *tail = alloc_zeroed(p + k + c->len, 1);
	if (!tail)
		return -1;
	memcpy(tail, path, p);
	if (c->n) {
		memcpy(tail + p, c->chunk, k);
		memcpy(tail + p + k, c->bytes, c->len);
	}
	return notes_add_record(&d->tree, REC_PIPE, &r, sizeof r, tail, p + k + c->len);
}

static int collect_pipe(struct dump *d, const struct fd_entry *f)
{
	const struct fd_entry *reader = NULL;
	bool writer = false, packets = false;
	struct contents c = {0};
	struct stat st;
	bool fifo = f->link[0] == '/';
	if (fifo && (stat(f->link, &st) || st.st_ino != f->st.st_ino || st.st_dev != f->st.st_dev))
		return refuse_fd(f, "a FIFO that was removed (%s), which cannot be dumped", f->link);
	for (const struct fd_entry *g = f; g < d->fds + d->n_fds && g->st.st_ino == f->st.st_ino && g->st.st_dev == f->st.st_dev; g++) {
		if (g->flags & O_PATH)
			continue;
		reader = !reader && reads(g) ? g : reader;
		writer |= writes(g);
		packets |= writes(g) && g->flags & O_DIRECT;
	}
	autoclose int fd = copy_fd(reader ? reader : f);
	if (fd < 0 || (!fifo && check_other_end(f, fd, reader, writer)))
		return -1;
	int size = fcntl(fd, F_GETPIPE_SZ), left = 0;
	if (size < 0)
		return fail_errno("%s: F_GETPIPE_SZ", f->link);
	if (fifo && !reader && (ioctl(fd, FIONREAD, &left) || left))
		return refuse_fd(f, "a FIFO (%s) with contents that nobody in the tree reads", f->link);
	last.dev = f->st.st_dev;
	last.ino = f->st.st_ino;
	last.id = new_id(d);
	int ret = reader ? read_contents(f, fd, size, packets, &c) : 0;
	if (!ret)
		ret = add_pipe(d, f, size, &c);
	free(c.chunk);
	free(c.bytes);
	return ret;
}

static int pipes_collect_fd(struct dump *d, struct fd_entry *f)
{
	if (!S_ISFIFO(f->st.st_mode) || f->flags & O_PATH)
		return 0;
	if ((last.dev != f->st.st_dev || last.ino != f->st.st_ino || !last.id) && collect_pipe(d, f))
		return -1;
	struct rec_pipe_end r = {.d = {.id = f->description, .flags = f->flags}, .pipe = last.id};
	return notes_add_record(&d->tree, REC_PIPE_END, &r, sizeof r, NULL, 0) ? -1 : 1;
}

/* ---- restore ---- */

/* The pipes made, until all their ends are open. A FIFO has one helper, for both directions. */
struct made {
	uint32_t id;
	int end[2];
	bool given[2];
};
static struct made *made;
static size_t n_made, cap_made;

static int write_chunks(int fd, const struct record *rec, const struct rec_pipe *r, size_t pos)
{
	struct rec_pipe_chunk c;
	int flags = fcntl(fd, F_GETFL);
	if (r->n_chunks > (rec->tail_len - pos) / sizeof c)
		return fail("tree: pipe %u has more chunks than its record holds", r->id);
	const char *chunk = rec->tail + pos, *bytes = chunk + r->n_chunks * sizeof c;
	size_t left = rec->tail + rec->tail_len - bytes;
	for (uint32_t i = 0; i < r->n_chunks; i++, chunk += sizeof c) {
		memcpy(&c, chunk, sizeof c);
		if (!c.len || c.len > left)
			return fail("tree: pipe %u has more contents than its record holds", r->id);
		if (fcntl(fd, F_SETFL, (flags & ~O_DIRECT) | O_NONBLOCK | (c.packet ? O_DIRECT : 0)) < 0)
			return fail_errno("pipe %u: packet mode", r->id);
		ssize_t n = write(fd, bytes, c.len);
		if (n != (ssize_t)c.len)
			return n < 0 ? fail_errno("filling a pipe") : fail("a pipe of %u bytes does not take what was in it", r->size);
		bytes += c.len;
		left -= c.len;
	}
	return fcntl(fd, F_SETFL, flags) < 0 ? fail_errno("pipe %u: flags", r->id) : 0;
}

static int make_ends(const struct rec_pipe *r, const char *path, int end[2])
{
	struct stat st;
	if (!r->fifo)
		return pipe2(end, O_CLOEXEC) ? fail_errno("a pipe") : 0;
	/* opened for both directions a FIFO does not wait for anybody: fifo(7) */
	end[1] = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (end[1] < 0)
		return fail_errno("the FIFO %s, which was open, cannot be opened again; make it with mkfifo", path);
	if (fstat(end[1], &st) || !S_ISFIFO(st.st_mode))
		return fail("%s, which was a FIFO, is something else now; put the old one back", path);
	return 0;
}

static int fill(const struct record *rec, const struct rec_pipe *r, size_t pos, int fd)
{
	int there = 0;
	if (fcntl(fd, F_GETPIPE_SZ) != (int)r->size && fcntl(fd, F_SETPIPE_SZ, r->size) < 0)
		return fail_errno("a pipe of %u bytes (see /proc/sys/fs/pipe-max-size)", r->size);
	/* a FIFO that others held open meanwhile still has its contents */
	if (ioctl(fd, FIONREAD, &there) == 0 && there)
		return 0;
	return write_chunks(fd, rec, r, pos);
}

static int open_pipe(struct restore *re, const struct record *rec)
{
	struct rec_pipe r;
	size_t pos = 0;
	int end[2] = {-1, -1};
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	const char *path = record_string(&re->tree, rec, &pos);
	struct made *bigger = path ? grow_array(made, &cap_made, n_made + 1, sizeof *made) : NULL;
	if (!bigger)
		return -1;
	made = bigger;
	if (n_made && made[n_made - 1].id >= r.id)
		return fail("tree: pipe %u is out of order", r.id);
	if (make_ends(&r, path, end) || fill(rec, &r, pos, end[1])) {
		close_fd(&end[0]);
		close_fd(&end[1]);
		return -1;
	}
	made[n_made++] = (struct made){.id = r.id, .end = {end[0], end[1]}};
	return OPEN_LATER;
}

static int compare_made(const void *key, const void *b)
{
	uint32_t x = *(const uint32_t *)key, y = ((const struct made *)b)->id;
	return (x > y) - (x < y);
}

/* The first of a pipe's ends is what pipe2 made; more of them, and a FIFO's, are opened anew. */
static int open_end(const struct rec_pipe_end *r)
{
	struct made *m = n_made ? bsearch(&r->pipe, made, n_made, sizeof *made, compare_made) : NULL;
	uint32_t mode = r->d.flags & O_ACCMODE;
	char path[32];
	int fd;
	if (!m || mode == O_ACCMODE)
		return fail("tree: pipe %u, of which an end was open, is not in the image", r->pipe);
	bool as_made = mode != O_RDWR && m->end[mode] >= 0 && !m->given[mode] && m->end[0] >= 0 && !(r->d.flags & O_LARGEFILE_KERNEL);
	snprintf(path, sizeof path, "/proc/self/fd/%d", m->end[1]);
	if (as_made) {
		m->given[mode] = true;
		fd = fcntl(m->end[mode], F_DUPFD_CLOEXEC, 3);
	} else {
		fd = open(path, mode | O_CLOEXEC);
	}
	if (fd < 0)
		return fail_errno("an end of pipe %u", r->pipe);
	if (fcntl(fd, F_SETFL, r->d.flags & (O_NONBLOCK | O_DIRECT | O_ASYNC | O_APPEND | O_NOATIME)) < 0) {
		fail_errno("flags %o of an end of pipe %u", r->d.flags, r->pipe);
		close(fd);
		return -1;
	}
	return fd;
}

static int pipes_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_pipe_end r;
	if (rec->type == REC_PIPE)
		return open_pipe(re, rec);
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	*id = r.d.id;
	return open_end(&r);
}

/* Whoever reads is to see the end when the last writer that was is gone. */
static int pipes_opened(struct restore *re)
{
	(void)re;
	for (size_t i = 0; i < n_made; i++) {
		close_fd(&made[i].end[0]);
		close_fd(&made[i].end[1]);
	}
	free(made);
	made = NULL;
	n_made = cap_made = 0;
	return 0;
}

static void print_pipe(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_pipe r;
	size_t pos = 0;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	const char *path = json_tail_string(j, f, rec, &pos);
	if (!path)
		return;
	json_uint(j, "id", r.id);
	if (r.fifo)
		json_string(j, "path", path);
	json_uint(j, "size", r.size);
	json_uint(j, "chunks", r.n_chunks);
	json_uint(j, "ino", r.ino);
}

static void print_end(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_pipe_end r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_uint(j, "pipe", r.pipe);
}

static const struct record_printer printers[] = {{REC_PIPE, "pipe", print_pipe}, {REC_PIPE_END, "pipe-end", print_end}, {0}};

const struct kind pipes_kind = {
	.name = "pipes",
	.collect_fd = pipes_collect_fd,
	.opens = {REC_PIPE, REC_PIPE_END},
	.open = pipes_open,
	.opened = pipes_opened,
	.printers = printers,
};
