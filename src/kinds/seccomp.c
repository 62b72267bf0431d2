/*
 * Seccomp filters. While we are there, they are suspended (PTRACE_O_SUSPEND_SECCOMP). If criu-lite is killed, they are
 * not: then the calls that the parasite leaves by meet them. So these are tried on the filters first, before anything
 * is touched, and a process that they would kill is refused by name.
 */
#include <errno.h>
#include <linux/audit.h>
#include <string.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "arch/x86_64/sigframe.h"
#include "lib/bpf.h"
#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#define INSNS_MAX   4096 /* BPF_MAXINSNS: of one filter */
#define FILTERS_MAX 8192 /* more than MAX_INSNS_PER_PATH in kernel/seccomp.c lets be */

/* A filter in a record's tail: this, then its instructions. */
struct filter_head {
	uint32_t len, flags;
};

struct chain {
	char *tail; /* as it lies in the record */
	size_t size, cap;
	uint32_t n;
};

/* ---- dump ---- */

/* Calls that end our visit when the dumper is gone: each must be let through. */
static const int leaving[] = {SYS_close, SYS_munmap, SYS_rt_sigreturn};
static const int restarting[] = {SYS_rt_sigprocmask, SYS_restart_syscall};
/* Calls that may be under way just then: they may fail, but not kill. */
static const int working[] = {
	SYS_sigaltstack, SYS_prctl, SYS_mmap, SYS_socketpair, SYS_recvmsg, SYS_sendto, SYS_rt_sigaction, SYS_prlimit64, SYS_pwritev,
	SYS_getitimer, SYS_timer_gettime, SYS_timer_getoverrun, SYS_mincore, SYS_brk, SYS_get_mempolicy,
};

/* The strictest of what the filters say. */
static uint32_t ask_chain(const struct chain *c, int nr)
{
	struct seccomp_data call = {.nr = nr, .arch = AUDIT_ARCH_X86_64};
	uint32_t strictest = SECCOMP_RET_ALLOW;
	const char *s = c->tail;
	for (uint32_t i = 0; i < c->n; i++) {
		struct filter_head h;
		memcpy(&h, s, sizeof h);
		uint32_t said = bpf_run((const void *)(s + sizeof h), h.len, &call) & SECCOMP_RET_ACTION_FULL;
		if ((int32_t)said < (int32_t)strictest)
			strictest = said;
		s += sizeof h + h.len * sizeof(struct sock_filter);
	}
	return strictest;
}

static bool lets_through(uint32_t action)
{
	return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG;
}

static int refuse(const struct process *p, const struct thread *t, int nr)
{
	return fail("pid %d (%s): thread %d has a seccomp filter that forbids system call %d: if criu-lite were killed during the dump, "
		    "so would it be; allow that call in its sandbox",
		    p->pid, p->comm, t->tid, nr);
}

static int check_chain(const struct process *p, const struct thread *t, const struct chain *c)
{
	struct user_regs_struct regs = t->regs;
	for (size_t i = 0; i < sizeof leaving / sizeof *leaving; i++)
		if (!lets_through(ask_chain(c, leaving[i])))
			return refuse(p, t, leaving[i]);
	for (size_t i = 0; regs_restart(&regs) == RESTART_BLOCK && i < sizeof restarting / sizeof *restarting; i++)
		if (!lets_through(ask_chain(c, restarting[i])))
			return refuse(p, t, restarting[i]);
	for (size_t i = 0; i < sizeof working / sizeof *working; i++) {
		uint32_t said = ask_chain(c, working[i]);
		if (!lets_through(said) && said != SECCOMP_RET_ERRNO)
			return refuse(p, t, working[i]);
	}
	return 0;
}

static int unreadable(const struct process *p, const struct thread *t)
{
	return fail_errno("pid %d (%s): thread %d has a seccomp filter; to read and to suspend it takes CAP_SYS_ADMIN in the first user "
			  "namespace, and a criu-lite without a filter of its own",
			  p->pid, p->comm, t->tid);
}

