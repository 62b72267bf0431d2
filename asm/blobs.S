/* SPDX-License-Identifier: MIT */
/*
 * The one place where the blobs enter the binary. They are constants here: the code in them runs only in the mappings
 * that are made from these bytes elsewhere. Page-aligned, so that a copy touches no page in vain.
 */
	.section .rodata, "a", @progbits

	.macro blob name
	.balign	4096
	.globl	\name\()_blob_start, \name\()_blob_end
	.type	\name\()_blob_start, @object
\name\()_blob_start:
	.incbin	"pie/\name\().built-in.bin"
	.size	\name\()_blob_start, . - \name\()_blob_start
\name\()_blob_end:
	.endm

	blob	parasite
	blob	restorer

	.section .note.GNU-stack, "", @progbits
