/*
 * Process trees. tree build SPEC makes one and watches that every process keeps parent, group, session and state:
 *
 *     (…)  a child that does what is inside, then sleeps; the rest follows when it sleeps or has ended
 *     S G P R   setsid, setpgid(0, 0), join the parent's group, become a subreaper
 *     X K       exit with status 7, end by SIGKILL
 *     W         reap one child
 *
 * tree wait, offset, vfork, churn, chain N: see below.
 */
#include <linux/kcmp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

#include "target.h"

struct member {
	int pid, ppid, pgid, sid;
	char state;
	int code, status; /* of the root's zombies */
};
static struct member members[2048], seen[2048];
static int n_members, n_seen;
static volatile int n_sigchld;
static int sigchld_at_ready;

static void on_sigchld(int sig)
{
	(void)sig;
	n_sigchld++;
}

static int read_stat(int pid, struct member *m, char *comm)
{
	char path[64], text[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (slurp(path, text, sizeof text) <= 0)
		return -1;
	char *end = strrchr(text, ')');
	*m = (struct member){.pid = pid};
	if (!end || sscanf(end + 2, "%c %d %d %d", &m->state, &m->ppid, &m->pgid, &m->sid) != 4)
		return -1;
	if (comm)
		snprintf(comm, 17, "%.*s", (int)(end - strchr(text, '(') - 1), strchr(text, '(') + 1);
	return 0;
}

/* All below PID, depth first. */
static void list_below(int pid, struct member *list, int *n)
{
	char path[64], text[16384];
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
	if (slurp(path, text, sizeof text) <= 0)
		return;
	char *s = text;
	for (;;) {
		char *end;
		int child = (int)strtol(s, &end, 10);
		if (end == s || *n == 2048)
			return;
		s = end;
		if (read_stat(child, &list[*n], NULL) < 0)
			continue;
		struct member *m = &list[(*n)++];
		siginfo_t info = {0};
		if (m->state == 'Z' && m->ppid == getpid() &&
		    waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT | WNOHANG) == 0) {
			m->code = info.si_code;
			m->status = info.si_status;
		}
		list_below(child, list, n);
	}
}

static int compare_members(const void *a, const void *b)
{
	return ((const struct member *)a)->pid - ((const struct member *)b)->pid;
}

static void take_ready(void)
{
	n_members = 0;
	list_below(getpid(), members, &n_members);
	qsort(members, (size_t)n_members, sizeof members[0], compare_members);
	sigchld_at_ready = n_sigchld;
}

static int same_member(const struct member *a, const struct member *b)
{
	return a->pid == b->pid && a->ppid == b->ppid && a->pgid == b->pgid && a->sid == b->sid && a->state == b->state &&
	       a->code == b->code && a->status == b->status;
}

/* Sleepers are woken for a moment by whoever looks at them: only what lasts is wrong. */
static int check_members(void)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 20000000000;
	for (;;) {
		int i = 0;
		n_seen = 0;
		list_below(getpid(), seen, &n_seen);
		qsort(seen, (size_t)n_seen, sizeof seen[0], compare_members);
		while (i < n_members && i < n_seen && same_member(&members[i], &seen[i]))
			i++;
		if (i == n_members && i == n_seen)
			break;
		if (now_ns(CLOCK_MONOTONIC) > end) {
			static const struct member none;
			const struct member *a = i < n_members ? &members[i] : &none, *b = i < n_seen ? &seen[i] : &none;
			return wrong("%d were below and are %d; [%d] was pid %d parent %d group %d session %d %c %d %d and is pid "
				     "%d parent %d group %d session %d %c %d %d",
				     n_members, n_seen, i, a->pid, a->ppid, a->pgid, a->sid, a->state ? a->state : '-', a->code,
				     a->status, b->pid, b->ppid, b->pgid, b->sid, b->state ? b->state : '-', b->code, b->status);
		}
		pause_ms(2);
	}
	if (n_sigchld != sigchld_at_ready)
		return wrong("%d SIGCHLD came that were not due", n_sigchld - sigchld_at_ready);
	return 0;
}

/* Until PID sleeps for good or has ended. */
static void await(int pid)
{
	struct member m;
	char comm[17];
	while (read_stat(pid, &m, comm) == 0 && m.state != 'Z' && !(m.state == 'S' && strcmp(comm, "done") == 0))
		pause_ms(1);
}

static _Noreturn void sleep_for_ever(void)
{
	prctl(PR_SET_NAME, "done");
	for (;;)
		pause();
}

static const char *skip(const char *s)
{
	int depth = 1;
	while (depth) {
		depth += *s == '(' ? 1 : *s == ')' ? -1 : 0;
		s++;
	}
	return s;
}

