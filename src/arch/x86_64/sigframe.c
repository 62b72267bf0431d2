#include "arch/x86_64/sigframe.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

/* What a kernel returns inside, for its own signal code alone: include/linux/errno.h. */
enum { ERESTARTSYS = 512, ERESTARTNOINTR = 513, ERESTARTNOHAND = 514, ERESTART_RESTARTBLOCK = 516 };

enum { UC_FP_XSTATE_ = 1, UC_SIGCONTEXT_SS_ = 2, UC_STRICT_RESTORE_SS_ = 4 };
#define FP_XSTATE_MAGIC1_ 0x46505853u
#define FP_XSTATE_MAGIC2_ 0x46505845u
#define SW_RESERVED	  464 /* bytes into the FXSAVE area: struct _fpx_sw_bytes; ptrace keeps XCR0 there */

/* arch/x86/include/uapi/asm/sigcontext.h and ucontext.h; <ucontext.h> pads the signal mask to 128 bytes */
struct frame {
	uint64_t pretcode;
	uint64_t uc_flags, uc_link;
	uint64_t ss_sp;
	uint32_t ss_flags, ss_pad;
	uint64_t ss_size;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
	uint64_t sigmask;
};

enum restart_kind regs_restart(const struct user_regs_struct *regs)
{
	if ((long)regs->orig_rax < 0)
		return RESTART_NONE;
	switch (-(long)regs->rax) {
	case ERESTARTSYS:
	case ERESTARTNOINTR:
	case ERESTARTNOHAND:
		return RESTART_AGAIN;
	case ERESTART_RESTARTBLOCK:
		return RESTART_BLOCK;
	default:
		return RESTART_NONE;
	}
}

void regs_resolve_restart(struct user_regs_struct *regs)
{
	switch (regs_restart(regs)) {
	case RESTART_AGAIN:
		regs->rip -= 2;
		regs->rax = regs->orig_rax;
		break;
	case RESTART_BLOCK:
		regs->rax = -EINTR;
		break;
	case RESTART_NONE:
		break;
	}
	regs->orig_rax = -1;
}

void regs_repeat_interrupted(struct user_regs_struct *regs)
{
	switch ((long)regs->rax == -EINTR ? (long)regs->orig_rax : -1) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_rt_sigtimedwait:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_io_getevents:
	case SYS_msgrcv:
	case SYS_msgsnd:
	/* with SO_RCVTIMEO or SO_SNDTIMEO */
	case SYS_read:
	case SYS_readv:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_recvmmsg:
	case SYS_accept:
	case SYS_accept4:
	case SYS_write:
	case SYS_writev:
	case SYS_sendto:
	case SYS_sendmsg:
		regs->rip -= 2;
		regs->rax = regs->orig_rax;
		regs->orig_rax = -1;
		break;
	}
}

size_t sigframe_build(void *buf, uint64_t addr, const struct user_regs_struct *regs, const void *xstate, size_t xstate_len,
		      uint64_t sigmask)
{
	size_t fp = (sizeof(struct frame) + 63) & ~63ul;
	struct frame f = {
		.uc_flags = UC_FP_XSTATE_ | UC_SIGCONTEXT_SS_ | UC_STRICT_RESTORE_SS_,
		.ss_flags = 7, /* no mode that there is: EINVAL */
		.r8 = regs->r8, .r9 = regs->r9, .r10 = regs->r10, .r11 = regs->r11,
		.r12 = regs->r12, .r13 = regs->r13, .r14 = regs->r14, .r15 = regs->r15,
		.di = regs->rdi, .si = regs->rsi, .bp = regs->rbp, .bx = regs->rbx,
		.dx = regs->rdx, .ax = regs->rax, .cx = regs->rcx, .sp = regs->rsp,
		.ip = regs->rip, .flags = regs->eflags,
		.cs = regs->cs, .ss = regs->ss,
		.fpstate = addr + fp,
		.sigmask = sigmask,
	};
	memset(buf, 0, fp);
	memcpy(buf, &f, sizeof f);
	char *x = (char *)buf + fp;
	memcpy(x, xstate, xstate_len);

	uint64_t xcr0;
	memcpy(&xcr0, (const char *)xstate + SW_RESERVED, sizeof xcr0);
	struct {
		uint32_t magic1, extended_size;
		uint64_t xfeatures;
		uint32_t xstate_size;
	} sw = {FP_XSTATE_MAGIC1_, (uint32_t)xstate_len + 4, xcr0, (uint32_t)xstate_len};
	memset(x + SW_RESERVED, 0, 48);
	memcpy(x + SW_RESERVED, &sw, 20); /* not the struct's own padding */
	uint32_t magic2 = FP_XSTATE_MAGIC2_;
	memcpy(x + xstate_len, &magic2, 4);
	return fp + xstate_len + 4;
}
