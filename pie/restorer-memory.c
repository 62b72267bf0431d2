/*
 * The address space: emptied, mapped, filled, protected.
 */
#include "restorer-parts.h"

enum {
	PROT_READ_ = 1,
	PROT_WRITE_ = 2,
	MREMAP_MAYMOVE_ = 1,
	MREMAP_FIXED_ = 2,
	MAP_FIXED_NOREPLACE_ = 0x100000,
	PR_SET_MM_ = 35,
	PR_SET_MM_MAP_ = 14,
	PR_SET_VMA_ = 0x53564d41,
	MLOCK_ONFAULT_ = 1,
	SHM_RDONLY_ = 010000,
};
#define TASK_TOP   0x7ffffffff000ul
#define SUM_BLOCK_ (1ul << 20)

static void move_vdso(const struct restorer_args *a, int back)
{
	const struct restorer_vdso *v = (void *)a->vdso;
	for (uint64_t i = 0; i < a->n_vdso; i++) {
		uint64_t from = back ? v[i].park : v[i].from, to = back ? v[i].to : v[i].park;
		check(a, SYS5(__NR_mremap, from, v[i].len, v[i].len, MREMAP_MAYMOVE_ | MREMAP_FIXED_, to), STEP_MOVE_VDSO, to);
	}
}

static void map_one(const struct restorer_args *a, const struct restorer_map *m)
{
	long at = m->start;
	if (!(m->vma_flags & VMA_SYSV))
		at = SYS6(__NR_mmap, m->start, m->len, m->first_prot, m->map_flags | MAP_FIXED_NOREPLACE_, m->fd, m->offset);
	else if (!m->offset) /* attached as a whole: what follows with an offset is a part of it */
		at = SYS3(__NR_shmat, m->fd, m->start, m->vma_flags & VMA_FILE_WRITABLE ? 0 : SHM_RDONLY_);
	check(a, at, STEP_MAP, m->start);
	if ((uint64_t)at != m->start)
		restorer_fail(a, STEP_MAP, -EEXIST, m->start);
}

/* CRC32C, eight bytes at a time: the instruction is in every x86-64 CPU since 2008. */
static uint32_t crc(uint32_t sum, const unsigned char *p, uint64_t len)
{
	uint64_t c = (uint32_t)~sum;
	for (; len >= 8; len -= 8, p += 8)
		__asm__("crc32q %1, %0" : "+r"(c) : "m"(*(const uint64_t *)p));
	return ~(uint32_t)c;
}

/* Three blocks at once: the instruction takes three cycles and can begin every one. */
static void crc3(uint32_t sums[3], const unsigned char *p)
{
	uint64_t a = ~0u, b = ~0u, c = ~0u;
	for (uint64_t i = 0; i < SUM_BLOCK_; i += 8) {
		__asm__("crc32q %1, %0" : "+r"(a) : "m"(*(const uint64_t *)(p + i)));
		__asm__("crc32q %1, %0" : "+r"(b) : "m"(*(const uint64_t *)(p + SUM_BLOCK_ + i)));
		__asm__("crc32q %1, %0" : "+r"(c) : "m"(*(const uint64_t *)(p + 2 * SUM_BLOCK_ + i)));
	}
	sums[0] = ~(uint32_t)a;
	sums[1] = ~(uint32_t)b;
	sums[2] = ~(uint32_t)c;
}

#define FILL_AT_ONCE (6ul << 20) /* small enough to be summed out of the cache */

/*
 * Runs lie one behind the other in the core, whole pages each. A read takes as many as one preadv may (1,024); the
 * sums go on over the runs' borders, a block of 1 MiB each.
 */
struct filling {
	uint64_t done; /* bytes of contents that were summed */
	uint32_t sum;
};

static void check_block(const struct restorer_args *a, uint64_t block, uint32_t sum)
{
	const uint32_t *sums = (void *)a->sums;
	if (block >= a->n_sums || sums[block] != sum)
		restorer_fail(a, STEP_SUM, -EIO, block);
}

static void sum_run(const struct restorer_args *a, struct filling *f, const unsigned char *p, uint64_t len)
{
	while (len) {
		if (f->done % SUM_BLOCK_ == 0 && len >= 3 * SUM_BLOCK_) {
			uint32_t sums[3];
			crc3(sums, p);
			for (int i = 0; i < 3; i++, f->done += SUM_BLOCK_)
				check_block(a, f->done / SUM_BLOCK_, sums[i]);
			p += 3 * SUM_BLOCK_;
			len -= 3 * SUM_BLOCK_;
			continue;
		}
		uint64_t left = SUM_BLOCK_ - f->done % SUM_BLOCK_;
		uint64_t n = len < left ? len : left;
		f->sum = crc(f->sum, p, n);
		f->done += n;
		p += n;
		len -= n;
		if (n == left) {
			check_block(a, f->done / SUM_BLOCK_ - 1, f->sum);
			f->sum = 0;
		}
	}
}

