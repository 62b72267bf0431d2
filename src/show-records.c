/* How the records that every image has are printed. A kind's own are printed by the kind. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "show.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void print_tree(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_tree t;
	char boot_id[2 * sizeof t.boot_id + 1];
	if (json_record(j, f, r, &t, sizeof t) < 0)
		return;
	for (size_t i = 0; i < sizeof t.boot_id; i++)
		snprintf(boot_id + 2 * i, 3, "%02x", t.boot_id[i]);
	json_uint(j, "version", t.version);
	json_uint(j, "root_pid", t.root_pid);
	json_hex(j, "xfeatures", t.xfeatures);
	json_uint(j, "monotonic_ns", t.monotonic_ns);
	json_uint(j, "boottime_ns", t.boottime_ns);
	json_begin_array(j, "cpu_features");
	for (size_t i = 0; i < COUNT(t.cpu_features); i++)
		json_hex(j, NULL, t.cpu_features[i]);
	json_end_array(j);
	json_string(j, "boot_id", boot_id);
}

static void print_process(struct json *j, const struct image_file *f, const struct record *r)
{
	static const char *const states[] = { NULL, "alive", "zombie", "stopped", "dead-leader" };
	struct rec_process p;
	if (json_record(j, f, r, &p, sizeof p) < 0)
		return;
	json_uint(j, "pid", p.pid);
	json_uint(j, "ppid", p.ppid);
	json_uint(j, "pgid", p.pgid);
	json_uint(j, "sid", p.sid);
	json_bytes(j, "comm", p.comm, sizeof p.comm);
	if (p.state < COUNT(states) && states[p.state])
		json_string(j, "state", states[p.state]);
	else
		json_uint(j, "state", p.state);
	if (p.state == PROCESS_ZOMBIE)
		json_hex(j, "exit_status", p.exit_status);
	if (p.exit_signal)
		json_uint(j, "exit_signal", p.exit_signal - 1);
	if (p.outside)
		json_uint(j, "outside", p.outside);
	if (p.shares) {
		json_hex(j, "shares", p.shares);
		json_uint(j, "shares_with", p.shares_with);
	}
}

static void print_task(struct json *j, const struct image_file *f, const struct record *r)
{
	static const char *const names[] = { "cwd", "root", "exe" };
	struct rec_task t;
	size_t pos = 0;
	if (json_record(j, f, r, &t, sizeof t) < 0)
		return;
	json_uint(j, "pid", t.pid);
	json_uint(j, "threads", t.n_threads);
	for (size_t i = 0; i < COUNT(names); i++) {
		const char *s = json_tail_string(j, f, r, &pos);
		if (!s)
			return;
		json_string(j, names[i], s);
	}
	json_uint(j, "exe_size", t.exe_size);
	json_uint(j, "exe_mtime_ns", t.exe_mtime_ns);
	json_bool(j, "exe_deleted", t.exe_deleted);
	json_bool(j, "root_is_ours", t.root_is_ours);
	json_octal(j, "umask", t.umask);
	json_hex(j, "personality", t.personality);
	json_int(j, "oom_score_adj", (int32_t)t.oom_score_adj);
	if (t.stopped)
		json_uint(j, "stopped_by", t.stopped);
}

static void print_registers(struct json *j, const struct rec_thread *t)
{
	static const char *const names[] = {
		"r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
		"orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
	};
	_Static_assert(COUNT(names) == COUNT(((struct rec_thread *)0)->regs), "a name for each register");
	json_begin_object(j, "regs");
	for (size_t i = 0; i < COUNT(names); i++)
		json_hex(j, names[i], t->regs[i]);
	json_end_object(j);
}

static void print_thread(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_thread t;
	if (json_record(j, f, r, &t, sizeof t) < 0)
		return;
	json_uint(j, "tid", t.tid);
	json_bytes(j, "comm", t.comm, sizeof t.comm);
	if (j->text) {
		json_hex(j, "rip", t.regs[16]);
		json_hex(j, "rsp", t.regs[19]);
	} else {
		print_registers(j, &t);
	}
	json_hex(j, "sigmask", t.sigmask);
	json_uint(j, "xsave_size", r->tail_len);
	if (j->text)
		return;
	json_bool(j, "leader", t.flags & THREAD_LEADER);
	json_hex(j, "altstack_sp", t.altstack_sp);
	json_uint(j, "altstack_size", t.altstack_size);
	json_uint(j, "altstack_flags", t.altstack_flags);
	json_uint(j, "pdeath_signal", t.pdeath_signal);
	json_hex(j, "robust_head", t.robust_head);
	json_hex(j, "rseq_ptr", t.rseq_ptr);
	json_uint(j, "rseq_len", t.rseq_len);
	json_hex(j, "rseq_sig", t.rseq_sig);
	json_hex(j, "tid_address", t.tid_address);
}

static void print_mm(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_mm m;
	if (json_record(j, f, r, &m, sizeof m) < 0)
		return;
	const struct {
		const char *name;
		uint64_t v;
	} fields[] = {
		{ "start_code", m.start_code }, { "end_code", m.end_code }, { "start_data", m.start_data },
		{ "end_data", m.end_data },	{ "start_brk", m.start_brk }, { "brk", m.brk },
		{ "start_stack", m.start_stack }, { "arg_start", m.arg_start }, { "arg_end", m.arg_end },
		{ "env_start", m.env_start },	{ "env_end", m.env_end },   { "vdso", m.vdso },
		{ "vdso_size", m.vdso_size },	{ "vvar", m.vvar },	    { "vvar_size", m.vvar_size },
		{ "vdso_crc", m.vdso_crc },
	};
	for (size_t i = 0; i < COUNT(fields); i++)
		json_hex(j, fields[i].name, fields[i].v);
	json_bool(j, "thp_disabled", m.thp_disabled);
	json_hex(j, "mdwe", m.mdwe);
	json_uint(j, "auxv_size", r->tail_len);
}

/* The saved pages of [start, end): the segments are in ascending order. */
static uint64_t saved_pages(const struct image_file *f, uint64_t start, uint64_t end)
{
	size_t lo = 0, hi = f->n_segs;
	uint64_t bytes = 0;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (f->segs[mid].start + f->segs[mid].len <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < f->n_segs && f->segs[lo].start < end; lo++) {
		uint64_t a = f->segs[lo].start, b = a + f->segs[lo].len;
		bytes += (b < end ? b : end) - (a > start ? a : start);
	}
	return bytes / 4096;
}

