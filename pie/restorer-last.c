/*
 * The last that a thread does before it is the target's again. The coordinator holds every thread of every process by
 * then: new credentials do not keep it out, and no seccomp filter is asked (PTRACE_O_SUSPEND_SECCOMP).
 *
 * The order: what needs privilege, then the privilege goes. Filters come before that, for without no_new_privs they need
 * CAP_SYS_ADMIN. The kernel forgets dumpable and the parent-death signal when ids change (commit_creds in kernel/cred.c).
 */
#include "restorer-parts.h"

enum {
	PR_SET_PDEATHSIG_ = 1,
	PR_SET_DUMPABLE_ = 4,
	PR_SET_CHILD_SUBREAPER_ = 36,
	PR_SET_THP_DISABLE_ = 41,
	PR_SET_MDWE_ = 65,
};

__attribute__((visibility("hidden"))) void __export_restorer_last(const struct restorer_args *a, const struct restorer_thread *t)
	__attribute__((noreturn));

static void restore_process(const struct restorer_args *a)
{
	if (a->child_subreaper)
		check(a, SYS5(__NR_prctl, PR_SET_CHILD_SUBREAPER_, 1, 0, 0, 0), STEP_PRCTL, PR_SET_CHILD_SUBREAPER_);
	if (a->thp_disabled) /* 1, and the flags of 6.18 above it (PR_THP_DISABLE_EXCEPT_ADVISED) */
		check(a, SYS5(__NR_prctl, PR_SET_THP_DISABLE_, 1, a->thp_disabled & ~1u, 0, 0), STEP_PRCTL, PR_SET_THP_DISABLE_);
	if (a->mdwe)
		check(a, SYS5(__NR_prctl, PR_SET_MDWE_, a->mdwe, 0, 0, 0), STEP_PRCTL, PR_SET_MDWE_);
}

void __export_restorer_last(const struct restorer_args *a, const struct restorer_thread *t)
{
	bool first = t == (const struct restorer_thread *)a->threads;
	restore_sched(a, t);
	if (first)
		restore_process(a);
	restore_seccomp(a, t);
	restore_creds(a, t);
	if (a->dumpable != 1 || t->creds)
		check(a, SYS5(__NR_prctl, PR_SET_DUMPABLE_, a->dumpable, 0, 0, 0), STEP_PRCTL, PR_SET_DUMPABLE_);
	check(a, SYS2(__NR_prctl, PR_SET_PDEATHSIG_, t->pdeath_signal), STEP_PRCTL, PR_SET_PDEATHSIG_);
	if (first)
		restore_timers(a);
	__asm__ volatile("mov	%0, %%rsp\n"
			 "	mov	$15, %%eax\n"
			 "	syscall\n"
			 "	hlt"
			 :
			 : "r"(t->frame)
			 : "memory");
	__builtin_unreachable();
}
