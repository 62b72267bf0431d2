/*
 * identity CASE…: becomes what each CASE says, and is to stay so: who it is, what it may do, how it is scheduled. What
 * the kernel tells of it, for the leader and one more thread, is noted when ready and compared at each check. The
 * threads of a case that ends in "-worker" differ: the leader stays as it was. A case that cannot be is said: `skip WHY`.
 */
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#include "target.h"

struct note {
	char text[6000];
};
static struct note noted[2], now[2];
static volatile int asked, answered;

static void skip(const char *why)
{
	say("skip %s: %s", why, strerror(errno));
	_exit(0);
}

static void need(long ret, const char *what)
{
	if (ret < 0)
		skip(what);
}

/* Raw: of the calling thread alone. */
static void set_ids(void)
{
	gid_t groups[] = {4242, 17, 100};
	need(syscall(SYS_setgroups, 3, groups), "setgroups");
	need(syscall(SYS_setresgid, 1001, 1002, 1003), "setresgid");
	need(syscall(SYS_setresuid, 2001, 2002, 2003), "setresuid");
	syscall(SYS_setfsuid, 2001);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* SIGURG does nothing: with restore -d the parent ends at once. */
static void set_nobody(void)
{
	need(syscall(SYS_setgroups, 0, NULL), "setgroups");
	need(syscall(SYS_setresgid, 65534, 65534, 65534), "setresgid");
	need(syscall(SYS_setresuid, 65534, 65534, 65534), "setresuid");
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGURG, 0, 0, 0);
}

static void cap_sets(uint64_t inheritable, uint64_t permitted, uint64_t effective)
{
	uint32_t head[2] = {0x20080522, 0};
	uint32_t data[6] = {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable,
			    (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)};
	need(syscall(SYS_capset, head, data), "capset");
}

/* Another user with three capabilities: one ambient, one only permitted, a narrower bounding set, locked securebits. */
static void set_caps(void)
{
	const uint64_t ambient = 1 << 10, spare = 1 << 13, setpcap = 1 << 8;
	uint32_t head[2] = {0x20080522, 0}, all[6];
	need(syscall(SYS_capget, head, all), "capget");
	uint64_t may = all[1] | (uint64_t)all[4] << 32;
	cap_sets(ambient | 1 << 21, may, may); /* the bounding set forbids it later */
	for (int i = 20; i < 24; i++)
		prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	need(prctl(PR_SET_SECUREBITS, 1 << 2 | 1 << 3, 0, 0, 0), "securebits");
	set_ids();
	cap_sets(ambient | 1 << 21, ambient | spare | setpcap, ambient | spare | setpcap);
	need(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0), "ambient");
	need(prctl(PR_SET_SECUREBITS, 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6, 0, 0, 0), "securebits");
	cap_sets(ambient | 1 << 21, ambient | spare, ambient);
}

static void set_no_new_privs(void)
{
	need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

static void set_undumpable(void)
{
	need(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable");
}

static void set_batch(void)
{
	struct sched_param none = {0};
	need(syscall(SYS_setpriority, PRIO_PROCESS, 0, 7), "nice");
	need(syscall(SYS_sched_setscheduler, 0, SCHED_BATCH | 0x40000000, &none), "SCHED_BATCH");
	need(syscall(SYS_ioprio_set, 1, 0, 3 << 13 | 0), "ioprio");
	need(prctl(PR_SET_TIMERSLACK, 123456), "timer slack");
}

static void set_fifo(void)
{
	struct sched_param p = {.sched_priority = 1};
	need(syscall(SYS_sched_setscheduler, 0, SCHED_RR, &p), "SCHED_RR");
}

static void set_affinity(void)
{
	cpu_set_t set, one;
	need(syscall(SYS_sched_getaffinity, 0, sizeof(set), &set), "sched_getaffinity");
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set)) { /* the last one is left */
			CPU_ZERO(&one);
			CPU_SET(i, &one);
		}
	need(syscall(SYS_sched_setaffinity, 0, sizeof(one), &one), "sched_setaffinity");
}

static void set_uclamp(void)
{
	uint32_t attr[14] = {sizeof(attr)};
	attr[2] = 0x60 | 0x18; /* UTIL_CLAMP, KEEP_POLICY and KEEP_PARAMS */
	attr[12] = 100;
	attr[13] = 700;
	need(syscall(SYS_sched_setattr, 0, attr, 0), "uclamp");
}

static void set_prctl(void)
{
	need(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper");
	need(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), "THP");
	need(prctl(PR_SET_PDEATHSIG, SIGURG, 0, 0, 0), "pdeathsig");
}