static void reap_one(void)
{
	while (waitpid(-1, NULL, 0) < 0)
		if (errno != EINTR)
			fatal("waitpid");
}

static void build(const char *s)
{
	for (; *s && *s != ')';) {
		int ret = 0;
		switch (*s++) {
		case 'S':
			ret = setsid();
			break;
		case 'G':
			ret = setpgid(0, 0);
			break;
		case 'P':
			ret = setpgid(0, getpgid(getppid()));
			break;
		case 'R':
			ret = prctl(PR_SET_CHILD_SUBREAPER, 1);
			break;
		case 'X':
			_exit(7);
		case 'K':
			ret = raise(SIGKILL);
			break;
		case 'W':
			reap_one();
			break;
		case '(': {
			pid_t pid = fork();
			if (pid == 0) {
				build(s);
				sleep_for_ever();
			}
			ret = pid;
			await(pid);
			s = skip(s);
		}
		}
		if (ret < 0)
			fatal("building");
	}
}

/* ---- wait: a child that the program waits for, before and after ---- */

static pid_t child;

static void new_child(void)
{
	child = fork();
	if (child < 0)
		fatal("fork");
	if (child == 0)
		sleep_for_ever();
	await(child);
}

static int check_wait(void)
{
	siginfo_t info = {0};
	if (check_members())
		return -1;
	kill(child, SIGKILL);
	while (waitid(P_ALL, 0, &info, WEXITED) < 0)
		if (errno != EINTR)
			return wrong("waitid: %s", strerror(errno));
	if (info.si_pid != child || info.si_code != CLD_KILLED || info.si_status != SIGKILL)
		return wrong("wait tells of pid %d, code %d, status %d", info.si_pid, info.si_code, info.si_status);
	for (int ms = 0; n_sigchld != sigchld_at_ready + 1; ms++) {
		if (ms == 20000)
			return wrong("%d SIGCHLD came of one child", n_sigchld - sigchld_at_ready);
		pause_ms(1);
	}
	new_child();
	take_ready();
	return 0;
}

/* ---- offset: a description that parent and child share ---- */

static int shared_fd;
static off_t expected;

static void on_usr2(int sig)
{
	(void)sig;
	if (write(shared_fd, "c", 1) != 1)
		_exit(1);
}

static int check_offset(void)
{
	if (check_members())
		return -1;
	if (syscall(SYS_kcmp, getpid(), child, KCMP_FILE, shared_fd, shared_fd) > 0)
		return wrong("parent and child have descriptions of their own");
	if (lseek(shared_fd, 0, SEEK_CUR) != expected)
		return wrong("the offset is %ld, not %ld", (long)lseek(shared_fd, 0, SEEK_CUR), (long)expected);
	kill(child, SIGUSR2);
	expected++;
	for (int ms = 0; lseek(shared_fd, 0, SEEK_CUR) != expected; ms++) {
		if (ms == 20000)
			return wrong("the child's write has not moved the offset");
		pause_ms(1);
	}
	return 0;
}

static void set_up_offset(void)
{
	shared_fd = open("shared", O_RDWR | O_CREAT, 0600);
	if (shared_fd < 0 || write(shared_fd, "parent", 6) != 6)
		fatal("shared");
	expected = 6;
	signal(SIGUSR2, on_usr2);
	new_child();
}

/* ---- vfork: a thread stays in it until there is a file "go" ---- */

static volatile int vforked;

static void *vfork_thread(void *arg)
{
	static const char *const argv[] = {"sleep", "1000", NULL};
	if (vfork() == 0) {
		vforked = 1;
		while (access("go", F_OK))
			pause_ms(1);
		execv("/bin/sleep", (char **)argv);
		_exit(1);
	}
	vforked = 2;
	return arg;
}

static void set_up_vfork(void)
{
	pthread_t t;
	if (pthread_create(&t, NULL, vfork_thread, NULL))
		fatal("pthread_create");
	while (!vforked)
		pause_ms(1);
}

static int check_nothing(void)
{
	return 0;
}

/* ---- churn: processes that are born and die all the time ---- */

static _Noreturn void churn(void)
{
	for (unsigned int i = 0;; i++) {
		int status, want = (int)(i % 50);
		pid_t pid = fork();
		if (pid == 0) {
			if (i % 3 == 0 && fork() == 0)
				_exit(3); /* an orphan, or a child never waited for */
			_exit(want);
		}
		if (pid < 0)
			_exit(100);
		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				_exit(101);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != want)
			_exit(102);
	}
}

static pid_t workers[3];

static int check_churn(void)
{
	siginfo_t info;
	for (int i = 0; i < 3; i++) {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)workers[i], &info, WEXITED | WNOHANG | WNOWAIT) < 0)
			return wrong("waitid: %s", strerror(errno));
		if (info.si_pid)
			return wrong("worker %d ended: code %d, status %d", i, info.si_code, info.si_status);
	}
	/* orphans come to us */
	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == 0 && info.si_pid)
		info.si_pid = 0;
	return 0;
}

