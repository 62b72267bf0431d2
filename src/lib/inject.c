#include "lib/inject.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/x86_64/sigframe.h"
#include "arch/x86_64/trampoline.h"
#include "lib/blobs.h"
#include "lib/error.h"
#include "lib/pagemap.h"
#include "lib/seize.h"
#include "parasite-offsets.h"
#include "protocol.h"

#define SLOT_HEAD 64  /* before the frame: the mark, then what a thread measured */
#define RED_ZONE  128
static const char slot_mark[16] = "criu-lite slot";

static int write_mem(struct process *p, uint64_t at, const void *buf, size_t len)
{
	ssize_t n = pwrite(p->mem, buf, len, at);
	if (n == (ssize_t)len)
		return 0;
	if (n >= 0)
		errno = EFAULT;
	return fail_errno("pid %d (%s): writing %zu bytes at %#lx of its memory", p->pid, p->comm, len, at);
}

static int read_mem(struct process *p, uint64_t at, void *buf, size_t len)
{
	ssize_t n = pread(p->mem, buf, len, at);
	if (n == (ssize_t)len)
		return 0;
	if (n >= 0)
		errno = EFAULT;
	return fail_errno("pid %d (%s): reading %zu bytes at %#lx of its memory", p->pid, p->comm, len, at);
}

/* The vDSO ends in zeros, where no code ever runs, or in the trampoline of an earlier visit. */
static int find_padding(struct process *p)
{
	struct vma *v = maps_named(&p->maps, "[vdso]");
	if (!v)
		return fail("pid %d (%s) has no vDSO, which is the way in; start it without vdso=0", p->pid, p->comm);
	size_t used = trampoline_end - trampoline_start, size = (used + 15) & ~15ul, code = trampoline_saved - trampoline_start;
	char there[512], zero[512] = {0};
	p->trampoline = v->end - size;
	if (size > sizeof there || read_mem(p, p->trampoline, there, size))
		return -1;
	if (memcmp(there, zero, size) == 0)
		return write_mem(p, p->trampoline, trampoline_start, used);
	if (memcmp(there, trampoline_start, code) == 0)
		return 0;
	return fail("pid %d (%s): this kernel's vDSO leaves no %zu zero bytes at its end, which is the way in", p->pid, p->comm,
		    size);
}

static uint64_t trampoline_at(const struct process *p, const char *symbol)
{
	return p->trampoline + (symbol - trampoline_start);
}

/* The stack grows to AT, where the leader has not been yet, by a read of its own. */
static int grow_stack(struct process *p, struct thread *t, uint64_t at)
{
	struct user_regs_struct r = t->regs, resolved = t->regs;
	if (regs_restart(&resolved) == RESTART_BLOCK)
		verbose("pid %d: a sleeping call ends early if criu-lite is killed now", p->pid);
	regs_resolve_restart(&resolved);
	struct trampoline_saved saved = {resolved.rax, resolved.rcx, resolved.rdi, resolved.r11, resolved.rip};
	if (write_mem(p, trampoline_at(p, trampoline_saved), &saved, sizeof saved))
		return -1;
	r.rip = trampoline_at(p, trampoline_touch);
	r.rdi = at;
	r.orig_rax = -1;
	if (seize_set_regs(t->tid, &r) || seize_to_syscall(t->tid) || seize_to_syscall(t->tid) || seize_interrupt_here(t->tid) ||
	    seize_set_regs(t->tid, &t->regs))
		return fail_within("pid %d (%s): growing its stack", p->pid, p->comm);
	return 0;
}

/*
 * Room for one frame where no one misses the bytes: the low end of [stack] if it was never touched (or bears our mark
 * of an earlier visit), else below the leader's rsp and its red zone. Never below any other rsp: what looks like a
 * stack may be a goroutine's.
 */
