/*
 * The few instructions that run in the zero padding behind the target's vDSO, where no code ever runs.
 *
 * Whatever happens to us, a thread that was sent here finds its way back: every path falls into rt_sigreturn, with rsp
 * at a signal frame that describes the thread as it was. The code is never taken out again (a private copy of one page,
 * the same bytes each time).
 */
#ifndef CRL_TRAMPOLINE_H
#define CRL_TRAMPOLINE_H

#include <stddef.h>
#include <stdint.h>

extern const char trampoline_start[], trampoline_end[];

/* mmap with everything in registers, then munmap(what it returned, rsi), then out. */
extern const char trampoline_map[];
/* close(rdi), munmap(r12, r13), then out. */
extern const char trampoline_leave[];
/* sigaltstack(0, rbx), prctl(PR_GET_TID_ADDRESS, rbx + 24), prctl(PR_GET_PDEATHSIG, rbx + 32), then out. */
extern const char trampoline_measure[];
/* One call with everything in registers, then out. */
extern const char trampoline_call[];
/*
 * Reads one byte at rdi, so that a stack grows to there; makes one call, getpid; then goes to rip with rax, rcx, rdi and
 * r11 as trampoline_saved has them: five numbers that are written there first. It needs no frame and changes no mask.
 */
extern const char trampoline_touch[], trampoline_saved[];
struct trampoline_saved {
	uint64_t rax, rcx, rdi, r11, rip;
};
/* rt_sigreturn. */
extern const char trampoline_out[];
/*
 * The same for a thread that was stopped inside a call that restart_syscall(2) would go on with: it sets r15's signal
 * mask (frame's) first, sleeps on, and leaves what the call returned in the frame.
 */
extern const char trampoline_restart[];

#endif