static void fill(const struct restorer_args *a)
{
	static struct {
		uint64_t base, len;
	} iov[1024];
	const struct restorer_run *runs = (void *)a->runs;
	struct filling f = {0, 0};
	uint64_t at = a->contents, within = 0, i = 0;
	while (i < a->n_runs) {
		uint64_t n = 0, bytes = 0;
		for (uint64_t k = i; k < a->n_runs && n < 1024 && bytes < FILL_AT_ONCE; k++, n++) {
			uint64_t skip = k == i ? within : 0, len = runs[k].len - skip;
			if (len > FILL_AT_ONCE - bytes)
				len = FILL_AT_ONCE - bytes;
			iov[n].base = runs[k].start + skip;
			iov[n].len = len;
			bytes += len;
		}
		long got = SYS6(__NR_preadv, a->core_fd, iov, n, at, 0, 0);
		check(a, got, STEP_FILL, iov[0].base);
		if (got == 0)
			restorer_fail(a, STEP_FILL, -ENODATA, iov[0].base);
		at += got;
		for (uint64_t k = 0; k < n && got; k++) {
			uint64_t len = (uint64_t)got < iov[k].len ? (uint64_t)got : iov[k].len;
			sum_run(a, &f, (void *)iov[k].base, len);
			got -= len;
			within += len;
			if (within == runs[i].len) {
				within = 0;
				i++;
			}
		}
	}
	if (f.done % SUM_BLOCK_)
		check_block(a, f.done / SUM_BLOCK_, f.sum);
}

/* madvise(2): the flag of a record and the advice that gives it. */
static const struct {
	uint32_t flag;
	int advice;
} advices[] = {
	{VMA_HUGEPAGE, 14}, {VMA_NOHUGEPAGE, 15}, {VMA_DONTFORK, 10}, {VMA_WIPEONFORK, 18},
	{VMA_DONTDUMP, 16}, {VMA_MERGEABLE, 12}, {VMA_SEQ_READ, 2}, {VMA_RAND_READ, 1},
};

static void protect(const struct restorer_args *a, const struct restorer_map *m)
{
	for (unsigned i = 0; i < sizeof advices / sizeof *advices; i++)
		if (m->vma_flags & advices[i].flag)
			check(a, SYS3(__NR_madvise, m->start, m->len, advices[i].advice), STEP_ADVISE, m->start);
	if (m->name)
		/* a name is decoration: kernels without CONFIG_ANON_VMA_NAME have none */
		SYS5(__NR_prctl, PR_SET_VMA_, 0, m->start, m->len, m->name);
	if (m->first_prot != m->prot)
		check(a, SYS3(__NR_mprotect, m->start, m->len, m->prot), STEP_PROTECT, m->start);
	if (m->vma_flags & VMA_LOCKED) {
		/* without access, or with guard markers in it, the pages cannot be brought in, but it is locked */
		long ret = SYS3(__NR_mlock2, m->start, m->len, m->vma_flags & VMA_LOCKONFAULT ? MLOCK_ONFAULT_ : 0);
		if (ret != -ENOMEM || SYS3(__NR_mlock2, m->start, m->len, MLOCK_ONFAULT_) < 0)
			check(a, ret, STEP_ADVISE, m->start);
	}
}

void restore_memory(const struct restorer_args *a)
{
	const struct restorer_map *maps = (void *)a->maps;
	move_vdso(a, 0);
	check(a, SYS2(__NR_munmap, 0, a->region), STEP_UNMAP, 0);
	uint64_t above = a->region + a->region_len;
	check(a, SYS2(__NR_munmap, above, TASK_TOP - above), STEP_UNMAP, above);
	for (uint64_t i = 0; i < a->n_maps; i++)
		map_one(a, &maps[i]);
	restore_policies(a);
	fill(a);
	restore_guards(a);
	for (uint64_t i = 0; i < a->n_maps; i++)
		protect(a, &maps[i]);
	move_vdso(a, 1);
	check(a, SYS5(__NR_prctl, PR_SET_MM_, PR_SET_MM_MAP_, &a->mm, sizeof a->mm, 0), STEP_MM, 0);
	restore_seals(a);
}
