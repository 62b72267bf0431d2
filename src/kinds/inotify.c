/*
 * inotify: what it watches, by path. /proc/PID/fdinfo has each watched inode as a file handle, which finds it wherever it was
 * moved to. fanotify is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#ifndef INOTIFY_IOC_SETNEXTWD
#define INOTIFY_IOC_SETNEXTWD _IOW('I', 0, int32_t)
#endif

/* tail: for each watch its struct rec_inotify_watch, then its path with the NUL */
struct rec_inotify {
	struct rec_description d;
	uint32_t n, pad;
};

struct rec_inotify_watch {
	uint32_t wd, mask;
};

/* ---- dump ---- */

struct watch {
	uint32_t wd, mask, dev; /* dev as the kernel has it: major << 20 | minor */
	unsigned long ino;
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} handle;
};

/* "inotify wd:%x ino:%lx sdev:%x mask:%x ignored_mask:0 fhandle-bytes:%x fhandle-type:%x f_handle:%hex…" */
static bool parse_watch(const char *line, struct watch *w)
{
	unsigned bytes, type;
	int at = 0;
	w->handle.h.handle_bytes = 0;
	if (sscanf(line, "inotify wd:%x ino:%lx sdev:%x mask:%x ignored_mask:%*x fhandle-bytes:%x fhandle-type:%x f_handle:%n", &w->wd,
		   &w->ino, &w->dev, &w->mask, &bytes, &type, &at) < 4)
		return false;
	if (!at || bytes > MAX_HANDLE_SZ)
		return true; /* a file system without handles */
	for (unsigned i = 0; i < bytes; i++) {
		unsigned byte;
		if (sscanf(line + at + 2ul * i, "%2x", &byte) != 1)
			return false;
		w->handle.h.f_handle[i] = byte;
	}
	w->handle.h.handle_bytes = bytes;
	w->handle.h.handle_type = type;
	return true;
}

static bool is_watched(const char *path, const struct watch *w)
{
	struct stat st;
	return lstat(path, &st) == 0 && st.st_ino == w->ino;
}

/* Any descriptor on the file system whose device is DEV: proc_pid_mountinfo(5), fields 3 and 5. -1: none. */
static int open_mount(const char *mountinfo, uint32_t dev)
{
	for (const char *line = mountinfo; line && *line; line = strchr(line, '\n')) {
		unsigned major, minor;
		char point[PATH_MAX];
		line += *line == '\n';
		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major, &minor, point) != 3 || (major << 20 | minor) != dev)
			continue;
		int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			return fd;
	}
	return -1;
}

static char *path_by_handle(struct watch *w)
{
	if (!w->handle.h.handle_bytes)
		return NULL;
	autofree char *mountinfo = proc_read(NULL, "/proc/self/mountinfo");
	autoclose int mount = mountinfo ? open_mount(mountinfo, w->dev) : -1;
	if (mount < 0)
		return NULL;
	autoclose int fd = open_by_handle_at(mount, &w->handle.h, O_PATH | O_CLOEXEC);
	return fd >= 0 ? proc_readlink("/proc/self/fd/%d", fd) : NULL;
}

/* Where there is no handle, or it may not be used: among the files that the tree has open, and its current directories. */
static char *path_in_use(const struct dump *d, const struct watch *w)
{
	for (size_t i = 0; i < d->n_fds; i++)
		if (d->fds[i].link[0] == '/' && d->fds[i].st.st_ino == w->ino && is_watched(d->fds[i].link, w))
			return format_string("%s", d->fds[i].link);
	for (size_t i = 0; i < d->n; i++) {
		if (d->procs[i].state == PROCESS_ZOMBIE)
			continue;
		char *cwd = proc_readlink("/proc/%d/cwd", d->procs[i].host->tid);
		if (cwd && is_watched(cwd, w))
			return cwd;
		free(cwd);
	}
	return NULL;
}

static int add_watch(struct dump *d, const struct fd_entry *f, const char *line, struct notes *tail)
{
	struct watch w;
	if (!parse_watch(line, &w))
		return refuse_fd(f, "an inotify whose fdinfo is not in the form that is known: %.80s", line);
	autofree char *path = path_by_handle(&w);
	if (!path || !is_watched(path, &w)) {
		free(path);
		path = path_in_use(d, &w);
	}
	if (!path)
		return refuse_fd(f, "an inotify that watches inode %lu of device %u:%u, whose path cannot be found; that needs root and a "
				    "file system with file handles, and a file that was not removed",
				 w.ino, w.dev >> 20, w.dev & 0xfffff);
	struct rec_inotify_watch r = {w.wd, w.mask};
	size_t n = strlen(path) + 1;
	char *bigger = grow_array(tail->buf, &tail->cap, tail->len + sizeof r + n, 1);
	if (!bigger)
		return -1;
	tail->buf = bigger;
	memcpy(tail->buf + tail->len, &r, sizeof r);
	memcpy(tail->buf + tail->len + sizeof r, path, n);
	tail->len += sizeof r + n;
	return 0;
}

