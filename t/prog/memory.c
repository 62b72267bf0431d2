/*
 * memory CASE: memory of one sort, which checks itself by what it holds and by what the kernel says of it.
 */
#include "target.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define PAGE 4096ul

static unsigned char pattern(unsigned long page, unsigned int seed)
{
	return (unsigned char)(page * 31 + seed * 7 + 1) | 1;
}

static void put(char *at, unsigned long pages, unsigned int seed)
{
	for (unsigned long i = 0; i < pages; i++)
		memset(at + i * PAGE, pattern(i, seed), PAGE);
}

static int holds(const char *what, const char *at, unsigned long pages, unsigned int seed)
{
	for (unsigned long i = 0; i < pages; i++)
		for (unsigned long k = 0; k < PAGE; k++)
			if ((unsigned char)at[i * PAGE + k] != pattern(i, seed))
				return wrong("%s: byte %lu of page %lu at %p is %#x", what, k, i, (const void *)at,
					     (unsigned char)at[i * PAGE + k]);
	return 0;
}

static void *map(size_t len, int prot, int flags, int fd, off_t offset)
{
	void *at = mmap(NULL, len, prot, flags, fd, offset);
	if (at == MAP_FAILED)
		fatal("mmap");
	return at;
}

static int is_zero(const char *what, const char *at)
{
	for (unsigned long k = 0; k < PAGE; k++)
		if (at[k])
			return wrong("%s: byte %lu at %p is not zero", what, k, (const void *)at);
	return 0;
}

/* The line of /proc/self/smaps that begins with FIELD, of the mapping that ADDR lies in. */
static const char *smaps_field(const void *addr, const char *field)
{
	static char text[1 << 20];
	int inside = 0;
	if (slurp("/proc/self/smaps", text, sizeof(text)) <= 0)
		return "";
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		unsigned long from, to;
		*end = 0;
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from <= (unsigned long)addr && (unsigned long)addr < to;
		if (inside && (!*field ? strchr(line, '-') != NULL : !strncmp(line, field, strlen(field))))
			return line;
	}
	return "";
}

static int has_flag(const void *addr, const char *flag)
{
	char word[8];
	snprintf(word, sizeof(word), " %s ", flag);
	return strstr(smaps_field(addr, "VmFlags:"), word) != NULL;
}

static unsigned long smaps_kb(const void *addr, const char *field)
{
	const char *line = smaps_field(addr, field);
	return strtoul(line + strcspn(line, "0123456789"), NULL, 10);
}

/* ---- shared anonymous memory, with a child that answers through it ---- */

#define SPARSE (1ul << 30)
static char *shared, *part, *twice;
static int *words; /* question, answer */

