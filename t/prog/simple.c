/*
 * One process that has one of everything that a dump of a plain program must carry: memory of every kind, files of
 * every kind, signals handled, blocked and pending, and what the kernel keeps about a process. Its first argument is
 * a directory of its own, where it makes its files; it stays there. With a second argument its stack has never been
 * deeper than it is when it waits. The checks ask the kernel where they can.
 */
#include <dirent.h>
#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/stat.h>

#include "target.h"

#define PAGE 4096ul
#define PAGES(n) ((n)*PAGE)

static int initialised = 42;	  /* .data */
static int zeroed;		  /* .bss */
static const int constant = 4242; /* .rodata: a file page that was never written */

static uint8_t pattern(size_t at, unsigned int seed)
{
	return (uint8_t)((at * 2654435761u >> 13) + at + seed * 37 + 1);
}

static void fill(void *start, size_t size, unsigned int seed)
{
	for (size_t i = 0; i < size; i++)
		((volatile uint8_t *)start)[i] = pattern(i, seed);
}

static int holds(const char *what, const void *start, size_t size, unsigned int seed)
{
	for (size_t i = 0; i < size; i++)
		if (((const volatile uint8_t *)start)[i] != pattern(i, seed))
			return wrong("%s: byte %zu was %x and is %x", what, i, pattern(i, seed), ((const uint8_t *)start)[i]);
	return 0;
}

static int is_zero(const char *what, const void *start, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (((const volatile uint8_t *)start)[i])
			return wrong("%s: byte %zu was 0 and is %x", what, i, ((const uint8_t *)start)[i]);
	return 0;
}

static void *map(size_t size, int prot, int flags, int fd, off_t offset)
{
	void *p = mmap(NULL, size, prot, flags, fd, offset);
	if (p == MAP_FAILED)
		fatal("mmap");
	return p;
}

/* ---- memory ---- */

static struct {
	uint8_t *anon;	     /* 64 pages, every third never touched */
	uint8_t *huge_area;  /* 4 GiB, of which three pages are written */
	uint8_t *readonly;   /* written, then PROT_READ */
	uint8_t *none;	     /* written, then PROT_NONE */
	uint8_t *code;	     /* r-x, anonymous */
	uint8_t *private_rw; /* of a file, pages 1, 3, 5 changed */
	uint8_t *private_ro; /* of a file, from page 2 on */
	uint8_t *shared_rw, *shared_ro;
	uint8_t *advised;    /* one page for each piece of advice, with a page that has none between */
	uint8_t *holes;	     /* three pages, the middle one unmapped */
	uint8_t *stack, *brk;
	size_t brk_size;
} mem;

#define HUGE_AREA (4ul << 30)
static const size_t huge_at[3] = {0, (2ul << 30) + PAGES(12345), HUGE_AREA - PAGES(1)};

static const struct advice {
	int advice;
	const char *flag; /* as smaps shows it */
} advices[] = {
	{MADV_DONTDUMP, "dd"}, {MADV_DONTFORK, "dc"}, {MADV_WIPEONFORK, "wf"},
	{MADV_SEQUENTIAL, "sr"}, {MADV_RANDOM, "rr"}, {MADV_NOHUGEPAGE, "nh"},
};
#define N_ADVICES (sizeof(advices) / sizeof(advices[0]))

static int fd_data, fd_private;

