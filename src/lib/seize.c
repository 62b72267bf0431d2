#include "lib/seize.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "arch/x86_64/sigframe.h"
#include "lib/error.h"

void seize_begin(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

int seize_hold(pid_t tid, unsigned long options)
{
	if (ptrace(PTRACE_SEIZE, tid, 0, options | PTRACE_O_TRACESYSGOOD) == 0)
		return 0;
	return errno == ESRCH ? 1 : fail_errno("ptrace of thread %d", tid);
}

int seize_start(pid_t tid, unsigned long options)
{
	int gone = seize_hold(tid, options);
	if (gone)
		return gone;
	return seize_interrupt(tid);
}

int seize_interrupt(pid_t tid)
{
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0)) {
		if (errno == ESRCH)
			return 1;
		return fail_errno("interrupting thread %d", tid);
	}
	return 0;
}

static long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static enum stop classify(int status, int *sig)
{
	*sig = 0;
	if (!WIFSTOPPED(status))
		return STOP_GONE;
	int event = status >> 16;
	*sig = WSTOPSIG(status);
	if (event == PTRACE_EVENT_STOP)
		return *sig == SIGTRAP ? STOP_TRAP : STOP_GROUP;
	if (event) {
		*sig = event;
		return STOP_EVENT;
	}
	if (*sig == (SIGTRAP | 0x80))
		return STOP_SYSCALL;
	return STOP_SIGNAL;
}

enum stop seize_wait(pid_t tid, int ms, int *sig)
{
	long until = ms < 0 ? 0 : now_ms() + ms;
	for (;;) {
		int status;
		pid_t got = waitpid(tid, &status, __WALL | (ms < 0 ? 0 : WNOHANG));
		if (got == tid)
			return classify(status, sig);
		if (got < 0 && errno != EINTR)
			return STOP_GONE;
		if (got == 0) {
			long left = until - now_ms();
			if (left <= 0)
				return STOP_NONE;
			/* SIGCHLD may have been taken for another thread's stop: never sleep long */
			if (left > 20)
				left = 20;
			sigset_t set;
			sigemptyset(&set);
			sigaddset(&set, SIGCHLD);
			struct timespec t = {0, left * 1000000};
			sigtimedwait(&set, NULL, &t);
		}
	}
}

int seize_wait_stopped(pid_t tid, int ms, bool *group)
{
	*group = false;
	for (;;) {
		int sig;
		enum stop stop = seize_wait(tid, ms, &sig);
		switch (stop) {
		case STOP_TRAP:
			return 0;
		case STOP_GROUP:
			*group = true;
			return 0;
		case STOP_SIGNAL:
		case STOP_EVENT:
		case STOP_SYSCALL:
			if (ptrace(PTRACE_CONT, tid, 0, stop == STOP_SIGNAL ? sig : 0) && errno != ESRCH)
				return fail_errno("letting a signal into thread %d", tid);
			break;
		case STOP_GONE:
			return 1;
		case STOP_NONE:
			return fail("thread %d does not stop: it sleeps where it cannot be interrupted (a parent inside "
				    "vfork, a hung file system); try again, or with a longer --timeout",
				    tid);
		}
	}
}

/* A thread inside a restartable sequence goes on at its abort handler: our code in its place has cleared rseq_cs. */
static int abort_rseq(struct thread *t)
{
	if (!t->rseq_ptr)
		return 0;
	struct {
		uint32_t version, flags;
		uint64_t start, len, abort;
	} cs;
	uint64_t ptr;
	struct iovec to = {&ptr, 8}, from = {(void *)(t->rseq_ptr + 8), 8};
	if (process_vm_readv(t->tid, &to, 1, &from, 1, 0) != 8 || !ptr)
		return 0;
	to = (struct iovec){&cs, sizeof cs};
	from = (struct iovec){(void *)ptr, sizeof cs};
	if (process_vm_readv(t->tid, &to, 1, &from, 1, 0) != sizeof cs)
		return 0;
	if (t->regs.rip - cs.start < cs.len) {
		t->regs.rip = cs.abort;
		t->regs.orig_rax = -1;
	}
	return 0;
}

int seize_read(struct thread *t, uint64_t pending)
{
	if (seize_get_regs(t->tid, &t->regs))
		return -1;
	static char buf[XSTATE_MAX];
	struct iovec v = {buf, sizeof buf};
	if (ptrace(PTRACE_GETREGSET, t->tid, NT_X86_XSTATE, &v))
		return fail_errno("reading the extended state of thread %d", t->tid);
	free(t->xstate);
	t->xstate = alloc_zeroed(v.iov_len, 1);
	if (!t->xstate)
		return -1;
	memcpy(t->xstate, buf, v.iov_len);
	t->xstate_len = v.iov_len;
	if (ptrace(PTRACE_GETSIGMASK, t->tid, 8, &t->sigmask))
		return fail_errno("reading the signal mask of thread %d", t->tid);
	struct __ptrace_rseq_configuration rseq;
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, t->tid, sizeof rseq, &rseq) == sizeof rseq) {
		t->rseq_ptr = rseq.rseq_abi_pointer;
		t->rseq_len = rseq.rseq_abi_size;
		t->rseq_sig = rseq.signature;
	}
	if (!(pending & ~t->sigmask))
		regs_repeat_interrupted(&t->regs);
	return abort_rseq(t);
}

int seize_set_regs(pid_t tid, const struct user_regs_struct *regs)
{
	struct iovec v = {(void *)regs, sizeof *regs};
	if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &v))
		return fail_errno("setting the registers of thread %d", tid);
	return 0;
}

int seize_get_regs(pid_t tid, struct user_regs_struct *regs)
{
	struct iovec v = {regs, sizeof *regs};
	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &v))
		return fail_errno("reading the registers of thread %d", tid);
	return 0;
}

int seize_set_sigmask(pid_t tid, uint64_t mask)
{
	if (ptrace(PTRACE_SETSIGMASK, tid, 8, &mask))
		return fail_errno("setting the signal mask of thread %d", tid);
	return 0;
}

int seize_to_syscall(pid_t tid)
{
	for (;;) {
		if (ptrace(PTRACE_SYSCALL, tid, 0, 0))
			return fail_errno("running thread %d", tid);
		int sig;
		switch (seize_wait(tid, -1, &sig)) {
		case STOP_SYSCALL:
			return 0;
		case STOP_GROUP: /* SIGSTOP cannot be blocked: it takes effect when we let go */
		case STOP_TRAP:
		case STOP_EVENT:
			break;
		default:
			return fail("thread %d ended or met a signal (%d) while it ran our code", tid, sig);
		}
	}
}

int seize_interrupt_here(pid_t tid)
{
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0))
		return fail_errno("interrupting thread %d", tid);
	for (;;) {
		if (ptrace(PTRACE_CONT, tid, 0, 0))
			return fail_errno("running thread %d", tid);
		int sig;
		switch (seize_wait(tid, -1, &sig)) {
		case STOP_TRAP:
			return 0;
		case STOP_GROUP:
			return 0;
		case STOP_EVENT:
		case STOP_SYSCALL:
			break;
		default:
			return fail("thread %d ended or met a signal (%d) while it ran our code", tid, sig);
		}
	}
}

void seize_release(pid_t tid)
{
	ptrace(PTRACE_DETACH, tid, 0, 0);
}
