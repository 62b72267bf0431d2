/*
 * See trampoline.h. Position-independent; rsp is the frame's address + 8 all the way, as rt_sigreturn wants it. The
 * kernel keeps every register over a call but rax, rcx and r11. r14 says how a thread leaves: 0 for rt_sigreturn at
 * once, else through restart_syscall.
 */
	.section .rodata
	.globl	trampoline_start, trampoline_end, trampoline_map, trampoline_leave
	.globl	trampoline_touch, trampoline_saved
	.globl	trampoline_measure, trampoline_call, trampoline_out, trampoline_restart
	.balign	16
trampoline_start:
trampoline_map:
	syscall				/* mmap: rsi is the length */
	mov	%rax, %rdi
	mov	$11, %eax		/* munmap: EINVAL, and no harm, after a failed mmap */
	syscall
	jmp	trampoline_out

trampoline_leave:
	mov	$3, %eax		/* close */
	syscall
	mov	%r12, %rdi
	mov	%r13, %rsi
	mov	$11, %eax		/* munmap */
	syscall
	jmp	trampoline_out

trampoline_measure:			/* answers in rax first: the tracer takes over at the last call's exit */
	mov	$27, %edi		/* PR_GET_SECUREBITS */
	mov	$157, %eax		/* prctl */
	syscall
	mov	%eax, 36(%rbx)
	mov	$30, %edi		/* PR_GET_TIMERSLACK */
	mov	$157, %eax
	syscall
	mov	%rax, 40(%rbx)
	xor	%edi, %edi
	mov	%rbx, %rsi
	mov	$131, %eax		/* sigaltstack */
	syscall
	mov	$40, %edi		/* PR_GET_TID_ADDRESS */
	lea	24(%rbx), %rsi
	mov	$157, %eax		/* prctl */
	syscall
	mov	$2, %edi		/* PR_GET_PDEATHSIG */
	lea	32(%rbx), %rsi
	mov	$157, %eax
	syscall
	jmp	trampoline_out

trampoline_call:
	syscall
trampoline_out:
	test	%r14, %r14
	jnz	trampoline_restart
	mov	$15, %eax		/* rt_sigreturn */
	syscall
trampoline_restart:
	mov	$2, %edi		/* SIG_SETMASK */
	lea	296(%rsp), %rsi		/* uc_sigmask */
	xor	%edx, %edx
	mov	$8, %r10d
	mov	$14, %eax		/* rt_sigprocmask */
	syscall
	mov	$219, %eax		/* restart_syscall */
	syscall
	mov	%rax, 0x90(%rsp)	/* uc_mcontext.rax */
	mov	$15, %eax
	syscall
	hlt

trampoline_touch:
	mov	(%rdi), %dil
	mov	$39, %eax		/* getpid */
	syscall
	mov	trampoline_saved(%rip), %rax
	mov	trampoline_saved+8(%rip), %rcx
	mov	trampoline_saved+16(%rip), %rdi
	mov	trampoline_saved+24(%rip), %r11
	jmp	*trampoline_saved+32(%rip)
	.balign	8
trampoline_saved:
	.skip	40
trampoline_end:
	.section .note.GNU-stack, "", @progbits