static void make_memory(void)
{
	mem.anon = map(PAGES(64), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < 64; i++)
		if (i % 3)
			fill(mem.anon + PAGES(i), PAGE, (unsigned int)i);
	mem.huge_area = map(HUGE_AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (size_t i = 0; i < 3; i++)
		fill(mem.huge_area + huge_at[i], PAGE, 100 + (unsigned int)i);
	mem.readonly = map(PAGES(3), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fill(mem.readonly, PAGES(3), 5);
	mprotect(mem.readonly, PAGES(3), PROT_READ);
	mem.none = map(PAGES(3), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fill(mem.none, PAGES(3), 6);
	mprotect(mem.none, PAGES(3), PROT_NONE);
	mem.code = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(mem.code, "\xb8\x39\x05\x00\x00\xc3", 6); /* mov $1337, %eax; ret */
	mprotect(mem.code, PAGE, PROT_READ | PROT_EXEC);
	mem.advised = map(PAGES(2 * N_ADVICES), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fill(mem.advised, PAGES(2 * N_ADVICES), 7);
	for (size_t i = 0; i < N_ADVICES; i++)
		if (madvise(mem.advised + PAGES(2 * i), PAGE, advices[i].advice) < 0 && advices[i].advice != MADV_NOHUGEPAGE)
			fatal("madvise");
	mem.holes = map(PAGES(3), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fill(mem.holes, PAGES(3), 8);
	munmap(mem.holes + PAGE, PAGE);

	fd_data = open("data", O_RDWR | O_CREAT | O_TRUNC, 0640);
	fd_private = open("private", O_RDWR | O_CREAT | O_TRUNC, 0640);
	static uint8_t bytes[PAGES(8)];
	for (int fd = fd_data; fd; fd = fd == fd_data ? fd_private : 0) {
		fill(bytes, sizeof(bytes), fd == fd_data ? 10 : 11);
		if (fd < 0 || write(fd, bytes, sizeof(bytes)) != sizeof(bytes))
			fatal("a file to map");
	}
	mem.private_rw = map(PAGES(8), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd_private, 0);
	for (size_t i = 1; i < 6; i += 2)
		fill(mem.private_rw + PAGES(i), PAGE, 20 + (unsigned int)i);
	mem.private_ro = map(PAGES(4), PROT_READ, MAP_PRIVATE, fd_private, (off_t)PAGES(2));
	mem.shared_rw = map(PAGES(8), PROT_READ | PROT_WRITE, MAP_SHARED, fd_data, 0);
	int read_only = open("data", O_RDONLY);
	mem.shared_ro = map(PAGES(2), PROT_READ, MAP_SHARED, read_only, (off_t)PAGES(4));
	close(read_only);
	fill(mem.shared_rw + PAGE, PAGE, 30);
	/* The change comes before the dump takes the file's time. */
	if (msync(mem.shared_rw, PAGES(8), MS_SYNC) < 0)
		fatal("msync");

	mem.brk_size = PAGES(3) + 123;
	mem.brk = sbrk((intptr_t)mem.brk_size);
	fill(mem.brk, mem.brk_size, 40);
	zeroed = 1;
	initialised++;
}

/* The VmFlags of the mapping that begins at `start`, or an empty text. */
static const char *vm_flags(const void *start)
{
	static char flags[256];
	char head[32];
	flags[0] = 0;
	int len = snprintf(head, sizeof(head), "%lx-", (unsigned long)start);
	if (slurp("/proc/self/smaps", state_text, sizeof(state_text)) <= 0)
		return flags;
	for (char *line = state_text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, head, (size_t)len)) {
			char *vm = strstr(line, "VmFlags:"), *end = vm ? strchr(vm, '\n') : NULL;
			if (end)
				snprintf(flags, sizeof(flags), "%.*s ", (int)(end - vm - 8), vm + 8);
			break;
		}
	return flags;
}

static int check_memory(void)
{
	char name[64];
	static uint8_t from_file[PAGES(8)];

	if (initialised != 43 || zeroed != 1 || constant != 4242)
		return wrong("variables: %d %d %d", initialised, zeroed, constant);
	for (size_t i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "anonymous page %zu", i);
		if (i % 3 ? holds(name, mem.anon + PAGES(i), PAGE, (unsigned int)i) : is_zero(name, mem.anon + PAGES(i), PAGE))
			return -1;
	}
	for (size_t i = 0; i < 3; i++)
		if (holds("a page in a big empty area", mem.huge_area + huge_at[i], PAGE, 100 + (unsigned int)i))
			return -1;
	if (is_zero("a big empty area", mem.huge_area + PAGES(1), PAGES(64)) ||
	    holds("read-only memory", mem.readonly, PAGES(3), 5))
		return -1;
	if (mprotect(mem.none, PAGES(3), PROT_READ) < 0)
		return wrong("mprotect: %s", strerror(errno));
	int bad = holds("inaccessible memory", mem.none, PAGES(3), 6);
	mprotect(mem.none, PAGES(3), PROT_NONE);
	if (bad)
		return -1;
	if (((int (*)(void))mem.code)() != 1337)
		return wrong("code in anonymous memory");
	if (holds("advised memory", mem.advised, PAGES(2 * N_ADVICES), 7) || holds("before a hole", mem.holes, PAGE, 8))
		return -1;
	for (size_t i = 0; i < PAGE; i++)
		if (mem.holes[PAGES(2) + i] != pattern(PAGES(2) + i, 8))
			return wrong("behind a hole: byte %zu", i);
	for (size_t i = 0; i < N_ADVICES; i++) {
		char flag[8];
		snprintf(flag, sizeof(flag), " %s ", advices[i].flag);
		if (!strstr(vm_flags(mem.advised + PAGES(2 * i)), flag) && advices[i].advice != MADV_NOHUGEPAGE)
			return wrong("advice %s is lost: flags are%s", advices[i].flag, vm_flags(mem.advised + PAGES(2 * i)));
	}
	if (!strstr(vm_flags(mem.huge_area), " nr "))
		return wrong("MAP_NORESERVE is lost: flags are%s", vm_flags(mem.huge_area));

	for (size_t i = 0; i < 8; i++)
		for (size_t j = 0; j < PAGE; j++) {
			int changed = i < 6 && i % 2;
			uint8_t want = changed ? pattern(j, 20 + (unsigned int)i) : pattern(PAGES(i) + j, 11);
			if (mem.private_rw[PAGES(i) + j] != want)
				return wrong("private file mapping: page %zu byte %zu", i, j);
			if (i >= 2 && i < 6 && mem.private_ro[PAGES(i - 2) + j] != pattern(PAGES(i) + j, 11))
				return wrong("read-only private file mapping: page %zu byte %zu", i, j);
		}
	if (pread(fd_private, from_file, sizeof(from_file), 0) != sizeof(from_file))
		return wrong("pread: %s", strerror(errno));
	if (holds("the file under a private mapping", from_file, sizeof(from_file), 11))
		return -1;
	/* Shared: what is written through the mapping is in the file, and the reverse, and in the second mapping. */
	static uint8_t turn;
	turn++;
	mem.shared_rw[PAGES(4)] = turn;
	if (pwrite(fd_data, &turn, 1, (off_t)PAGES(5)) != 1 || pread(fd_data, from_file, PAGE, (off_t)PAGES(4)) != (ssize_t)PAGE)
		return wrong("shared file mapping: %s", strerror(errno));
	if (from_file[0] != turn || mem.shared_ro[0] != turn || mem.shared_rw[PAGES(5)] != turn || mem.shared_ro[PAGE] != turn)
		return wrong("a shared mapping is not of its file");
	if (holds("shared file mapping", mem.shared_rw + PAGE, PAGE, 30))
		return -1;

	if (holds("brk area", mem.brk, mem.brk_size, 40))
		return -1;
	if (sbrk(0) != mem.brk + mem.brk_size)
		return wrong("the break was %p and is %p", (void *)(mem.brk + mem.brk_size), sbrk(0));
	if (sbrk(PAGES(4)) == (void *)-1)
		return wrong("the break cannot grow: %s", strerror(errno));
	bad = is_zero("grown brk area", mem.brk + mem.brk_size, PAGES(4));
	sbrk(-(intptr_t)PAGES(4));
	return bad || holds("stack", mem.stack, 200000, 50) ? -1 : 0;
}

/* ---- files ---- */

static struct {
	int offset, dup, again, append, dir, null, zero, full, urandom, nonblock, path, high;
} file;

static struct {
	int fd, flags, fdflags;
	off_t at;
} opened[64];
static unsigned int n_opened;

static int need(int fd)
{
	if (fd < 0)
		fatal("open");
	return fd;
}

static void make_files(void)
{
	file.offset = need(open("offset", O_RDWR | O_CREAT | O_TRUNC, 0600));
	if (write(file.offset, "0123456789abcdefghij", 20) != 20)
		fatal("write");
	lseek(file.offset, 7, SEEK_SET);
	file.dup = need(dup(file.offset));
	file.again = need(open("offset", O_RDONLY | O_CLOEXEC));
	lseek(file.again, 12, SEEK_SET);
	file.append = need(open("append", O_WRONLY | O_APPEND | O_CREAT | O_TRUNC, 0600));
	file.dir = need(open(".", O_RDONLY | O_DIRECTORY));
	file.null = need(open("/dev/null", O_RDWR));
	file.zero = need(open("/dev/zero", O_RDONLY | O_CLOEXEC));
	file.full = need(open("/dev/full", O_WRONLY));
	file.urandom = need(open("/dev/urandom", O_RDONLY));
	file.nonblock = need(open("offset", O_RDONLY | O_NONBLOCK));
	file.path = need(open("offset", O_PATH));
	file.high = need(fcntl(file.null, F_DUPFD_CLOEXEC, 900));
	for (int fd = 0; fd < 1024; fd++) {
		int flags = fcntl(fd, F_GETFL);
		if (flags < 0)
			continue;
		opened[n_opened].fd = fd;
		opened[n_opened].flags = flags;
		opened[n_opened].fdflags = fcntl(fd, F_GETFD);
		opened[n_opened++].at = lseek(fd, 0, SEEK_CUR);
	}
}

static int check_files(void)
{
	char buf[16] = "", other[8] = "";
	struct stat before, after;

	for (unsigned int i = 0; i < n_opened; i++) {
		int fd = opened[i].fd, flags = fcntl(fd, F_GETFL), fdflags = fcntl(fd, F_GETFD);
		off_t at = lseek(fd, 0, SEEK_CUR);
		if (flags != opened[i].flags || fdflags != opened[i].fdflags)
			return wrong("descriptor %d: flags were %x/%x and are %x/%x", fd, opened[i].flags, opened[i].fdflags, flags,
				     fdflags);
		/* The output itself grows. */
		if (fd > 2 && at != opened[i].at && fd != file.append)
			return wrong("descriptor %d: was at %ld and is at %ld", fd, (long)opened[i].at, (long)at);
	}
	/* One description under two numbers, another one of the same file. */
	if (read(file.offset, buf, 4) != 4 || memcmp(buf, "789a", 4) || lseek(file.dup, 0, SEEK_CUR) != 11)
		return wrong("a duplicate does not share its offset: %.4s, %ld", buf, (long)lseek(file.dup, 0, SEEK_CUR));
	if (read(file.again, other, 2) != 2 || memcmp(other, "cd", 2))
		return wrong("a file opened twice: read %s instead of cd", other);
	lseek(file.dup, 7, SEEK_SET);
	lseek(file.again, 12, SEEK_SET);
	fstat(file.append, &before);
	lseek(file.append, 0, SEEK_SET);
	if (write(file.append, "+", 1) != 1 || fstat(file.append, &after) < 0 || after.st_size != before.st_size + 1)
		return wrong("appending: the file was %ld long and is %ld", (long)before.st_size, (long)after.st_size);
	if (fstat(file.dir, &before) < 0 || stat(".", &after) < 0 || before.st_ino != after.st_ino)
		return wrong("the directory is another");
	if (read(file.null, buf, 1) != 0 || read(file.zero, buf, 4) != 4 || memcmp(buf, "\0\0\0\0", 4))
		return wrong("/dev/null or /dev/zero");
	if (write(file.full, "x", 1) != -1 || errno != ENOSPC || read(file.urandom, buf, 8) != 8 || write(file.high, "x", 1) != 1)
		return wrong("/dev/full, /dev/urandom or a high number");
	if (read(file.path, buf, 1) != -1 || errno != EBADF)
		return wrong("an O_PATH descriptor can be read");
	return 0;
}

/* ---- signals ---- */

struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};
static struct kernel_sigaction action_ready[65];
static uint64_t mask_ready;
static stack_t altstack_ready;
static char altstack_bytes[32768];
static volatile int handled;

/* The process's queue and the thread's own, in the order in which they must come. */
static const struct queued {
	int own, sig, value;
} queued[] = {
	{0, 12 /* SIGUSR2 */, 111}, {0, 34 + 3, 1}, {0, 34 + 3, 2}, {0, 34 + 3, 3}, {0, 34 + 9, 4}, {1, 34 + 4, 5}, {1, 34 + 4, 6}, {1, 23 /* SIGURG */, 7},
};
#define N_QUEUED (sizeof(queued) / sizeof(queued[0]))

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	uint8_t here;
	/* On the alternate stack only where SA_ONSTACK says so. */
	int on_alt = (char *)&here >= altstack_bytes && (char *)&here < altstack_bytes + sizeof(altstack_bytes);
	handled = on_alt ? -sig : sig;
}

static void queue_signals(void)
{
	pid_t pid = getpid();
	for (size_t i = 0; i < N_QUEUED; i++) {
		siginfo_t info = {0};
		info.si_signo = queued[i].sig;
		info.si_code = SI_QUEUE;
		info.si_pid = pid;
		info.si_uid = getuid();
		info.si_value.sival_int = queued[i].value;
		long r = queued[i].own ? syscall(SYS_rt_tgsigqueueinfo, pid, syscall(SYS_gettid), queued[i].sig, &info)
				       : syscall(SYS_rt_sigqueueinfo, pid, queued[i].sig, &info);
		if (r < 0)
			wrong("cannot queue signal %d: %s", queued[i].sig, strerror(errno));
	}
}

static void take_actions(struct kernel_sigaction *action)
{
	for (int sig = 1; sig <= 64; sig++)
		syscall(SYS_rt_sigaction, sig, NULL, &action[sig], 8);
}

static void make_signals(void)
{
	struct sigaction sa = {.sa_sigaction = on_signal};
	sigset_t blocked;

	sa.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGHUP);
	sigaddset(&sa.sa_mask, SIGRTMAX);
	sigaction(SIGWINCH, &sa, NULL);
	sa.sa_flags = SA_SIGINFO | SA_NODEFER;
	sigaction(SIGCONT, &sa, NULL);
	sigaction(SIGRTMAX - 1, &sa, NULL);
	sa.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NOCLDWAIT;
	sigaction(SIGCHLD, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGQUIT);
	sigaddset(&blocked, SIGRTMAX);
	for (size_t i = 0; i < N_QUEUED; i++)
		sigaddset(&blocked, queued[i].sig);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	stack_t stack = {.ss_sp = altstack_bytes, .ss_size = sizeof(altstack_bytes)};
	if (sigaltstack(&stack, NULL) < 0)
		fatal("sigaltstack");
	queue_signals();
	take_actions(action_ready);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask_ready, 8);
	sigaltstack(NULL, &altstack_ready);
}

