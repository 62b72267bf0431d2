/*
 * seccomp CASE: filters that answer calls with errors of their own, so that it shows which filters are there, and which
 * came last: of two that answer, the younger's answer counts (kernel/seccomp.c seccomp_run_filters).
 *
 *   root      two filters for all threads (TSYNC), the second with LOG, and one more for the worker; no no_new_privs
 *   user      the same for an unprivileged user with no_new_privs
 *   sandbox   everything fails that is not on a short list
 *   strict    the worker is in strict mode
 *   killer    whoever calls munmap dies
 *   notify    a filter that would ask a supervisor
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>

#include "target.h"

#define LOAD_NR		 BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define ANSWER(nr, what) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, what)
#define OTHERWISE(what)	 BPF_STMT(BPF_RET | BPF_K, what)
#define ERROR(e)	 (SECCOMP_RET_ERRNO | (e))

static int worker_is_up, worker_step, worker_result[2], asked, answered;
static const char *the_case;

static int install(struct sock_filter *code, size_t n, unsigned int flags)
{
	struct sock_fprog prog = {(unsigned short)n, code};
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}
#define INSTALL(flags, ...)                                                                     \
	({                                                                                      \
		struct sock_filter code[] = {LOAD_NR, __VA_ARGS__};                             \
		install(code, sizeof(code) / sizeof(code[0]), flags);                           \
	})

static int errno_of(long nr)
{
	return syscall(nr, 0, 0, 0) < 0 ? errno : 0;
}

static void *worker(void *arg)
{
	(void)arg;
	/* what libc does first for a thread must not meet the sandbox */
	__atomic_store_n(&worker_is_up, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&worker_step, __ATOMIC_SEQ_CST) == 0)
		pause_ms(1);
	int both = !strcmp(the_case, "root") || !strcmp(the_case, "user");
	if (both && INSTALL(0, ANSWER(SYS_getpgid, ERROR(103)), OTHERWISE(SECCOMP_RET_ALLOW)))
		fatal("the worker's filter");
	__atomic_store_n(&worker_step, 2, __ATOMIC_SEQ_CST);
	if (!strcmp(the_case, "strict")) {
		char byte;
		static int ends[2];
		if (pipe(ends) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
			fatal("strict mode");
		__atomic_store_n(&worker_step, 3, __ATOMIC_SEQ_CST);
		while (read(ends[0], &byte, 1) == 1)
			;
	}
	for (;;) {
		if (__atomic_load_n(&asked, __ATOMIC_SEQ_CST) != answered) {
			worker_result[0] = errno_of(SYS_getppid);
			worker_result[1] = errno_of(SYS_getpgid);
			__atomic_add_fetch(&answered, 1, __ATOMIC_SEQ_CST);
		}
		pause_ms(1);
	}
	return NULL;
}

static void set_up(void)
{
	int user = !strcmp(the_case, "user");
	if (user && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_setresgid, 65534, 65534, 65534) ||
		     syscall(SYS_setresuid, 65534, 65534, 65534)))
		fatal("becoming nobody");
	if (user)
		prctl(PR_SET_DUMPABLE, 1);
	long ret = 0;
	if (user || !strcmp(the_case, "root")) {
		ret = INSTALL(SECCOMP_FILTER_FLAG_TSYNC, ANSWER(SYS_getppid, ERROR(101)), ANSWER(SYS_getpgrp, ERROR(104)),
			      OTHERWISE(SECCOMP_RET_ALLOW));
		ret |= INSTALL(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG, ANSWER(SYS_getppid, ERROR(102)),
			       OTHERWISE(SECCOMP_RET_ALLOW));
	} else if (!strcmp(the_case, "sandbox")) {
		static const int allowed[] = {SYS_read, SYS_write, SYS_close, SYS_munmap, SYS_rt_sigreturn, SYS_rt_sigtimedwait,
					      SYS_clock_nanosleep, SYS_nanosleep, SYS_exit_group, SYS_exit, SYS_kill,
					      SYS_rt_sigprocmask, SYS_restart_syscall};
		struct sock_filter code[64] = {LOAD_NR};
		size_t n = 1;
		for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
			struct sock_filter two[] = {ANSWER((unsigned int)allowed[i], SECCOMP_RET_ALLOW)};
			memcpy(code + n, two, sizeof(two));
			n += 2;
		}
		code[n++] = (struct sock_filter)OTHERWISE(ERROR(101));
		ret = install(code, n, SECCOMP_FILTER_FLAG_TSYNC);
	} else if (!strcmp(the_case, "killer")) {
		ret = INSTALL(0, ANSWER(SYS_munmap, SECCOMP_RET_KILL_PROCESS), OTHERWISE(SECCOMP_RET_ALLOW));
	} else if (!strcmp(the_case, "notify")) {
		ret = INSTALL(0, ANSWER(SYS_getppid, SECCOMP_RET_USER_NOTIF), OTHERWISE(SECCOMP_RET_ALLOW));
	}
	if (ret)
		fatal("seccomp");
}

static int check(void)
{
	int plain = !strcmp(the_case, "strict") || !strcmp(the_case, "killer") || !strcmp(the_case, "notify");
	if (plain)
		return 0;
	int sandbox = !strcmp(the_case, "sandbox"), want = sandbox ? 101 : 102, group = sandbox ? 101 : 0;
	__atomic_add_fetch(&asked, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&answered, __ATOMIC_SEQ_CST) != asked)
		pause_ms(1);
	if (errno_of(SYS_getppid) != want || errno_of(SYS_getpgid) != group)
		return wrong("the leader: getppid: error %d, getpgid: error %d", errno_of(SYS_getppid), errno_of(SYS_getpgid));
	if (worker_result[0] != want || worker_result[1] != (sandbox ? 101 : 103))
		return wrong("the worker: getppid: error %d, getpgid: error %d", worker_result[0], worker_result[1]);
	return sandbox || errno_of(SYS_getpgrp) == 104 ? 0 : wrong("the oldest filter is gone");
}

int main(int argc, char **argv)
{
	pthread_t thread;
	the_case = argc > 1 ? argv[1] : "";
	target_block_signals();
	if (pthread_create(&thread, NULL, worker, NULL))
		fatal("pthread_create");
	while (!__atomic_load_n(&worker_is_up, __ATOMIC_SEQ_CST))
		pause_ms(1);
	set_up();
	int strict = !strcmp(the_case, "strict");
	__atomic_store_n(&worker_step, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&worker_step, __ATOMIC_SEQ_CST) < (strict ? 3 : 2))
		pause_ms(1);
	return target_loop(check);
}
