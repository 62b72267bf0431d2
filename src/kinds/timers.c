/*
 * Timers of a process: setitimer(2)'s and timer_create(2)'s.
 *
 * What is left of each is kept, not when it would have run out: a timer that had three seconds left at the dump has
 * three seconds left when the process goes on, however long that was later. So are absolute ones (TIMER_ABSTIME), of which
 * the kernel tells no more. CLOCK_MONOTONIC itself is that of the machine the process goes on at: after a reboot it
 * reads less than before, as it does under CRIU; only a process that has its own time namespace could be spared this.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#define NS 1000000000ull

/* ---- dump ---- */

/*
 * Frozen, a process's timers run on. One that has run out since its signals were looked at has left a signal of which
 * the image does not know: it is written as just about to run out instead.
 */
static int signals_since(const struct process *p, uint64_t *since)
{
	*since = 0;
	for (size_t i = 0; i < p->n_threads; i++) {
		autofree char *status = proc_read(NULL, "/proc/%d/task/%d/status", p->pid, p->threads[i].tid);
		if (!status)
			return -1;
		*since |= status_number(status, "SigPnd", 16, 0) | status_number(status, "ShdPnd", 16, 0);
	}
	*since &= ~p->pending;
	return 0;
}

static bool has_come(uint64_t since, uint32_t signo)
{
	return signo - 1 < 64 && since >> (signo - 1) & 1;
}

static int collect_itimers(struct process *p)
{
	static const uint32_t signals[] = {SIGALRM, SIGVTALRM, SIGPROF};
	struct rec_itimers r = {0};
	uint64_t since;
	bool armed = false;
	batch_begin();
	long at = batch_room(3 * sizeof(struct itimerval));
	for (int i = 0; i < 3; i++)
		batch_add(1 << 1, SYS_getitimer, i, at + i * sizeof(struct itimerval), 0, 0, 0, 0);
	if (at < 0 || parasite_run(p) || signals_since(p, &since))
		return -1;
	for (int i = 0; i < 3; i++) {
		struct itimerval v;
		if (batch_result(i))
			return fail("pid %d (%s): its interval timer %d cannot be read", p->pid, p->comm, i);
		memcpy(&v, batch_data(at + i * sizeof v), sizeof v);
		r.timer[i].value_us = v.it_value.tv_sec * 1000000ull + v.it_value.tv_usec;
		r.timer[i].interval_us = v.it_interval.tv_sec * 1000000ull + v.it_interval.tv_usec;
		/* ITIMER_REAL goes on only when its signal is taken: dequeue_signal in kernel/signal.c. Run out at once, it
		 * merges with the one that waits. */
		if (has_come(since, signals[i]) || (i == ITIMER_REAL && r.timer[i].interval_us && !r.timer[i].value_us))
			r.timer[i].value_us = 1;
		armed |= r.timer[i].value_us || r.timer[i].interval_us;
	}
	return armed ? notes_add_record(&p->core, REC_ITIMERS, &r, sizeof r, NULL, 0) : 0;
}

/* proc_pid_timers(5): five lines a timer. The text behind it, NULL at the end or with *bad. */
static const char *parse_timer(const char *s, struct rec_posix_timer *t, bool *bad)
{
	char how[16], whom[8];
	unsigned long long value;
	int used = 0;
	*bad = false;
	if (!*s)
		return NULL;
	*t = (struct rec_posix_timer){0};
	if (sscanf(s, "ID: %d signal: %u/%llx notify: %15[a-z]/%7[a-z].%d ClockID: %d %n", &t->id, &t->signo, &value, how, whom,
		   &t->tid, &t->clock, &used) != 7 || !used) {
		*bad = true;
		return NULL;
	}
	t->sival = value;
	t->notify = strcmp(how, "none") == 0 ? SIGEV_NONE : strcmp(how, "thread") == 0 ? SIGEV_THREAD : SIGEV_SIGNAL;
	if (strcmp(whom, "tid") == 0)
		t->notify |= SIGEV_THREAD_ID;
	return s + used;
}

/* clock_gettime(2)'s negative clocks are of processes and threads: CPUCLOCK_PERTHREAD_MASK in posix-timers_types.h */
static int check_clock(const struct process *p, const struct rec_posix_timer *t)
{
	if (t->clock >= 0 || !(t->clock & 4) || (t->clock | 7) != -1 || p->n_threads == 1)
		return 0;
	return fail("pid %d (%s): timer %d runs on the CPU time of one of its %zu threads, and the kernel does not tell of "
		    "which; use pthread_getcpuclockid, or CLOCK_PROCESS_CPUTIME_ID",
		    p->pid, p->comm, t->id, p->n_threads);
}