static int check_pending(void)
{
	uint64_t own = 0, shared = 0, want[2] = {0, 0};
	struct timespec at_once = {0};

	slurp("/proc/self/status", state_text, sizeof(state_text));
	char *line = strstr(state_text, "SigPnd:");
	if (!line || sscanf(line, "SigPnd: %lx ShdPnd: %lx", &own, &shared) != 2)
		return wrong("/proc/self/status has no SigPnd");
	for (size_t i = 0; i < N_QUEUED; i++)
		want[queued[i].own] |= 1ul << (queued[i].sig - 1);
	if (own != want[1] || (shared & ~(1ul << (SIGUSR1 - 1))) != want[0])
		return wrong("pending for the thread were %lx and are %lx, for the process %lx and %lx", want[1], own, want[0], shared);
	for (size_t i = 0; i < N_QUEUED; i++) {
		siginfo_t info = {0};
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, queued[i].sig);
		if (sigtimedwait(&set, &info, &at_once) != queued[i].sig)
			return wrong("signal %d was pending and is not: %s", queued[i].sig, strerror(errno));
		if (info.si_value.sival_int != queued[i].value || info.si_code != SI_QUEUE || info.si_pid != getpid() ||
		    info.si_uid != getuid())
			return wrong("pending signal %d: value was %d and is %d, code %d from %d", queued[i].sig, queued[i].value,
				     info.si_value.sival_int, info.si_code, info.si_pid);
	}
	queue_signals();
	return 0;
}

