/*
 * threads N: N threads that keep checking themselves: all general registers, vector registers, flags and control
 * words, while running and inside a system call; thread id, TLS, FS and GS base, signal mask, alternate stack, name,
 * robust list, rseq, thread id address; and that sleeping and waiting take as long as they should and end as they
 * should. The main thread checks that each of them goes on, and the process as a whole.
 */
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <asm/prctl.h>
#include <sys/rseq.h>

#include "target.h"

/* Looked at by the debugger. */
volatile long marker = 0x5eed1234;

struct registers {
	uint64_t general[15]; /* rax rbx rcx rdx rsi rdi rbp r8 … r15 */
	uint64_t carry;
};

/* Hold known values in all general registers but rsp, for `loops` turns. `dec` leaves the carry flag alone. */
void hold_general(struct registers *r, uint64_t loops);
/* The same inside one system call. */
void hold_in_syscall(struct registers *r);
/* Hold 16 × 16 (32, 64) bytes in the vector registers. */
void hold_sse(uint8_t *values, uint64_t loops);
void hold_avx(uint8_t *values, uint64_t loops);
/* zmm0 … zmm31 of 64 bytes, then k1 … k7 */
void hold_avx512(uint8_t *values, uint64_t loops);

asm(".text\n"
    ".macro enter\n"
    "	.cfi_startproc\n"
    "	.irp r, rbx, rbp, r12, r13, r14, r15, rdi, rsi\n"
    "	push %\\r\n"
    "	.cfi_adjust_cfa_offset 8\n"
    "	.endr\n"
    "	mov (%rdi), %rax\n	mov 8(%rdi), %rbx\n	mov 16(%rdi), %rcx\n	mov 24(%rdi), %rdx\n"
    "	mov 32(%rdi), %rsi\n	mov 48(%rdi), %rbp\n	mov 56(%rdi), %r8\n	mov 64(%rdi), %r9\n"
    "	mov 72(%rdi), %r10\n	mov 80(%rdi), %r11\n	mov 88(%rdi), %r12\n	mov 96(%rdi), %r13\n"
    "	mov 104(%rdi), %r14\n	mov 112(%rdi), %r15\n	mov 40(%rdi), %rdi\n"
    ".endm\n"
    ".macro leave_it\n"
    "	xchg %rdi, 8(%rsp)\n"
    "	mov %rax, (%rdi)\n	mov %rbx, 8(%rdi)\n	mov %rcx, 16(%rdi)\n	mov %rdx, 24(%rdi)\n"
    "	mov %rsi, 32(%rdi)\n	mov %rbp, 48(%rdi)\n	mov %r8, 56(%rdi)\n	mov %r9, 64(%rdi)\n"
    "	mov %r10, 72(%rdi)\n	mov %r11, 80(%rdi)\n	mov %r12, 88(%rdi)\n	mov %r13, 96(%rdi)\n"
    "	mov %r14, 104(%rdi)\n	mov %r15, 112(%rdi)\n"
    "	setc 120(%rdi)\n"
    "	mov 8(%rsp), %rax\n	mov %rax, 40(%rdi)\n"
    "	.irp r, rsi, rax, r15, r14, r13, r12, rbp, rbx\n"
    "	pop %\\r\n"
    "	.cfi_adjust_cfa_offset -8\n"
    "	.endr\n"
    "	ret\n"
    "	.cfi_endproc\n"
    ".endm\n"
    ".globl hold_general\n.type hold_general, @function\n"
    "hold_general:\n"
    "	enter\n"
    "	stc\n"
    "1:	pause\n	decq (%rsp)\n	jnz 1b\n"
    "	leave_it\n"
    ".size hold_general, . - hold_general\n"
    ".globl hold_in_syscall\n.type hold_in_syscall, @function\n"
    "hold_in_syscall:\n"
    "	enter\n"
    "	stc\n"
    "	syscall\n"
    "	leave_it\n"
    ".size hold_in_syscall, . - hold_in_syscall\n"
    ".macro vector name, move, reg, bytes\n"
    ".globl \\name\n.type \\name, @function\n"
    "\\name:\n"
    "	.cfi_startproc\n"
    "	.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
    "	\\move \\i * \\bytes(%rdi), %\\reg\\i\n"
    "	.endr\n"
    "1:	pause\n	dec %rsi\n	jnz 1b\n"
    "	.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
    "	\\move %\\reg\\i, \\i * \\bytes(%rdi)\n"
    "	.endr\n"
    "	ret\n"
    "	.cfi_endproc\n"
    ".size \\name, . - \\name\n"
    ".endm\n"
    "	vector hold_sse, movups, xmm, 16\n"
    "	vector hold_avx, vmovups, ymm, 32\n"
    ".globl hold_avx512\n.type hold_avx512, @function\n"
    "hold_avx512:\n"
    "	.cfi_startproc\n"
    "	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "	vmovups \\i * 64(%rdi), %zmm\\i\n"
    "	.endr\n"
    "	.irp i, 1, 2, 3, 4, 5, 6, 7\n"
    "	kmovw 2048 + \\i * 2(%rdi), %k\\i\n"
    "	.endr\n"
    "1:	pause\n	dec %rsi\n	jnz 1b\n"
    "	.irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "	vmovups %zmm\\i, \\i * 64(%rdi)\n"
    "	.endr\n"
    "	.irp i, 1, 2, 3, 4, 5, 6, 7\n"
    "	kmovw %k\\i, 2048 + \\i * 2(%rdi)\n"
    "	.endr\n"
    "	ret\n"
    "	.cfi_endproc\n"
    ".size hold_avx512, . - hold_avx512\n");