static int add_timers(struct process *p, struct rec_posix_timer *t, int n)
{
	uint64_t since;
	batch_begin();
	long at = batch_room(n * sizeof(struct itimerspec));
	for (int i = 0; i < n; i++) {
		batch_add(1 << 1, SYS_timer_gettime, t[i].id, at + i * sizeof(struct itimerspec), 0, 0, 0, 0);
		batch_add(0, SYS_timer_getoverrun, t[i].id, 0, 0, 0, 0, 0);
	}
	if (at < 0 || parasite_run(p) || signals_since(p, &since))
		return -1;
	for (int i = 0; i < n; i++) {
		struct itimerspec v;
		if (batch_result(2 * i) || batch_result(2 * i + 1) < 0)
			return fail("pid %d (%s): its timer %d cannot be read", p->pid, p->comm, t[i].id);
		memcpy(&v, batch_data(at + i * sizeof v), sizeof v);
		t[i].value_ns = v.it_value.tv_sec * NS + v.it_value.tv_nsec;
		t[i].interval_ns = v.it_interval.tv_sec * NS + v.it_interval.tv_nsec;
		t[i].overrun = batch_result(2 * i + 1);
		if (t[i].notify != SIGEV_NONE && has_come(since, t[i].signo))
			t[i].value_ns = 1;
		if (notes_add_record(&p->core, REC_POSIX_TIMER, &t[i], sizeof t[i], NULL, 0))
			return -1;
	}
	return 0;
}

static int collect_posix_timers(struct process *p)
{
	enum { AT_ONCE = 30 };
	struct rec_posix_timer t[AT_ONCE];
	autofree char *text = proc_read(NULL, "/proc/%d/timers", p->pid);
	if (!text)
		return fail_within("pid %d (%s): its timers (the kernel may lack CONFIG_CHECKPOINT_RESTORE)", p->pid, p->comm);
	bool bad = false;
	int n = 0;
	const char *s = text;
	while ((s = parse_timer(s, &t[n], &bad))) {
		if (check_clock(p, &t[n]))
			return -1;
		if (++n == AT_ONCE && add_timers(p, t, n))
			return -1;
		n %= AT_ONCE;
	}
	if (bad)
		return fail("pid %d (%s): /proc/%d/timers has a line of an unknown form", p->pid, p->comm, p->pid);
	return n ? add_timers(p, t, n) : 0;
}

static int timers_collect(struct dump *d, struct process *p)
{
	(void)d;
	return collect_itimers(p) || collect_posix_timers(p) ? -1 : 0;
}

/* ---- restore ---- */

static int plan_itimers(struct rtask *t, struct plan *plan, const struct record *rec)
{
	struct rec_itimers r;
	struct itimerval *v = plan_alloc(plan, 3 * sizeof *v);
	if (!v || record_get(&t->core, rec, &r, sizeof r))
		return -1;
	for (int i = 0; i < 3; i++) {
		v[i].it_value = (struct timeval){r.timer[i].value_us / 1000000, r.timer[i].value_us % 1000000};
		v[i].it_interval = (struct timeval){r.timer[i].interval_us / 1000000, r.timer[i].interval_us % 1000000};
	}
	plan->args->itimers = (uintptr_t)v;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	int32_t x = ((const struct restorer_timer *)a)->id, y = ((const struct restorer_timer *)b)->id;
	return (x > y) - (x < y);
}

static int plan_timer(struct rtask *t, const struct record *rec, struct restorer_timer *out)
{
	struct rec_posix_timer r;
	if (record_get(&t->core, rec, &r, sizeof r))
		return -1;
	if (r.id < 0)
		return fail("%s: %d is no timer's number", t->core.name, r.id);
	*out = (struct restorer_timer){
		.id = r.id, .clock = r.clock, .notify = r.notify, .signo = r.signo, .tid = r.tid, .sival = r.sival,
		.value_ns = r.value_ns, .interval_ns = r.interval_ns,
	};
	return 0;
}

static int timers_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	size_t n = 0, i = 0;
	each_record(&t->core, rec)
	{
		if (rec->type == REC_ITIMERS && plan_itimers(t, plan, rec))
			return -1;
		n += rec->type == REC_POSIX_TIMER;
	}
	struct restorer_thread *threads = (void *)plan->args->threads;
	threads[0].last |= n || plan->args->itimers;
	if (!n)
		return 0;
	struct restorer_timer *timers = plan_alloc(plan, n * sizeof *timers);
	if (!timers)
		return -1;
	each_record(&t->core, rec)
		if (rec->type == REC_POSIX_TIMER && plan_timer(t, rec, &timers[i++]))
			return -1;
	/* ascending: where ids cannot be asked for they only count upwards */
	qsort(timers, n, sizeof *timers, by_id);
	plan->args->timers = (uintptr_t)timers;
	plan->args->n_timers = n;
	return 0;
}

/* ---- show ---- */

static void print_itimers(struct json *j, const struct image_file *f, const struct record *rec)
{
	static const char *const names[] = {"real", "virtual", "prof"};
	struct rec_itimers r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	for (int i = 0; i < 3; i++) {
		json_begin_object(j, names[i]);
		json_uint(j, "value_us", r.timer[i].value_us);
		json_uint(j, "interval_us", r.timer[i].interval_us);
		json_end_object(j);
	}
}

static void print_timer(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_posix_timer r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_int(j, "id", r.id);
	json_int(j, "clock", r.clock);
	json_uint(j, "notify", r.notify);
	json_uint(j, "signo", r.signo);
	json_int(j, "tid", r.tid);
	json_hex(j, "sival", r.sival);
	json_uint(j, "value_ns", r.value_ns);
	json_uint(j, "interval_ns", r.interval_ns);
	json_uint(j, "overrun", r.overrun);
}

static const struct record_printer printers[] = {
	{REC_ITIMERS, "itimers", print_itimers},
	{REC_POSIX_TIMER, "timer", print_timer},
	{0, NULL, NULL},
};

const struct kind timers_kind = {
	.name = "timers",
	.collect = timers_collect,
	.plan = timers_plan,
	.printers = printers,
};
