/*
 * Which pages of a process are there: ioctl PAGEMAP_SCAN (Linux 6.7; Documentation/admin-guide/mm/pagemap.rst).
 */
#ifndef CRL_PAGEMAP_H
#define CRL_PAGEMAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum pages_wanted {
	PAGES_TOUCHED, /* present or swapped, whatever they hold */
	PAGES_PRIVATE, /* the process's own: present or swapped, not the zero page, not a file's */
	PAGES_GUARD,   /* guard markers */
};

struct page_run {
	uint64_t start, end;
};

/* Fills RUNS with up to MAX runs of wanted pages in [start, end); their number, or -1 with the error set. */
long pagemap_scan(pid_t pid, uint64_t start, uint64_t end, enum pages_wanted what, struct page_run *runs, size_t max);

/* All runs, allocated, appended to *runs (*n of *cap). */
int pagemap_collect(int fd, pid_t pid, uint64_t start, uint64_t end, enum pages_wanted what, struct page_run **runs, size_t *n,
		    size_t *cap);
/* /proc/PID/pagemap, for pagemap_collect. */
int pagemap_open(pid_t pid);

#endif
