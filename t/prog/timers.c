/*
 * timers CASE: timers that must go on with what was left of them. Each check asks the kernel; none waits for more than
 * the timer itself takes.
 *
 *   long       all kinds, far from running out: ids, clocks, intervals and what is left
 *   firing     timers that run out again and again: each still reaches whom it should
 *   once       one that runs out once: never twice, never lost (the third answer wants it)
 */
#include <pthread.h>
#include <sys/time.h>

#include "target.h"

#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif

enum { IDS = 40, HOUR = 3600 };

struct timer {
	int id, clock, notify, signo, tid;
	uint64_t sival;
	struct itimerspec set;
};
static struct timer timers[IDS];
static int n_timers;
static pid_t worker_tid;
static volatile sig_atomic_t by_leader, by_worker, by_itimer, strays;

static void on_timer(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	if (info->si_code != SI_TIMER)
		strays++;
	else if (info->si_value.sival_int == 77 && tid == worker_tid)
		by_worker++;
	else if (info->si_value.sival_int == 78)
		by_leader++;
	else
		strays++;
}

static void on_alarm(int sig)
{
	(void)sig;
	by_itimer++;
}

static void *worker(void *arg)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	__atomic_store_n((pid_t *)arg, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	for (;;)
		pause_ms(1000);
	return NULL;
}

static void start_worker(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, worker, &worker_tid))
		fatal("pthread_create");
	while (!__atomic_load_n(&worker_tid, __ATOMIC_SEQ_CST))
		pause_ms(1);
}

/* By raw calls: libc hides the kernel's number. */
static int create(int clock, int notify, int signo, int tid, int value, uint64_t sec, uint64_t interval)
{
	struct timer *t = &timers[n_timers++];
	struct sigevent e = {.sigev_notify = notify, .sigev_signo = signo, .sigev_value.sival_int = value};
	e._sigev_un._tid = tid;
	*t = (struct timer){.clock = clock, .notify = notify, .signo = signo, .tid = tid, .sival = (uint64_t)value,
			    .set = {{(time_t)interval, 0}, {(time_t)sec, 0}}};
	if (syscall(SYS_timer_create, clock, &e, &t->id))
		fatal("timer_create");
	if (syscall(SYS_timer_settime, t->id, 0, &t->set, NULL))
		fatal("timer_settime");
	return t->id;
}

static void delete_last(void)
{
	syscall(SYS_timer_delete, timers[--n_timers].id);
}

static char proc_timers[2][65536];

static int check_long(void)
{
	for (int i = 0; i < n_timers; i++) {
		struct itimerspec v;
		const struct timer *t = &timers[i];
		if (syscall(SYS_timer_gettime, t->id, &v))
			return wrong("timer %d: %s", t->id, strerror(errno));
		if (v.it_interval.tv_sec != t->set.it_interval.tv_sec || v.it_interval.tv_nsec)
			return wrong("timer %d has an interval of %ld s", t->id, v.it_interval.tv_sec);
		if (v.it_value.tv_sec > t->set.it_value.tv_sec || v.it_value.tv_sec < t->set.it_value.tv_sec - HOUR)
			return wrong("timer %d has %ld s left of %ld", t->id, v.it_value.tv_sec, t->set.it_value.tv_sec);
	}
	for (int i = 0; i < 3; i++) {
		struct itimerval v;
		getitimer(i, &v);
		if (v.it_interval.tv_sec != 100 + i || v.it_value.tv_sec > 10 * HOUR || v.it_value.tv_sec < 9 * HOUR)
			return wrong("itimer %d: %ld, %ld", i, v.it_interval.tv_sec, v.it_value.tv_sec);
	}
	/* signal, whom, clock, value: as the kernel lists them, in whatever order */
	if (slurp("/proc/self/timers", proc_timers[1], sizeof(proc_timers[1])) < 0)
		return wrong("/proc/self/timers: %s", strerror(errno));
	if (strlen(proc_timers[0]) != strlen(proc_timers[1]))
		return wrong("timers were\n%.200s\nand are\n%.200s", proc_timers[0], proc_timers[1]);
	for (char *s = strstr(proc_timers[0], "ID: "); s; s = strstr(s + 1, "\nID: ")) {
		char one[400];
		const char *begin = *s == '\n' ? s + 1 : s, *end = strstr(begin, "\nID: ");
		snprintf(one, sizeof(one), "%.*s", (int)(end ? end - begin : (long)strlen(begin)), begin);
		if (!strstr(proc_timers[1], one))
			return wrong("this timer is there no more: %.300s", one);
	}
	return 0;
}