/* The next filter, the oldest first. 1: there is none. */
static int read_filter(const struct process *p, const struct thread *t, struct chain *c)
{
	struct {
		uint64_t filter_off, flags;
	} meta = {c->n, 0};
	struct filter_head h = {0};
	long len = ptrace(PTRACE_SECCOMP_GET_FILTER, t->tid, c->n, NULL);
	if (len < 0)
		return errno == ENOENT && c->n ? 1 : unreadable(p, t);
	size_t bytes = len * sizeof(struct sock_filter);
	char *bigger = grow_array(c->tail, &c->cap, c->size + sizeof h + bytes, 1);
	if (!bigger)
		return -1;
	c->tail = bigger;
	void *code = c->tail + c->size + sizeof h;
	if (ptrace(PTRACE_SECCOMP_GET_FILTER, t->tid, c->n, code) != len ||
	    ptrace(PTRACE_SECCOMP_GET_METADATA, t->tid, sizeof meta, &meta) < 0)
		return unreadable(p, t);
	if (bpf_may_return(code, len, SECCOMP_RET_USER_NOTIF))
		return fail("pid %d (%s): thread %d has a seccomp filter that asks a supervisor (SECCOMP_RET_USER_NOTIF), which cannot be "
			    "made again; start it without",
			    p->pid, p->comm, t->tid);
	h = (struct filter_head){len, meta.flags};
	memcpy(c->tail + c->size, &h, sizeof h);
	c->size += sizeof h + bytes;
	c->n++;
	return 0;
}

static int freeze_thread(struct process *p, struct thread *t, struct chain *last, pid_t *last_tid)
{
	struct chain c = {0};
	int ret;
	do
		ret = read_filter(p, t, &c);
	while (!ret && c.n < FILTERS_MAX);
	if (ret < 0 || check_chain(p, t, &c)) {
		free(c.tail);
		return -1;
	}
	struct rec_seccomp r = {.tid = t->tid, .mode = 2, .n = c.n};
	bool same = last->tail && c.size == last->size && memcmp(c.tail, last->tail, c.size) == 0;
	if (same)
		r.same_as = *last_tid;
	ret = notes_add_record(&p->core, REC_SECCOMP, &r, sizeof r, same ? NULL : c.tail, same ? 0 : c.size);
	if (same) {
		free(c.tail);
	} else {
		free(last->tail);
		*last = c;
		*last_tid = t->tid;
	}
	if (!ret && ptrace(PTRACE_SETOPTIONS, t->tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP))
		return unreadable(p, t);
	return ret;
}

static int seccomp_frozen(struct dump *d, struct process *p)
{
	(void)d;
	struct chain last = {0};
	pid_t last_tid = 0;
	int ret = 0;
	for (size_t i = 0; !ret && i < p->n_threads; i++) {
		struct thread *t = &p->threads[i];
		autofree char *status = proc_read(NULL, "/proc/%d/task/%d/status", p->pid, t->tid);
		uint64_t mode = status ? status_number(status, "Seccomp", 10, 0) : 0;
		if (!status)
			ret = fail_within("pid %d (%s)", p->pid, p->comm);
		else if (mode == 1)
			ret = fail("pid %d (%s): thread %d is in seccomp's strict mode, in which it could not go on if criu-lite were "
				   "killed; have it use a filter",
				   p->pid, p->comm, t->tid);
		else if (mode)
			ret = freeze_thread(p, t, &last, &last_tid);
	}
	free(last.tail);
	return ret;
}

/* ---- restore ---- */

/* A thread's filters as the record has them, checked; in OUT, if there is room for N_OUT. The number, -1. */
static int parse_filters(const struct image_file *f, const struct record *rec, uint32_t n, struct restorer_filter *out)
{
	const char *s = rec->tail, *end = rec->tail + rec->tail_len;
	if (n > FILTERS_MAX)
		return fail("%s: %u seccomp filters are too many", f->name, n);
	for (uint32_t i = 0; i < n; i++) {
		struct filter_head h;
		if ((size_t)(end - s) < sizeof h)
			return fail("%s: %u seccomp filters do not fit in their record", f->name, n);
		memcpy(&h, s, sizeof h);
		s += sizeof h;
		if (!h.len || h.len > INSNS_MAX || (size_t)(end - s) < h.len * sizeof(struct sock_filter))
			return fail("%s: a seccomp filter of %u instructions does not fit in its record", f->name, h.len);
		out[i] = (struct restorer_filter){.flags = h.flags, .len = h.len, .code = (uintptr_t)s};
		s += h.len * sizeof(struct sock_filter);
	}
	return s == end ? 0 : fail("%s: there is something behind the seccomp filters of a record", f->name);
}

