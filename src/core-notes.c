#include "core-notes.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>

#include "arch/x86_64/cpu.h"
#include "lib/error.h"
#include "lib/proc.h"

static int add_thread(struct process *p, const struct thread *t)
{
	/* As a debugger wants to see it: where the thread goes on, an interrupted call not yet made again. */
	struct elf_prstatus s = {.pr_pid = t->tid, .pr_ppid = p->ppid, .pr_pgrp = p->pgid, .pr_sid = p->sid, .pr_fpvalid = 1};
	s.pr_sighold = t->sigmask;
	_Static_assert(sizeof s.pr_reg == sizeof t->regs, "elf_gregset_t is user_regs_struct");
	memcpy(&s.pr_reg, &t->regs, sizeof t->regs);
	if (notes_add(&p->core, "CORE", NT_PRSTATUS, &s, sizeof s) ||
	    notes_add(&p->core, "CORE", NT_FPREGSET, t->xstate, sizeof(elf_fpregset_t)))
		return -1;
	char xstate[XSTATE_INTEL_SIZE];
	size_t len = xstate_intel_layout(xstate, t->xstate, t->xstate_len);
	return notes_add(&p->core, "LINUX", NT_X86_XSTATE, xstate, len);
}

static int add_psinfo(struct process *p)
{
	struct elf_prpsinfo s = {.pr_sname = 'R', .pr_pid = p->pid, .pr_ppid = p->ppid, .pr_pgrp = p->pgid, .pr_sid = p->sid};
	snprintf(s.pr_fname, sizeof s.pr_fname, "%.15s", p->comm);
	size_t len;
	autofree char *args = proc_read(&len, "/proc/%d/cmdline", p->host->tid);
	for (size_t i = 0; args && i < len && i < sizeof s.pr_psargs - 1; i++)
		s.pr_psargs[i] = args[i] ? args[i] : ' ';
	return notes_add(&p->core, "CORE", NT_PRPSINFO, &s, sizeof s);
}

/* count, page size, {start, end, offset in pages} each, then the names: fs/binfmt_elf.c fill_files_note */
static int add_files(struct process *p)
{
	size_t n = 0, names = 0;
	for (size_t i = 0; i < p->maps.n; i++)
		if (p->maps.vma[i].name[0] == '/') {
			n++;
			names += strlen(p->maps.vma[i].name) + 1;
		}
	size_t len = 16 + 24 * n + names;
	autofree char *note = alloc_zeroed(len, 1);
	if (!note)
		return -1;
	uint64_t *out = (uint64_t *)note;
	*out++ = n;
	*out++ = 4096;
	char *name = note + 16 + 24 * n;
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.vma[i];
		if (v->name[0] != '/')
			continue;
		*out++ = v->start;
		*out++ = v->end;
		*out++ = v->offset / 4096;
		name = stpcpy(name, v->name) + 1;
	}
	return notes_add(&p->core, "CORE", NT_FILE, note, len);
}

int core_notes_add(struct process *p)
{
	/* gdb takes the first NT_PRSTATUS for the current thread */
	if (add_thread(p, &p->threads[0]) || add_psinfo(p))
		return -1;
	size_t len;
	autofree char *auxv = proc_read(&len, "/proc/%d/auxv", p->host->tid);
	if (!auxv || notes_add(&p->core, "CORE", NT_AUXV, auxv, len) || add_files(p))
		return -1;
	for (size_t i = 1; i < p->n_threads; i++)
		if (add_thread(p, &p->threads[i]))
			return -1;
	return 0;
}
