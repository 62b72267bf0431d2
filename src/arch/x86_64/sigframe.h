/*
 * The signal frame that rt_sigreturn(2) takes a thread's whole state from.
 */
#ifndef CRL_SIGFRAME_H
#define CRL_SIGFRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/user.h>

/* PTRACE_GETREGSET's NT_X86_XSTATE is never longer: AMX' 8 KiB of tiles, and some. */
#define XSTATE_MAX 12288
#define SIGFRAME_SIZE(xstate_len) ((xstate_len) + 516) /* what sigframe_build makes of it at most */
#define SIGFRAME_MAX SIGFRAME_SIZE(XSTATE_MAX)

/* How a stopped call goes on, resolved by hand as the kernel would on its way out (arch/x86/kernel/signal.c, 6.18). */
enum restart_kind { RESTART_NONE, RESTART_AGAIN, RESTART_BLOCK };
enum restart_kind regs_restart(const struct user_regs_struct *regs);

/*
 * PTRACE_INTERRUPT alone makes some calls return EINTR where nothing has happened (signal(7), "interruption by stop
 * signals"): REGS of such a one are turned so that it is made again. Only where no signal waits to be handled.
 */
void regs_repeat_interrupted(struct user_regs_struct *regs);

/* REGS with an interrupted call to be made again (RESTART_AGAIN), or failing with EINTR (RESTART_BLOCK). */
void regs_resolve_restart(struct user_regs_struct *regs);

/* Where rsp points when rt_sigreturn is called with a frame at ADDR. */
#define SIGFRAME_RSP(addr) ((addr) + 8)

/*
 * Builds in BUF (of SIGFRAME_MAX) the frame that lies at ADDR (a multiple of 64) in the target: REGS as they shall be,
 * XSTATE in ptrace's layout, the signal mask. The alternate stack is left as it is: its field is made one that
 * rt_sigreturn refuses, silently, to take over (kernel/signal.c restore_altstack). Returns the frame's length.
 */
size_t sigframe_build(void *buf, uint64_t addr, const struct user_regs_struct *regs, const void *xstate, size_t xstate_len,
		      uint64_t sigmask);

#endif
