#include "objects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef __O_TMPFILE
#define __O_TMPFILE 020000000
#endif
#define NO_OPEN_FLAGS (O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | __O_TMPFILE | O_DIRECTORY)

/* ---- dump: which are known ---- */

struct object {
	uint64_t dev, ino;
	uint32_t id; /* 0: an empty slot */
};

struct objects {
	struct object *slot;
	size_t n, size; /* a power of two, at most half full */
};

static struct object *find_slot(const struct objects *o, uint64_t dev, uint64_t ino)
{
	size_t i = (ino * 0x9e3779b97f4a7c15ull ^ dev * 0xc2b2ae3d27d4eb4full) >> 20;
	for (;; i++) {
		struct object *s = &o->slot[i & (o->size - 1)];
		if (!s->id || (s->dev == dev && s->ino == ino))
			return s;
	}
}

uint32_t object_find(const struct dump *d, uint64_t dev, uint64_t ino)
{
	return d->objects ? find_slot(d->objects, dev, ino)->id : 0;
}

static int make_bigger(struct dump *d)
{
	struct objects *old = d->objects, *o = alloc_zeroed(1, sizeof *o);
	if (!o)
		return -1;
	o->size = old ? old->size * 2 : 64;
	o->slot = alloc_zeroed(o->size, sizeof *o->slot);
	if (!o->slot) {
		free(o);
		return -1;
	}
	for (size_t i = 0; old && i < old->size; i++)
		if (old->slot[i].id)
			*find_slot(o, old->slot[i].dev, old->slot[i].ino) = old->slot[i];
	o->n = old ? old->n : 0;
	objects_free(d);
	d->objects = o;
	return 0;
}

int object_alias(struct dump *d, uint64_t dev, uint64_t ino, uint32_t id)
{
	if ((!d->objects || d->objects->n * 2 >= d->objects->size) && make_bigger(d))
		return -1;
	struct object *s = find_slot(d->objects, dev, ino);
	d->objects->n += !s->id;
	*s = (struct object){dev, ino, id};
	return 0;
}

void objects_free(struct dump *d)
{
	if (d->objects)
		free(d->objects->slot);
	free(d->objects);
	d->objects = NULL;
}

/* ---- dump: contents ---- */

/* O_NONBLOCK: not to wait for anybody's lease. */
int object_open_fd(const struct fd_entry *f)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/fd/%d", f->process->host->tid, f->fd);
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 ? fd : fail_errno("pid %d (%s) fd %d: reading %s", f->process->pid, f->process->comm, f->fd, f->link);
}

int object_open_vma(const struct process *p, const struct vma *v)
{
	char path[96];
	snprintf(path, sizeof path, "/proc/%d/map_files/%lx-%lx", p->host->tid, v->start, v->end);
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == EPERM || errno == EACCES)) {
		fail("pid %d (%s) maps %s at %#lx, which no path leads to: reading it needs CAP_CHECKPOINT_RESTORE; run as root",
		     p->pid, p->comm, v->name, v->start);
		the_error.code = EPERM;
		return -1;
	}
	return fd >= 0 ? fd : fail_errno("pid %d (%s): %s, mapped at %#lx", p->pid, p->comm, v->name, v->start);
}

/* What is there: the rest reads as zeros and is not stored. */
static int find_extents(int fd, uint64_t size, struct rec_extent **out, size_t *n, uint64_t *total)
{
	size_t cap = 0;
	*total = 0;
	for (uint64_t at = 0; at < size;) {
		off_t from = lseek(fd, at, SEEK_DATA);
		if (from < 0 && errno == ENXIO)
			break;
		off_t to = from < 0 ? -1 : lseek(fd, from, SEEK_HOLE);
		if (to < 0)
			return fail_errno("looking for holes");
		if ((uint64_t)to > size)
			to = size;
		if (to <= from)
			break;
		struct rec_extent *bigger = grow_array(*out, &cap, *n + 1, sizeof *bigger);
		if (!bigger)
			return -1;
		*out = bigger;
		(*out)[(*n)++] = (struct rec_extent){from, to - from};
		*total += to - from;
		at = to;
	}
	return 0;
}

static bool is_zero(const char *page, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (page[i])
			return false;
	return true;
}

/* Reading shared memory that nobody has written makes pages of it. */
static int drop_zeros(const char *map, struct rec_extent **e, size_t *n, uint64_t *total)
{
	struct rec_extent *out = NULL;
	size_t n_out = 0, cap = 0;
	*total = 0;
	for (size_t i = 0; i < *n; i++) {
		uint64_t end = (*e)[i].offset + (*e)[i].len;
		for (uint64_t at = (*e)[i].offset, len; at < end; at += len) {
			len = 4096 - at % 4096 < end - at ? 4096 - at % 4096 : end - at;
			if (is_zero(map + at, len))
				continue;
			*total += len;
			if (n_out && out[n_out - 1].offset + out[n_out - 1].len == at) {
				out[n_out - 1].len += len;
				continue;
			}
			struct rec_extent *bigger = grow_array(out, &cap, n_out + 1, sizeof *bigger);
			if (!bigger) {
				free(out);
				return -1;
			}
			out = bigger;
			out[n_out++] = (struct rec_extent){at, len};
		}
	}
	free(*e);
	*e = out;
	*n = n_out;
	return 0;
}

