/*
 * blocked WHAT…: holds what cannot be dumped: io_uring, perf, bpf, userfaultfd, fuse, kvm, traced (by a child of its own).
 * Where one cannot be had: `skip WHY`.
 */
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/ptrace.h>

#include "target.h"

static int open_io_uring(void)
{
	uint32_t params[30] = {0};
	return (int)syscall(425, 4, params);
}

static int open_perf(void)
{
	struct perf_event_attr a = {.size = sizeof(a), .type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_DUMMY};
	return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static int open_bpf(void)
{
	union bpf_attr a = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
	return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a));
}

static int open_userfaultfd(void)
{
	return (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
}

static int open_fuse(void)
{
	return open("/dev/fuse", O_RDWR | O_CLOEXEC);
}

static int open_kvm(void)
{
	return open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static int be_traced(void)
{
	int ends[2], error = 0;
	if (pipe(ends))
		return -1;
	pid_t parent = getpid();
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		error = ptrace(PTRACE_SEIZE, parent, 0, 0) ? errno : 0;
		if (write(ends[1], &error, sizeof(error)) != sizeof(error))
			_exit(1);
		for (;;)
			pause();
	}
	if (read(ends[0], &error, sizeof(error)) != sizeof(error))
		return -1;
	errno = error;
	return error ? -1 : 0;
}

static int check(void)
{
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*open)(void);
	} things[] = {{"io_uring", open_io_uring}, {"perf", open_perf}, {"bpf", open_bpf}, {"userfaultfd", open_userfaultfd},
		      {"fuse", open_fuse}, {"kvm", open_kvm}, {"traced", be_traced}};
	target_block_signals();
	for (int i = 1; i < argc; i++)
		for (size_t k = 0; k < sizeof(things) / sizeof(things[0]); k++)
			if (!strcmp(argv[i], things[k].name) && things[k].open() < 0) {
				say("skip %s: %s", argv[i], strerror(errno));
				return 0;
			}
	return target_loop(check);
}
