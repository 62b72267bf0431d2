/*
 * What prctl(2) keeps for a process as a whole: dumpable, child subreaper, no huge pages, memory-deny-write-execute.
 */
#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "lib/json.h"
#include "plan.h"

enum { GET_THP_DISABLE = 42, GET_CHILD_SUBREAPER = 37, GET_MDWE = 66 };

static int prctl_collect(struct dump *d, struct process *p)
{
	(void)d;
	struct rec_prctl r = {0};
	batch_begin();
	long at = batch_room(sizeof(int));
	if (at < 0)
		return -1;
	int dumpable = batch_add(0, SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0, 0);
	int thp = batch_add(0, SYS_prctl, GET_THP_DISABLE, 0, 0, 0, 0, 0);
	int mdwe = batch_add(0, SYS_prctl, GET_MDWE, 0, 0, 0, 0, 0); /* since 6.3 */
	int reaper = batch_add(1 << 1, SYS_prctl, GET_CHILD_SUBREAPER, at, 0, 0, 0, 0);
	if (parasite_run(p))
		return -1;
	if (batch_result(dumpable) < 0 || batch_result(reaper) < 0)
		return fail("pid %d (%s): prctl does not tell its properties", p->pid, p->comm);
	/* 2 (as fs.suid_dumpable has it) cannot be set: nobody's, which is the narrower */
	r.dumpable = batch_result(dumpable) == 1;
	r.child_subreaper = *(int *)batch_data(at) != 0;
	r.thp_disable = batch_result(thp) > 0 ? batch_result(thp) : 0;
	r.mdwe = batch_result(mdwe) > 0 ? batch_result(mdwe) : 0;
	return notes_add_record(&p->core, REC_PRCTL, &r, sizeof r, NULL, 0);
}

static int prctl_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	struct rec_prctl c = {.dumpable = 1};
	each_record(&t->core, rec)
		if (rec->type == REC_PRCTL && record_get(&t->core, rec, &c, sizeof c))
			return -1;
	struct restorer_thread *threads = (void *)plan->args->threads;
	plan->args->dumpable = c.dumpable == 1;
	plan->args->child_subreaper = c.child_subreaper;
	plan->args->thp_disabled = c.thp_disable;
	plan->args->mdwe = c.mdwe;
	threads[0].last |= c.dumpable != 1 || c.child_subreaper || c.thp_disable || c.mdwe;
	return 0;
}

static void print_prctl(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_prctl r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_bool(j, "dumpable", r.dumpable);
	json_bool(j, "child_subreaper", r.child_subreaper);
	json_uint(j, "thp_disable", r.thp_disable);
	json_uint(j, "mdwe", r.mdwe);
}

static const struct record_printer printers[] = {{REC_PRCTL, "prctl", print_prctl}, {0}};

const struct kind prctl_kind = {
	.name = "prctl",
	.collect = prctl_collect,
	.plan = prctl_plan,
	.printers = printers,
};
