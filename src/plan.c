#include "plan.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86_64/sigframe.h"
#include "lib/blobs.h"
#include "restorer-offsets.h"

#define PARK_SIZE     (64ul << 12)
#define LOWEST_REGION 0x10000000ul

/* The target's mappings as the records have them, for the search of a hole. */
static int target_maps(const struct image_file *core, struct maps *m)
{
	*m = (struct maps){0};
	size_t cap = 0;
	each_record(core, rec) {
		struct rec_vma v;
		if (rec->type != REC_VMA)
			continue;
		if (record_get(core, rec, &v, sizeof v))
			return -1;
		struct vma *bigger = grow_array(m->vma, &cap, m->n + 1, sizeof *bigger);
		if (!bigger)
			return -1;
		m->vma = bigger;
		m->vma[m->n++] = (struct vma){.start = v.start, .end = v.end, .flags = v.flags};
	}
	return 0;
}

static uint64_t find_region(struct rtask *t, uint64_t len)
{
	struct maps own, target;
	uint64_t at = 0;
	if (maps_read(getpid(), &own))
		return 0;
	if (target_maps(&t->core, &target) == 0) {
		const struct maps *both[] = {&own, &target};
		at = maps_hole(both, 2, LOWEST_REGION, len);
		if (!at)
			fail("pid %u: no %lu bytes of address space are free of its own mappings", t->proc.pid, len);
	}
	maps_free(&own);
	maps_free(&target);
	return at;
}

static int map_at(uint64_t at, uint64_t len, int prot, int flags, int fd)
{
	void *got = mmap((void *)at, len, prot, flags | MAP_FIXED_NOREPLACE, fd, 0);
	if (got != (void *)at)
		return fail_errno("mapping %lu bytes at %#lx for the restorer", len, at);
	return 0;
}

int plan_create(struct restore *r, struct rtask *t, struct plan *p)
{
	size_t blob = restorer_blob_end - restorer_blob_start, code = restorer_blob_offset____export_data;
	/* an upper bound; pages that are not used cost nothing */
	p->size = (1ul << 20) + t->core.n_segs * sizeof(struct restorer_run) + t->core.n_sums * 4 + t->core.n_records * 1024 +
		  (uint64_t)t->task.n_threads * (SIGFRAME_MAX + 16384);
	p->size = (p->size + 4095) & ~4095ul;
	uint64_t park = blob, shared = park + PARK_SIZE, memory = shared + 4096;
	p->len = memory + p->size;
	p->region = find_region(t, p->len);
	if (!p->region)
		return -1;
	p->park = p->region + park;
	p->shared = p->region + shared;
	p->memory = (char *)p->region + memory;
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS;
	if (map_at(p->region, blob, PROT_READ | PROT_WRITE, anon, -1) || map_at(p->park, PARK_SIZE, PROT_NONE, anon, -1) ||
	    map_at(p->shared, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r->shared_fd) ||
	    map_at((uint64_t)p->memory, p->size, PROT_READ | PROT_WRITE, anon | MAP_NORESERVE, -1))
		return -1;
	memcpy((void *)p->region, restorer_blob_start, blob);
	if (mprotect((void *)p->region, code, PROT_READ | PROT_EXEC))
		return fail_errno("making the restorer executable");
	p->args = plan_alloc(p, sizeof *p->args);
	if (!p->args)
		return -1;
	p->args->region = p->region;
	p->args->region_len = p->len;
	p->args->shared = p->shared;
	p->args->park = p->park;
	p->args->index = t - r->tasks;
	p->args->pid = t->proc.pid;
	return 0;
}

void *plan_alloc(struct plan *p, size_t len)
{
	len = (len + 63) & ~63ul;
	if (len > p->size - p->used) {
		fail("the restorer's plan does not fit in %zu bytes", p->size);
		return NULL;
	}
	void *at = p->memory + p->used;
	p->used += len;
	return at;
}

void plan_enter(struct plan *p)
{
	void (*entry)(struct restorer_args *) __attribute__((noreturn)) =
		(void *)plan_symbol(p->region, restorer_blob_offset____export_restorer_entry);
	entry(p->args);
}