struct worker {
	pthread_t thread;
	unsigned int index;
	pid_t tid;
	uint64_t turns;
	int up;
	/* what the kernel said at the start */
	uint64_t fs, gs, mask, robust, tid_address;
	int rseq_errno;
	stack_t altstack;
	char name[16];
	char altstack_bytes[16384];
};

static struct worker *workers;
static unsigned int n_workers;
static int stopping;
static uint64_t spin; /* turns held in registers: about a millisecond, less where many threads share the cores */
static __thread uint64_t tls_value;
static __thread struct worker *tls_self;

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static int check_general(struct worker *w)
{
	struct registers r, want;
	for (unsigned int i = 0; i < 15; i++)
		r.general[i] = mix(w->turns * 64 + w->index * 16 + i);
	r.carry = 0;
	want = r;
	want.carry = 1;
	hold_general(&r, spin);
	for (unsigned int i = 0; i < 15; i++)
		if (r.general[i] != want.general[i])
			return wrong("thread %u: general register %u was %lx and is %lx", w->index, i, want.general[i], r.general[i]);
	return r.carry == 1 ? 0 : wrong("thread %u: the carry flag is lost", w->index);
}

/* nanosleep with all other registers holding something: none may change but rax, rcx and r11. */
static int check_in_syscall(struct worker *w)
{
	struct timespec ts = {.tv_nsec = 20000000}, rest = {.tv_sec = -1};
	struct registers r, want;
	for (unsigned int i = 0; i < 15; i++)
		r.general[i] = mix(w->turns * 64 + w->index * 16 + i);
	r.carry = 0;
	r.general[0] = SYS_nanosleep;
	r.general[5] = (uint64_t)&ts;
	r.general[4] = (uint64_t)&rest;
	want = r;
	uint64_t start = now_ns(CLOCK_MONOTONIC);
	hold_in_syscall(&r);
	uint64_t took = now_ns(CLOCK_MONOTONIC) - start;
	if (r.general[0])
		return wrong("thread %u: nanosleep returned %ld", w->index, (long)r.general[0]);
	if (took < 20000000)
		return wrong("thread %u: nanosleep of 20 ms took %lu ns", w->index, took);
	for (unsigned int i = 1; i < 15; i++)
		if (i != 2 && i != 10 && r.general[i] != want.general[i])
			return wrong("thread %u: general register %u was %lx before nanosleep and is %lx", w->index, i,
				     want.general[i], r.general[i]);
	return r.carry == 1 ? 0 : wrong("thread %u: the carry flag is lost in nanosleep", w->index);
}

static int check_vectors(struct worker *w)
{
	uint8_t held[2048 + 16], want[2048 + 16];
	void (*hold)(uint8_t *, uint64_t) = hold_sse;
	size_t size = 16 * 16, from = 0;
	if (__builtin_cpu_supports("avx512f") && w->turns / 6 % 2) {
		hold = hold_avx512;
		size = 2048 + 16;
		from = 2048 + 2; /* k0 is not held */
	} else if (__builtin_cpu_supports("avx")) {
		hold = hold_avx;
		size = 16 * 32;
	}
	for (size_t i = 0; i < size; i++)
		held[i] = (uint8_t)(mix(w->turns * 64 + w->index) >> (i % 8 * 8)) ^ (uint8_t)(i * 7);
	memcpy(want, held, size);
	hold(held, spin);
	/* The compiler need not know that the upper halves are in use: these functions leave them so. */
	if (hold != hold_sse)
		asm volatile("vzeroupper" ::: "memory");
	if (memcmp(held, want, from ? 2048 : size) || (from && memcmp(held + from, want + from, size - from)))
		for (size_t i = 0; i < size; i++)
			if (held[i] != want[i] && i != 2048 && i != 2049)
				return wrong("thread %u: byte %zu of the %s registers was %x and is %x", w->index, i,
					     size == 256 ? "SSE" : size == 512 ? "AVX" : "AVX-512", want[i], held[i]);
	return 0;
}

