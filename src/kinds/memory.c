/*
 * An address space: its mappings, the pages that are its own, and what prctl(PR_SET_MM_MAP) sets.
 *
 * dump     REC_MM and a REC_VMA for each mapping; the pages go from the target to the core by the parasite's own pwritev.
 * restore  a plan for the restorer: what to map, what to read into it, how to protect it.
 */
#include "kinds/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core-notes.h"
#include "lib/pagemap.h"
#include "lib/proc.h"
#include "objects.h"
#include "plan.h"

/* ---- dump: records ---- */

static uint64_t mtime_ns(const struct stat *st)
{
	return st->st_mtim.tv_sec * 1000000000ull + st->st_mtim.tv_nsec;
}

static int refuse_vma(const struct process *p, const struct vma *v, const char *what)
{
	return fail("pid %d (%s) has a mapping at %#lx (%s) that %s", p->pid, p->comm, v->start, v->name[0] ? v->name : "anonymous",
		    what);
}

/* What no kind has taken. */
static int check_vma(const struct process *p, const struct vma *v)
{
	if (v->kind == VMA_VDSO || v->kind == VMA_VVAR || v->kind == VMA_VSYSCALL)
		return 0;
	if (v->uffd)
		return refuse_vma(p, v, "is served by userfaultfd, whose other end cannot be carried over");
	if (v->object)
		return 0;
	if (v->pkey && v->prot != PROT_EXEC) /* what can only be executed has a key by itself */
		return refuse_vma(p, v, "is under a protection key (pkey_mprotect), which cannot be carried over");
	if (v->io)
		return refuse_vma(p, v, "belongs to a device");
	if (strncmp(v->name, "[uprobes]", 9) == 0)
		return refuse_vma(p, v, "is the kernel's, for uprobes: take the probes off first");
	if (strncmp(v->name, "/[aio]", 6) == 0)
		return refuse_vma(p, v, "is a ring of asynchronous I/O (io_setup), which cannot be dumped");
	if (v->kind == VMA_FILE_SHARED || v->kind == VMA_FILE_PRIVATE) {
		if (v->name[0] != '/' || strncmp(v->name, "/memfd:", 7) == 0)
			return refuse_vma(p, v, "is of an object that cannot be dumped");
		if (v->deleted)
			return refuse_vma(p, v, "is of a file that was removed");
	}
	return 0;
}

/* The file's path from the dumper's root, and whether it is still the one that is mapped. */
static int check_file(const struct process *p, const struct vma *v, struct rec_vma *r)
{
	const char *path = v->name; /* from our root, whatever the target's is: fs/seq_file.c, seq_path */
	struct stat st;
	if (stat(path, &st))
		return fail_errno("pid %d (%s) maps %s, which cannot be looked at", p->pid, p->comm, path);
	if (st.st_ino != v->ino)
		return fail("pid %d (%s) maps %s, but another file lies there now", p->pid, p->comm, path);
	r->file_size = st.st_size;
	r->file_mtime_ns = mtime_ns(&st);
	return 0;
}

static int add_vma(struct process *p, const struct vma *v)
{
	struct rec_vma r = {
		.start = v->start, .end = v->end, .offset = v->offset, .prot = v->prot, .kind = v->kind, .flags = v->flags,
		.object = v->object, .pkey = v->pkey, .page_size = v->page_size,
	};
	const char *tail = NULL;
	char path[PATH_MAX * 2];
	bool file = v->kind == VMA_FILE_SHARED || v->kind == VMA_FILE_PRIVATE;
	if (check_vma(p, v) || (file && !v->object && check_file(p, v, &r)))
		return -1;
	if (file && !v->object) {
		tail = v->name;
	} else if (v->object && v->kind != VMA_ANON_SHARED) {
		tail = v->name;
	} else if (strncmp(v->name, "[anon:", 6) == 0 || strncmp(v->name, "[anon_shmem:", 12) == 0) {
		const char *name = strchr(v->name, ':') + 1;
		snprintf(path, sizeof path, "%.*s", (int)strlen(name) - 1, name);
		tail = path;
	}
	return notes_add_record(&p->core, REC_VMA, &r, sizeof r, tail, tail ? strlen(tail) + 1 : 0);
}

