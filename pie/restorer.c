/*
 * The restorer rebuilds a process around itself, in this order:
 *
 *   1. takes back what criu-lite's libc has told the kernel (rseq)
 *   2. unmaps everything but its own region; the vDSO is parked in it
 *   3. maps the target's memory at its final addresses, fills it from the core, checks the sums, protects it
 *   4. moves the vDSO into place, tells the kernel where code, data, stack and brk are
 *   5. signal actions; the process's own pending signals (all are blocked)
 *   6. threads, each with its number; each does for itself what only it can do
 *   7. limits, then the descriptors that are ours are closed; locks on those that stay
 *   8. every thread says that it is there, and waits; the coordinator, when all are, sends each through
 *      rt_sigreturn and unmaps the region
 *
 * Any error ends the process: nothing of it has run yet.
 */
#include "restorer-parts.h"

enum { FUTEX_WAIT_ = 0, FUTEX_WAKE_ = 1, RSEQ_FLAG_UNREGISTER_ = 1, CLOSE_RANGE_ALL = ~0 };

void restorer_fail(const struct restorer_args *a, uint32_t step, long code, uint64_t where)
{
	struct shared *s = (void *)a->shared;
	uint32_t nobody = 0;
	if (__atomic_compare_exchange_n(&s->failed, &nobody, a->index + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		s->step = step;
		s->code = code;
		s->where = where;
		s->failed_pid = a->pid;
	}
	SYS3(__NR_futex, &s->arrived, FUTEX_WAKE_, 1 << 30);
	for (;;)
		SYS1(__NR_exit_group, 1);
}

void arrive(const struct restorer_args *a)
{
	struct shared *s = (void *)a->shared;
	__atomic_add_fetch(&s->arrived, 1, __ATOMIC_SEQ_CST);
	SYS3(__NR_futex, &s->arrived, FUTEX_WAKE_, 1 << 30);
	for (;;)
		SYS4(__NR_futex, &s->stage, FUTEX_WAIT_, 0, 0);
}

static void restore_actions(const struct restorer_args *a)
{
	const struct restorer_sigaction *act = (void *)a->actions;
	for (int i = 0; i < 64; i++)
		if (i + 1 != 9 && i + 1 != 19) /* SIGKILL and SIGSTOP have none */
			check(a, SYS4(__NR_rt_sigaction, i + 1, &act[i], 0, 8), STEP_SIGNALS, i + 1);
}

static void restore_limits(const struct restorer_args *a)
{
	const struct restorer_limit *l = (void *)a->limits;
	for (uint64_t i = 0; i < a->n_limits; i++) {
		uint64_t lim[2] = {l[i].soft, l[i].hard};
		check(a, SYS4(__NR_prlimit64, 0, l[i].resource, lim, 0), STEP_LIMITS, l[i].resource);
	}
}

__attribute__((visibility("hidden"))) void __export_restorer_main(const struct restorer_args *a) __attribute__((noreturn));

void __export_restorer_main(const struct restorer_args *a)
{
	const struct restorer_thread *threads = (void *)a->threads;
	if (a->own_rseq)
		check(a, SYS4(__NR_rseq, a->own_rseq, a->own_rseq_len, RSEQ_FLAG_UNREGISTER_, a->own_rseq_sig), STEP_RSEQ, 0);
	restore_memory(a);
	restore_actions(a);
	const char *queue = (void *)a->pending;
	for (uint64_t i = 0; i < a->n_pending; i++)
		check(a, SYS3(__NR_rt_sigqueueinfo, a->pid, *(const int *)(queue + i * 128), queue + i * 128), STEP_PENDING, i);
	make_threads(a);
	if (a->dead_leader)
		forget_thread(a);
	else
		restore_thread(a, &threads[0]);
	restore_limits(a);
	check(a, SYS3(__NR_close_range, a->close_from, CLOSE_RANGE_ALL, 0), STEP_FDS, a->close_from);
	restore_locks(a);
	arrive(a);
}

/*
 * Entry: off the caller's stack, which goes with everything else, onto our own. And the instruction that each thread
 * leaves by: the coordinator points rsp at the thread's frame.
 */
__asm__(".section .head.text, \"ax\", @progbits\n"
	".globl __export_restorer_entry, __export_restorer_sigreturn\n"
	".hidden __export_restorer_entry, __export_restorer_sigreturn\n"
	"__export_restorer_entry:\n"
	"	lea	restorer_stack_top(%rip), %rsp\n"
	"	xor	%ebp, %ebp\n"
	"	call	__export_restorer_main\n"
	"	hlt\n"
	"__export_restorer_sigreturn:\n"
	"	mov	$15, %eax\n"
	"	syscall\n"
	"	hlt\n"
	".section .stack, \"aw\", @nobits\n"
	"	.balign	64\n"
	"	.skip	16384\n"
	"restorer_stack_top:\n"
	".text\n");