static char copy_buf[SUM_BLOCK];

/* MAP: the object in our memory, or NULL: read it. */
static int copy_extent(struct dump *d, int from, const char *map, int to, const struct rec_extent *e, uint64_t *at)
{
	for (uint64_t done = 0; done < e->len;) {
		size_t len = e->len - done < sizeof copy_buf ? e->len - done : sizeof copy_buf;
		const char *buf = map ? map + e->offset + done : copy_buf;
		ssize_t n = map ? (ssize_t)len : pread(from, copy_buf, len, e->offset + done);
		if (n < 0)
			return fail_errno("reading it at offset %lu", e->offset + done);
		if (n == 0)
			return fail("it became shorter while it was read");
		ssize_t w = pwrite(to, buf, n, *at);
		if (w >= 0 && w < n) {
			errno = ENOSPC; /* what a short write to a file means */
			w = -1;
		}
		if (w < 0)
			return fail_errno("writing its contents");
		done += n;
		*at += n;
		if (image_core_sum(d->writer, *at))
			return -1;
	}
	return 0;
}

static const char *prefix(uint32_t type)
{
	return type == REC_GHOST ? "file" : "mem";
}

static int save_contents(struct dump *d, uint32_t type, uint32_t id, int fd, const char *map, const struct rec_extent *e, size_t n,
			 uint64_t total)
{
	char name[32];
	uint64_t at;
	snprintf(name, sizeof name, "%s.%u", prefix(type), id);
	int to = image_contents_begin(d->writer, name, total, &at);
	if (to < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (copy_extent(d, fd, map, to, &e[i], &at))
			return -1;
	return image_core_end(d->writer);
}

/* What nobody can make shorter while we look: a mapping of any other file may end in SIGBUS. */
static char *map_object(const struct rec_object *o, int fd)
{
	if ((o->kind != OBJECT_ANON && o->kind != OBJECT_SYSV) || o->huge_size || !o->size)
		return NULL;
	char *map = mmap(NULL, o->size, PROT_READ, MAP_SHARED, fd, 0);
	return map == MAP_FAILED ? NULL : map;
}

static int save_mapped(struct dump *d, uint32_t type, struct rec_object *o, int fd, const char *map, const char *name)
{
	autofree struct rec_extent *e = NULL;
	size_t n = 0, name_len = strlen(name) + 1;
	uint64_t total;
	if (find_extents(fd, o->size, &e, &n, &total) || (map && drop_zeros(map, &e, &n, &total)) ||
	    (n && save_contents(d, type, o->id, fd, map, e, n, total)))
		return -1;
	autofree char *tail = alloc_zeroed(n * sizeof *e + name_len, 1);
	if (!tail)
		return -1;
	if (n)
		memcpy(tail, e, n * sizeof *e);
	memcpy(tail + n * sizeof *e, name, name_len);
	o->n_extents = n;
	return notes_add_record(&d->tree, type, o, sizeof *o, tail, n * sizeof *e + name_len);
}

static int save(struct dump *d, uint32_t type, struct rec_object *o, int fd, const char *name)
{
	char *map = map_object(o, fd);
	int ret = save_mapped(d, type, o, fd, map, name);
	if (map)
		munmap(map, o->size);
	return ret;
}

uint32_t object_save(struct dump *d, uint32_t type, struct rec_object *o, int fd, const char *name)
{
	struct stat st;
	if (fstat(fd, &st)) {
		fail_errno("%s", name);
		return 0;
	}
	o->id = new_id(d);
	o->size = st.st_size;
	o->mode = st.st_mode;
	o->uid = st.st_uid;
	o->gid = st.st_gid;
	if (save(d, type, o, fd, name)) {
		fail_within("%s", name);
		return 0;
	}
	return object_alias(d, st.st_dev, st.st_ino, o->id) ? 0 : o->id;
}

/* ---- restore ---- */

int object_get(const struct restore *r, const struct record *rec, struct rec_object *o, const char **name)
{
	if (record_get(&r->tree, rec, o, sizeof *o))
		return -1;
	size_t pos = (size_t)o->n_extents * sizeof(struct rec_extent);
	if (o->n_extents > rec->tail_len / sizeof(struct rec_extent) || o->size > INT64_MAX)
		return fail("tree: object %u does not fit in its record", o->id);
	*name = record_string(&r->tree, rec, &pos);
	return *name ? 0 : -1;
}

/* Hands the bytes of a block to the extents that they belong to. */
struct pour {
	const struct record *rec;
	const struct rec_object *o;
	int fd;
	char *map; /* a hugetlb file cannot be written to */
	uint32_t i;
	uint64_t done; /* of extent i */
};

static int pour(struct pour *p, const char *buf, size_t len)
{
	while (len) {
		struct rec_extent e;
		if (p->i >= p->o->n_extents)
			return fail("tree: object %u has more contents than its record says", p->o->id);
		memcpy(&e, p->rec->tail + p->i * sizeof e, sizeof e);
		if (!e.len || e.len > p->o->size || e.offset > p->o->size - e.len)
			return fail("tree: object %u has contents beyond its end", p->o->id);
		size_t n = e.len - p->done < len ? e.len - p->done : len;
		if (p->map)
			memcpy(p->map + e.offset + p->done, buf, n);
		else if (pwrite(p->fd, buf, n, e.offset + p->done) != (ssize_t)n)
			return fail_errno("writing its contents at %lu", e.offset + p->done);
		buf += n;
		len -= n;
		p->done += n;
		if (p->done == e.len) {
			p->i++;
			p->done = 0;
		}
	}
	return 0;
}

static int pour_file(struct pour *p, const struct image_file *f)
{
	uint64_t at = f->contents_start;
	for (size_t block = 0; at < f->contents_end; block++) {
		size_t len = f->contents_end - at < SUM_BLOCK ? f->contents_end - at : SUM_BLOCK;
		for (size_t got = 0; got < len;) {
			ssize_t n = pread(f->fd, copy_buf + got, len - got, at + got);
			if (n <= 0)
				return n ? fail_errno("%s", f->name) : fail("%s became shorter while it was read", f->name);
			got += n;
		}
		if (block >= f->n_sums || crc32c(0, copy_buf, len) != f->sums[block])
			return fail("%s: MiB %zu of its contents has another checksum than was written: the image was altered or "
				    "its disk is failing; take another copy",
				    f->name, block);
		if (pour(p, copy_buf, len))
			return -1;
		at += len;
	}
	if (p->i < p->o->n_extents)
		return fail("%s has less contents than its record says", f->name);
	return 0;
}

int object_fill(struct restore *r, const struct record *rec, const struct rec_object *o, int fd)
{
	char name[32];
	struct image_file f;
	struct pour p = {.rec = rec, .o = o, .fd = fd};
	if (ftruncate(fd, o->size))
		return fail_errno("a size of %lu bytes", o->size);
	if (!o->n_extents)
		return 0;
	snprintf(name, sizeof name, "%s.%u", prefix(rec->type), o->id);
	if (image_file_open(&r->image, name, &f))
		return -1;
	int ret = 0;
	if (o->huge_size) {
		p.map = mmap(NULL, o->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p.map == MAP_FAILED)
			ret = fail_errno("mapping %lu bytes of huge pages", o->size);
	}
	if (!ret)
		ret = pour_file(&p, &f);
	if (p.map && p.map != MAP_FAILED)
		munmap(p.map, o->size);
	image_file_close(&f);
	return ret;
}

int object_reopen(int fd, uint32_t flags)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = open(path, (flags & ~NO_OPEN_FLAGS) | O_CLOEXEC);
	return again >= 0 ? again : fail_errno("opening an object again through %s", path);
}