static int find_slot(struct process *p)
{
	struct vma *v = maps_named(&p->maps, "[stack]");
	struct thread *leader = &p->threads[0];
	if (!v)
		return fail("pid %d (%s) has no [stack], where a signal frame could lie", p->pid, p->comm);
	uint64_t need = (SLOT_HEAD + SIGFRAME_SIZE(leader->xstate_len) + 63) & ~63ul, at = v->start, rsp = leader->regs.rsp;
	char mark[sizeof slot_mark];
	struct page_run run;
	long touched = pagemap_scan(p->host->tid, v->start, (v->start + need + 4095) & ~4095ul, PAGES_TOUCHED, &run, 1);
	if (touched < 0)
		return -1;
	bool ours = pread(p->mem, mark, sizeof mark, at) == sizeof mark && memcmp(mark, slot_mark, sizeof mark) == 0;
	bool rsp_here = rsp >= v->start && rsp < v->end;
	if ((touched && !ours) || (rsp_here && rsp < at + need + RED_ZONE)) {
		if (!rsp_here)
			return fail("pid %d (%s) has no %lu bytes in its [stack] that were never used, for a signal frame; try "
				    "again later",
				    p->pid, p->comm, need);
		at = (rsp - RED_ZONE - need) & ~63ul;
		if (at < v->start && grow_stack(p, leader, at))
			return -1;
	}
	p->frame = at + SLOT_HEAD;
	return write_mem(p, at, slot_mark, sizeof slot_mark);
}

int inject_prepare(struct process *p)
{
	return find_padding(p) || find_slot(p) ? -1 : 0;
}

/*
 * T, stopped, is sent to `where` in the trampoline: the frame first, then the registers (of R what the
 * calls need), then the mask.
 */
static int send_to(struct process *p, struct thread *t, uint64_t rip, struct user_regs_struct *r)
{
	static char frame[SIGFRAME_MAX];
	struct user_regs_struct resolved = t->regs;
	bool block = regs_restart(&resolved) == RESTART_BLOCK;
	regs_resolve_restart(&resolved);
	size_t len = sigframe_build(frame, p->frame, &resolved, t->xstate, t->xstate_len, t->sigmask);
	if (!t->moved && write_mem(p, p->frame, frame, len))
		return -1;
	r->rip = rip;
	r->rsp = SIGFRAME_RSP(p->frame);
	r->orig_rax = -1;
	r->r14 = block;
	r->r15 = trampoline_at(p, trampoline_leave);
	if (seize_set_regs(t->tid, r))
		return -1;
	t->moved = true;
	return seize_set_sigmask(t->tid, ~0ul);
}

/* From a system call's exit inside the trampoline back to where T was stopped, exactly. */
static int put_back(struct thread *t)
{
	if (seize_interrupt_here(t->tid) || seize_set_sigmask(t->tid, t->sigmask) || seize_set_regs(t->tid, &t->regs))
		return -1;
	t->moved = false;
	return 0;
}

/* Runs T over N whole system calls: to the exit of the last. */
static int run_calls(struct thread *t, int n)
{
	for (int i = 0; i < 2 * n; i++)
		if (seize_to_syscall(t->tid))
			return -1;
	return 0;
}

int inject_measure(struct process *p, struct thread *t)
{
	struct user_regs_struct r = t->regs;
	uint64_t answer = p->frame - SLOT_HEAD + sizeof slot_mark;
	r.rbx = answer;
	if (send_to(p, t, trampoline_at(p, trampoline_measure), &r) || run_calls(t, 5) || put_back(t))
		return -1;
	_Static_assert(offsetof(struct thread, own.tid_address) - offsetof(struct thread, own) == 24, "as the trampoline writes it");
	_Static_assert(offsetof(struct thread, own.pdeath_signal) - offsetof(struct thread, own) == 32, "as the trampoline writes it");
	_Static_assert(sizeof t->own == 48 && SLOT_HEAD >= sizeof slot_mark + sizeof t->own, "room before the frame");
	return read_mem(p, answer, &t->own, sizeof t->own);
}

