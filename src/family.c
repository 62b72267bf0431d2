/*
 * A session is had by birth only (setsid(2), fork(2)): a child must be born while its maker is in it. So:
 *
 *   - in its parent's session: by its parent;
 *   - in the session that its parent was in before it made its own: by its parent, before;
 *   - else it was somebody else's child, who died, and came to its parent because that is a subreaper: a helper below the
 *     session's leader makes it and dies.
 *
 * A leader of a session or group that is gone, while members live on, is stood in for by a helper with its number, which no
 * other can have meanwhile (kernel/pid.c: a number is free once no process, group or session has it).
 */
#include "family.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/proc.h"

#define OUT 0xffffffffu /* the session of whoever starts the tree */

/* ---- finding by number ---- */

static int compare_pids(const void *a, const void *b)
{
	const struct rtask *x = *(struct rtask *const *)a, *y = *(struct rtask *const *)b;
	return (x->proc.pid > y->proc.pid) - (x->proc.pid < y->proc.pid);
}

struct index {
	struct rtask **by_pid;
	size_t n;
};

static struct rtask *find(const struct index *x, uint32_t pid)
{
	struct rtask key = {.proc.pid = pid}, *k = &key;
	struct rtask **found = x->n ? bsearch(&k, x->by_pid, x->n, sizeof k, compare_pids) : NULL;
	return found ? *found : NULL;
}

/* Room for N_MORE helpers, which are indexed later. */
static int index_tasks(struct index *x, struct restore *r, size_t n_more)
{
	free(x->by_pid);
	x->by_pid = alloc_zeroed(r->n + n_more, sizeof *x->by_pid);
	if (!x->by_pid)
		return -1;
	x->n = 0;
	for (size_t i = 0; i < r->n; i++)
		x->by_pid[x->n++] = &r->tasks[i];
	for (size_t i = 0; i < n_more; i++)
		x->by_pid[x->n++] = &r->helpers[i];
	qsort(x->by_pid, x->n, sizeof *x->by_pid, compare_pids);
	return 0;
}

/* ---- helpers for leaders that are gone ---- */

static uint32_t session_of(const struct rtask *t)
{
	return t->proc.outside & OUTSIDE_SESSION ? OUT : t->proc.sid;
}

static bool leads(const struct rtask *t)
{
	return t->proc.sid == t->proc.pid;
}

static struct rtask *common_ancestor(struct rtask *a, struct rtask *b)
{
	while (a && b && a != b) {
		if (a->depth >= b->depth)
			a = a->parent;
		else
			b = b->parent;
	}
	return a && b ? a : NULL;
}

static bool below(const struct rtask *t, const struct rtask *above)
{
	while (t && t->depth > above->depth)
		t = t->parent;
	return t == above;
}

static int compare_sids(const void *a, const void *b)
{
	const struct rtask *x = *(struct rtask *const *)a, *y = *(struct rtask *const *)b;
	if (x->proc.sid != y->proc.sid)
		return x->proc.sid < y->proc.sid ? -1 : 1;
	return (x > y) - (x < y);
}

static int compare_pgids(const void *a, const void *b)
{
	const struct rtask *x = *(struct rtask *const *)a, *y = *(struct rtask *const *)b;
	if (x->proc.pgid != y->proc.pgid)
		return x->proc.pgid < y->proc.pgid ? -1 : 1;
	return (x > y) - (x < y);
}

static void add_helper(struct restore *r, uint32_t pid, uint32_t sid, struct rtask *parent, uint32_t outside)
{
	struct rtask *h = &r->helpers[r->n_helpers++];
	*h = (struct rtask){.proc = {.pid = pid, .ppid = parent->proc.pid, .sid = sid, .pgid = pid, .state = PROCESS_ALIVE,
				     .outside = outside & OUTSIDE_SESSION},
			    .core.fd = -1, .parent = parent, .helper = true, .depth = parent->depth + 1};
}

