/*
 * show: what an image holds.
 *
 * Everything is gone through twice: first only looked at, so that a damaged file is an error before the first byte of
 * output, and JSON is whole or not there; then printed.
 */
#include "show.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kinds.h"
#include "lib/error.h"

static const struct record_printer *find_printer(uint32_t type)
{
	for (const struct record_printer *p = basic_printers; p->print; p++)
		if (p->type == type)
			return p;
	for (size_t i = 0; kinds[i]; i++)
		for (const struct record_printer *p = kinds[i]->printers; p && p->print; p++)
			if (p->type == type)
				return p;
	return NULL;
}

static void show_unknown(struct json *j, const struct record *r)
{
	json_hex(j, "number", r->type);
	json_uint(j, "size", r->size);
	json_uint(j, "tail", r->tail_len);
}

static int show_record(struct json *j, const struct image_file *f, const struct record *r)
{
	const struct record_printer *p = find_printer(r->type);
	const char *name = p ? p->name : "unknown";
	if (j->text) {
		json_text(j, "  %s", name);
		j->first = false;
	} else {
		json_begin_object(j, NULL);
		json_string(j, "type", name);
		json_uint(j, "offset", r->offset);
	}
	if (p)
		p->print(j, f, r);
	else
		show_unknown(j, r);
	if (!j->text)
		json_end_object(j);
	json_newline(j);
	return j->failed ? -1 : 0;
}

static void show_file_head(struct json *j, const struct image_file *f)
{
	uint64_t len = f->contents_end - f->contents_start;
	if (j->text) {
		json_text(j, "\n%s:", f->name);
		if (f->n_segs)
			json_text(j, " %" PRIu64 " bytes of contents in %zu segment%s", len, f->n_segs, f->n_segs == 1 ? "" : "s");
		json_newline(j);
		return;
	}
	json_string(j, "name", f->name);
	json_uint(j, "contents_offset", f->contents_start);
	json_uint(j, "contents_length", len);
	json_uint(j, "segments", f->n_segs);
}

static int show_file(struct json *j, const struct image *im, const char *name)
{
	struct image_file f;
	int rc = 0;
	if (image_file_open(im, name, &f) < 0)
		return -1;
	if (!j->text)
		json_begin_object(j, NULL);
	show_file_head(j, &f);
	if (!j->text)
		json_begin_array(j, "records");
	for (size_t i = 0; i < f.n_records && rc == 0; i++)
		rc = show_record(j, &f, &f.records[i]);
	if (!j->text) {
		json_end_array(j);
		json_end_object(j);
	}
	image_file_close(&f);
	return rc;
}

/* ---- the process tree, for people ---- */

static int by_parent(const void *a, const void *b)
{
	const struct rec_process *p = a, *q = b;
	if (p->ppid != q->ppid)
		return p->ppid < q->ppid ? -1 : 1;
	return p->pid < q->pid ? -1 : p->pid > q->pid;
}

static int by_number(const void *a, const void *b)
{
	uint32_t p = *(const uint32_t *)a, q = *(const uint32_t *)b;
	return p < q ? -1 : p > q;
}