/* Where the filters of each thread lie in the image: to be moved where the restorer finds them. */
static int parse_threads(struct rtask *t, struct plan *plan)
{
	struct restorer_thread *threads = (void *)plan->args->threads;
	size_t k = 0;
	each_record(&t->core, rec)
	{
		struct rec_seccomp r;
		if (rec->type != REC_SECCOMP)
			continue;
		if (record_get(&t->core, rec, &r, sizeof r))
			return -1;
		size_t like = 0;
		while (k < plan->args->n_threads && (uint32_t)threads[k].tid != r.tid)
			k++;
		while (r.same_as && like < k && (uint32_t)threads[like].tid != r.same_as)
			like++;
		if (k == plan->args->n_threads || (r.same_as && like == k))
			return fail("%s: the seccomp filters of thread %u belong to nobody", t->core.name, r.tid);
		threads[k].suspend = threads[k].last = 1;
		if (r.same_as) {
			threads[k].n_filters = threads[like].n_filters;
			threads[k].filters = threads[like].filters;
			continue;
		}
		struct restorer_filter *f = r.n <= FILTERS_MAX ? plan_alloc(plan, r.n * sizeof *f) : NULL;
		if (!f && r.n <= FILTERS_MAX)
			return -1;
		if (parse_filters(&t->core, rec, r.n, f))
			return -1;
		threads[k].n_filters = r.n;
		threads[k].filters = (uintptr_t)f;
	}
	return 0;
}

static bool same_filter(const struct restorer_filter *a, const struct restorer_filter *b)
{
	return a->flags == b->flags && a->len == b->len &&
	       memcmp((void *)a->code, (void *)b->code, a->len * sizeof(struct sock_filter)) == 0;
}

/* How many of the oldest filters all threads have. */
static uint64_t in_common(const struct restorer_thread *threads, uint64_t n)
{
	uint64_t common = threads[0].n_filters;
	for (uint64_t i = 1; i < n && common; i++) {
		if (threads[i].n_filters < common)
			common = threads[i].n_filters;
		const struct restorer_filter *a = (void *)threads[0].filters, *b = (void *)threads[i].filters;
		for (uint64_t k = 0; a != b && k < common; k++)
			if (!same_filter(&a[k], &b[k]))
				common = k;
	}
	return common;
}

static int move_code(struct plan *plan, struct restorer_filter *f)
{
	struct sock_filter *code = plan_alloc(plan, f->len * sizeof *code);
	if (!code)
		return -1;
	memcpy(code, (void *)f->code, f->len * sizeof *code);
	f->code = (uintptr_t)code;
	return 0;
}

/* An array of its own for thread T: what it shall put in, from FROM on; those below COMMON into all threads. */
static int plan_thread(struct plan *plan, struct restorer_thread *t, uint64_t from, uint64_t common)
{
	uint64_t n = t->n_filters - from;
	struct restorer_filter *f = plan_alloc(plan, n * sizeof *f);
	if (!f)
		return -1;
	for (uint64_t i = 0; i < n; i++) {
		f[i] = ((struct restorer_filter *)t->filters)[from + i];
		if (move_code(plan, &f[i]))
			return -1;
		if (from + i < common)
			f[i].flags |= SECCOMP_FILTER_FLAG_TSYNC;
	}
	t->filters = (uintptr_t)f;
	t->n_filters = n;
	return 0;
}

static int seccomp_plan(struct restore *r, struct rtask *t, struct plan *plan)
{
	(void)r;
	struct restorer_thread *threads = (void *)plan->args->threads;
	uint64_t n = plan->args->n_threads;
	if (parse_threads(t, plan))
		return -1;
	uint64_t common = in_common(threads, n);
	for (uint64_t i = 0; i < n; i++)
		if (threads[i].n_filters && plan_thread(plan, &threads[i], i ? common : 0, i || n == 1 ? 0 : common))
			return -1;
	return 0;
}

/* ---- show ---- */

static void print_seccomp(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_seccomp r;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "tid", r.tid);
	json_uint(j, "mode", r.mode);
	json_uint(j, "filters", r.n);
	if (r.same_as)
		json_uint(j, "same_as", r.same_as);
}

static const struct record_printer printers[] = {{REC_SECCOMP, "seccomp", print_seccomp}, {0}};

const struct kind seccomp_kind = {
	.name = "seccomp",
	.frozen = seccomp_frozen,
	.plan = seccomp_plan,
	.printers = printers,
};