static int check_futex(struct worker *w)
{
	static uint32_t never;
	struct timespec ts = {.tv_nsec = 10000000};
	uint64_t start = now_ns(CLOCK_MONOTONIC);
	if (syscall(SYS_futex, &never, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0) == 0)
		return wrong("thread %u: a futex that nobody wakes was woken", w->index);
	int error = errno;
	uint64_t took = now_ns(CLOCK_MONOTONIC) - start;
	if (error == EINTR) /* how much of a relative timeout is left cannot be read: the one wait that may end so */
		return 0;
	if (error != ETIMEDOUT)
		return wrong("thread %u: futex: %s", w->index, strerror(error));
	return took >= 10000000 ? 0 : wrong("thread %u: a futex wait of 10 ms took %lu ns", w->index, took);
}

static uint32_t token[1024];

/* Two neighbours hand each other a token by untimed futex waits. */
static int check_token(struct worker *w)
{
	uint32_t *mine = &token[w->index / 2], side = w->index & 1;
	if ((w->index ^ 1) >= n_workers)
		return 0;
	for (int i = 0; i < 4; i++) {
		uint32_t seen;
		while (((seen = __atomic_load_n(mine, __ATOMIC_SEQ_CST)) & 1) != side) {
			if (__atomic_load_n(&stopping, __ATOMIC_SEQ_CST))
				return 0;
			if (syscall(SYS_futex, mine, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0) < 0 && errno != EAGAIN)
				return wrong("thread %u: an untimed futex wait: %s", w->index, strerror(errno));
		}
		__atomic_fetch_add(mine, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, mine, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
	}
	return 0;
}

static int ask_rseq(void)
{
	void *area = (char *)__builtin_thread_pointer() + __rseq_offset;
	if (!__rseq_size)
		return 0;
	/* Registered: EBUSY (or EINVAL where glibc's length is another). If not, this would succeed. */
	return syscall(SYS_rseq, area, 32, 0, RSEQ_SIG) < 0 ? errno : 0;
}

/* mxcsr and x87 control word, another rounding for each thread */
static void set_rounding(unsigned int index)
{
	uint32_t mxcsr = 0x1f80 | (index & 3) << 13;
	uint16_t x87 = (uint16_t)(0x037f | (index & 3) << 10);
	asm volatile("ldmxcsr %0; fldcw %1" ::"m"(mxcsr), "m"(x87));
}

static int check_kernel_side(struct worker *w)
{
	uint64_t fs, gs, mask, robust, robust_size, address = 0;
	uint32_t mxcsr;
	uint16_t x87;
	stack_t altstack;
	char name[16] = "";

	asm volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(x87));
	if (((mxcsr >> 13) & 3) != (w->index & 3) || ((x87 >> 10) & 3) != (w->index & 3))
		return wrong("thread %u: mxcsr %x, x87 control word %x", w->index, mxcsr, x87);
	if (tls_self != w || tls_value != mix(w->index))
		return wrong("thread %u: TLS is another's", w->index);
	if (pthread_self() != w->thread || (uint64_t)__builtin_thread_pointer() != w->fs)
		return wrong("thread %u: another thread pointer", w->index);
	if (syscall(SYS_gettid) != w->tid)
		return wrong("thread %u: was tid %d and is %ld", w->index, w->tid, syscall(SYS_gettid));
	syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
	syscall(SYS_arch_prctl, ARCH_GET_GS, &gs);
	if (fs != w->fs || gs != w->gs)
		return wrong("thread %u: fs %lx gs %lx were %lx %lx", w->index, fs, gs, w->fs, w->gs);
	if (syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8) < 0 || mask != w->mask)
		return wrong("thread %u: signal mask was %lx and is %lx", w->index, w->mask, mask);
	if (sigaltstack(NULL, &altstack) < 0 || altstack.ss_sp != w->altstack.ss_sp ||
	    altstack.ss_size != w->altstack.ss_size || altstack.ss_flags != w->altstack.ss_flags)
		return wrong("thread %u: alternate stack was %p and is %p flags %x", w->index, w->altstack.ss_sp, altstack.ss_sp,
			     altstack.ss_flags);
	prctl(PR_GET_NAME, name);
	if (strcmp(name, w->name))
		return wrong("thread %u: name was %s and is %s", w->index, w->name, name);
	if (syscall(SYS_get_robust_list, 0, &robust, &robust_size) < 0 || robust != w->robust)
		return wrong("thread %u: robust list was %lx and is %lx", w->index, w->robust, robust);
	prctl(PR_GET_TID_ADDRESS, &address);
	if (address != w->tid_address)
		return wrong("thread %u: tid address was %lx and is %lx", w->index, w->tid_address, address);
	if (ask_rseq() != w->rseq_errno)
		return wrong("thread %u: rseq is no longer registered", w->index);
	return 0;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t size;
	sigset_t set;

	tls_self = w;
	tls_value = mix(w->index);
	w->tid = (pid_t)syscall(SYS_gettid);
	w->thread = pthread_self();
	snprintf(w->name, sizeof(w->name), "worker %u", w->index);
	prctl(PR_SET_NAME, w->name);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + (int)(w->index % 20));
	if (w->index & 1)
		sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &w->mask, 8);
	w->altstack = (stack_t){.ss_sp = w->altstack_bytes, .ss_size = sizeof(w->altstack_bytes) - 64 * (w->index & 3)};
	sigaltstack(&w->altstack, NULL);
	sigaltstack(NULL, &w->altstack);
	w->gs = 0x7000000 + w->index * 0x1000;
	syscall(SYS_arch_prctl, ARCH_SET_GS, w->gs);
	syscall(SYS_arch_prctl, ARCH_GET_FS, &w->fs);
	syscall(SYS_get_robust_list, 0, &w->robust, &size);
	prctl(PR_GET_TID_ADDRESS, &w->tid_address);
	w->rseq_errno = ask_rseq();
	set_rounding(w->index);
	__atomic_store_n(&w->up, 1, __ATOMIC_RELEASE);

	/* What a thread is in the middle of when it is stopped: each does everything, starting at another point. */
	static int (*const checks[])(struct worker *) = {
		check_general, check_in_syscall, check_vectors, check_futex, check_token, check_kernel_side,
	};
	unsigned int n = sizeof(checks) / sizeof(checks[0]);
	for (unsigned int i = w->index & ~1u; !__atomic_load_n(&stopping, __ATOMIC_SEQ_CST); i++) {
		if (checks[i % n](w) < 0)
			break;
		__atomic_fetch_add(&w->turns, 1, __ATOMIC_SEQ_CST);
	}
	return w;
}

