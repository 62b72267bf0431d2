/*
 * What of an address space no mapping's line tells: guard markers, memory policies, and whether what is mapped later is
 * locked (mlockall).
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/pagemap.h"
#include "lib/proc.h"
#include "plan.h"

#define TASK_TOP   0x7ffffffff000ul
#define AT_ONCE	   60
#define NODE_WORDS 16 /* of 1,024 nodes, as many as x86's kernels may have */

/* ---- dump ---- */

struct ranges {
	struct rec_range *r;
	size_t n, cap;
};

static int add(struct ranges *all, const struct rec_range *r)
{
	struct rec_range *bigger = grow_array(all->r, &all->cap, all->n + 1, sizeof *bigger);
	if (!bigger)
		return -1;
	all->r = bigger;
	all->r[all->n++] = *r;
	return 0;
}

/* Page tables are walked where there are any: one call for all of it. */
static int find_guards(const struct process *p, struct ranges *all)
{
	autoclose int fd = pagemap_open(p->host->tid);
	autofree struct page_run *runs = NULL;
	size_t n = 0, cap = 0;
	if (fd < 0 || pagemap_collect(fd, p->pid, 0, TASK_TOP, PAGES_GUARD, &runs, &n, &cap))
		return -1;
	for (size_t i = 0; i < n; i++)
		if (add(all, &(struct rec_range){runs[i].start, runs[i].end, RANGE_GUARD, 0, 0}))
			return -1;
	return 0;
}

struct policy {
	int32_t mode, pad;
	uint64_t nodes[NODE_WORDS];
};

static int take_policy(const struct process *p, const struct vma *v, const struct policy *pol, struct ranges *all)
{
	for (size_t i = 1; i < NODE_WORDS; i++)
		if (pol->nodes[i])
			return fail("pid %d (%s) has memory at %#lx bound to NUMA nodes above 63, which cannot be carried over", p->pid,
				    p->comm, v->start);
	return add(all, &(struct rec_range){v->start, v->end, RANGE_POLICY, pol->mode, pol->nodes[0]});
}

static bool may_have_policy(const struct vma *v)
{
	return v->kind != VMA_VDSO && v->kind != VMA_VVAR && v->kind != VMA_VSYSCALL && !v->io;
}

/* Policies of the mappings from *at on, as many as one batch takes. 1: the kernel has none. */
static int some_policies(struct process *p, size_t *at, struct ranges *all)
{
	const struct vma *asked[AT_ONCE];
	long data[AT_ONCE];
	int call[AT_ONCE], n = 0;
	batch_begin();
	for (; *at < p->maps.n && n < AT_ONCE; ++*at) {
		const struct vma *v = &p->maps.vma[*at];
		if (!may_have_policy(v))
			continue;
		asked[n] = v;
		data[n] = batch_room(sizeof(struct policy));
		if (data[n] < 0)
			return -1;
		call[n] = batch_add(1 << 0 | 1 << 1, SYS_get_mempolicy, data[n], data[n] + offsetof(struct policy, nodes),
				    NODE_WORDS * 64l, v->start, MPOL_F_ADDR, 0);
		if (call[n++] < 0)
			return -1;
	}
	if (n && parasite_run(p))
		return -1;
	for (int i = 0; i < n; i++) {
		struct policy pol;
		int64_t ret = batch_result(call[i]);
		if (ret == -ENOSYS)
			return 1;
		if (ret < 0)
			continue; /* a kernel with more nodes than these; or a special mapping */
		memcpy(&pol, batch_data(data[i]), sizeof pol);
		if (pol.mode != MPOL_DEFAULT && take_policy(p, asked[i], &pol, all))
			return -1;
	}
	return 0;
}

/* The parasite's own mapping came after the mlockall, if there was one. */
static int find_lock(const struct process *p, uint32_t *lock)
{
	autofree char *now = proc_read(NULL, "/proc/%d/status", p->host->tid);
	if (!now)
		return -1;
	*lock = 0;
	if (status_number(now, "VmLck", 10, 0) <= status_number(p->status, "VmLck", 10, 0))
		return 0;
	struct maps m;
	if (maps_read(p->host->tid, &m))
		return -1;
	const struct vma *v = maps_find(&m, p->parasite.base);
	if (v && v->flags & VMA_LOCKED)
		*lock = MCL_FUTURE | (v->flags & VMA_LOCKONFAULT ? MCL_ONFAULT : 0);
	maps_free(&m);
	return 0;
}

static int address_space_collect(struct dump *d, struct process *p)
{
	(void)d;
	struct ranges all = {0};
	struct rec_mm_state s = {.range_size = sizeof *all.r};
	int ret = find_lock(p, &s.lock_future) || find_guards(p, &all) ? -1 : 0;
	for (size_t at = 0; !ret && at < p->maps.n;)
		ret = some_policies(p, &at, &all);
	s.n = all.n;
	if (ret >= 0 && (s.n || s.lock_future))
		ret = notes_add_record(&p->core, REC_MM_STATE, &s, sizeof s, all.r, all.n * sizeof *all.r);
	free_ptr(&all.r);
	return ret < 0 ? -1 : 0;
}

/* ---- restore ---- */

static int get_state(const struct image_file *f, const struct record *rec, struct rec_mm_state *s)
{
	if (record_get(f, rec, s, sizeof *s))
		return -1;
	if (s->range_size < sizeof(struct rec_range) || s->n > rec->tail_len / s->range_size)
		return fail("%s: %u ranges of memory do not fit in their record", f->name, s->n);
	return 0;
}

static int address_space_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	each_record(&t->core, rec) {
		struct rec_mm_state s;
		if (rec->type != REC_MM_STATE)
			continue;
		if (get_state(&t->core, rec, &s))
			return -1;
		struct restorer_range *out = plan_alloc(plan, s.n * sizeof *out);
		if (!out)
			return -1;
		for (uint32_t i = 0; i < s.n; i++) {
			struct rec_range g;
			memcpy(&g, rec->tail + (size_t)i * s.range_size, sizeof g);
			if (g.start >= g.end || g.end > TASK_TOP || (g.start | g.end) & 4095)
				return fail("%s: a range from %#lx to %#lx is impossible", t->core.name, g.start, g.end);
			out[i] = (struct restorer_range){g.start, g.end - g.start, g.kind, g.mode, g.nodes};
		}
		plan->args->ranges = (uintptr_t)out;
		plan->args->n_ranges = s.n;
		plan->args->lock_future = s.lock_future & (MCL_FUTURE | MCL_ONFAULT);
	}
	return 0;
}

static void print_state(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_mm_state s;
	if (json_record(j, f, rec, &s, sizeof s) < 0)
		return;
	json_uint(j, "ranges", s.n);
	json_hex(j, "lock_future", s.lock_future);
}

static const struct record_printer printers[] = {
	{REC_MM_STATE, "mm_state", print_state},
	{0},
};

const struct kind address_space_kind = {
	.name = "address-space",
	.collect = address_space_collect,
	.plan = address_space_plan,
	.printers = printers,
};
