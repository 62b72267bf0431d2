#include "lib/maps.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/error.h"
#include "lib/proc.h"
#include "records.h"

/* VmFlags' two letters: proc_pid_smaps(5) and fs/proc/task_mmu.c show_smap_vma_flags, 6.18. */
static const struct {
	char name[3];
	uint32_t flag;
} vm_flags[] = {
	{"gd", VMA_GROWSDOWN}, {"lo", VMA_LOCKED}, {"nr", VMA_NORESERVE}, {"ht", VMA_HUGETLB},
	{"hg", VMA_HUGEPAGE}, {"nh", VMA_NOHUGEPAGE}, {"dc", VMA_DONTFORK}, {"wf", VMA_WIPEONFORK},
	{"dd", VMA_DONTDUMP}, {"mg", VMA_MERGEABLE}, {"sl", VMA_SEALED}, {"sr", VMA_SEQ_READ},
	{"rr", VMA_RAND_READ}, {"dp", VMA_DROPPABLE}, {"lf", VMA_LOCKONFAULT},
	/* a shared mapping may become writable: its file was opened for writing */
	{"mw", VMA_FILE_WRITABLE},
};

static void parse_vm_flags(struct vma *v, const char *line)
{
	for (const char *p = line; *p && *p != '\n'; p++) {
		if (!islower((unsigned char)p[0]) || !p[1])
			continue;
		for (size_t i = 0; i < sizeof vm_flags / sizeof *vm_flags; i++)
			if (strncmp(p, vm_flags[i].name, 2) == 0)
				v->flags |= vm_flags[i].flag;
		v->io |= strncmp(p, "io", 2) == 0 || strncmp(p, "pf", 2) == 0;
		v->uffd |= strncmp(p, "um", 2) == 0 || strncmp(p, "uw", 2) == 0 || strncmp(p, "ui", 2) == 0;
		v->guard |= strncmp(p, "gu", 2) == 0;
		p++;
	}
}

/* maps writes a newline in a path as \012, and nothing else so. */
static char *unescape(const char *s, size_t len)
{
	char *out = alloc_zeroed(len + 1, 1);
	for (size_t i = 0, o = 0; out && i < len; o++) {
		if (len - i >= 4 && strncmp(s + i, "\\012", 4) == 0) {
			out[o] = '\n';
			i += 4;
		} else {
			out[o] = s[i++];
		}
	}
	return out;
}

static void classify(struct vma *v)
{
	if (strcmp(v->name, "[vdso]") == 0)
		v->kind = VMA_VDSO;
	else if (strncmp(v->name, "[vvar", 5) == 0)
		v->kind = VMA_VVAR;
	else if (strcmp(v->name, "[vsyscall]") == 0)
		v->kind = VMA_VSYSCALL;
	else if (v->shared)
		v->kind = VMA_FILE_SHARED; /* shared anonymous memory is a file of shmem to the kernel */
	else if (strcmp(v->name, "/anon_hugepage") == 0)
		v->kind = VMA_ANON_PRIVATE; /* a file to the kernel, of hugetlbfs */
	else if (v->ino || v->name[0] == '/')
		v->kind = VMA_FILE_PRIVATE;
	else
		v->kind = VMA_ANON_PRIVATE;
	if (strcmp(v->name, "[stack]") == 0)
		v->flags |= VMA_STACK;
	if (strcmp(v->name, "[heap]") == 0)
		v->flags |= VMA_HEAP;
}

/* "start-end rwxp offset major:minor inode   name" */
static int parse_line(struct vma *v, const char *line, size_t len)
{
	char perms[5];
	int at = 0;
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 "%n", &v->start, &v->end, perms, &v->offset,
		   &v->dev_major, &v->dev_minor, &v->ino, &at) != 7 ||
	    v->end <= v->start)
		return fail("a line of smaps is not in the form that is known");
	v->prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) | (perms[2] == 'x' ? PROT_EXEC : 0);
	v->shared = perms[3] == 's';
	while ((size_t)at < len && line[at] == ' ')
		at++;
	v->name = unescape(line + at, len - at);
	if (!v->name)
		return -1;
	static const char gone[] = " (deleted)";
	size_t n = strlen(v->name), g = sizeof gone - 1;
	if (v->name[0] == '/' && n > g && strcmp(v->name + n - g, gone) == 0) {
		v->name[n - g] = 0;
		v->deleted = true;
	}
	classify(v);
	return 0;
}

int maps_read(pid_t pid, struct maps *m)
{
	*m = (struct maps){0};
	size_t len;
	autofree char *text = proc_read(&len, "/proc/%d/smaps", pid);
	if (!text)
		return -1;
	size_t cap = 0;
	for (char *line = text, *end, *after = text + len; line < after; line = end + 1) {
		end = strchrnul(line, '\n');
		*end = 0; /* sscanf would look for the end of all of it each time */
		/* a mapping's own line begins with a lower-case hexadecimal number, a field's with a capital */
		if (isxdigit((unsigned char)line[0]) && !isupper((unsigned char)line[0])) {
			struct vma *bigger = grow_array(m->vma, &cap, m->n + 1, sizeof *bigger);
			if (!bigger)
				goto error;
			m->vma = bigger;
			memset(&m->vma[m->n], 0, sizeof *bigger);
			m->n++;
			if (parse_line(&m->vma[m->n - 1], line, end - line))
				goto error;
		} else if (m->n) {
			struct vma *v = &m->vma[m->n - 1];
			if (strncmp(line, "VmFlags:", 8) == 0)
				parse_vm_flags(v, line + 8);
			else if (strncmp(line, "KernelPageSize:", 15) == 0)
				v->page_size = strtoull(line + 15, NULL, 10) * 1024;
			else if (strncmp(line, "ProtectionKey:", 14) == 0)
				v->pkey = strtoul(line + 14, NULL, 10);
		}
	}
	return 0;
error:
	maps_free(m);
	return fail_within("/proc/%d/smaps", pid);
}

void maps_free(struct maps *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->vma[i].name);
	free(m->vma);
	*m = (struct maps){0};
}

struct vma *maps_find(const struct maps *m, uint64_t addr)
{
	size_t lo = 0, hi = m->n;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (m->vma[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < m->n && m->vma[lo].start <= addr ? &m->vma[lo] : NULL;
}

struct vma *maps_named(const struct maps *m, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (strcmp(m->vma[i].name, name) == 0)
			return &m->vma[i];
	return NULL;
}

/* The end of the mapping that overlaps [at, at + len) in M, or 0: a growing stack keeps its guard gap. */
static uint64_t obstacle(const struct maps *m, uint64_t at, uint64_t len)
{
	const uint64_t gap = 256 * 4096;
	size_t lo = 0, hi = m->n;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (m->vma[mid].end <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == m->n)
		return 0;
	const struct vma *v = &m->vma[lo];
	uint64_t begin = v->flags & VMA_GROWSDOWN ? v->start - gap : v->start;
	return begin < at + len ? v->end : 0;
}

uint64_t maps_hole(const struct maps *const m[], size_t n, uint64_t floor, uint64_t len)
{
	uint64_t at = floor;
	for (size_t i = 0; i < n;) {
		uint64_t next = obstacle(m[i], at, len);
		if (next) {
			at = next;
			i = 0;
		} else {
			i++;
		}
		if (at + len > (1ul << 47) - 4096)
			return 0;
	}
	return at;
}
