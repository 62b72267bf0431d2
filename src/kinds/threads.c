/*
 * Threads: registers with all extended state, what each has told the kernel about itself, and its name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/sigframe.h"
#include "lib/proc.h"
#include "plan.h"

#define USER_CS 0x33 /* 64-bit code; arch/x86/include/asm/segment.h __USER_CS */

/* ---- dump ---- */

/* What our own code could not run beside: refused before it gets in. */
static int threads_frozen(struct dump *d, struct process *p)
{
	(void)d;
	for (size_t i = 0; i < p->n_threads; i++) {
		const struct thread *t = &p->threads[i];
		if (t->regs.cs != USER_CS)
			return fail("pid %d (%s) runs 32-bit code, which cannot be dumped; run its 64-bit version", p->pid, p->comm);
		autofree char *status = proc_read(NULL, "/proc/%d/task/%d/status", p->pid, t->tid);
		if (!status)
			return fail_within("pid %d (%s)", p->pid, p->comm);
		const char *features = status_field(status, "x86_Thread_features");
		if (features && strncmp(features, "shstk", 5) == 0)
			return fail("pid %d (%s): thread %d has a shadow stack, which cannot be dumped; start it with "
				    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK",
				    p->pid, p->comm, t->tid);
	}
	return 0;
}

static int collect_thread(struct dump *d, struct process *p, const struct thread *t)
{
	struct rec_thread r = {
		.tid = t->tid,
		.flags = t->tid == p->pid ? THREAD_LEADER : 0,
		.sigmask = t->sigmask,
		.altstack_sp = t->own.altstack_sp, .altstack_size = t->own.altstack_size,
		.altstack_flags = t->own.altstack_flags,
		.pdeath_signal = t->own.pdeath_signal,
		.tid_address = t->own.tid_address,
		.rseq_ptr = t->rseq_ptr, .rseq_len = t->rseq_len, .rseq_sig = t->rseq_sig,
	};
	size_t robust_len = 0;
	void *robust = NULL;
	if (syscall(SYS_get_robust_list, t->tid, &robust, &robust_len))
		return fail_errno("pid %d (%s): the robust list of thread %d", p->pid, p->comm, t->tid);
	r.robust_head = (uintptr_t)robust;
	r.robust_len = robust_len;
	_Static_assert(sizeof r.regs == sizeof t->regs, "user_regs_struct");
	memcpy(r.regs, &t->regs, sizeof r.regs);
	struct proc_stat st;
	if (proc_stat_read(p->pid, t->tid, &st))
		return -1;
	memcpy(r.comm, st.comm, sizeof r.comm);
	d->xfeatures |= xstate_in_use(t->xstate, t->xstate_len);
	return notes_add_record(&p->core, REC_THREAD, &r, sizeof r, t->xstate, t->xstate_len);
}

static int threads_collect(struct dump *d, struct process *p)
{
	for (size_t i = 0; i < p->n_threads; i++)
		if (collect_thread(d, p, &p->threads[i]))
			return -1;
	return 0;
}

/* ---- restore ---- */

/* Where a thread goes on. A sleeping call is made anew, with its whole time: never too early. */
static void resume_regs(struct user_regs_struct *regs)
{
	enum { SYS_RESTART = 219 };
	if (regs_restart(regs) == RESTART_BLOCK && regs->orig_rax != SYS_RESTART) {
		regs->rip -= 2;
		regs->rax = regs->orig_rax;
		regs->orig_rax = -1;
	}
	regs_resolve_restart(regs);
}

static int plan_thread(struct rtask *t, struct plan *plan, const struct record *rec, struct restorer_thread *out)
{
	struct rec_thread r;
	struct user_regs_struct regs;
	if (record_get(&t->core, rec, &r, sizeof r))
		return -1;
	if (rec->tail_len > XSTATE_MAX || rec->tail_len < 576)
		return fail("%s: thread %u's extended state of %u bytes is impossible", t->core.name, r.tid, rec->tail_len);
	memcpy(&regs, r.regs, sizeof regs);
	if (regs.cs != USER_CS || regs.ss != 0x2b)
		return fail("%s: thread %u's segment registers are impossible", t->core.name, r.tid);
	resume_regs(&regs);
	*out = (struct restorer_thread){
		.tid = r.tid, .pdeath_signal = r.pdeath_signal, .fs_base = regs.fs_base, .gs_base = regs.gs_base,
		.robust_head = r.robust_head, .robust_len = r.robust_len, .rseq_ptr = r.rseq_ptr, .rseq_len = r.rseq_len,
		.rseq_sig = r.rseq_sig, .tid_address = r.tid_address, .altstack_sp = r.altstack_sp,
		.altstack_size = r.altstack_size, .altstack_flags = r.altstack_flags,
	};
	memcpy(out->comm, r.comm, sizeof out->comm);
	out->comm[sizeof out->comm - 1] = 0;
	char *frame = plan_alloc(plan, SIGFRAME_MAX);
	char *stack = plan_alloc(plan, 8192);
	if (!frame || !stack)
		return -1;
	sigframe_build(frame, (uintptr_t)frame, &regs, rec->tail, rec->tail_len, r.sigmask);
	out->frame = SIGFRAME_RSP((uintptr_t)frame);
	out->stack = (uintptr_t)stack + 8192;
	return 0;
}

/* Signals whose default is to do nothing: signal(7). */
static bool harmless(uint32_t sig)
{
	return sig == 17 /* SIGCHLD */ || sig == 18 /* SIGCONT */ || sig == 23 /* SIGURG */ || sig == 28 /* SIGWINCH */;
}

/* With -d its parent, which we are, ends at once: it would have the signal that it asked for, and be gone. */
static int check_parent_death(const struct restore *r, const struct rtask *t, uint32_t sig)
{
	struct rec_signals s = {0};
	if (!sig || sig > 64 || harmless(sig) || !r->opt->detach || r->opt->pidns || t != &r->tasks[0])
		return 0;
	each_record(&t->core, rec)
		if (rec->type == REC_SIGNALS && record_get(&t->core, rec, &s, sizeof s))
			return -1;
	if (s.action[sig - 1].handler) /* ignored, or its own affair */
		return 0;
	return fail("pid %u has asked for signal %u when its parent ends (PR_SET_PDEATHSIG), which would end it as soon as a detached "
		    "restore is done; restore it without -d",
		    t->proc.pid, sig);
}

static int threads_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	struct restorer_thread *threads = plan_alloc(plan, (t->task.n_threads + 1ul) * sizeof *threads);
	if (!threads)
		return -1;
	size_t n = 0;
	each_record(&t->core, rec) {
		if (rec->type != REC_THREAD)
			continue;
		if (n == t->task.n_threads)
			return fail("%s has more threads than it says", t->core.name);
		if (plan_thread(t, plan, rec, &threads[n]))
			return -1;
		if (check_parent_death(r, t, threads[n].pdeath_signal))
			return -1;
		n++;
	}
	if (!n || n != t->task.n_threads)
		return fail("%s has not all of the %u threads that it names", t->core.name, t->task.n_threads);
	if ((uint32_t)threads[0].tid != t->proc.pid && t->proc.state != PROCESS_DEAD_LEADER)
		return fail("%s: its first thread is not the leader", t->core.name);
	plan->args->threads = (uintptr_t)threads;
	plan->args->n_threads = n;
	plan->args->dead_leader = t->proc.state == PROCESS_DEAD_LEADER;
	return 0;
}

const struct kind threads_kind = {
	.name = "threads",
	.frozen = threads_frozen,
	.collect = threads_collect,
	.plan = threads_plan,
};