static void wait_while(int *word, int value)
{
	syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void set_word(int *word, int value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static _Noreturn void answer(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int last = 0;;) {
		int asked = __atomic_load_n(&words[0], __ATOMIC_SEQ_CST);
		if (asked == last) {
			wait_while(&words[0], last);
			continue;
		}
		last = asked;
		/* it says what it sees, and leaves something to be seen */
		shared[SPARSE / 2 + 1] = (char)asked;
		set_word(&words[1], shared[SPARSE / 2] == (char)asked ? asked : -1);
	}
}

static void set_up_shared(void)
{
	shared = map(SPARSE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	words = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	put(shared + 5 * PAGE, 40, 1);
	put(shared + SPARSE - 3 * PAGE, 3, 2);
	shared[SPARSE / 2] = 1;
	/* two mappings more of the same memory, one of a part of it that is mapped nowhere else */
	twice = mremap(shared, 0, PAGE * 64, MREMAP_MAYMOVE);
	char *other = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	put(other, 8, 3);
	munmap(other, 4 * PAGE);
	part = other + 4 * PAGE;
	if (twice == MAP_FAILED || mprotect(twice, PAGE * 64, PROT_READ))
		fatal("a second mapping");
	pid_t pid = fork();
	if (pid < 0)
		fatal("fork");
	if (!pid)
		answer();
}

static int check_shared(void)
{
	static int question;
	if (holds("shared", shared + 5 * PAGE, 40, 1) || holds("its end", shared + SPARSE - 3 * PAGE, 3, 2) ||
	    holds("mapped twice", twice + 5 * PAGE, 40, 1) || is_zero("a hole", shared + 100 * PAGE))
		return -1;
	for (int i = 4; i < 8; i++)
		if ((unsigned char)part[(i - 4) * PAGE] != pattern(i, 3))
			return wrong("part of an object: page %d is another", i);
	question++;
	shared[SPARSE / 2] = (char)question;
	set_word(&words[0], question);
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 60000000000;
	while (__atomic_load_n(&words[1], __ATOMIC_SEQ_CST) != question) {
		if (__atomic_load_n(&words[1], __ATOMIC_SEQ_CST) == -1)
			return wrong("the child sees another memory");
		if (now_ns(CLOCK_MONOTONIC) > end)
			return wrong("the child does not answer");
		pause_ms(1);
	}
	if (shared[SPARSE / 2 + 1] != (char)question)
		return wrong("what the child writes is not seen");
	if (smaps_kb(shared, "Rss:") > 8192)
		return wrong("sparse memory has become %lu kB", smaps_kb(shared, "Rss:"));
	return has_flag(shared, "mw") ? 0 : wrong("shared memory can no longer be made writable");
}

/* ---- /dev/zero ---- */

static char *zero_shared, *zero_private;

static void set_up_zero(void)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fatal("/dev/zero");
	zero_shared = map(16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	zero_private = map(16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	put(zero_shared, 4, 4);
	put(zero_private + PAGE, 4, 5);
}

static int check_zero(void)
{
	if (!strstr(smaps_field(zero_private, ""), "/dev/zero"))
		return wrong("a private mapping of /dev/zero is now: %s", smaps_field(zero_private, ""));
	if (holds("shared", zero_shared, 4, 4) || holds("private", zero_private + PAGE, 4, 5) ||
	    is_zero("shared", zero_shared + 5 * PAGE) || is_zero("private", zero_private))
		return -1;
	return 0;
}

/* ---- memfds ---- */

static int mfd[4];
static char *m_shared, *m_private, *m_kept, *m_future;
static const int m_seals[4] = {F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL, 0, F_SEAL_FUTURE_WRITE, F_SEAL_SEAL};

static void set_up_memfd(void)
{
	static const char *const names[4] = {"sealed", "plain", "future", "kept"};
	for (int i = 0; i < 4; i++) {
		mfd[i] = memfd_create(names[i], MFD_CLOEXEC | (i == 3 ? 0 : MFD_ALLOW_SEALING));
		if (mfd[i] < 0 || ftruncate(mfd[i], 1 << 20))
			fatal("memfd_create");
		char *at = map(1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, mfd[i], 0);
		put(at, 10, 10 + i);
		if (i == 2)
			m_future = at;
		else if (i == 3)
			m_kept = at;
		else
			munmap(at, 1 << 20);
		if (i != 3 && m_seals[i] && fcntl(mfd[i], F_ADD_SEALS, m_seals[i]))
			fatal("F_ADD_SEALS");
	}
	m_private = map(1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE, mfd[0], 0);
	put(m_private + 20 * PAGE, 2, 20);
	/* only kernels since 6.13 let a sealed one be mapped shared */
	m_shared = mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, mfd[0], 0);
	if (m_shared == MAP_FAILED)
		m_shared = NULL;
	if (ftruncate(mfd[1], 123456) || fchmod(mfd[1], 0640) || lseek(mfd[1], 1000, SEEK_SET) != 1000)
		fatal("plain");
	close(mfd[3]); /* mapped alone */
	/* a second description, read-only, at a place of its own */
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", mfd[1]);
	mfd[3] = open(path, O_RDONLY | O_CLOEXEC);
	if (mfd[3] < 0 || lseek(mfd[3], 77, SEEK_SET) != 77)
		fatal("a second description");
}

static int check_memfd(void)
{
	struct stat st;
	char link[64], path[64];
	for (int i = 0; i < 3; i++)
		if (fcntl(mfd[i], F_GET_SEALS) != m_seals[i])
			return wrong("memfd %d has the seals %#x", i, fcntl(mfd[i], F_GET_SEALS));
	if (holds("private of a sealed one", m_private, 10, 10) || holds("its own page", m_private + 20 * PAGE, 2, 20) ||
	    (m_shared && holds("shared of a sealed one", m_shared, 10, 10)) || holds("future", m_future, 10, 12) ||
	    holds("mapped alone", m_kept, 10, 13))
		return -1;
	if (m_shared && has_flag(m_shared, "mw"))
		return wrong("a mapping of a sealed memfd may become writable");
	m_future[11 * PAGE]++; /* this mapping was there before the seal */
	if (fstat(mfd[1], &st) || st.st_size != 123456 || (st.st_mode & 07777) != 0640)
		return wrong("memfd 1 has size %ld and mode %o", (long)st.st_size, st.st_mode);
	if (lseek(mfd[1], 0, SEEK_CUR) != 1000 || lseek(mfd[3], 0, SEEK_CUR) != 77)
		return wrong("memfd positions are %ld and %ld", (long)lseek(mfd[1], 0, SEEK_CUR), (long)lseek(mfd[3], 0, SEEK_CUR));
	if ((fcntl(mfd[3], F_GETFL) & O_ACCMODE) != O_RDONLY)
		return wrong("the second description is not read-only");
	unsigned char c = 0;
	if (pwrite(mfd[1], "\x5a", 1, 5) != 1 || pread(mfd[3], &c, 1, 5) != 1 || c != 0x5a)
		return wrong("two descriptions of one memfd do not see the same");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", mfd[0]);
	ssize_t n = readlink(path, link, sizeof(link) - 1);
	link[n > 0 ? n : 0] = 0;
	return strcmp(link, "/memfd:sealed (deleted)") ? wrong("the memfd is called %s", link) : 0;
}

static const struct {
	const char *name;
	void (*set_up)(void);
	int (*check)(void);
} cases[] = {
	{"shared", set_up_shared, check_shared},
	{"zero", set_up_zero, check_zero},
	{"memfd", set_up_memfd, check_memfd},
};

int main(int argc, char **argv)
{
	target_block_signals();
	for (size_t i = 0; argc > 1 && i < sizeof(cases) / sizeof(cases[0]); i++)
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].set_up();
			return target_loop(cases[i].check);
		}
	say("FAIL: no such case");
	return 1;
}
