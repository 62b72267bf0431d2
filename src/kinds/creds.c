/*
 * Who a thread is and what it may do: ids, groups, capabilities, securebits, no_new_privs. Each thread has its own.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#define GROUPS_MAX 65536 /* NGROUPS_MAX in include/uapi/linux/limits.h */

static const char *const cap_keys[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
enum { INH, PRM, EFF, BND, AMB };

/* Four numbers behind KEY. */
static int parse_ids(const char *status, const char *key, uint32_t ids[4])
{
	const char *s = status_field(status, key);
	if (!s || sscanf(s, "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return fail("status has no %s", key);
	return 0;
}

/* What proc_pid_status(5) tells; *GROUPS for the caller to free. */
static int parse_creds(const char *status, struct rec_creds *r, uint32_t **groups)
{
	size_t cap = 0;
	*groups = NULL;
	if (parse_ids(status, "Uid", r->uid) || parse_ids(status, "Gid", r->gid))
		return -1;
	for (int i = 0; i < 5; i++)
		r->cap[i] = status_number(status, cap_keys[i], 16, 0);
	r->no_new_privs = status_number(status, "NoNewPrivs", 10, 0);
	const char *s = status_field(status, "Groups");
	while (s && *s && *s != '\n') {
		char *end;
		unsigned long gid = strtoul(s, &end, 10);
		if (end == s)
			break;
		uint32_t *bigger = grow_array(*groups, &cap, r->n_groups + 1, sizeof **groups);
		if (!bigger)
			return -1;
		*groups = bigger;
		bigger[r->n_groups++] = gid;
		s = end + strspn(end, " \t");
	}
	return 0;
}

/* ---- dump ---- */

static int collect_thread(struct process *p, const struct thread *t)
{
	struct rec_creds r = {.tid = t->tid, .securebits = t->own.securebits};
	autofree uint32_t *groups = NULL;
	autofree char *status = proc_read(NULL, "/proc/%d/task/%d/status", p->pid, t->tid);
	if (!status || parse_creds(status, &r, &groups))
		return fail_within("pid %d (%s): credentials of thread %d", p->pid, p->comm, t->tid);
	return notes_add_record(&p->core, REC_CREDS, &r, sizeof r, groups, r.n_groups * sizeof *groups);
}

/* A security module's label (AppArmor, SELinux, Smack): what it confines must not come back free. */
static int creds_frozen(struct dump *d, struct process *p)
{
	(void)d;
	autofree char *own = proc_read(NULL, "/proc/self/attr/current");
	autofree char *theirs = proc_read(NULL, "/proc/%d/attr/current", p->host->tid);
	if (!theirs || !own || strcmp(own, theirs) == 0)
		return 0; /* none is in use, or it is ours: it will be again */
	own[strcspn(own, "\n")] = theirs[strcspn(theirs, "\n")] = 0;
	return fail("pid %d (%s) runs under the security label %.100s, which cannot be put back; dump and restore it from a shell "
		    "with that label (criu-lite runs under %.100s)",
		    p->pid, p->comm, theirs, own);
}

static int creds_collect(struct dump *d, struct process *p)
{
	(void)d;
	for (size_t i = 0; i < p->n_threads; i++)
		if (collect_thread(p, &p->threads[i]))
			return -1;
	return 0;
}

/* ---- restore ---- */

struct own {
	struct rec_creds r;
	uint32_t *groups;
};

static int read_own(struct own *own)
{
	int bits = prctl(PR_GET_SECUREBITS);
	autofree char *status = proc_read(NULL, "/proc/thread-self/status");
	*own = (struct own){.r.securebits = bits};
	if (bits < 0)
		return fail_errno("reading criu-lite's own securebits");
	return status && parse_creds(status, &own->r, &own->groups) == 0 ? 0 : fail_within("criu-lite's own credentials");
}

/* user_namespaces(7): in a namespace that a user made without privilege the groups stay as they are. */
static bool groups_are_fixed(void)
{
	autofree char *text = proc_read(NULL, "/proc/self/setgroups");
	return text && strncmp(text, "deny", 4) == 0;
}

/* Only what differs is set: with one's own ids nothing needs privilege. */
static uint32_t differences(const struct own *own, const struct rec_creds *r, const void *groups)
{
	uint32_t todo = 0;
	if (own->r.n_groups != r->n_groups || (r->n_groups && memcmp(own->groups, groups, r->n_groups * sizeof(uint32_t))))
		todo |= CREDS_GROUPS;
	if (memcmp(own->r.uid, r->uid, sizeof r->uid) || memcmp(own->r.gid, r->gid, sizeof r->gid))
		todo |= CREDS_IDS;
	if (memcmp(own->r.cap, r->cap, sizeof r->cap))
		todo |= CREDS_CAPS;
	if (own->r.securebits != r->securebits)
		todo |= CREDS_BITS;
	if (r->no_new_privs && !own->r.no_new_privs)
		todo |= CREDS_NO_NEW_PRIVS;
	return todo;
}

static int check_possible(const struct rtask *t, const struct own *own, const struct rec_creds *r, uint32_t todo)
{
	enum { SETGID = 6, SETUID = 7, SETPCAP = 8 };
	uint64_t may = own->r.cap[EFF], missing = r->cap[PRM] & ~own->r.cap[PRM];
	uint64_t unbound = r->cap[BND] & ~own->r.cap[BND];
	if (own->r.no_new_privs && !r->no_new_privs)
		return fail("pid %u runs without no_new_privs, which criu-lite was started with: start it from elsewhere", t->proc.pid);
	if (missing)
		return fail("pid %u has capability %d, which criu-lite has not: restore it as root, or where root has all of "
			    "capabilities %#lx", t->proc.pid, __builtin_ctzl(missing), r->cap[PRM]);
	if (unbound)
		return fail("pid %u may get capability %d (bounding set), which criu-lite may not: restore it where none has been "
			    "taken away", t->proc.pid, __builtin_ctzl(unbound));
	if ((todo & CREDS_GROUPS) && !(may >> SETGID & 1))
		return fail("pid %u has other groups than criu-lite, which needs CAP_SETGID: restore it as its user, or as root",
			    t->proc.pid);
	if ((todo & CREDS_IDS) && (~may & (1 << SETGID | 1 << SETUID | 1 << SETPCAP)))
		return fail("pid %u has uid %u and gid %u: restore it as that user, or as root (CAP_SETUID, CAP_SETGID, "
			    "CAP_SETPCAP)", t->proc.pid, r->uid[0], r->gid[0]);
	return 0;
}

static int plan_creds(struct rtask *t, struct plan *plan, const struct record *rec, const struct own *own,
		      struct restorer_thread *th)
{
	struct rec_creds r;
	if (record_get(&t->core, rec, &r, sizeof r))
		return -1;
	if (r.n_groups > GROUPS_MAX || r.n_groups * sizeof(uint32_t) != rec->tail_len)
		return fail("%s: %u groups do not fit in their record", t->core.name, r.n_groups);
	if (r.tid != (uint32_t)th->tid)
		return fail("%s: the credentials of thread %u are missing", t->core.name, th->tid);
	uint32_t todo = differences(own, &r, rec->tail);
	if (todo & CREDS_GROUPS && groups_are_fixed()) {
		verbose("pid %u: in a user namespace it has the groups that criu-lite has", t->proc.pid);
		todo &= ~CREDS_GROUPS;
	}
	if (check_possible(t, own, &r, todo))
		return -1;
	if (!todo)
		return 0;
	struct restorer_creds *c = plan_alloc(plan, sizeof *c);
	uint32_t *groups = plan_alloc(plan, r.n_groups * sizeof *groups);
	if (!c || !groups)
		return -1;
	if (r.n_groups)
		memcpy(groups, rec->tail, r.n_groups * sizeof *groups);
	*c = (struct restorer_creds){
		.todo = todo, .n_groups = r.n_groups, .groups = (uintptr_t)groups, .securebits = r.securebits,
		.drop = own->r.cap[BND] & ~r.cap[BND],
	};
	memcpy(c->uid, r.uid, sizeof c->uid);
	memcpy(c->gid, r.gid, sizeof c->gid);
	memcpy(c->cap, r.cap, sizeof c->cap);
	th->creds = (uintptr_t)c;
	th->last = 1;
	return 0;
}

static int creds_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	struct restorer_thread *threads = (void *)plan->args->threads;
	struct own own;
	size_t n = 0;
	int ret = read_own(&own);
	each_record(&t->core, rec)
	{
		if (ret || rec->type != REC_CREDS)
			continue;
		if (n == plan->args->n_threads)
			ret = fail("%s has more credentials than threads", t->core.name);
		else
			ret = plan_creds(t, plan, rec, &own, &threads[n++]);
	}
	free(own.groups);
	if (!ret && n != plan->args->n_threads)
		return fail("%s has not the credentials of all its threads", t->core.name);
	return ret;
}

/* ---- show ---- */

static void print_ids(struct json *j, const char *key, const uint32_t ids[4])
{
	json_begin_array(j, key);
	for (int i = 0; i < 4; i++)
		json_uint(j, NULL, ids[i]);
	json_end_array(j);
}

static void print_creds(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_creds r;
	if (json_record(j, f, rec, &r, sizeof r) < 0 || json_tail_array(j, f, rec, r.n_groups, sizeof(uint32_t)))
		return;
	json_uint(j, "tid", r.tid);
	print_ids(j, "uid", r.uid);
	print_ids(j, "gid", r.gid);
	json_begin_array(j, "groups");
	for (uint32_t i = 0; i < r.n_groups; i++) {
		uint32_t gid;
		memcpy(&gid, rec->tail + i * sizeof gid, sizeof gid);
		json_uint(j, NULL, gid);
	}
	json_end_array(j);
	for (int i = 0; i < 5; i++)
		json_hex(j, cap_keys[i], r.cap[i]);
	json_hex(j, "securebits", r.securebits);
	json_bool(j, "no_new_privs", r.no_new_privs);
}

static const struct record_printer printers[] = {{REC_CREDS, "creds", print_creds}, {0}};

const struct kind creds_kind = {
	.name = "creds",
	.frozen = creds_frozen,
	.collect = creds_collect,
	.plan = creds_plan,
	.printers = printers,
};