static void find_vdso(const struct process *p, struct rec_mm *mm)
{
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.vma[i];
		if (v->kind == VMA_VDSO) {
			mm->vdso = v->start;
			mm->vdso_size = v->end - v->start;
		} else if (v->kind == VMA_VVAR) {
			if (!mm->vvar)
				mm->vvar = v->start;
			mm->vvar_size = v->end - mm->vvar;
		}
	}
}

/* brk is nowhere in /proc: the parasite asks for it. */
static int add_mm(struct process *p)
{
	struct proc_stat st;
	int64_t brk;
	if (proc_stat_read(p->pid, p->host->tid == p->pid ? 0 : p->host->tid, &st) ||
	    parasite_call(p, &brk, SYS_brk, 0, 0, 0, 0, 0, 0))
		return -1;
	struct rec_mm r = {
		.start_code = st.start_code, .end_code = st.end_code, .start_data = st.start_data, .end_data = st.end_data,
		.start_brk = st.start_brk, .brk = brk, .start_stack = st.start_stack, .arg_start = st.arg_start,
		.arg_end = st.arg_end, .env_start = st.env_start, .env_end = st.env_end,
	};
	find_vdso(p, &r);
	size_t len;
	autofree char *auxv = proc_read(&len, "/proc/%d/auxv", p->host->tid);
	if (!auxv)
		return -1;
	return notes_add_record(&p->core, REC_MM, &r, sizeof r, auxv, len);
}

static int memory_collect(struct dump *d, struct process *p)
{
	(void)d;
	return add_mm(p);
}

/* After every kind has had the chance to take a mapping. */
static int memory_settle(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct process *p = &d->procs[i];
		if (p->state == PROCESS_ZOMBIE)
			continue;
		for (size_t k = 0; k < p->maps.n; k++)
			if (add_vma(p, &p->maps.vma[k]))
				return -1;
	}
	return 0;
}

/* ---- dump: pages ---- */

static bool has_own_pages(const struct vma *v)
{
	return (v->kind == VMA_ANON_PRIVATE || v->kind == VMA_FILE_PRIVATE) && !v->io;
}

static int find_segments(struct process *p, struct segment **segs, size_t *n)
{
	autoclose int fd = pagemap_open(p->host->tid);
	if (fd < 0)
		return -1;
	autofree struct page_run *runs = NULL;
	size_t n_runs = 0, cap = 0, cap_segs = 0;
	*n = 0;
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.vma[i];
		size_t from = n_runs;
		if (!has_own_pages(v))
			continue;
		if (pagemap_collect(fd, p->pid, v->start, v->end, PAGES_PRIVATE, &runs, &n_runs, &cap))
			return -1;
		struct segment *bigger = grow_array(*segs, &cap_segs, *n + n_runs - from, sizeof **segs);
		if (!bigger)
			return -1;
		*segs = bigger;
		for (size_t k = from; k < n_runs; k++)
			(*segs)[(*n)++] = (struct segment){
				.start = runs[k].start,
				.len = runs[k].end - runs[k].start,
				.flags = (v->prot & PROT_READ ? PF_R : 0) | (v->prot & PROT_WRITE ? PF_W : 0) |
					 (v->prot & PROT_EXEC ? PF_X : 0),
			};
	}
	return 0;
}

#define WRITE_AT_ONCE (16ul << 20)

/* A batch of whole segments or parts of them, contiguous in the file. */
struct chunk {
	struct iovec iov[1024];
	size_t n, bytes;
	uint64_t offset;
};

/* While it writes this chunk we sum what it wrote before. */
static int write_by_parasite(struct dump *d, struct process *p, int their_fd, const struct chunk *c, size_t *done)
{
	batch_begin();
	long iov = batch_room(c->n * sizeof *c->iov);
	if (iov < 0)
		return -1;
	memcpy(batch_data(iov), c->iov, c->n * sizeof *c->iov);
	int i = batch_add(1 << 1, SYS_pwritev, their_fd, iov, c->n, c->offset, 0, 0);
	if (i < 0 || parasite_start(p))
		return -1;
	int summed = image_core_sum(d->writer, c->offset);
	if (parasite_finish(p) || summed)
		return -1;
	int64_t ret = batch_result(i);
	*done = ret > 0 ? ret : 0;
	if (ret < 0 && ret != -EFAULT) {
		errno = -ret;
		return fail_errno("writing the memory of pid %d", p->pid);
	}
	return 0;
}

