/*
 * Regular files, directories and the plain devices of memory, by path: flags, offset, and whether the file is still the same.
 *
 * The rule for a file that changed between dump and restore: it may have grown or been written to (a log), it may not be
 * gone, of another type, or shorter than it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/proc.h"
#include "plan.h"

/* drivers/char/mem.c: null, zero, full, random, urandom; no state but the position */
static bool plain_device(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && major(st->st_rdev) == 1 && minor(st->st_rdev) >= 3;
}

static int check_path(const struct fd_entry *f)
{
	struct stat st;
	static const char gone[] = " (deleted)";
	size_t n = strlen(f->link), g = sizeof gone - 1;
	bool same = stat(f->link, &st) == 0 && st.st_dev == f->st.st_dev && st.st_ino == f->st.st_ino;
	/* a file may really be called so */
	if (!f->st.st_nlink || (!same && n > g && strcmp(f->link + n - g, gone) == 0))
		return refuse_fd(f, "of a file that was removed (%s), which cannot be dumped", f->link);
	if (stat(f->link, &st))
		return fail_errno("pid %d (%s) fd %d: %s", f->process->pid, f->process->comm, f->fd, f->link);
	if (st.st_dev != f->st.st_dev || st.st_ino != f->st.st_ino)
		return refuse_fd(f, "of %s, but another file lies there now", f->link);
	return 0;
}

static int files_collect_fd(struct dump *d, struct fd_entry *f)
{
	bool path_only = f->flags & O_PATH;
	if (f->link[0] != '/')
		return 0;
	if (!path_only && !S_ISREG(f->st.st_mode) && !S_ISDIR(f->st.st_mode) && !plain_device(&f->st))
		return 0;
	if (strncmp(f->link, "/memfd:", 7) == 0)
		return 0;
	if (check_path(f))
		return -1;
	struct rec_file r = {
		.d = {.id = f->description, .flags = f->flags, .pos = f->pos},
		.size = f->st.st_size,
		.mtime_ns = f->st.st_mtim.tv_sec * 1000000000ull + f->st.st_mtim.tv_nsec,
		.ino = f->st.st_ino,
		.mode = f->st.st_mode,
		.rdev = f->st.st_rdev,
	};
	return notes_add_record(&d->tree, REC_FILE, &r, sizeof r, f->link, strlen(f->link) + 1) ? -1 : 1;
}

static int check_same(const struct rec_file *r, const char *path, const struct stat *st)
{
	if ((st->st_mode & S_IFMT) != (r->mode & S_IFMT) || (S_ISCHR(st->st_mode) && st->st_rdev != r->rdev))
		return fail("%s, which was open, is something of another type now; put the old file back", path);
	if (S_ISREG(st->st_mode) && (uint64_t)st->st_size < r->size)
		return fail("%s, which was open, has become shorter since the dump (%lu bytes, then %lu); put the old file back",
			    path, (unsigned long)st->st_size, r->size);
	return 0;
}

static int files_open(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_file r;
	struct stat st;
	size_t pos = 0;
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	const char *path = record_string(&re->tree, rec, &pos);
	if (!path)
		return -1;
	*id = r.d.id;
	int fd = open(path, (r.d.flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY)) | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return fail("%s, which was open, is gone; put the file back that was there at the dump", path);
	if (fd < 0 || fstat(fd, &st))
		return fail_errno("%s, which was open, cannot be opened again", path);
	if (check_same(&r, path, &st)) {
		close(fd);
		return -1;
	}
	if (!(r.d.flags & O_PATH) && !S_ISCHR(st.st_mode) && lseek(fd, r.d.pos, SEEK_SET) < 0) {
		fail_errno("%s: seeking to %lu", path, r.d.pos);
		close(fd);
		return -1;
	}
	return fd;
}

const struct kind files_kind = {
	.name = "files",
	.collect_fd = files_collect_fd,
	.opens = {REC_FILE},
	.open = files_open,
};
