/*
 * Memory that is a file of the kernel's own: shared anonymous mappings, /dev/zero's, and memfds, mapped or open.
 *
 * dump     one object a (device, inode), whoever maps it; its contents by SEEK_DATA, so that holes stay holes.
 * restore  the coordinator makes and fills it; the tasks map it. Seals come last: some forbid what is done before.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "objects.h"

/* include/uapi/linux/memfd.h and fcntl.h of 6.3 on: Debian 12's are older */
#define MFD_NOEXEC_SEAL_ 0x0008u
#define MFD_EXEC_	 0x0010u
#define F_SEAL_EXEC_	 0x0020

/* ---- dump ---- */

static const char memfd[] = "/memfd:", gone[] = " (deleted)";

static bool starts(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static uint32_t save_memory(struct dump *d, uint32_t kind, int fd, const char *name, bool noreserve)
{
	struct rec_object o = {.kind = kind, .noreserve = noreserve};
	struct statfs fs;
	if (fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == HUGETLBFS_MAGIC)
		o.huge_size = fs.f_bsize;
	int seals = fcntl(fd, F_GET_SEALS);
	o.seals = seals > 0 ? seals : 0;
	return object_save(d, REC_SHMEM, &o, fd, name);
}

static int memfd_collect_fd(struct dump *d, struct fd_entry *f)
{
	if (!starts(f->link, memfd))
		return 0;
	uint32_t id = object_find(d, f->st.st_dev, f->st.st_ino);
	if (!id) {
		autoclose int fd = object_open_fd(f);
		if (fd < 0)
			return -1;
		autofree char *name = strdup(f->link + strlen(memfd));
		if (!name)
			return fail("no memory");
		if (strlen(name) >= strlen(gone) && strcmp(name + strlen(name) - strlen(gone), gone) == 0)
			name[strlen(name) - strlen(gone)] = 0;
		id = save_memory(d, OBJECT_MEMFD, fd, name, true);
	}
	if (!id)
		return fail_within("pid %d (%s) fd %d", f->process->pid, f->process->comm, f->fd);
	struct rec_object_file r = {.d = {.id = f->description, .flags = f->flags, .pos = f->pos}, .object = id};
	return notes_add_record(&d->tree, REC_MEMFD, &r, sizeof r, NULL, 0) ? -1 : 1;
}

static uint32_t memory_kind_of(const struct vma *v)
{
	if (v->kind != VMA_FILE_SHARED && v->kind != VMA_FILE_PRIVATE)
		return 0;
	if (starts(v->name, memfd))
		return OBJECT_MEMFD;
	if (v->shared && strncmp(v->name, "[anon_shmem:", 12) == 0)
		return OBJECT_ANON; /* PR_SET_VMA_ANON_NAME's, instead of the file's */
	if (v->shared && v->deleted && (strcmp(v->name, "/dev/zero") == 0 || strcmp(v->name, "/anon_hugepage") == 0))
		return OBJECT_ANON;
	return 0;
}

/*
 * Without the privilege to open what is mapped: its pages as the mappings show them, copied to a memfd. mincore(2) in the
 * target tells which are there: reading the others would make them.
 */
#define PAGES_AT_ONCE 30000

static int copy_run(const struct process *p, int fd, uint64_t at, uint64_t len, uint64_t offset)
{
	static char buf[1 << 20];
	for (uint64_t done = 0; done < len;) {
		size_t n = len - done < sizeof buf ? len - done : sizeof buf;
		if (pread(p->mem, buf, n, at + done) != (ssize_t)n)
			return fail_errno("reading the memory of pid %d (%s) at %#lx", p->pid, p->comm, at + done);
		if (pwrite(fd, buf, n, offset + done) != (ssize_t)n)
			return fail_errno("copying shared memory");
		done += n;
	}
	return 0;
}

static int copy_pages(struct process *p, const struct vma *v, int fd)
{
	for (uint64_t at = v->start; at < v->end;) {
		size_t n = (v->end - at) / 4096 < PAGES_AT_ONCE ? (v->end - at) / 4096 : PAGES_AT_ONCE;
		batch_begin();
		long vec = batch_room(n);
		int i = vec < 0 ? -1 : batch_add(1 << 2, SYS_mincore, at, n * 4096, vec, 0, 0, 0);
		if (i < 0 || parasite_run(p))
			return -1;
		if (batch_result(i) < 0) {
			errno = -batch_result(i);
			return fail_errno("pid %d (%s): mincore at %#lx", p->pid, p->comm, at);
		}
		autofree unsigned char *there = alloc_zeroed(n, 1);
		if (!there)
			return -1;
		memcpy(there, batch_data(vec), n);
		for (size_t from = 0, to; from < n; from = to) {
			for (to = from; to < n && (there[to] & 1) == (there[from] & 1);)
				to++;
			if (there[from] & 1 && copy_run(p, fd, at + from * 4096, (to - from) * 4096, v->offset + at - v->start + from * 4096))
				return -1;
		}
		at += n * 4096;
	}
	return 0;
}

static int copy_object(struct dump *d, const struct vma *of)
{
	int fd = memfd_create("copy", MFD_CLOEXEC);
	uint64_t size = 0;
	if (fd < 0)
		return fail_errno("a memfd");
	for (size_t i = 0; i < d->n; i++)
		for (size_t k = 0; k < d->procs[i].maps.n; k++) {
			const struct vma *v = &d->procs[i].maps.vma[k];
			if (v->ino != of->ino || v->dev_major != of->dev_major || v->dev_minor != of->dev_minor)
				continue;
			uint64_t end = v->offset + (v->end - v->start);
			size = end > size ? end : size;
			if (ftruncate(fd, size) || copy_pages(&d->procs[i], v, fd)) {
				close(fd);
				return -1;
			}
		}
	return fd;
}

static int take_vma(struct dump *d, struct process *p, struct vma *v)
{
	uint32_t kind = memory_kind_of(v);
	uint64_t dev = makedev(v->dev_major, v->dev_minor);
	if (!kind)
		return 0;
	v->object = object_find(d, dev, v->ino);
	if (!v->object) {
		autoclose int fd = object_open_vma(p, v);
		if (fd < 0 && (kind != OBJECT_ANON || the_error.code != EPERM || (fd = copy_object(d, v)) < 0))
			return -1;
		v->object = save_memory(d, kind, fd, v->name + (kind == OBJECT_MEMFD ? strlen(memfd) : 0),
					v->flags & VMA_NORESERVE);
		if (!v->object || object_alias(d, dev, v->ino, v->object))
			return -1;
	}
	if (kind == OBJECT_ANON)
		v->kind = VMA_ANON_SHARED;
	return 0;
}

static int shmem_settle(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++)
		for (size_t k = 0; k < d->procs[i].maps.n; k++)
			if (take_vma(d, &d->procs[i], &d->procs[i].maps.vma[k]))
				return fail_within("pid %d (%s)", d->procs[i].pid, d->procs[i].comm);
	return 0;
}