/* One for each session without leader, placed above all whose parents are not in it. */
static int add_session_leaders(struct restore *r, const struct index *x)
{
	autofree struct rtask **sorted = alloc_zeroed(r->n, sizeof *sorted);
	if (!sorted)
		return -1;
	for (size_t i = 0; i < r->n; i++)
		sorted[i] = &r->tasks[i];
	qsort(sorted, r->n, sizeof *sorted, compare_sids);
	for (size_t i = 0, end; i < r->n; i = end) {
		uint32_t sid = sorted[i]->proc.sid;
		struct rtask *above = NULL;
		bool none = true;
		for (end = i; end < r->n && sorted[end]->proc.sid == sid; end++) {
			struct rtask *t = sorted[end];
			if (session_of(t) == OUT || (t->parent && session_of(t->parent) == sid))
				continue;
			above = none ? t->parent : common_ancestor(above, t->parent);
			none = false;
		}
		if (none || find(x, sid))
			continue;
		if (!above || !sid)
			return fail("tree: process %u's session %u has no leader and cannot be made again", sorted[i]->proc.pid, sid);
		add_helper(r, sid, sid, above, 0);
	}
	return 0;
}

/* One for each group without leader, made by a member of it. */
static int add_group_leaders(struct restore *r, const struct index *x)
{
	autofree struct rtask **sorted = alloc_zeroed(r->n, sizeof *sorted);
	if (!sorted)
		return -1;
	for (size_t i = 0; i < r->n; i++)
		sorted[i] = &r->tasks[i];
	qsort(sorted, r->n, sizeof *sorted, compare_pgids);
	for (size_t i = 0; i < r->n; i++) {
		struct rtask *t = sorted[i], *leader = find(x, t->proc.pgid);
		if (t->proc.outside & OUTSIDE_GROUP || t->proc.pgid == t->proc.pid)
			continue;
		if (leader)
			leader->led_group = true;
		else if (!t->proc.pgid || leads(t))
			return fail("tree: process %u's group %u is impossible", t->proc.pid, t->proc.pgid);
		else if (!i || sorted[i - 1]->proc.pgid != t->proc.pgid)
			add_helper(r, t->proc.pgid, t->proc.sid, t, t->proc.outside);
	}
	return 0;
}

static int add_helpers(struct restore *r, struct index *x)
{
	r->helpers = alloc_zeroed(2 * r->n, sizeof *r->helpers);
	if (!r->helpers || index_tasks(x, r, 0) || add_session_leaders(r, x) || index_tasks(x, r, r->n_helpers) ||
	    add_group_leaders(r, x))
		return -1;
	return index_tasks(x, r, r->n_helpers);
}

/* ---- makers ---- */

static int choose_maker(struct rtask *t, const struct index *x)
{
	struct rtask *p = t->parent;
	uint32_t need = leads(t) ? t->birth_session : session_of(t);
	if (!p)
		return !need || need == OUT ? 0 : fail("tree: the root's session is impossible");
	t->maker = p;
	t->born_after = true;
	if (!need || session_of(p) == need)
		return 0;
	struct rtask *leader = need == OUT ? NULL : find(x, need);
	if (leader && leader != t && leader != p && below(leader, p)) {
		t->maker = leader;
		t->adopted = p->adopts = true;
		return 0;
	}
	if (!leads(p) || (p->birth_session && p->birth_session != need))
		return fail("pid %u: its session %u cannot be made again below its parent %u: its history is not known", t->proc.pid,
			    t->proc.sid, p->proc.pid);
	p->birth_session = need;
	t->born_after = false;
	return 0;
}

/* An orphan goes to the nearest subreaper above its maker: that must be its parent. */
static int check_adoption(const struct rtask *t)
{
	const struct rtask *up = t->maker;
	while (up && !up->adopts)
		up = up->parent;
	if (up != t->parent)
		return fail("pid %u: its session's leader %u lies below another subreaper than its parent %u", t->proc.pid,
			    t->maker->proc.pid, t->parent->proc.pid);
	return 0;
}