/* What the target itself cannot read (PROT_NONE) or may not write (RLIMIT_FSIZE): through /proc/PID/mem. */
static int write_by_us(struct process *p, int fd, const struct chunk *c, size_t skip)
{
	static char buf[1 << 20];
	uint64_t at = c->offset;
	for (size_t i = 0; i < c->n; i++) {
		char *base = c->iov[i].iov_base;
		for (size_t left = c->iov[i].iov_len; left;) {
			size_t len = left < sizeof buf ? left : sizeof buf;
			if (skip >= len) {
				skip -= len;
			} else {
				if (pread(p->mem, buf, len, (off_t)base) != (ssize_t)len)
					return fail_errno("reading the memory of pid %d (%s) at %p", p->pid, p->comm, base);
				ssize_t n = pwrite(fd, buf, len, at);
				if (n >= 0 && n < (ssize_t)len) {
					errno = ENOSPC; /* what a short write to a file means */
					n = -1;
				}
				if (n < 0)
					return fail_errno("core.%d: writing %zu bytes of memory", p->pid, len);
				skip = 0;
			}
			base += len;
			at += len;
			left -= len;
		}
	}
	return 0;
}

static int write_chunk(struct dump *d, struct process *p, int fd, int their_fd, const struct chunk *c)
{
	size_t done = 0;
	if (their_fd >= 0 && write_by_parasite(d, p, their_fd, c, &done))
		return -1;
	return done == c->bytes ? 0 : write_by_us(p, fd, c, done);
}

static int write_pages(struct dump *d, struct process *p, int fd, int their_fd, const struct segment *segs, size_t n)
{
	static struct chunk c;
	c.n = c.bytes = 0;
	c.offset = n ? segs[0].file_offset : 0;
	for (size_t i = 0; i < n; i++)
		for (uint64_t at = 0; at < segs[i].len;) {
			uint64_t len = segs[i].len - at;
			if (len > WRITE_AT_ONCE - c.bytes)
				len = WRITE_AT_ONCE - c.bytes;
			c.iov[c.n++] = (struct iovec){(void *)(segs[i].start + at), len};
			c.bytes += len;
			at += len;
			if (c.n < 1024 && c.bytes < WRITE_AT_ONCE)
				continue;
			if (write_chunk(d, p, fd, their_fd, &c))
				return -1;
			c.offset += c.bytes;
			c.n = c.bytes = 0;
		}
	return c.n ? write_chunk(d, p, fd, their_fd, &c) : 0;
}

/* Whether the target may write a file of that size: SIGXFSZ would stay pending in it otherwise. */
static bool may_write(const struct process *p, uint64_t size)
{
	struct rlimit lim;
	return prlimit(p->host->tid, RLIMIT_FSIZE, NULL, &lim) == 0 && (lim.rlim_cur == RLIM_INFINITY || lim.rlim_cur >= size);
}

int memory_write(struct dump *d, struct process *p)
{
	char name[32];
	autofree struct segment *segs = NULL;
	size_t n;
	snprintf(name, sizeof name, "core.%d", p->pid);
	if (core_notes_add(p) || find_segments(p, &segs, &n))
		return -1;
	int fd = image_core_begin(d->writer, name, &p->core, segs, n);
	if (fd < 0)
		return -1;
	int their_fd = -1;
	if (n && may_write(p, segs[n - 1].file_offset + segs[n - 1].len)) {
		their_fd = parasite_give(p, fd);
		if (their_fd < 0)
			return -1;
	}
	int ret = write_pages(d, p, fd, their_fd, segs, n);
	if (their_fd >= 0 && parasite_drop(p, their_fd))
		ret = -1;
	return ret ? ret : image_core_end(d->writer);
}

/* ---- restore ---- */

