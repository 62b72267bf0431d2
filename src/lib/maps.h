/*
 * A process's mappings, as /proc/PID/smaps tells them.
 */
#ifndef CRL_MAPS_H
#define CRL_MAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct vma {
	uint64_t start, end, offset;
	uint32_t prot;	  /* PROT_* */
	bool shared;
	uint32_t dev_major, dev_minor;
	uint64_t ino;
	char *name;	  /* what stands at the line's end: a path, [stack], [anon:…], or "" */
	bool deleted;	  /* the name ended in " (deleted)", which was cut off */
	uint32_t flags;	  /* enum vma_flag of records.h */
	uint32_t kind;	  /* enum vma_kind; 0 for what no kind is known for */
	uint64_t page_size; /* KernelPageSize, bytes */
	uint32_t pkey;
	bool io, uffd, guard; /* VmFlags io/pf, um/uw/ui, gu */
	uint32_t object;  /* filled by the kind that carries it */
};

struct maps {
	struct vma *vma;
	size_t n;
};

/* Caller frees with maps_free. */
int maps_read(pid_t pid, struct maps *m);
void maps_free(struct maps *m);
/* The mapping that ADDR lies in, by bisection, or NULL. */
struct vma *maps_find(const struct maps *m, uint64_t addr);
/* The first mapping of that name ("[stack]"), or NULL. */
struct vma *maps_named(const struct maps *m, const char *name);
/*
 * The lowest address at or above FLOOR where LEN bytes are free in each of the N maps; 0: none below 2^47.
 */
uint64_t maps_hole(const struct maps *const m[], size_t n, uint64_t floor, uint64_t len);

#endif
