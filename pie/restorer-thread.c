/*
 * Threads: made with their numbers, and what each must do for itself.
 */
#include "restorer-parts.h"

enum {
	CLONE_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000, /* VM FS FILES SIGHAND THREAD SYSVSEM */
	ARCH_SET_GS_ = 0x1001,
	ARCH_SET_FS_ = 0x1002,
	PR_SET_PDEATHSIG_ = 1,
	PR_SET_NAME_ = 15,
};

struct clone_args_ {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

struct altstack {
	uint64_t sp;
	uint32_t flags, pad;
	uint64_t size;
};

void restore_thread(const struct restorer_args *a, const struct restorer_thread *t)
{
	check(a, SYS2(__NR_prctl, PR_SET_NAME_, t->comm), STEP_THREAD, t->tid);
	if (t->robust_len)
		check(a, SYS2(__NR_set_robust_list, t->robust_head, t->robust_len), STEP_THREAD, t->tid);
	SYS1(__NR_set_tid_address, t->tid_address);
	check(a, SYS2(__NR_arch_prctl, ARCH_SET_FS_, t->fs_base), STEP_THREAD, t->tid);
	check(a, SYS2(__NR_arch_prctl, ARCH_SET_GS_, t->gs_base), STEP_THREAD, t->tid);
	if (t->rseq_ptr)
		check(a, SYS4(__NR_rseq, t->rseq_ptr, t->rseq_len, 0, t->rseq_sig), STEP_RSEQ, t->tid);
	/* SS_ONSTACK is what the kernel says of the moment, not what may be set */
	struct altstack alt = {t->altstack_sp, t->altstack_flags & ~1u, 0, t->altstack_size};
	check(a, SYS2(__NR_sigaltstack, &alt, 0), STEP_THREAD, t->tid);
	const char *queue = (void *)t->pending;
	for (uint32_t i = 0; i < t->n_pending; i++)
		check(a, SYS4(__NR_rt_tgsigqueueinfo, a->pid, t->tid, *(const int *)(queue + i * 128), queue + i * 128),
		      STEP_PENDING, t->tid);
	/* also none: until now a task ends with its parent; from now on the coordinator holds it */
	check(a, SYS2(__NR_prctl, PR_SET_PDEATHSIG_, t->pdeath_signal), STEP_THREAD, t->tid);
}

void forget_thread(const struct restorer_args *a)
{
	SYS1(__NR_set_tid_address, 0);
	check(a, SYS2(__NR_prctl, PR_SET_PDEATHSIG_, 0), STEP_THREAD, a->pid);
	check(a, SYS2(__NR_set_robust_list, 0, 24), STEP_THREAD, a->pid); /* sizeof(struct robust_list_head) */
}

static void thread_main(const struct restorer_args *a, const struct restorer_thread *t)
{
	restore_thread(a, t);
	arrive(a);
}

/* The child finds function and arguments on its stack: it has no registers of its own to begin with. */
static long clone_thread(struct clone_args_ *c, const struct restorer_args *a, const struct restorer_thread *t)
{
	uint64_t *top = (uint64_t *)t->stack - 4;
	top[0] = (uint64_t)thread_main;
	top[1] = (uint64_t)a;
	top[2] = (uint64_t)t;
	c->stack = t->stack - 8192;
	c->stack_size = 8192 - 32;
	long ret;
	__asm__ volatile("syscall\n"
			 "	test	%%rax, %%rax\n"
			 "	jnz	1f\n"
			 "	xor	%%ebp, %%ebp\n"
			 "	pop	%%rax\n"
			 "	pop	%%rdi\n"
			 "	pop	%%rsi\n"
			 "	and	$-16, %%rsp\n"
			 "	call	*%%rax\n"
			 "	hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "a"(__NR_clone3), "D"(c), "S"(sizeof *c)
			 : "rcx", "r11", "memory");
	return ret;
}

void make_threads(const struct restorer_args *a)
{
	const struct restorer_thread *t = (void *)a->threads;
	for (uint64_t i = a->dead_leader ? 0 : 1; i < a->n_threads; i++) {
		int32_t tid = t[i].tid;
		struct clone_args_ c = {.flags = CLONE_THREAD_FLAGS, .set_tid = (uint64_t)&tid, .set_tid_size = 1};
		check(a, clone_thread(&c, a, &t[i]), STEP_THREAD, tid);
	}
}