static int check_signals(void)
{
	static struct kernel_sigaction now[65];
	uint64_t mask;
	stack_t stack;

	take_actions(now);
	for (int sig = 1; sig <= 64; sig++)
		if (memcmp(&now[sig], &action_ready[sig], sizeof(now[0])))
			return wrong("signal %d: handler was %lx flags %lx mask %lx and is %lx %lx %lx", sig, action_ready[sig].handler,
				     action_ready[sig].flags, action_ready[sig].mask, now[sig].handler, now[sig].flags, now[sig].mask);
	if (syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8) < 0 || mask != mask_ready)
		return wrong("the signal mask was %lx and is %lx", mask_ready, mask);
	if (sigaltstack(NULL, &stack) < 0 || stack.ss_sp != altstack_ready.ss_sp || stack.ss_size != altstack_ready.ss_size ||
	    stack.ss_flags != altstack_ready.ss_flags)
		return wrong("the alternate stack was %p and is %p", altstack_ready.ss_sp, stack.ss_sp);
	handled = 0;
	kill(getpid(), SIGWINCH);
	if (handled != -SIGWINCH)
		return wrong("a handler on the alternate stack: %d", handled);
	kill(getpid(), SIGRTMAX - 1);
	if (handled != SIGRTMAX - 1)
		return wrong("a handler on the usual stack: %d", handled);
	handled = 0;
	return check_pending();
}

