/*
 * memory CASE: memory of one sort, which checks itself by what it holds and by what the kernel says of it.
 */
#include "target.h"

#include <limits.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
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
	/* what is only read, or written with zeros, holds nothing */
	for (size_t at = SPARSE / 4; at < SPARSE / 4 + (30 << 20); at += PAGE)
		shared[at] = at & PAGE ? 0 : shared[at + 1];
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

static int ask_child(void)
{
	static int question;
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
	return 0;
}

static int check_shared(void)
{
	if (holds("shared", shared + 5 * PAGE, 40, 1) || holds("its end", shared + SPARSE - 3 * PAGE, 3, 2) ||
	    holds("mapped twice", twice + 5 * PAGE, 40, 1) || is_zero("a hole", shared + 100 * PAGE))
		return -1;
	for (int i = 4; i < 8; i++)
		if ((unsigned char)part[(i - 4) * PAGE] != pattern(i, 3))
			return wrong("part of an object: page %d is another", i);
	if (ask_child())
		return -1;
	if (smaps_kb(shared, "Rss:") > 40960)
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

/* ---- each flag of a mapping ---- */

#define T4 ((size_t)4 << 40)
#define MAP_DROPPABLE_	    0x08
#define MADV_GUARD_INSTALL_ 102
#define PR_SET_VMA_	    0x53564d41

static const struct {
	const char *flag; /* VmFlags */
	int advice, map_flags;
} flags[] = {
	{"gd", -1, MAP_GROWSDOWN}, {"nr", -1, MAP_NORESERVE}, {"hg", 14, 0}, {"nh", 15, 0}, {"dc", 10, 0}, {"wf", 18, 0},
	{"dd", 16, 0}, {"mg", 12, 0}, {"sr", 2, 0}, {"rr", 1, 0}, {"lo", -1, 0}, {"lf", -1, 0},
};
#define N_FLAGS (sizeof(flags) / sizeof(flags[0]))
static char *flagged[N_FLAGS], *none, *huge_none, *huge_free, *named, *named_shared, *read_only, *droppable;
static int has_names;

static void set_up_flags(void)
{
	for (size_t i = 0; i < N_FLAGS; i++) {
		/* with room around it, so that none becomes part of another */
		char *room = map(64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		flagged[i] = mmap(room + 32 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags[i].map_flags, -1, 0);
		if (flagged[i] == MAP_FAILED)
			fatal(flags[i].flag);
		/* a kernel may be built without some */
		if (flags[i].advice >= 0 && madvise(flagged[i], 8 * PAGE, flags[i].advice))
			flagged[i] = NULL;
		if (!strcmp(flags[i].flag, "lo") && mlock(flagged[i], 8 * PAGE))
			fatal("mlock");
		if (!strcmp(flags[i].flag, "lf") && syscall(SYS_mlock2, flagged[i], 8 * PAGE, 1))
			fatal("mlock2");
		if (flagged[i])
			put(flagged[i] + PAGE, 2, 30 + i);
	}
	none = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	put(none, 8, 50);
	read_only = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	put(read_only, 8, 51);
	if (mprotect(none, 8 * PAGE, PROT_NONE) || mprotect(read_only, 8 * PAGE, PROT_READ))
		fatal("mprotect");
	huge_none = map(T4, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	huge_free = map(T4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	put(huge_free + (T4 >> 1), 3, 52);
	named = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	named_shared = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	put(named_shared, 2, 53);
	has_names = !prctl(PR_SET_VMA_, 0, named, 8 * PAGE, "a name") && !prctl(PR_SET_VMA_, 0, named_shared, 8 * PAGE, "shared name");
	droppable = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE_ | MAP_ANONYMOUS, -1, 0);
}

static int check_flags(void)
{
	for (size_t i = 0; i < N_FLAGS; i++) {
		if (!flagged[i])
			continue;
		if (!has_flag(flagged[i], flags[i].flag))
			return wrong("the mapping with %s has %s", flags[i].flag, smaps_field(flagged[i], "VmFlags:"));
		for (size_t k = 0; k < N_FLAGS; k++)
			if (k != i && has_flag(flagged[i], flags[k].flag) && strcmp(flags[i].flag, "lf"))
				return wrong("the mapping with %s has %s too", flags[i].flag, flags[k].flag);
		if (holds(flags[i].flag, flagged[i] + PAGE, 2, 30 + i) || is_zero(flags[i].flag, flagged[i]))
			return -1;
	}
	if (!strstr(smaps_field(none, ""), "---p"))
		return wrong("PROT_NONE has become %s", smaps_field(none, ""));
	if (mprotect(none, 8 * PAGE, PROT_READ) || holds("PROT_NONE", none, 8, 50) || mprotect(none, 8 * PAGE, PROT_NONE))
		return wrong("PROT_NONE has lost its contents");
	if (!strstr(smaps_field(read_only, ""), "r--p") || holds("read-only", read_only, 8, 51))
		return wrong("read-only memory is now %s", smaps_field(read_only, ""));
	if (smaps_kb(huge_none, "Size:") < T4 / 1024 || smaps_kb(huge_none, "Rss:"))
		return wrong("4 TiB without access: %lu kB, %lu in memory", smaps_kb(huge_none, "Size:"),
			     smaps_kb(huge_none, "Rss:"));
	if (smaps_kb(huge_free, "Size:") < T4 / 1024 || smaps_kb(huge_free, "Rss:") > 8192 || !has_flag(huge_free, "nr"))
		return wrong("4 TiB reserved: %lu kB, %lu in memory", smaps_kb(huge_free, "Size:"), smaps_kb(huge_free, "Rss:"));
	if (holds("4 TiB", huge_free + (T4 >> 1), 3, 52) || holds("named and shared", named_shared, 2, 53))
		return -1;
	if (has_names && (!strstr(smaps_field(named, ""), "[anon:a name]") ||
			  !strstr(smaps_field(named_shared, ""), "[anon_shmem:shared name]")))
		return wrong("the names are gone: %s", smaps_field(named, ""));
	if (droppable != MAP_FAILED && !has_flag(droppable, "dp"))
		return wrong("droppable memory is not");
	return 0;
}

/* ---- guard markers ---- */

static char *guarded, *guarded_shared;

static int faults(const char *at)
{
	return open(at, O_RDONLY | O_CLOEXEC) < 0 && errno == EFAULT;
}

static void set_up_guard(void)
{
	guarded = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	guarded_shared = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	put(guarded, 64, 60);
	put(guarded_shared, 64, 61);
	if (madvise(guarded + 8 * PAGE, 4 * PAGE, MADV_GUARD_INSTALL_) || madvise(guarded + 40 * PAGE, PAGE, MADV_GUARD_INSTALL_)) {
		say("no guard markers");
		_exit(0);
	}
	if (mlock(guarded + 32 * PAGE, 32 * PAGE) && errno != ENOMEM && errno != EFAULT)
		fatal("mlock");
	if (madvise(guarded_shared + 8 * PAGE, 4 * PAGE, MADV_GUARD_INSTALL_))
		guarded_shared = NULL; /* only private memory had them before 6.15 */
}

static int check_guard(void)
{
	for (unsigned long i = 0; i < 64; i++) {
		int guard = (i >= 8 && i < 12) || i == 40;
		if (faults(guarded + i * PAGE) != guard)
			return wrong("page %lu is %s", i, guard ? "no guard" : "a guard");
		if (!guard && (unsigned char)guarded[i * PAGE] != pattern(i, 60))
			return wrong("page %lu is another", i);
		guard = i >= 8 && i < 12;
		if (guarded_shared && faults(guarded_shared + i * PAGE) != guard)
			return wrong("page %lu of shared memory is %s", i, guard ? "no guard" : "a guard");
	}
	return has_flag(guarded + 35 * PAGE, "lo") ? 0 : wrong("what was locked is not");
}

/* ---- sealed ---- */

static char *sealed;

static void set_up_sealed(void)
{
	sealed = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	put(sealed, 8, 70);
	if (mprotect(sealed, 8 * PAGE, PROT_READ) || syscall(462, sealed, 8 * PAGE, 0)) {
		say("no mseal");
		_exit(0);
	}
}

static int check_sealed(void)
{
	if (!mprotect(sealed, 8 * PAGE, PROT_READ | PROT_WRITE) || errno != EPERM)
		return wrong("sealed memory can be changed");
	return holds("sealed", sealed, 8, 70);
}

/* ---- locked, and all that is to come ---- */

static int with_onfault;

static void set_up_lock(void)
{
	if (mlockall(MCL_FUTURE | (with_onfault ? 4 : 0)))
		fatal("mlockall");
}

static void set_up_lock_onfault(void)
{
	with_onfault = 1;
	set_up_lock();
}

static int check_lock(void)
{
	char *new = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!has_flag(new, "lo") || has_flag(new, "lf") != with_onfault)
		return wrong("new memory has %s", smaps_field(new, "VmFlags:"));
	if (has_flag(target_why, "lo"))
		return wrong("old memory is locked too");
	munmap(new, 8 * PAGE);
	return 0;
}

/* ---- NUMA policies, on one node too ---- */

static char *bound;

static void set_up_policy(void)
{
	unsigned long nodes = 1;
	bound = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (syscall(SYS_mbind, bound, 4 * PAGE, 2 /* MPOL_BIND */, &nodes, 65ul, 0)) {
		say("no mbind");
		_exit(0);
	}
	put(bound, 8, 80);
}

static int check_policy(void)
{
	for (int i = 0; i < 8; i++) {
		int mode = -1;
		unsigned long nodes[16] = {0};
		if (syscall(SYS_get_mempolicy, &mode, nodes, 1024ul, bound + i * PAGE, 2 /* MPOL_F_ADDR */))
			return wrong("get_mempolicy: %s", strerror(errno));
		if (mode != (i < 4 ? 2 : 0) || nodes[0] != (i < 4))
			return wrong("page %d has policy %d on nodes %lx", i, mode, nodes[0]);
	}
	return holds("bound", bound, 8, 80);
}

/* ---- a limit below what is in use ---- */

static unsigned long smaps_total_kb(void)
{
	static char text[8192];
	const char *line = slurp("/proc/self/status", text, sizeof(text)) > 0 ? strstr(text, "VmSize:") : NULL;
	return line ? strtoul(line + 7, NULL, 10) : 0;
}

static void set_up_limit(void)
{
	struct rlimit lim;
	bound = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	put(bound, 64, 90);
	if (getrlimit(RLIMIT_AS, &lim))
		fatal("getrlimit");
	/* as little as a dump can do with: its parasite is mapped within the limit */
	lim.rlim_cur = (smaps_total_kb() << 10) + (1 << 20);
	if (setrlimit(RLIMIT_AS, &lim))
		fatal("setrlimit");
	lim.rlim_cur = 4 << 20;
	if (setrlimit(RLIMIT_DATA, &lim))
		fatal("setrlimit");
}

static int check_limit(void)
{
	struct rlimit lim;
	if (getrlimit(RLIMIT_DATA, &lim) || lim.rlim_cur != 4 << 20)
		return wrong("the limit is %lu", (unsigned long)lim.rlim_cur);
	return holds("limited", bound, 64, 90);
}

/* ---- a file of /dev/shm, mapped by two processes ---- */

static char shm_name[64];
static char *shm_at;

static void unlink_shm(void)
{
	unlink(shm_name);
}

static void set_up_shm_file(void)
{
	snprintf(shm_name, sizeof(shm_name), "/dev/shm/criu-lite-test.%d", getpid());
	int fd = open(shm_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 16 * PAGE)) {
		say("no /dev/shm");
		_exit(0);
	}
	atexit(unlink_shm);
	shm_at = map(16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	put(shm_at, 4, 120);
	shared = map(SPARSE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	words = (int *)(shm_at + 8 * PAGE);
	pid_t pid = fork();
	if (pid < 0)
		fatal("fork");
	if (!pid)
		answer();
}

static int check_shm_file(void)
{
	if (holds("/dev/shm", shm_at, 4, 120) || !strstr(smaps_field(shm_at, ""), shm_name))
		return wrong("the mapping is now %s", smaps_field(shm_at, ""));
	return ask_child();
}

/* ---- huge pages ---- */

#define HUGE (2ul << 20)
static char *huge_private, *huge_shared, *huge_memfd;
static int huge_fd;

static void set_up_huge(void)
{
	const int f = MAP_ANONYMOUS | MAP_HUGETLB | 21 << 26;
	huge_fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | 21 << 26);
	if (huge_fd < 0 || ftruncate(huge_fd, HUGE))
		fatal("memfd");
	huge_private = map(HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | f, -1, 0);
	huge_shared = map(HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | f, -1, 0);
	huge_memfd = map(HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, huge_fd, 0);
	put(huge_private, 512, 100);
	put(huge_shared, 512, 101);
	put(huge_memfd, 512, 102);
}

static int check_huge(void)
{
	char *all[] = {huge_private, huge_shared, huge_memfd};
	for (unsigned int i = 0; i < 3; i++)
		if (!has_flag(all[i], "ht") || holds("huge", all[i], 512, 100 + i))
			return wrong("huge page %u is none: %s", i, smaps_field(all[i], "VmFlags:"));
	return 0;
}

/* ---- System V shared memory: one that lives on, one that was removed while in use, read-only too ---- */

static int sysv_kept, sysv_removed;
static char *sysv_at[3];

static void remove_kept(void)
{
	shmctl(sysv_kept, IPC_RMID, NULL);
}

static void set_up_sysv(void)
{
	struct shmid_ds ds;
	sysv_kept = shmget(getpid() << 8, 5 * PAGE + 100, IPC_CREAT | IPC_EXCL | 0640);
	sysv_removed = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
	if (sysv_kept < 0 || sysv_removed < 0)
		fatal("shmget");
	atexit(remove_kept);
	sysv_at[0] = shmat(sysv_kept, NULL, 0);
	sysv_at[1] = shmat(sysv_kept, NULL, SHM_RDONLY);
	sysv_at[2] = shmat(sysv_removed, NULL, 0);
	if (sysv_at[0] == (char *)-1 || sysv_at[1] == (char *)-1 || sysv_at[2] == (char *)-1 ||
	    shmctl(sysv_removed, IPC_RMID, NULL) || shmctl(sysv_kept, IPC_STAT, &ds))
		fatal("shmat");
	put(sysv_at[0] + PAGE, 2, 110);
	put(sysv_at[2], 4, 111);
	if (mprotect(sysv_at[2] + PAGE, PAGE, PROT_READ))
		fatal("mprotect");
}

static int check_sysv(void)
{
	struct shmid_ds ds;
	static char n;
	if (shmctl(sysv_kept, IPC_STAT, &ds) || ds.shm_nattch != 2 || ds.shm_segsz != 5 * PAGE + 100 ||
	    (ds.shm_perm.mode & 07777) != 0640 || ds.shm_perm.__key != getpid() << 8)
		return wrong("segment %d: %ld attached, %lu bytes, mode %o, key %#x", sysv_kept, (long)ds.shm_nattch,
			     (unsigned long)ds.shm_segsz, ds.shm_perm.mode, ds.shm_perm.__key);
	if (shmctl(sysv_removed, IPC_STAT, &ds) || !(ds.shm_perm.mode & SHM_DEST) || ds.shm_nattch != 3) /* mprotect made three mappings of one */
		return wrong("segment %d will not go with its last user", sysv_removed);
	if (holds("sysv", sysv_at[1] + PAGE, 2, 110) || holds("removed sysv", sysv_at[2], 4, 111) || is_zero("sysv", sysv_at[0] + 4 * PAGE))
		return -1;
	sysv_at[0][7] = ++n;
	if (sysv_at[1][7] != n)
		return wrong("two attachments are of two segments");
	if (has_flag(sysv_at[1], "mw") || !strstr(smaps_field(sysv_at[2] + PAGE, ""), "r--s"))
		return wrong("the protection is another");
	return 0;
}

/* ---- what is refused ---- */

static int check_nothing(void)
{
	return 0;
}

static void set_up_aio(void)
{
	unsigned long context = 0;
	if (syscall(SYS_io_setup, 8, &context)) {
		say("no io_setup");
		_exit(0);
	}
}

static void set_up_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	char *at = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {.range = {(unsigned long)at, 8 * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg)) {
		say("no userfaultfd");
		_exit(0);
	}
}

static const struct {
	const char *name;
	void (*set_up)(void);
	int (*check)(void);
} cases[] = {
	{"shared", set_up_shared, check_shared},
	{"zero", set_up_zero, check_zero},
	{"memfd", set_up_memfd, check_memfd},
	{"flags", set_up_flags, check_flags},
	{"guard", set_up_guard, check_guard},
	{"sealed", set_up_sealed, check_sealed},
	{"lock", set_up_lock, check_lock},
	{"lock-onfault", set_up_lock_onfault, check_lock},
	{"policy", set_up_policy, check_policy},
	{"shm-file", set_up_shm_file, check_shm_file},
	{"limit", set_up_limit, check_limit},
	{"huge", set_up_huge, check_huge},
	{"aio", set_up_aio, check_nothing},
	{"sysv", set_up_sysv, check_sysv},
	{"uffd", set_up_uffd, check_nothing},
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