int object_open_file(struct restore *r, const struct record *rec, uint32_t *id)
{
	struct rec_object_file o;
	if (record_get(&r->tree, rec, &o, sizeof o))
		return -1;
	*id = o.d.id;
	int fd = opened_fd(r, o.object);
	fd = fd < 0 ? -1 : object_reopen(fd, o.d.flags);
	if (fd >= 0 && !(o.d.flags & O_PATH) && lseek(fd, o.d.pos, SEEK_SET) < 0) {
		fail_errno("object %u: seeking to %lu", o.object, o.d.pos);
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- show ---- */

void print_object(struct json *j, const struct image_file *f, const struct record *rec)
{
	static const char *const kind[] = {"?", "anonymous", "memfd", "file", "sysv"};
	struct rec_object o;
	if (json_record(j, f, rec, &o, sizeof o) < 0)
		return;
	size_t pos = (size_t)o.n_extents * sizeof(struct rec_extent);
	json_uint(j, "id", o.id);
	json_string(j, "kind", kind[o.kind < 5 ? o.kind : 0]);
	const char *name = json_tail_string(j, f, rec, &pos);
	if (!name)
		return;
	json_string(j, "name", name);
	json_uint(j, "size", o.size);
	json_uint(j, "extents", o.n_extents);
	json_octal(j, "mode", o.mode);
	if (o.seals)
		json_hex(j, "seals", o.seals);
	if (o.huge_size)
		json_uint(j, "huge_size", o.huge_size);
}

void print_object_file(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_object_file o;
	if (json_record(j, f, rec, &o, sizeof o) < 0)
		return;
	json_uint(j, "id", o.d.id);
	json_uint(j, "object", o.object);
	json_octal(j, "flags", o.d.flags);
	json_uint(j, "pos", o.d.pos);
}