/* Takes our end of the parasite's socketpair: it is stopped at the close of it. */
static int take_socket(struct process *p)
{
	int socks[2];
	if (read_mem(p, p->parasite.base + parasite_blob_offset____export_parasite_socks, socks, sizeof socks))
		return -1;
	p->parasite.their_sock = socks[0];
	p->parasite.sock = syscall(SYS_pidfd_getfd, p->pidfd, socks[1], 0);
	if (p->parasite.sock < 0)
		return fail_errno("pid %d (%s): taking the parasite's socket", p->pid, p->comm);
	return 0;
}

static int map_blob(struct process *p, struct thread *t)
{
	struct user_regs_struct r = t->regs;
	r.rax = SYS_mmap;
	r.rdi = 0;
	r.rsi = parasite_blob_end - parasite_blob_start;
	r.rdx = PROT_READ | PROT_EXEC;
	r.r10 = MAP_PRIVATE | MAP_ANONYMOUS;
	r.r8 = -1;
	r.r9 = 0;
	p->parasite.len = r.rsi;
	if (send_to(p, t, trampoline_at(p, trampoline_map), &r) || run_calls(t, 1) || seize_get_regs(t->tid, &r))
		return -1;
	if ((long)r.rax < 0 && (long)r.rax > -4096) {
		errno = -(long)r.rax;
		return fail_errno("pid %d (%s): mapping %lu bytes in it (its limits RLIMIT_AS, vm.max_map_count or its memory "
				  "cgroup may be reached)",
				  p->pid, p->comm, p->parasite.len);
	}
	p->parasite.base = r.rax;
	p->parasite.area = r.rax + parasite_blob_offset____export_parasite_batch;
	return write_mem(p, r.rax, parasite_blob_start, p->parasite.len);
}

int inject_parasite(struct process *p)
{
	struct thread *t = p->host;
	p->parasite = (struct parasite){.sock = -1, .their_sock = -1};
	if (map_blob(p, t))
		return -1;
	struct user_regs_struct r = t->regs;
	if (send_to(p, t, p->parasite.base + parasite_blob_offset____export_parasite_entry, &r) || run_calls(t, 2) ||
	    seize_get_regs(t->tid, &r))
		return -1;
	if ((long)r.rax < 0) {
		errno = -(long)r.rax;
		return fail_errno("pid %d (%s): making a socket pair in it (its limit RLIMIT_NOFILE may be reached)", p->pid,
				  p->comm);
	}
	/* at the close's entry; then past it, so that nobody counts that descriptor */
	if (seize_to_syscall(t->tid) || take_socket(p) || seize_to_syscall(t->tid))
		return -1;
	if (ptrace(PTRACE_CONT, t->tid, 0, 0))
		return fail_errno("letting the parasite run in pid %d", p->pid);
	return 0;
}

int inject_leave(struct process *p)
{
	struct thread *t = p->host;
	if (!t || !t->moved)
		return 0;
	/* Interrupted wherever it is: at its recvmsg, or half way in after an error. */
	bool group;
	if (ptrace(PTRACE_INTERRUPT, t->tid, 0, 0) == 0 && p->parasite.sock >= 0 && seize_wait_stopped(t->tid, -1, &group))
		return fail("pid %d (%s) ended while it was dumped", p->pid, p->comm);
	struct user_regs_struct r = t->regs;
	r.rdi = p->parasite.their_sock;
	r.r12 = p->parasite.base;
	r.r13 = p->parasite.len;
	if (send_to(p, t, trampoline_at(p, trampoline_leave), &r) || run_calls(t, 2) || put_back(t))
		return fail_within("pid %d (%s): leaving it", p->pid, p->comm);
	if (p->parasite.sock >= 0)
		close(p->parasite.sock);
	p->parasite = (struct parasite){.sock = -1, .their_sock = -1};
	return 0;
}