static void set_long(void)
{
	start_worker();
	create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 3, 0, 1, 10 * HOUR, 7);
	/* holes in the numbers */
	for (int i = 0; i < 20; i++) {
		create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0, HOUR, 0);
		delete_last();
	}
	create(CLOCK_REALTIME, SIGEV_NONE, 0, 0, 2, 20 * HOUR, 0);
	create(CLOCK_BOOTTIME, SIGEV_THREAD_ID, SIGRTMIN + 4, worker_tid, 3, 30 * HOUR, 9);
	create(CLOCK_MONOTONIC, SIGEV_THREAD, SIGRTMIN + 5, 0, 4, 40 * HOUR, 0);
	create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR2, 0, 5, 50 * HOUR, 3);
	create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR2, 0, 6, 0, 0); /* not armed */
	for (int i = 0; i < 3; i++)
		if (setitimer(i, &(struct itimerval){{100 + i, 0}, {10 * HOUR - i, 0}}, NULL))
			fatal("setitimer");
	slurp("/proc/self/timers", proc_timers[0], sizeof(proc_timers[0]));
}

static void handlers(void)
{
	struct sigaction a = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGRTMIN + 3, &a, NULL);
	signal(SIGALRM, on_alarm);
}

static void set_firing(void)
{
	handlers();
	start_worker();
	create(CLOCK_MONOTONIC, SIGEV_THREAD_ID, SIGRTMIN + 3, worker_tid, 77, 0, 0);
	create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 3, 0, 78, 0, 0);
	for (int i = 0; i < 2; i++) {
		struct itimerspec v = {{0, 5000000 + i * 1000000}, {0, 5000000}};
		syscall(SYS_timer_settime, timers[i].id, 0, &v, NULL);
	}
	setitimer(ITIMER_REAL, &(struct itimerval){{0, 7000}, {0, 7000}}, NULL);
}

static int check_firing(void)
{
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 60000000000;
	by_leader = by_worker = by_itimer = 0;
	while (by_leader < 3 || by_worker < 3 || by_itimer < 3) {
		if (now_ns(CLOCK_MONOTONIC) > end)
			return wrong("timers: %d to the process, %d to the worker, %d alarms", by_leader, by_worker, by_itimer);
		pause_ms(1);
	}
	return strays ? wrong("%d signals were nobody's", strays) : 0;
}

static uint64_t once_due;

static void set_once(void)
{
	handlers();
	create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 3, 0, 78, 3, 0);
	once_due = now_ns(CLOCK_MONOTONIC) + 3000000000;
}

/* The first two answers need not wait; the third does, and a little longer. */
static int check_once(void)
{
	static int asked;
	if (by_leader && now_ns(CLOCK_MONOTONIC) < once_due)
		return wrong("it ran out %lu ms early", (once_due - now_ns(CLOCK_MONOTONIC)) / 1000000);
	if (++asked < 3)
		return by_leader > 1 ? wrong("it ran out %d times", by_leader) : 0;
	uint64_t end = now_ns(CLOCK_MONOTONIC) + 60000000000;
	while (!by_leader && now_ns(CLOCK_MONOTONIC) < end)
		pause_ms(1);
	pause_ms(50);
	return by_leader == 1 ? 0 : wrong("it ran out %d times", by_leader);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*set)(void);
		int (*check)(void);
	} cases[] = {{"long", set_long, check_long}, {"firing", set_firing, check_firing}, {"once", set_once, check_once}};
	target_block_signals();
	for (size_t i = 0; argc > 1 && i < sizeof(cases) / sizeof(cases[0]); i++)
		if (!strcmp(argv[1], cases[i].name)) {
			cases[i].set();
			return target_loop(cases[i].check);
		}
	errno = EINVAL;
	fatal("which case?");
}