static int check_no_events(const struct fd_entry *f)
{
	int n = 0;
	autoclose int fd = copy_fd(f);
	if (fd < 0)
		return -1;
	if (ioctl(fd, FIONREAD, &n))
		return fail_errno("pid %d (%s) fd %d: FIONREAD", f->process->pid, f->process->comm, f->fd);
	if (n)
		return refuse_fd(f, "an inotify with %d bytes of events that the program has not read, and nobody else can without taking "
				    "them; try again when it has",
				 n);
	return 0;
}

static int inotify_collect_fd(struct dump *d, struct fd_entry *f)
{
	struct rec_inotify r = {.d = {.id = f->description, .flags = f->flags}};
	if (f->flags & O_PATH)
		return 0;
	if (strcmp(f->link, "anon_inode:[fanotify]") == 0)
		return refuse_fd(f, "a fanotify group, which cannot be dumped; stop what watches the file system first");
	if (strcmp(f->link, "anon_inode:inotify") != 0)
		return 0;
	if (check_no_events(f))
		return -1;
	struct notes tail = {0};
	int ret = 0;
	for (const char *line = f->fdinfo; !ret && line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, "inotify wd:", 11) != 0)
			continue;
		ret = add_watch(d, f, line, &tail);
		r.n++;
	}
	if (!ret)
		ret = notes_add_record(&d->tree, REC_INOTIFY, &r, sizeof r, tail.buf, tail.len);
	notes_free(&tail);
	return ret ? -1 : 1;
}

/* ---- restore ---- */

/* The watch at *POS of the tail, and its path. NULL with the error set. */
static const char *next_watch(const struct image_file *f, const struct record *rec, size_t *pos, struct rec_inotify_watch *w)
{
	if (rec->tail_len - *pos < sizeof *w) {
		fail("tree: an inotify has more watches than its record holds");
		return NULL;
	}
	memcpy(w, rec->tail + *pos, sizeof *w);
	*pos += sizeof *w;
	return record_string(f, rec, pos);
}

static int add_back(int fd, const struct rec_inotify_watch *w, const char *path)
{
	int32_t next = w->wd;
	if (ioctl(fd, INOTIFY_IOC_SETNEXTWD, next))
		return fail_errno("watch %d of an inotify (that needs a kernel with CONFIG_CHECKPOINT_RESTORE)", next);
	int wd = inotify_add_watch(fd, path, (w->mask & ~IN_IGNORED) | IN_DONT_FOLLOW);
	if (wd < 0)
		return fail_errno("%s, which an inotify watched, cannot be watched again", path);
	return wd == next ? 0 : fail("%s, which an inotify watched as %d, is watch %d now", path, next, wd);
}

static int inotify_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_inotify r;
	size_t pos = 0;
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	*id = r.d.id;
	autoclose int fd = inotify_init1(IN_CLOEXEC | (r.d.flags & O_NONBLOCK ? IN_NONBLOCK : 0));
	if (fd < 0)
		return fail_errno("an inotify (see /proc/sys/fs/inotify/max_user_instances)");
	for (uint32_t i = 0; i < r.n; i++) {
		struct rec_inotify_watch w;
		const char *path = next_watch(&re->tree, rec, &pos, &w);
		if (!path || add_back(fd, &w, path))
			return -1;
	}
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* Events by what restore itself has opened and mapped meanwhile: there were none at the dump. */
static int inotify_ready(struct restore *re)
{
	static char buf[65536];
	each_record(&re->tree, rec) {
		struct rec_inotify r;
		int n = 0;
		if (rec->type != REC_INOTIFY)
			continue;
		if (record_get(&re->tree, rec, &r, sizeof r))
			return -1;
		int fd = opened_fd(re, r.d.id);
		if (fd < 0)
			return -1;
		while (ioctl(fd, FIONREAD, &n) == 0 && n > 0)
			if (read(fd, buf, sizeof buf) <= 0)
				return fail_errno("reading an inotify");
	}
	return 0;
}

static void print_inotify(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_inotify r;
	size_t pos = 0;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_begin_array(j, "watches");
	for (uint32_t i = 0; i < r.n; i++) {
		struct rec_inotify_watch w;
		const char *path = next_watch(f, rec, &pos, &w);
		if (!path) {
			j->failed = true;
			return;
		}
		json_begin_object(j, NULL);
		json_uint(j, "wd", w.wd);
		json_hex(j, "mask", w.mask);
		json_string(j, "path", path);
		json_end_object(j);
	}
	json_end_array(j);
}

static const struct record_printer printers[] = {{REC_INOTIFY, "inotify", print_inotify}, {0}};

const struct kind inotify_kind = {
	.name = "inotify",
	.collect_fd = inotify_collect_fd,
	.opens = {REC_INOTIFY},
	.open = inotify_open,
	.ready = inotify_ready,
	.printers = printers,
};