static void set_up_churn(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int i = 0; i < 3; i++) {
		workers[i] = fork();
		if (workers[i] == 0)
			churn();
	}
}

/* ---- chain N: each makes the next, one a millisecond, N at most ---- */

static int chain_length;

static void set_up_chain(int left)
{
	if (left == 0)
		return;
	child = fork();
	if (child < 0)
		fatal("fork");
	if (child)
		return;
	pause_ms(1);
	set_up_chain(left - 1);
	sleep_for_ever();
}

/* It grows to its end, if nobody stays stopped. */
static int check_chain(void)
{
	for (int ms = 0; ms < 20000; ms++) {
		n_seen = 0;
		list_below(getpid(), seen, &n_seen);
		int stopped = 0;
		for (int i = 0; i < n_seen; i++)
			stopped += seen[i].state == 't' || seen[i].state == 'T';
		if (n_seen == chain_length && !stopped)
			return 0;
		pause_ms(1);
	}
	return wrong("the chain is %d long, not %d", n_seen, chain_length);
}

static int set_up_more(const char *what, const char *arg, int (**check)(void))
{
	if (!strcmp(what, "vfork")) {
		set_up_vfork();
		*check = check_nothing;
	} else if (!strcmp(what, "churn")) {
		set_up_churn();
		*check = check_churn;
	} else if (!strcmp(what, "chain")) {
		chain_length = atoi(arg);
		set_up_chain(chain_length);
		/* long enough to be refused, and still growing */
		for (n_seen = 0; n_seen < 30; pause_ms(1)) {
			n_seen = 0;
			list_below(getpid(), seen, &n_seen);
		}
		*check = check_chain;
	} else {
		return -1;
	}
	return 0;
}

/* ---- leader: the main thread ends, others live on; they end one by one ---- */

static int check_leader(void)
{
	struct member m;
	char comm[17], text[4096];
	if (check_members())
		return -1;
	if (read_stat(getpid(), &m, comm) < 0 || m.state != 'Z' || strcmp(comm, "late leader"))
		return wrong("the leader is %s, in state %c", comm, m.state);
	snprintf(text, sizeof text, "/proc/%d/task/%d/status", getpid(), (int)gettid());
	if (slurp(text, text, sizeof text) <= 0 || !strstr(text, "Threads:\t3\n"))
		return wrong("there are not 3 threads");
	return 0;
}

static void *leader_thread(void *arg)
{
	if (arg)
		for (;;)
			pause();
	struct member m;
	prctl(PR_SET_NAME, "answering");
	while (read_stat(getpid(), &m, NULL) < 0 || m.state != 'Z')
		pause_ms(1);
	take_ready();
	_exit(target_loop(check_leader));
}

static _Noreturn void lead_and_end(void)
{
	pthread_t t;
	prctl(PR_SET_NAME, "late leader");
	new_child();
	if (pthread_create(&t, NULL, leader_thread, NULL) || pthread_create(&t, NULL, leader_thread, ""))
		fatal("pthread_create");
	syscall(SYS_exit, 5);
	__builtin_unreachable();
}

/* ---- share WHAT: a process that shares more than fork(2) makes it ---- */

static int sleep_shared(void *arg)
{
	while (!arg)
		pause();
	return 0;
}

static void set_up_shared(const char *what)
{
	static char stack[65536] __attribute__((aligned(16)));
	int flags = !strcmp(what, "files") ? CLONE_FILES : !strcmp(what, "fs") ? CLONE_FS : CLONE_VM;
	child = clone(sleep_shared, stack + sizeof stack, flags | (!strcmp(what, "sighand") ? CLONE_SIGHAND : 0) | SIGCHLD, NULL);
	struct member m = {0};
	if (child < 0)
		fatal("clone");
	while (m.state != 'S')
		if (read_stat(child, &m, NULL) < 0)
			fatal("the child");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : "";
	int (*check)(void) = check_members;
	struct sigaction sa = {.sa_handler = on_sigchld};
	sigaction(SIGCHLD, &sa, NULL);
	target_block_signals();
	if (!strcmp(what, "build")) {
		build(arg);
	} else if (!strcmp(what, "wait")) {
		new_child();
		check = check_wait;
	} else if (!strcmp(what, "offset")) {
		set_up_offset();
		check = check_offset;
	} else if (!strcmp(what, "share")) {
		set_up_shared(arg);
	} else if (!strcmp(what, "leader")) {
		lead_and_end();
	} else if (set_up_more(what, arg, &check) < 0) {
		errno = EINVAL;
		fatal("no such case");
	}
	take_ready();
	return target_loop(check);
}
