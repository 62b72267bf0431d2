/*
 * The parasite's entry. The tracer has set: rsp, the signal frame's address + 8; r14 and r15, what the trampoline's way
 * out wants and where it is. The blob was mapped r-x as a whole and written through /proc/PID/mem: its data becomes rw
 * here, so that nothing is ever both, also where mprotect from rw to x is forbidden (PR_SET_MDWE).
 */
	.section .head.text, "ax", @progbits
	.globl	__export_blob_start, __export_parasite_entry
	.hidden	__export_blob_start, __export_parasite_entry
__export_blob_start:
__export_parasite_entry:
	lea	__export_data(%rip), %rdi
	lea	__export_end(%rip), %rsi
	sub	%rdi, %rsi
	mov	$3, %edx		/* PROT_READ | PROT_WRITE */
	mov	$10, %eax		/* mprotect */
	syscall
	mov	$-1, %edi
	test	%rax, %rax
	jnz	1f
	mov	%rsp, %r12
	lea	parasite_stack_top(%rip), %rsp
	call	parasite_main
	mov	%r12, %rsp
	mov	%eax, %edi		/* the socket that is left to close */
1:	lea	__export_blob_start(%rip), %r12
	lea	__export_end(%rip), %r13
	sub	%r12, %r13
	jmp	*%r15			/* trampoline_leave: close, munmap of ourselves, rt_sigreturn */

	.section .stack, "aw", @nobits
	.balign	64
	.skip	8192
parasite_stack_top:
	.section .note.GNU-stack, "", @progbits