static size_t first_child(const struct rec_process *procs, size_t n, uint32_t pid)
{
	size_t lo = 0, hi = n;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (procs[mid].ppid < pid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void show_process(struct json *j, const struct rec_process *p, size_t depth)
{
	char comm[sizeof p->comm + 1];
	memcpy(comm, p->comm, sizeof p->comm);
	comm[sizeof p->comm] = 0;
	json_text(j, "%*s%u ", (int)(2 + 2 * (depth < 100 ? depth : 100)), "", p->pid);
	json_text_string(j, comm);
	json_text(j, "%s\n", p->state == PROCESS_ZOMBIE ? " (zombie)" : p->state == PROCESS_STOPPED ? " (stopped)" : "");
}

struct level {
	uint32_t pid;
	size_t next; /* the child to be looked at */
};

/*
 * All that stem from procs[ROOT], each below its parent. A forged image may hold a ring: whoever has been shown
 * is not gone into again, so that there are never more than N levels.
 */
static void show_family(struct json *j, const struct rec_process *procs, size_t n, size_t root, struct level *levels,
			bool *shown)
{
	size_t depth = 0, i = root;
	for (;;) {
		shown[i] = true;
		show_process(j, &procs[i], depth);
		levels[depth++] = (struct level){ procs[i].pid, first_child(procs, n, procs[i].pid) };
		while (depth) {
			struct level *l = &levels[depth - 1];
			i = l->next;
			if (i >= n || procs[i].ppid != l->pid)
				depth--;
			else if (l->next++, !shown[i])
				break;
		}
		if (!depth)
			return;
	}
}

static int get_processes(const struct image_file *tree, struct rec_process *procs, size_t *n)
{
	for (size_t i = 0; i < tree->n_records; i++) {
		const struct record *r = &tree->records[i];
		if (r->type != REC_PROCESS)
			continue;
		if (record_get(tree, r, &procs[*n], sizeof *procs) < 0)
			return -1;
		(*n)++;
	}
	return 0;
}

static int show_processes(struct json *j, const struct image *im)
{
	struct image_file tree;
	size_t n = 0;
	if (image_file_open(im, "tree", &tree) < 0)
		return -1;
	autofree struct rec_process *procs = alloc_zeroed(tree.n_records, sizeof *procs);
	autofree struct level *levels = alloc_zeroed(tree.n_records, sizeof *levels);
	autofree bool *shown = alloc_zeroed(tree.n_records, sizeof *shown);
	autofree uint32_t *pids = alloc_zeroed(tree.n_records, sizeof *pids);
	int rc = procs && levels && shown && pids ? get_processes(&tree, procs, &n) : -1;
	image_file_close(&tree);
	if (rc < 0)
		return -1;
	if (n)
		qsort(procs, n, sizeof *procs, by_parent);
	for (size_t i = 0; i < n; i++)
		pids[i] = procs[i].pid;
	if (n)
		qsort(pids, n, sizeof *pids, by_number);
	for (size_t i = 0; i < n; i++) /* first whom no process of the image has made */
		if (!bsearch(&procs[i].ppid, pids, n, sizeof *pids, by_number))
			show_family(j, procs, n, i, levels, shown);
	for (size_t i = 0; i < n; i++)
		if (!shown[i])
			show_family(j, procs, n, i, levels, shown);
	return 0;
}

/* ---- */

static int show_image(struct json *j, const struct image *im)
{
	if (j->text) {
		json_text(j, "image of version %d, Linux %s, x86_64\n", CRL_IMAGE_VERSION, im->kernel);
		if (show_processes(j, im) < 0)
			return -1;
	} else {
		j->first = true;
		json_begin_object(j, NULL);
		json_uint(j, "version", CRL_IMAGE_VERSION);
		json_string(j, "machine", "x86_64");
		json_string(j, "kernel", im->kernel);
		json_begin_array(j, "files");
	}
	const char *name;
	if (show_file(j, im, "tree") < 0)
		return -1;
	for (size_t i = 0; (name = image_file_name(im, i)); i++)
		if (strcmp(name, "tree") && show_file(j, im, name) < 0)
			return -1;
	if (!j->text) {
		json_end_array(j);
		json_end_object(j);
		json_newline(j);
	}
	return 0;
}

static int show(const char *dir, bool text)
{
	struct image im;
	if (image_open(&im, dir) < 0)
		return -1;
	struct json look = { .text = text }, print = { .out = stdout, .text = text };
	int rc = show_image(&look, &im);
	if (rc == 0)
		rc = show_image(&print, &im);
	if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout)))
		rc = fail_errno("cannot write to standard output");
	image_close(&im);
	return rc;
}

static int usage(const char *what, const char *arg)
{
	fprintf(stderr, "criu-lite: show: %s%s\nusage: criu-lite show DIR [--json]\n", what, arg);
	return 2;
}

int cmd_show(int argc, char **argv)
{
	const char *dir = NULL;
	bool json = false, options = true;
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];
		if (options && !strcmp(a, "--"))
			options = false;
		else if (options && !strcmp(a, "--json"))
			json = true;
		else if (options && (!strcmp(a, "-D") || !strcmp(a, "--images-dir")) && i + 1 < argc && !dir)
			dir = argv[++i];
		else if (options && a[0] == '-')
			return usage("unknown option ", a);
		else if (dir)
			return usage("more than one directory: ", a);
		else
			dir = a;
	}
	if (!dir || !*dir)
		return usage("no directory given", "");
	return show(dir, !json);
}