/* A file to be mapped: the same as at the dump, or nothing could be said about pages that were not saved. */
static int open_mapped(const struct rec_vma *v, const char *path, uint32_t pid, int keep_from)
{
	int flags = v->kind == VMA_FILE_SHARED && v->flags & VMA_FILE_WRITABLE ? O_RDWR : O_RDONLY;
	autoclose int fd = open(path, flags | O_CLOEXEC);
	struct stat st;
	if (fd < 0 && errno == ENOENT)
		return fail("pid %u maps %s, which is gone; put the file back that was there at the dump", pid, path);
	if (fd < 0 || fstat(fd, &st))
		return fail_errno("pid %u maps %s, which cannot be opened; put the file back that was there at the dump", pid, path);
	if (v->kind == VMA_FILE_PRIVATE && S_ISREG(st.st_mode) && ((uint64_t)st.st_size != v->file_size || mtime_ns(&st) != v->file_mtime_ns))
		return fail("pid %u maps %s, which has changed since the dump (its size or time is another); put the old file back",
			    pid, path);
	if ((uint64_t)st.st_size < v->file_size)
		return fail("pid %u maps %s, which has become shorter since the dump (%lu bytes, then %lu)", pid, path,
			    (unsigned long)st.st_size, v->file_size);
	int high = fcntl(fd, F_DUPFD_CLOEXEC, keep_from);
	return high >= 0 ? high : fail_errno("pid %u: a descriptor for %s", pid, path);
}

#define MAP_DROPPABLE_ 0x08 /* include/uapi/linux/mman.h of 6.11 */

static uint32_t map_flags(const struct rec_vma *v)
{
	uint32_t f = v->kind == VMA_FILE_SHARED || v->kind == VMA_ANON_SHARED ? MAP_SHARED : MAP_PRIVATE;
	if (v->kind == VMA_ANON_PRIVATE)
		f |= MAP_ANONYMOUS;
	if (v->flags & VMA_DROPPABLE)
		f = MAP_DROPPABLE_ | MAP_ANONYMOUS;
	if (v->flags & VMA_GROWSDOWN)
		f |= MAP_GROWSDOWN;
	if (v->flags & VMA_NORESERVE)
		f |= MAP_NORESERVE;
	if (v->flags & VMA_HUGETLB && v->kind == VMA_ANON_PRIVATE)
		f |= MAP_HUGETLB | (v->page_size ? (uint32_t)__builtin_ctzl(v->page_size) << MAP_HUGE_SHIFT : 0);
	return f;
}

/* Consecutive mappings of one file share a descriptor. */
struct last_file {
	const char *path;
	uint32_t object;
	int fd;
	uint32_t kind, writable;
};

/* What was opened for reading cannot be made writable by mprotect, and does not stand in the way of a seal. */
static int open_object(struct restore *r, const struct rec_vma *v, const struct plan *plan, struct last_file *last)
{
	uint32_t writable = v->kind == VMA_FILE_PRIVATE ? 0 : v->flags & VMA_FILE_WRITABLE;
	if (last->object == v->object && last->writable == writable)
		return last->fd;
	int fd = opened_fd(r, v->object);
	if (fd >= 0 && !(writable && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)) {
		autoclose int again = object_reopen(fd, writable ? O_RDWR : O_RDONLY);
		fd = again < 0 ? -1 : fcntl(again, F_DUPFD_CLOEXEC, plan->keep_from);
		if (again >= 0 && fd < 0)
			return fail_errno("a descriptor for object %u", v->object);
	}
	*last = (struct last_file){.object = v->object, .fd = fd, .writable = writable};
	return fd;
}