static int check(void)
{
	static uint64_t before[4096];
	static uint64_t last_monotonic;
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 60000000000;

	if (now_ns(CLOCK_MONOTONIC) < last_monotonic)
		return wrong("CLOCK_MONOTONIC went back");
	last_monotonic = now_ns(CLOCK_MONOTONIC);
	if (marker != 0x5eed1234)
		return wrong("marker is %lx", marker);
	for (unsigned int i = 0; i < n_workers; i++)
		before[i] = __atomic_load_n(&workers[i].turns, __ATOMIC_SEQ_CST);
	/* A full round of checks, and then some: each thread has looked at everything since it came back. */
	for (unsigned int i = 0; i < n_workers; i++)
		while (__atomic_load_n(&workers[i].turns, __ATOMIC_SEQ_CST) < before[i] + 8) {
			if (target_why[0])
				return -1;
			if (now_ns(CLOCK_MONOTONIC) > end)
				return wrong("thread %u (tid %d) makes no progress", i, workers[i].tid);
			pause_ms(1);
		}
	return state_check();
}

int main(int argc, char **argv)
{
	n_workers = argc > 1 ? (unsigned int)atoi(argv[1]) : 4;
	if (n_workers > 1024 || !(workers = calloc(n_workers + 1, sizeof(*workers))))
		fatal("threads");
	spin = 160000 / (n_workers < 8 ? 8 : n_workers);
	target_block_signals();
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (unsigned int i = 0; i < n_workers; i++) {
		workers[i].index = i;
		if ((errno = pthread_create(&workers[i].thread, &attr, work, &workers[i])))
			fatal("pthread_create");
	}
	for (unsigned int i = 0; i < n_workers; i++)
		while (!__atomic_load_n(&workers[i].up, __ATOMIC_ACQUIRE))
			pause_ms(1);
	if (state_take(&state_ready) < 0)
		say("FAIL: %s", target_why);
	int status = target_loop(check);

	/* pthread_join waits for the kernel to clear the thread id address. */
	__atomic_store_n(&stopping, 1, __ATOMIC_SEQ_CST);
	/* A neighbour may wait for its token without a timeout: another value of the same side ends that. */
	for (unsigned int i = 0; i < n_workers; i++) {
		__atomic_fetch_add(&token[i / 2], 2, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &token[i / 2], FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
	}
	for (unsigned int i = 0; i < n_workers; i++) {
		void *result;
		if (pthread_join(workers[i].thread, &result) || result != &workers[i])
			return 122;
	}
	return target_why[0] ? 123 : status;
}