static void set_orphan(void)
{
	need(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "pdeathsig");
}

static void set_mdwe(void)
{
	need(prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0), "MDWE");
}

static void set_flusher(void)
{
	need(prctl(57 /* PR_SET_IO_FLUSHER */, 1, 0, 0, 0), "IO flusher");
}

static void set_speculation(void)
{
	if (prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0) &&
	    prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_DISABLE, 0, 0))
		skip("speculation control");
}

static const struct {
	const char *name;
	void (*set)(void);
} cases[] = {
	{"ids", set_ids}, {"nobody", set_nobody}, {"caps", set_caps}, {"no-new-privs", set_no_new_privs},
	{"undumpable", set_undumpable}, {"batch", set_batch}, {"rr", set_fifo}, {"affinity", set_affinity},
	{"uclamp", set_uclamp}, {"prctl", set_prctl}, {"orphan", set_orphan}, {"mdwe", set_mdwe}, {"flusher", set_flusher},
	{"speculation", set_speculation},
};

static void become(const char *name)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (!strncmp(name, cases[i].name, strlen(cases[i].name))) {
			cases[i].set();
			return;
		}
	errno = EINVAL;
	fatal(name);
}

/* Of the calling thread. */
static void take(struct note *n)
{
	static const char *const keys[] = {"Uid:", "Gid:", "Groups:", "NoNewPrivs:", "Cap", "Speculation", "Cpus_allowed:", "THP"};
	static char buf[2][16384];
	char path[64], *status = buf[n == &now[1] || n == &noted[1]];
	uint32_t attr[14] = {sizeof(attr)};
	int subreaper = 0, pdeath = 0;
	snprintf(path, sizeof(path), "/proc/self/task/%ld/status", syscall(SYS_gettid));
	if (slurp(path, status, sizeof(buf[0])) < 0)
		snprintf(status, sizeof(buf[0]), "no status: %s", strerror(errno));
	prctl(PR_GET_CHILD_SUBREAPER, &subreaper, 0, 0, 0);
	prctl(PR_GET_PDEATHSIG, &pdeath, 0, 0, 0);
	syscall(SYS_sched_getattr, 0, attr, sizeof(attr), 0);
	size_t len = (size_t)snprintf(n->text, sizeof(n->text),
		"securebits %d slack %d dumpable %d subreaper %d pdeath %d thp %d mdwe %d ioprio %ld policy %u flags %x nice %d "
		"prio %u util %u %u flusher %d\n",
		prctl(PR_GET_SECUREBITS), prctl(PR_GET_TIMERSLACK), prctl(PR_GET_DUMPABLE), subreaper, pdeath,
		prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), prctl(66, 0, 0, 0, 0), syscall(SYS_ioprio_get, 1, 0), attr[1], attr[2],
		(int)attr[4], attr[5], attr[12], attr[13], prctl(58 /* PR_GET_IO_FLUSHER */, 0, 0, 0, 0));
	for (char *line = status, *end; (end = strchr(line, '\n')); line = end + 1)
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (!strncmp(line, keys[i], strlen(keys[i])))
				len += (size_t)snprintf(n->text + len, sizeof(n->text) - len, "%.*s\n", (int)(end - line), line);
}

static void ask_worker(void)
{
	asked++;
	while (answered != asked)
		pause_ms(1);
}

static void *worker(void *arg)
{
	char **names = arg;
	for (int i = 0; names[i]; i++)
		if (strstr(names[i], "-worker"))
			become(names[i]);
	for (;;) {
		if (answered != asked) {
			take(answered ? &now[1] : &noted[1]);
			answered++;
		}
		pause_ms(1);
	}
	return NULL;
}

static int check(void)
{
	take(&now[0]);
	ask_worker();
	for (int i = 0; i < 2; i++) {
		const char *a = noted[i].text, *b = now[i].text;
		while (*a && *a == *b)
			a++, b++;
		while (a > noted[i].text && a[-1] != '\n')
			a--, b--;
		if (*a || *b)
			return wrong("%s was: %.*s and is: %.*s", i ? "the worker" : "the leader", (int)strcspn(a, "\n"), a,
				     (int)strcspn(b, "\n"), b);
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	(void)argc;
	target_block_signals();
	if (pthread_create(&thread, NULL, worker, argv + 1))
		fatal("pthread_create");
	for (int i = 1; argv[i]; i++)
		if (!strstr(argv[i], "-worker"))
			become(argv[i]);
	/* the leader's settings may have changed what the worker shares with it: dumpable */
	take(&noted[0]);
	ask_worker();
	take(&noted[0]);
	return target_loop(check);
}