/* ---- what the kernel keeps about the process ---- */

static struct {
	pid_t pid, pgid, sid;
	int personality;
	mode_t mask;
	char cwd[256], exe[256], root[256], comm[16];
	char cmdline[1024], environ[16384], auxv[1024], stat[1024];
	ssize_t cmdline_len, environ_len, auxv_len;
	uint64_t robust, tid_address;
	int rseq_errno;
	struct rlimit limit[RLIM_NLIMITS];
	uid_t uid[3];
	gid_t gid[3];
} self[2];

/* Fields 26 – 28 and 45 – 51: where code, stack, data, break, arguments and environment are. */
static void take_mm_fields(char *out, size_t size)
{
	slurp("/proc/self/stat", state_text, sizeof(state_text));
	char *p = strrchr(state_text, ')');
	size_t len = 0;
	int field = 2;
	for (char *token = p ? strtok(p + 1, " \n") : NULL; token; token = strtok(NULL, " \n")) {
		field++;
		if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
			len += (size_t)snprintf(out + len, size - len, "%d:%s ", field, token);
	}
}

static int ask_rseq(void)
{
	if (!__rseq_size)
		return 0;
	return syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 0, RSEQ_SIG) < 0 ? errno : 0;
}

static void take_self(unsigned int i)
{
	uint64_t size;
	self[i].pid = getpid();
	self[i].pgid = getpgid(0);
	self[i].sid = getsid(0);
	self[i].personality = personality(0xffffffff);
	self[i].mask = umask(0);
	umask(self[i].mask);
	if (readlink("/proc/self/cwd", self[i].cwd, sizeof(self[i].cwd) - 1) < 0 ||
	    readlink("/proc/self/exe", self[i].exe, sizeof(self[i].exe) - 1) < 0 ||
	    readlink("/proc/self/root", self[i].root, sizeof(self[i].root) - 1) < 0)
		wrong("readlink: %s", strerror(errno));
	prctl(PR_GET_NAME, self[i].comm);
	self[i].cmdline_len = slurp("/proc/self/cmdline", self[i].cmdline, sizeof(self[i].cmdline));
	self[i].environ_len = slurp("/proc/self/environ", self[i].environ, sizeof(self[i].environ));
	self[i].auxv_len = slurp("/proc/self/auxv", self[i].auxv, sizeof(self[i].auxv));
	take_mm_fields(self[i].stat, sizeof(self[i].stat));
	syscall(SYS_get_robust_list, 0, &self[i].robust, &size);
	prctl(PR_GET_TID_ADDRESS, &self[i].tid_address);
	self[i].rseq_errno = ask_rseq();
	for (int r = 0; r < RLIM_NLIMITS; r++)
		getrlimit((unsigned int)r, &self[i].limit[r]);
	getresuid(&self[i].uid[0], &self[i].uid[1], &self[i].uid[2]);
	getresgid(&self[i].gid[0], &self[i].gid[1], &self[i].gid[2]);
}