static void enlist(struct rtask *t)
{
	if (t->maker) {
		t->next = t->maker->born[t->born_after];
		t->maker->born[t->born_after] = t;
	}
	if (t->parent && (t->helper || t->proc.state == PROCESS_ZOMBIE)) {
		t->next_ended = t->parent->ended;
		t->parent->ended = t;
	}
}

/* Every one has a maker that comes to make it: a forged image could name a ring. */
static int check_all_born(struct restore *r)
{
	size_t all = r->n + r->n_helpers, n = 0, i = 0;
	autofree struct rtask **queue = alloc_zeroed(all, sizeof *queue);
	if (!queue)
		return -1;
	queue[n++] = &r->tasks[0];
	for (; i < n; i++)
		for (int after = 0; after < 2; after++)
			for (struct rtask *c = queue[i]->born[after]; c && n < all; c = c->next)
				queue[n++] = c;
	return n == all ? 0 : fail("tree: its sessions lead each other in a ring");
}

int family_plan(struct restore *r)
{
	struct index x = {0};
	int ret = 0;
	uint32_t orphans = 0;
	for (size_t i = 1; i < r->n; i++)
		if (r->tasks[i].parent)
			r->tasks[i].depth = r->tasks[i].parent->depth + 1;
	ret = add_helpers(r, &x);
	/* children before their parents: what they need of its birth must be known */
	for (size_t i = r->n_helpers; !ret && i-- > 0;)
		ret = choose_maker(&r->helpers[i], &x);
	for (size_t i = r->n; !ret && i-- > 0;)
		ret = choose_maker(&r->tasks[i], &x);
	free(x.by_pid);
	for (size_t i = 0; !ret && i < r->n; i++)
		if (r->tasks[i].adopted) {
			r->tasks[i].orphan = orphans++;
			ret = check_adoption(&r->tasks[i]);
		}
	r->n_orphans = orphans;
	for (size_t i = r->n_helpers; !ret && i-- > 0;)
		enlist(&r->helpers[i]);
	for (size_t i = r->n; !ret && i-- > 0;)
		enlist(&r->tasks[i]);
	return ret ? ret : check_all_born(r);
}

void family_free(struct restore *r)
{
	free(r->helpers);
	free(r->numbers);
}

/* ---- numbers for helpers ---- */

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static int list_numbers(struct restore *r)
{
	size_t cap = 0;
	for (size_t i = 0; i < r->n; i++) {
		struct rtask *t = &r->tasks[i];
		uint32_t *bigger = grow_array(r->numbers, &cap, r->n_numbers + 3 + t->core.n_records, sizeof *bigger);
		if (!bigger)
			return -1;
		r->numbers = bigger;
		r->numbers[r->n_numbers++] = t->proc.pid;
		r->numbers[r->n_numbers++] = t->proc.sid;
		r->numbers[r->n_numbers++] = t->proc.pgid;
		each_record(&t->core, rec) {
			struct rec_thread th;
			if (rec->type != REC_THREAD)
				continue;
			if (record_get(&t->core, rec, &th, sizeof th))
				return -1;
			r->numbers[r->n_numbers++] = th.tid;
		}
	}
	qsort(r->numbers, r->n_numbers, sizeof *r->numbers, compare_numbers);
	return 0;
}

/* From the top down: the kernel gives numbers from the bottom up. */
pid_t family_spare(const struct restore *r, size_t i)
{
	autofree char *text = proc_read(NULL, "/proc/sys/kernel/pid_max");
	uint32_t at = text ? strtoul(text, NULL, 10) : 32768;
	while (at-- > 300) /* RESERVED_PIDS, kernel/pid.c */
		if (!bsearch(&at, r->numbers, r->n_numbers, sizeof at, compare_numbers) && i-- == 0)
			return at;
	return 0;
}

int family_numbers(struct restore *r)
{
	return list_numbers(r);
}

/* ---- dump ---- */