static const char *const vma_kinds[] = {
	NULL, "anon-private", "file-private", "file-shared", "anon-shared", "vdso", "vvar", "vsyscall",
};
static const char *const vma_flags[] = {
	"growsdown", "locked", "noreserve", "hugetlb", "hugepage", "nohugepage", "dontfork", "wipeonfork", "dontdump",
	"mergeable", "sealed", "seq-read", "rand-read", "stack", "heap", "file-writable", "droppable", "sysv",
	"lockonfault", "aio",
};

/* As in /proc/PID/maps, and how many pages are saved. */
static void print_vma_text(struct json *j, const struct rec_vma *v, const char *prot, const char *name, uint64_t pages)
{
	const char *what = v->kind < COUNT(vma_kinds) && vma_kinds[v->kind] ? vma_kinds[v->kind] : "unknown";
	json_text(j, " %012" PRIx64 "-%012" PRIx64 " %s %08" PRIx64 " %8" PRIu64 " saved %-12s", v->start, v->end, prot,
		  v->offset, pages, what);
	if (name) {
		json_text(j, " ");
		json_text_string(j, name);
	}
	uint32_t flags = v->flags;
	for (size_t i = 0; i < COUNT(vma_flags); i++)
		if (flags >> i & 1)
			json_text(j, " (%s)", vma_flags[i]);
	if (v->object)
		json_text(j, " object=%u", v->object);
}

static void print_vma(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_vma v;
	size_t pos = 0;
	if (json_record(j, f, r, &v, sizeof v) < 0)
		return;
	const char *name = r->tail_len ? json_tail_string(j, f, r, &pos) : NULL;
	if (r->tail_len && !name)
		return;
	bool shared = v.kind == VMA_FILE_SHARED || v.kind == VMA_ANON_SHARED;
	char prot[] = {
		v.prot & PROT_READ ? 'r' : '-', v.prot & PROT_WRITE ? 'w' : '-', v.prot & PROT_EXEC ? 'x' : '-',
		shared ? 's' : 'p', 0,
	};
	uint64_t pages = saved_pages(f, v.start, v.end);
	if (j->text) {
		print_vma_text(j, &v, prot, name, pages);
		return;
	}
	json_hex(j, "start", v.start);
	json_hex(j, "end", v.end);
	json_string(j, "prot", prot);
	json_hex(j, "file_offset", v.offset);
	json_uint(j, "saved_pages", pages);
	if (v.kind < COUNT(vma_kinds) && vma_kinds[v.kind])
		json_string(j, "kind", vma_kinds[v.kind]);
	else
		json_uint(j, "kind", v.kind);
	json_flags(j, "flags", v.flags, vma_flags, COUNT(vma_flags));
	if (name)
		json_string(j, "name", name);
	json_uint(j, "object", v.object);
	json_uint(j, "file_size", v.file_size);
	json_uint(j, "file_mtime_ns", v.file_mtime_ns);
	json_uint(j, "pkey", v.pkey);
	json_uint(j, "page_size", v.page_size);
}

static const char *signal_name(unsigned n, char buf[16])
{
	const char *abbrev = sigabbrev_np(n);
	if (abbrev)
		snprintf(buf, 16, "SIG%s", abbrev);
	else
		snprintf(buf, 16, "%u", n);
	return buf;
}