/* Whether some segment of the core lies in it. */
static bool has_contents(const struct image_file *core, uint64_t start, uint64_t end)
{
	size_t lo = 0, hi = core->n_segs;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (core->segs[mid].start + core->segs[mid].len <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < core->n_segs && core->segs[lo].start < end;
}

static int plan_object(struct restore *r, struct rtask *t, const struct plan *plan, const struct rec_vma *v, struct restorer_map *m,
		       struct last_file *last)
{
	struct rec_object o;
	const char *name;
	if (!(v->flags & VMA_SYSV)) {
		m->fd = open_object(r, v, plan, last);
		return m->fd < 0 ? -1 : 1;
	}
	if (opened_fd(r, v->object) < 0)
		return -1;
	if (r->opened[v->object - 1].record->type != REC_SYSV)
		return fail("%s: object %u is no System V shared memory", t->core.name, v->object);
	if (object_get(r, r->opened[v->object - 1].record, &o, &name))
		return -1;
	m->fd = o.shmid;
	m->first_prot = PROT_READ | (v->flags & VMA_FILE_WRITABLE ? PROT_WRITE : 0);
	return 1;
}

static int plan_vma(struct restore *r, struct rtask *t, struct plan *plan, const struct record *rec, struct restorer_map *m,
		    struct last_file *last)
{
	struct rec_vma v;
	if (record_get(&t->core, rec, &v, sizeof v))
		return -1;
	if (v.kind == VMA_VDSO || v.kind == VMA_VVAR || v.kind == VMA_VSYSCALL)
		return 0;
	if (v.start & 4095 || v.end & 4095 || v.end <= v.start || v.end > 1ul << 47)
		return fail("%s: a mapping from %#lx to %#lx is impossible", t->core.name, v.start, v.end);
	*m = (struct restorer_map){.start = v.start, .len = v.end - v.start, .offset = v.offset, .vma_flags = v.flags,
				   .prot = v.prot, .first_prot = v.prot, .map_flags = map_flags(&v), .fd = -1, .pkey = v.pkey};
	/* what holds nothing is mapped as it is: a writable mapping counts against the memory there is, this may not have */
	if ((v.kind == VMA_ANON_PRIVATE || v.kind == VMA_FILE_PRIVATE) && has_contents(&t->core, v.start, v.end))
		m->first_prot |= PROT_WRITE | PROT_READ;
	size_t pos = 0;
	const char *path = rec->tail_len ? record_string(&t->core, rec, &pos) : NULL;
	if (rec->tail_len && !path)
		return -1;
	if ((v.kind == VMA_ANON_PRIVATE || v.kind == VMA_ANON_SHARED) && path) {
		char *name = plan_alloc(plan, strlen(path) + 1);
		if (!name)
			return -1;
		m->name = (uintptr_t)strcpy(name, path);
	}
	if (v.object)
		return plan_object(r, t, plan, &v, m, last);
	if (v.kind == VMA_FILE_PRIVATE || v.kind == VMA_FILE_SHARED) {
		if (!path)
			return fail("%s: a mapping of a file has no path", t->core.name);
		uint32_t writable = v.flags & VMA_FILE_WRITABLE;
		if (!last->path || strcmp(last->path, path) || last->kind != v.kind || last->writable != writable)
			*last = (struct last_file){path, 0, open_mapped(&v, path, t->proc.pid, plan->keep_from), v.kind, writable};
		m->fd = last->fd;
		return m->fd < 0 ? -1 : 1;
	}
	return 1;
}

/* Our own vDSO, moved to where the target's was; another kernel's is refused. */
static int plan_vdso(struct rtask *t, struct plan *plan, const struct rec_mm *mm)
{
	struct maps own;
	if (maps_read(getpid(), &own))
		return -1;
	struct rec_mm here = {0};
	struct process self = {.maps = own};
	find_vdso(&self, &here);
	int ret = 0;
	if (!mm->vdso || here.vdso_size != mm->vdso_size || here.vvar_size != mm->vvar_size ||
	    here.vdso - here.vvar != mm->vdso - mm->vvar) {
		ret = fail("pid %u was dumped on a kernel with another vDSO; restore it on the same kernel", t->proc.pid);
	} else {
		struct restorer_vdso *v = plan_alloc(plan, 8 * sizeof *v);
		for (size_t i = 0; v && i < own.n && plan->args->n_vdso < 8; i++) {
			const struct vma *o = &own.vma[i];
			if (o->kind != VMA_VDSO && o->kind != VMA_VVAR)
				continue;
			v[plan->args->n_vdso++] = (struct restorer_vdso){.from = o->start,
									  .park = plan->park + (o->start - here.vvar),
									  .to = mm->vdso + o->start - here.vdso,
									  .len = o->end - o->start};
		}
		plan->args->vdso = (uintptr_t)v;
		ret = v ? 0 : -1;
	}
	maps_free(&own);
	return ret;
}

/* A program that was removed is the object that its code is mapped from. */
static int open_program(struct restore *r, struct rtask *t, const struct rec_mm *mm, const char *exe)
{
	if (!t->task.exe_deleted)
		return open(exe, O_RDONLY | O_CLOEXEC);
	each_record(&t->core, rec) {
		struct rec_vma v;
		if (rec->type != REC_VMA)
			continue;
		if (record_get(&t->core, rec, &v, sizeof v))
			return -1;
		if (v.object && v.start <= mm->start_code && mm->start_code < v.end) {
			int fd = opened_fd(r, v.object);
			return fd < 0 ? -1 : object_reopen(fd, O_RDONLY);
		}
	}
	errno = ENOENT;
	return -1;
}

static int plan_mm(struct restore *r, struct rtask *t, struct plan *plan, const struct record *rec, const char *exe)
{
	struct rec_mm mm;
	if (record_get(&t->core, rec, &mm, sizeof mm))
		return -1;
	char *auxv = plan_alloc(plan, rec->tail_len);
	if (!auxv)
		return -1;
	memcpy(auxv, rec->tail, rec->tail_len);
	int fd = open_program(r, t, &mm, exe);
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, plan->keep_from);
	if (high < 0)
		return fail_errno("the program %s of pid %u", exe, t->proc.pid);
	close(fd);
	plan->args->mm = (struct restorer_mm){
		mm.start_code, mm.end_code, mm.start_data, mm.end_data, mm.start_brk, mm.brk, mm.start_stack, mm.arg_start,
		mm.arg_end, mm.env_start, mm.env_end, (uintptr_t)auxv, rec->tail_len, high,
	};
	return plan_vdso(t, plan, &mm);
}