static bool exists(pid_t pid)
{
	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

static int compare_processes(const void *a, const void *b)
{
	const struct process *x = *(struct process *const *)a, *y = *(struct process *const *)b;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

static bool in_tree(struct process **by_pid, size_t n, pid_t pid)
{
	struct process key = {.pid = pid}, *k = &key;
	return bsearch(&k, by_pid, n, sizeof k, compare_processes);
}

static int find_outside(struct dump *d)
{
	autofree struct process **by_pid = alloc_zeroed(d->n, sizeof *by_pid);
	const struct process *root = &d->procs[0];
	if (!by_pid)
		return -1;
	for (size_t i = 0; i < d->n; i++)
		by_pid[i] = &d->procs[i];
	qsort(by_pid, d->n, sizeof *by_pid, compare_processes);
	for (size_t i = 0; i < d->n; i++) {
		struct process *p = &d->procs[i];
		if (in_tree(by_pid, d->n, p->sid) || (p->sid != root->sid && p->sid && !exists(p->sid)))
			continue;
		p->outside = OUTSIDE_SESSION;
		if (!d->opt->shell_job)
			return fail("pid %d (%s) belongs to session %d, whose leader is not in the tree: dump and restore it with "
				    "--shell-job, or start it with setsid(1)",
				    p->pid, p->comm, p->sid);
		if (!in_tree(by_pid, d->n, p->pgid) && (p->pgid == root->pgid || !p->pgid || exists(p->pgid)))
			p->outside |= OUTSIDE_GROUP;
	}
	return 0;
}

static int kcmp_type;

static int compare_shared(const void *a, const void *b)
{
	const struct process *x = *(struct process *const *)a, *y = *(struct process *const *)b;
	long k = x == y ? 0 : syscall(SYS_kcmp, x->host->tid, y->host->tid, kcmp_type, 0, 0);
	if (k == 1 || k == 2)
		return k == 1 ? -1 : 1;
	return 0;
}

/*
 * Processes made by clone(2) with CLONE_VM and the like: they would come back with copies. Found by sorting, never by
 * comparing all pairs; before any parasite is in, for two in one memory would be in each other's way.
 */
static int check_unshared(struct dump *d)
{
	static const struct {
		int type;
		const char *name;
	} types[] = {{KCMP_VM, "memory (CLONE_VM)"}, {KCMP_FILES, "descriptors (CLONE_FILES)"},
		     {KCMP_FS, "working directory (CLONE_FS)"}, {KCMP_SIGHAND, "signal actions (CLONE_SIGHAND)"}};
	autofree struct process **sorted = alloc_zeroed(d->n, sizeof *sorted);
	size_t n = 0;
	if (!sorted)
		return -1;
	for (size_t i = 0; i < d->n; i++)
		if (d->procs[i].state != PROCESS_ZOMBIE)
			sorted[n++] = &d->procs[i];
	for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
		kcmp_type = types[k].type;
		qsort(sorted, n, sizeof *sorted, compare_shared);
		for (size_t i = 1; i < n; i++)
			if (syscall(SYS_kcmp, sorted[i - 1]->host->tid, sorted[i]->host->tid, kcmp_type, 0, 0) == 0)
				return fail("pids %d and %d (%s) share their %s without being threads of one process, which cannot be "
					    "dumped",
					    sorted[i - 1]->pid, sorted[i]->pid, sorted[i]->comm, types[k].name);
	}
	return 0;
}

/* The births are planned as restore will: what it could not do is refused now. */
static int try_plan(struct dump *d)
{
	struct restore r = {.n = d->n};
	autofree struct rtask *tasks = r.tasks = alloc_zeroed(d->n, sizeof *r.tasks);
	if (!r.tasks)
		return -1;
	for (size_t i = 0; i < d->n; i++) {
		const struct process *p = &d->procs[i];
		tasks[i].proc = (struct rec_process){.pid = p->pid, .ppid = p->ppid, .sid = p->sid, .pgid = p->pgid,
						     .state = p->state, .outside = p->outside};
		tasks[i].parent = p->parent ? &tasks[p->parent - d->procs] : NULL;
	}
	int ret = family_plan(&r);
	family_free(&r);
	return ret;
}

int family_check(struct dump *d)
{
	return find_outside(d) || check_unshared(d) || try_plan(d) ? -1 : 0;
}
