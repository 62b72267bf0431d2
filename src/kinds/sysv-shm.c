/*
 * System V shared memory that is attached: with its number, which programs keep, and its key.
 *
 * dump     shmctl in the target tells what it is; contents through its mapping's file.
 * restore  a segment of that number that is still there and nobody uses is filled anew; else it is made, its number chosen
 *          through /proc/sys/kernel/shm_next_id. Tasks attach it, for a mapping of its file would not count as attached.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/proc.h"
#include "objects.h"

static const char next_id[] = "/proc/sys/kernel/shm_next_id";

/* ---- dump ---- */

static int stat_segment(struct process *p, int id, struct shmid_ds *ds)
{
	batch_begin();
	long buf = batch_room(sizeof *ds);
	int i = buf < 0 ? -1 : batch_add(1 << 2, SYS_shmctl, id, IPC_STAT, buf, 0, 0, 0);
	if (i < 0 || parasite_run(p))
		return -1;
	if (batch_result(i) < 0) {
		errno = -batch_result(i);
		return fail_errno("pid %d (%s): System V shared memory %d", p->pid, p->comm, id);
	}
	memcpy(ds, batch_data(buf), sizeof *ds);
	return 0;
}

/* Numbers are each IPC namespace's own, and the coordinator makes them in its own. */
static int check_namespace(const struct process *p)
{
	autofree char *theirs = proc_readlink("/proc/%d/ns/ipc", p->host->tid);
	autofree char *ours = proc_readlink("/proc/self/ns/ipc");
	if (!theirs || !ours)
		return -1;
	if (strcmp(theirs, ours))
		return fail("pid %d (%s) has System V shared memory of another IPC namespace, which cannot be carried over", p->pid,
			    p->comm);
	return 0;
}

/*
 * The mappings of one shmat, from the I-th on, up to *end: one, or what mprotect has made of it. What was unmapped in
 * part cannot be attached so.
 */
static int find_attached(struct process *p, size_t i, const struct shmid_ds *ds, size_t *end)
{
	const struct vma *first = &p->maps.vma[i], *v = first;
	uint64_t size = (ds->shm_segsz + 4095) & ~4095ul;
	while (v->end - first->start < size && v + 1 < p->maps.vma + p->maps.n && v[1].start == v->end && v[1].ino == v->ino &&
	       v[1].offset == v->offset + (v->end - v->start))
		v++;
	if (first->offset || v->end - first->start != size)
		return fail("pid %d (%s) has a part of System V shared memory %lu attached at %#lx, which cannot be done again", p->pid,
			    p->comm, first->ino, first->start);
	*end = v - p->maps.vma + 1;
	return 0;
}

static uint32_t save_segment(struct dump *d, struct process *p, const struct vma *v, const struct shmid_ds *ds)
{
	struct rec_object o = {.kind = OBJECT_SYSV, .shmid = v->ino, .shm_key = ds->shm_perm.__key, .shm_mode = ds->shm_perm.mode,
			       .shm_uid = ds->shm_perm.uid, .shm_gid = ds->shm_perm.gid};
	if (check_namespace(p))
		return 0;
	if (v->flags & VMA_HUGETLB) {
		fail("pid %d (%s) has System V shared memory of huge pages at %#lx, which cannot be carried over", p->pid, p->comm,
		     v->start);
		return 0;
	}
	autoclose int fd = object_open_vma(p, v);
	return fd < 0 ? 0 : object_save(d, REC_SYSV, &o, fd, v->name);
}

static int take_vmas(struct dump *d, struct process *p, size_t *i)
{
	struct vma *v = &p->maps.vma[*i];
	uint64_t dev = makedev(v->dev_major, v->dev_minor);
	struct shmid_ds ds;
	size_t end = 0;
	if (stat_segment(p, v->ino, &ds) || find_attached(p, *i, &ds, &end))
		return -1;
	uint32_t id = object_find(d, dev, v->ino);
	if (!id)
		id = save_segment(d, p, v, &ds);
	if (!id || object_alias(d, dev, v->ino, id))
		return -1;
	for (; *i < end; ++*i) {
		p->maps.vma[*i].object = id;
		p->maps.vma[*i].flags |= VMA_SYSV;
	}
	return 0;
}