static int plan_contents(struct rtask *t, struct plan *plan)
{
	struct image_file *c = &t->core;
	struct restorer_run *runs = plan_alloc(plan, c->n_segs * sizeof *runs);
	uint32_t *sums = plan_alloc(plan, c->n_sums * sizeof *sums);
	if (!runs || !sums)
		return -1;
	for (size_t i = 0; i < c->n_segs; i++)
		runs[i] = (struct restorer_run){c->segs[i].start, c->segs[i].len};
	memcpy(sums, c->sums, c->n_sums * sizeof *sums);
	plan->args->runs = (uintptr_t)runs;
	plan->args->n_runs = c->n_segs;
	plan->args->sums = (uintptr_t)sums;
	plan->args->n_sums = c->n_sums;
	plan->args->contents = c->contents_start;
	plan->args->core_fd = fcntl(c->fd, F_DUPFD_CLOEXEC, plan->keep_from);
	return plan->args->core_fd >= 0 ? 0 : fail_errno("a descriptor for %s", c->name);
}

static int memory_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	size_t n = 0;
	const struct record *mm = NULL, *task = NULL;
	struct last_file last = {0};
	each_record(&t->core, rec)
		n += rec->type == REC_VMA;
	struct restorer_map *maps = plan_alloc(plan, n * sizeof *maps);
	if (!maps)
		return -1;
	plan->args->maps = (uintptr_t)maps;
	each_record(&t->core, rec) {
		if (rec->type == REC_MM)
			mm = rec;
		if (rec->type == REC_TASK)
			task = rec;
		if (rec->type != REC_VMA)
			continue;
		int made = plan_vma(r, t, plan, rec, &maps[plan->args->n_maps], &last);
		if (made < 0)
			return -1;
		plan->args->n_maps += made;
	}
	if (!mm || !task)
		return fail("%s has no record of its address space", t->core.name);
	size_t pos = 0;
	const char *exe = NULL;
	for (int i = 0; i < 3; i++) /* cwd, root, exe */
		if (!(exe = record_string(&t->core, task, &pos)))
			return -1;
	return plan_mm(r, t, plan, mm, exe) || plan_contents(t, plan) ? -1 : 0;
}

const struct kind memory_kind = {
	.name = "memory",
	.collect = memory_collect,
	.settle = memory_settle,
	.plan = memory_plan,
};
