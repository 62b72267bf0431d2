#include "lib/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "lib/error.h"

/* include/uapi/linux/fs.h of 6.18: Debian 12's headers are older. */
struct page_region_ {
	uint64_t start, end, categories;
};
struct pm_scan_arg_ {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN_ _IOWR('f', 16, struct pm_scan_arg_)
enum { IS_FILE = 1 << 2, IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, IS_PFNZERO = 1 << 5, IS_GUARD = 1 << 8 };

int pagemap_open(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 ? fd : fail_errno("%s", path);
}

/* Guard markers look swapped where the kernel cannot name them (before 6.15 none tells them apart). */
static uint64_t guard_known = IS_GUARD;

static long scan(int fd, uint64_t *start, uint64_t end, enum pages_wanted what, struct page_region_ *vec, size_t max)
{
	for (;;) {
		struct pm_scan_arg_ a = {.size = sizeof a, .start = *start, .end = end, .vec = (uintptr_t)vec, .vec_len = max};
		if (what == PAGES_GUARD) {
			a.category_mask = a.return_mask = guard_known;
			if (!guard_known)
				return 0;
		} else {
			a.category_anyof_mask = a.return_mask = IS_PRESENT | IS_SWAPPED;
			a.category_inverted = a.category_mask = (what == PAGES_PRIVATE ? IS_PFNZERO | IS_FILE : 0) | guard_known;
		}
		long n = ioctl(fd, PAGEMAP_SCAN_, &a);
		if (n < 0 && errno == EINVAL && guard_known) {
			guard_known = 0;
			continue;
		}
		*start = a.walk_end;
		return n;
	}
}

int pagemap_collect(int fd, pid_t pid, uint64_t start, uint64_t end, enum pages_wanted what, struct page_run **runs, size_t *n,
		    size_t *cap)
{
	static struct page_region_ vec[512];
	while (start < end) {
		uint64_t from = start;
		long got = scan(fd, &start, end, what, vec, 512);
		if (got < 0)
			return fail_errno("PAGEMAP_SCAN of pid %d (Linux 6.7 or later is needed)", pid);
		for (long i = 0; i < got; i++) {
			if (*n && (*runs)[*n - 1].end == vec[i].start && vec[i].start != from) {
				(*runs)[*n - 1].end = vec[i].end;
				continue;
			}
			struct page_run *bigger = grow_array(*runs, cap, *n + 1, sizeof *bigger);
			if (!bigger)
				return -1;
			*runs = bigger;
			(*runs)[(*n)++] = (struct page_run){vec[i].start, vec[i].end};
		}
		if (start <= from)
			break;
	}
	return 0;
}

long pagemap_scan(pid_t pid, uint64_t start, uint64_t end, enum pages_wanted what, struct page_run *runs, size_t max)
{
	autoclose int fd = pagemap_open(pid);
	if (fd < 0)
		return -1;
	struct page_region_ vec[16];
	if (max > 16)
		max = 16;
	long n = scan(fd, &start, end, what, vec, max);
	if (n < 0)
		return fail_errno("PAGEMAP_SCAN of pid %d (Linux 6.7 or later is needed)", pid);
	for (long i = 0; i < n; i++)
		runs[i] = (struct page_run){vec[i].start, vec[i].end};
	return n;
}