static int sysv_shm_settle(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct process *p = &d->procs[i];
		for (size_t k = 0; k < p->maps.n;) {
			const struct vma *v = &p->maps.vma[k];
			if (!v->shared || strncmp(v->name, "/SYSV", 5))
				k++;
			else if (take_vmas(d, p, &k))
				return -1;
		}
	}
	return 0;
}

/* ---- restore ---- */

static int *made; /* what an error takes away again */
static size_t n_made, cap_made;

static int make_segment(const struct rec_object *o)
{
	char text[16];
	int *bigger = grow_array(made, &cap_made, n_made + 1, sizeof *made);
	if (!bigger)
		return -1;
	made = bigger;
	int len = snprintf(text, sizeof text, "%d", o->shmid);
	autoclose int fd = open(next_id, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, len) != len)
		return fail_errno("choosing the number of System V shared memory %d (%s)", o->shmid, next_id);
	int id = shmget(o->shm_key, o->size, IPC_CREAT | IPC_EXCL | 0600);
	if (id < 0)
		return fail_errno("System V shared memory %d with key %#x", o->shmid, (unsigned)o->shm_key);
	made[n_made++] = id;
	if (id != o->shmid)
		return fail("System V shared memory %d cannot have its number again: it is in use", o->shmid);
	return 0;
}

/* One that has outlived the dump; who uses it now must not lose it. 1: there is none. */
static int take_segment(const struct rec_object *o)
{
	struct shmid_ds ds;
	if (shmctl(o->shmid, IPC_STAT, &ds))
		return 1;
	if (ds.shm_nattch || ds.shm_perm.__key != o->shm_key || ds.shm_segsz != o->size)
		return fail("System V shared memory %d is in use by others (ipcs -m -i %d)", o->shmid, o->shmid);
	return 0;
}

/* Its file, through a mapping of ours. */
static int open_segment(const struct rec_object *o)
{
	char path[96];
	char *at = shmat(o->shmid, NULL, 0);
	if (at == (char *)-1)
		return fail_errno("attaching System V shared memory %d", o->shmid);
	snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", (unsigned long)at,
		 ((unsigned long)at + o->size + 4095) & ~4095ul);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fail_errno("System V shared memory %d: %s", o->shmid, path);
	shmdt(at);
	return fd;
}

static int sysv_shm_open(struct restore *r, const struct record *rec, uint32_t *id)
{
	struct rec_object o;
	const char *name;
	if (object_get(r, rec, &o, &name))
		return -1;
	*id = o.id;
	if (o.kind != OBJECT_SYSV || !o.size || o.shmid < 0)
		return fail("tree: object %u is no System V shared memory", o.id);
	int there = take_segment(&o);
	if (there < 0 || (there && make_segment(&o)))
		return -1;
	int fd = open_segment(&o);
	if (fd < 0)
		return -1;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, o.size) || object_fill(r, rec, &o, fd)) {
		close(fd);
		return fail_within("System V shared memory %d", o.shmid);
	}
	return fd;
}

/* All have attached it: one that was removed while in use goes with its last user. */
static int sysv_shm_ready(struct restore *r)
{
	each_record(&r->tree, rec) {
		struct rec_object o;
		const char *name;
		struct shmid_ds ds;
		if (rec->type != REC_SYSV)
			continue;
		if (object_get(r, rec, &o, &name))
			return -1;
		if (shmctl(o.shmid, IPC_STAT, &ds))
			return fail_errno("System V shared memory %d", o.shmid);
		ds.shm_perm.uid = o.shm_uid;
		ds.shm_perm.gid = o.shm_gid;
		ds.shm_perm.mode = o.shm_mode & 0777;
		if (shmctl(o.shmid, IPC_SET, &ds) || (o.shm_mode & SHM_DEST && shmctl(o.shmid, IPC_RMID, NULL)))
			return fail_errno("System V shared memory %d: its owner and mode", o.shmid);
	}
	return 0;
}

static void sysv_shm_undo(struct restore *r)
{
	(void)r;
	while (n_made)
		shmctl(made[--n_made], IPC_RMID, NULL);
}

static const struct record_printer printers[] = {
	{REC_SYSV, "sysv", print_object},
	{0},
};

const struct kind sysv_shm_kind = {
	.name = "sysv-shm",
	.settle = sysv_shm_settle,
	.opens = {REC_SYSV},
	.open = sysv_shm_open,
	.ready = sysv_shm_ready,
	.undo = sysv_shm_undo,
	.printers = printers,
};