/* ---- restore ---- */

static int make_memfd(const struct rec_object *o, const char *name)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	if (o->huge_size)
		flags |= MFD_HUGETLB | (unsigned)__builtin_ctzl(o->huge_size) << MFD_HUGE_SHIFT;
	/* said, or the sysctl vm.memfd_noexec says it for us */
	bool noexec = o->seals & F_SEAL_EXEC_ && !(o->mode & 0111);
	int fd = memfd_create(name, flags | (noexec ? MFD_NOEXEC_SEAL_ : MFD_EXEC_));
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	return fd >= 0 ? fd : fail_errno("a memfd%s", o->huge_size ? " of huge pages (see /proc/sys/vm/nr_hugepages)" : "");
}

/* The file behind a mapping of ours: it is called as the old one was. Without the privilege for that a memfd serves. */
static int make_anon(const struct rec_object *o)
{
	char path[96];
	int flags = MAP_SHARED | MAP_ANONYMOUS | (o->noreserve ? MAP_NORESERVE : 0);
	if (o->huge_size)
		flags |= MAP_HUGETLB | __builtin_ctzl(o->huge_size) << MAP_HUGE_SHIFT;
	char *at = mmap(NULL, o->size, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (at == MAP_FAILED)
		return fail_errno("%lu bytes of shared memory%s", o->size,
				  o->huge_size ? " of huge pages (see /proc/sys/vm/nr_hugepages)" : "");
	snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", (unsigned long)at, (unsigned long)at + o->size);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	munmap(at, o->size);
	return fd >= 0 ? fd : make_memfd(o, "anonymous");
}

static int shmem_open(struct restore *r, const struct record *rec, uint32_t *id)
{
	struct rec_object o;
	const char *name;
	if (rec->type == REC_MEMFD)
		return object_open_file(r, rec, id);
	if (object_get(r, rec, &o, &name))
		return -1;
	*id = o.id;
	if (o.huge_size & (o.huge_size - 1) || (o.kind != OBJECT_ANON && o.kind != OBJECT_MEMFD) ||
	    (o.kind == OBJECT_ANON && (!o.size || o.size & 4095)))
		return fail("tree: object %u is no memory that could be made", o.id);
	int fd = o.kind == OBJECT_ANON ? make_anon(&o) : make_memfd(&o, name);
	if (fd < 0)
		return fail_within("%s", name);
	if (object_fill(r, rec, &o, fd)) {
		close(fd);
		return fail_within("%s", name);
	}
	return fd;
}

/* All have mapped and opened what they need. */
static int shmem_ready(struct restore *r)
{
	for (size_t i = 0; i < r->n_opened; i++) {
		struct opened *w = &r->opened[i];
		struct rec_object o;
		const char *name;
		if (w->fd < 0 || !w->record || w->record->type != REC_SHMEM)
			continue;
		if (object_get(r, w->record, &o, &name))
			return -1;
		if (o.kind != OBJECT_MEMFD)
			continue;
		if ((fchown(w->fd, o.uid, o.gid) && errno != EPERM) || fchmod(w->fd, o.mode & 07777))
			return fail_errno("memfd %s: its owner and mode", name);
		uint32_t has = fcntl(w->fd, F_GET_SEALS);
		if (o.seals & ~has && fcntl(w->fd, F_ADD_SEALS, o.seals & ~has))
			return fail_errno("memfd %s: sealing it (%#x)", name, o.seals);
	}
	return 0;
}

static const struct record_printer printers[] = {
	{REC_SHMEM, "shmem", print_object},
	{REC_MEMFD, "memfd", print_object_file},
	{0},
};

const struct kind shmem_kind = {
	.name = "shmem",
	.collect_fd = memfd_collect_fd,
	.settle = shmem_settle,
	.dump_end = objects_free,
	.opens = {REC_SHMEM, REC_MEMFD},
	.open = shmem_open,
	.ready = shmem_ready,
	.printers = printers,
};