static int check_self(void)
{
	take_self(1);
#define SAME(field, format)                                                                                                  \
	if (self[0].field != self[1].field)                                                                                      \
	return wrong(#field " was " format " and is " format, self[0].field, self[1].field)
#define SAME_TEXT(field)                                                                                                     \
	if (strcmp(self[0].field, self[1].field))                                                                                \
	return wrong(#field " was %.200s and is %.200s", self[0].field, self[1].field)
	SAME(pid, "%d");
	SAME(pgid, "%d");
	SAME(sid, "%d");
	SAME(personality, "%x");
	SAME(mask, "%o");
	SAME_TEXT(cwd);
	SAME_TEXT(exe);
	SAME_TEXT(root);
	SAME_TEXT(comm);
	SAME(cmdline_len, "%zd");
	SAME(environ_len, "%zd");
	SAME(auxv_len, "%zd");
	if (memcmp(self[0].cmdline, self[1].cmdline, (size_t)self[0].cmdline_len))
		return wrong("another command line");
	if (memcmp(self[0].environ, self[1].environ, (size_t)self[0].environ_len))
		return wrong("another environment");
	if (memcmp(self[0].auxv, self[1].auxv, (size_t)self[0].auxv_len))
		return wrong("another auxiliary vector");
	SAME_TEXT(stat);
	SAME(robust, "%lx");
	SAME(tid_address, "%lx");
	SAME(rseq_errno, "%d");
	for (int r = 0; r < RLIM_NLIMITS; r++)
		if (memcmp(&self[0].limit[r], &self[1].limit[r], sizeof(self[0].limit[r])))
			return wrong("resource limit %d was %lu/%lu and is %lu/%lu", r, self[0].limit[r].rlim_cur,
				     self[0].limit[r].rlim_max, self[1].limit[r].rlim_cur, self[1].limit[r].rlim_max);
	if (memcmp(self[0].uid, self[1].uid, sizeof(self[0].uid)) || memcmp(self[0].gid, self[1].gid, sizeof(self[0].gid)))
		return wrong("another user or group");
	return 0;
}

/* The vDSO must be in its place and work, whatever kernel this is now. */
static int check_clock(void)
{
	static uint64_t monotonic;
	uint64_t now = now_ns(CLOCK_MONOTONIC), direct;
	struct timespec ts;
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	direct = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	if (now < monotonic || direct < now || direct - now > 60000000000)
		return wrong("clock: was %lu, the vDSO says %lu, the kernel %lu", monotonic, now, direct);
	monotonic = now;
	const unsigned char *vdso = (const unsigned char *)getauxval(AT_SYSINFO_EHDR);
	return vdso && !memcmp(vdso, ELFMAG, 4) ? 0 : wrong("no vDSO where the auxiliary vector says");
}

static int check(void)
{
	return check_self() || check_clock() || check_signals() || check_memory() || check_files() || state_check();
}

/* Leaves unused room below the stack, as whatever a program did before leaves it. */
static __attribute__((noinline)) void use_stack(void)
{
	volatile uint8_t below[400000];
	for (size_t i = 0; i < sizeof(below); i += 1024)
		below[i] = 1;
}

int main(int argc, char **argv)
{
	volatile uint8_t stack[200000];

	if (argc > 1 && ((mkdir(argv[1], 0750) < 0 && errno != EEXIST) || chdir(argv[1]) < 0))
		fatal(argv[1]);
	if (argc <= 1)
		return 2;
	if (argc == 2)
		use_stack();
	mem.stack = (uint8_t *)stack;
	fill(mem.stack, sizeof(stack), 50);
	target_block_signals();
	make_memory();
	make_files();
	umask(0137);
	if (personality(0xffffffff) < 0 || personality((unsigned long)personality(0xffffffff) | ADDR_NO_RANDOMIZE) < 0)
		fatal("personality");
	prctl(PR_SET_NAME, "simple ) R 1 (");
	make_signals();
	take_self(0);
	if (state_take(&state_ready) < 0)
		say("FAIL: %s", target_why);
	return target_loop(check);
}