/* One whose action is the default, with no flags and no mask, is not worth a word. */
static void print_signals(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_signals s;
	char name[16];
	if (json_record(j, f, r, &s, sizeof s) < 0)
		return;
	json_begin_array(j, "actions");
	for (unsigned i = 0; i < COUNT(s.action); i++) {
		const struct rec_sigaction *a = &s.action[i];
		if (!a->handler && !a->flags && !a->mask)
			continue;
		json_begin_object(j, NULL);
		json_string(j, "signal", signal_name(i + 1, name));
		if (a->handler <= 1)
			json_string(j, "handler", a->handler ? "ignore" : "default");
		else
			json_hex(j, "handler", a->handler);
		json_hex(j, "flags", a->flags);
		json_hex(j, "mask", a->mask);
		json_end_object(j);
	}
	json_end_array(j);
}

static void print_sigpending(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_sigpending s;
	siginfo_t info;
	char name[16];
	if (json_record(j, f, r, &s, sizeof s) < 0 || json_tail_array(j, f, r, s.n, sizeof info) < 0)
		return;
	json_uint(j, "tid", s.tid);
	json_begin_array(j, "queue");
	for (uint32_t i = 0; i < s.n; i++) {
		memcpy(&info, r->tail + i * sizeof info, sizeof info);
		json_begin_object(j, NULL);
		json_string(j, "signal", signal_name(info.si_signo, name));
		json_int(j, "code", info.si_code);
		json_end_object(j);
	}
	json_end_array(j);
}

static void print_fdtable(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_fdtable t;
	struct rec_fd fd;
	if (json_record(j, f, r, &t, sizeof t) < 0 || json_tail_array(j, f, r, t.n, t.fd_size) < 0)
		return;
	if (t.n && t.fd_size < sizeof fd) {
		json_tail_array(j, f, r, t.n, UINT64_MAX); /* wrong, whatever it is */
		return;
	}
	json_begin_array(j, "fds");
	for (uint32_t i = 0; i < t.n; i++) {
		memcpy(&fd, r->tail + (size_t)i * t.fd_size, sizeof fd);
		json_begin_object(j, NULL);
		json_uint(j, "fd", fd.fd);
		json_uint(j, "description", fd.description);
		json_bool(j, "cloexec", fd.cloexec);
		json_end_object(j);
	}
	json_end_array(j);
}

static void print_limit(struct json *j, const char *key, uint64_t v)
{
	if (v == UINT64_MAX)
		json_string(j, key, "unlimited");
	else
		json_uint(j, key, v);
}

static void print_rlimits(struct json *j, const struct image_file *f, const struct record *r)
{
	static const char *const names[] = {
		"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
		"msgqueue", "nice", "rtprio", "rttime",
	};
	struct rec_rlimits l;
	_Static_assert(COUNT(names) == COUNT(l.limit), "a name for each limit");
	if (json_record(j, f, r, &l, sizeof l) < 0)
		return;
	for (size_t i = 0; i < COUNT(names) && i < l.n; i++) {
		json_begin_object(j, names[i]);
		print_limit(j, "soft", l.limit[i].soft);
		print_limit(j, "hard", l.limit[i].hard);
		json_end_object(j);
	}
}

static void print_file(struct json *j, const struct image_file *f, const struct record *r)
{
	struct rec_file x;
	size_t pos = 0;
	if (json_record(j, f, r, &x, sizeof x) < 0)
		return;
	const char *path = json_tail_string(j, f, r, &pos);
	if (!path)
		return;
	json_uint(j, "id", x.d.id);
	json_string(j, "path", path);
	json_octal(j, "flags", x.d.flags);
	json_uint(j, "pos", x.d.pos);
	json_octal(j, "mode", x.mode);
	json_uint(j, "size", x.size);
	json_uint(j, "mtime_ns", x.mtime_ns);
	json_uint(j, "ino", x.ino);
	if (x.rdev)
		json_hex(j, "rdev", x.rdev);
	if (x.ghost)
		json_uint(j, "ghost", x.ghost);
	if (x.d.owner) {
		json_uint(j, "owner", x.d.owner);
		json_uint(j, "owner_type", x.d.owner_type);
		json_uint(j, "owner_sig", x.d.owner_sig);
	}
}

const struct record_printer basic_printers[] = {
	{ REC_TREE, "tree", print_tree },
	{ REC_PROCESS, "process", print_process },
	{ REC_TASK, "task", print_task },
	{ REC_THREAD, "thread", print_thread },
	{ REC_MM, "mm", print_mm },
	{ REC_VMA, "vma", print_vma },
	{ REC_SIGNALS, "signals", print_signals },
	{ REC_SIGPENDING, "sigpending", print_sigpending },
	{ REC_FDTABLE, "fdtable", print_fdtable },
	{ REC_RLIMITS, "rlimits", print_rlimits },
	{ REC_FILE, "file", print_file },
	{ 0, NULL, NULL },
};
