/*
 * Files that were removed while they were open or mapped: they live on without a name, and so do they in the image.
 *
 * dump     one object a file, whoever has it open or maps it; contents by SEEK_DATA, so that holes stay holes.
 * restore  made where it was, filled, and removed again: its name in /proc is the old one, if that is free.
 *
 * A file that was removed under the name that is known but has others is refused: a copy would part it from them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "objects.h"

/* ---- dump ---- */

static const char gone[] = " (deleted)";

static bool is_gone(const char *link)
{
	size_t n = strlen(link), g = sizeof gone - 1;
	return link[0] == '/' && n > g && strcmp(link + n - g, gone) == 0;
}

/* d_path ends so whether the file or only this name of it is gone; and a file may really be called that. */
static int removed_fd(const struct fd_entry *f)
{
	struct stat st;
	if (!is_gone(f->link) || (stat(f->link, &st) == 0 && st.st_dev == f->st.st_dev && st.st_ino == f->st.st_ino))
		return 0;
	if (S_ISDIR(f->st.st_mode))
		return refuse_fd(f, "of a directory that was removed (%s), which cannot be made again without its name", f->link);
	if (!S_ISREG(f->st.st_mode))
		return 0;
	if (f->st.st_nlink)
		return refuse_fd(f, "of a file whose name was removed (%s), but which has %lu others (find / -xdev -inum %lu); "
				    "remove those, or link it back to this name",
				 f->link, (unsigned long)f->st.st_nlink, (unsigned long)f->st.st_ino);
	if (strstr(f->fdinfo, "LEASE"))
		return refuse_fd(f, "of a file that was removed (%s), under a lease: reading it would break that", f->link);
	return 1;
}

static int ghost_collect_fd(struct dump *d, struct fd_entry *f)
{
	if (strncmp(f->link, "/memfd:", 7) == 0)
		return 0;
	int removed = removed_fd(f);
	if (removed <= 0)
		return removed;
	uint32_t id = object_find(d, f->st.st_dev, f->st.st_ino);
	if (!id) {
		struct rec_object o = {.kind = OBJECT_FILE};
		char name[PATH_MAX];
		snprintf(name, sizeof name, "%.*s", (int)(strlen(f->link) - strlen(gone)), f->link);
		autoclose int fd = object_open_fd(f);
		if (fd < 0)
			return -1;
		id = object_save(d, REC_GHOST, &o, fd, name);
	}
	if (!id)
		return fail_within("pid %d (%s) fd %d", f->process->pid, f->process->comm, f->fd);
	struct rec_object_file r = {.d = {.id = f->description, .flags = f->flags, .pos = f->pos}, .object = id};
	return notes_add_record(&d->tree, REC_GHOST_FILE, &r, sizeof r, NULL, 0) ? -1 : 1;
}

static int take_vma(struct dump *d, struct process *p, struct vma *v)
{
	uint64_t dev = makedev(v->dev_major, v->dev_minor);
	if (v->object || !v->deleted || (v->kind != VMA_FILE_SHARED && v->kind != VMA_FILE_PRIVATE) ||
	    strncmp(v->name, "/SYSV", 5) == 0 || strncmp(v->name, "/[aio]", 6) == 0)
		return 0;
	v->object = object_find(d, dev, v->ino);
	if (v->object)
		return 0;
	struct stat st;
	autoclose int fd = object_open_vma(p, v);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st))
		return fail_errno("pid %d (%s) maps %s", p->pid, p->comm, v->name);
	if (!S_ISREG(st.st_mode) || st.st_nlink)
		return fail("pid %d (%s) has a mapping at %#lx of %s, whose name was removed, but which has %lu others; remove "
			    "those, or link it back to this name",
			    p->pid, p->comm, v->start, v->name, (unsigned long)st.st_nlink);
	struct rec_object o = {.kind = OBJECT_FILE};
	v->object = object_find(d, st.st_dev, st.st_ino);
	if (!v->object)
		v->object = object_save(d, REC_GHOST, &o, fd, v->name);
	return v->object ? object_alias(d, dev, v->ino, v->object) : fail_within("pid %d (%s)", p->pid, p->comm);
}

static int ghost_settle(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++)
		for (size_t k = 0; k < d->procs[i].maps.n; k++)
			if (take_vma(d, &d->procs[i], &d->procs[i].maps.vma[k]))
				return -1;
	return 0;
}

/* ---- restore ---- */

/* Makes the directories above PATH that are not there; *first: where in PATH the first made one ends, 0: none. */
static int make_parents(char *path, size_t *first)
{
	*first = 0;
	for (char *s = strchr(path + 1, '/'); s; s = strchr(s + 1, '/')) {
		*s = 0;
		int ret = mkdir(path, 0700);
		if (ret == 0 && !*first)
			*first = s - path;
		int err = errno;
		*s = '/';
		if (ret && err != EEXIST && err != EROFS && err != EACCES) {
			errno = err;
			return -1;
		}
	}
	return 0;
}

static void remove_parents(char *path, size_t first)
{
	for (char *s = strrchr(path, '/'); first && s && (size_t)(s - path) >= first; s = strrchr(path, '/')) {
		*s = 0;
		rmdir(path);
	}
}

/* A new file of that name, or one like it where the name is taken; without a name once it is there. */
static int make_ghost(const char *name)
{
	char path[PATH_MAX];
	size_t first;
	if (name[0] != '/' || strlen(name) > sizeof path - 32)
		return fail("a removed file's name cannot be '%s'", name);
	strcpy(path, name);
	int fd = make_parents(path, &first) ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	for (unsigned i = 0; fd < 0 && errno == EEXIST && i < 1000; i++) {
		sprintf(path, "%s.criu-lite.%u", name, i);
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	if (fd < 0)
		fail_errno("%s, which was removed while in use, cannot be made again", name);
	else
		unlink(path);
	remove_parents(path, first);
	return fd;
}

static int ghost_open(struct restore *r, const struct record *rec, uint32_t *id)
{
	struct rec_object o;
	const char *name;
	if (rec->type == REC_GHOST_FILE)
		return object_open_file(r, rec, id);
	if (object_get(r, rec, &o, &name))
		return -1;
	*id = o.id;
	int fd = make_ghost(name);
	if (fd >= 0 && object_fill(r, rec, &o, fd)) {
		close(fd);
		return fail_within("%s", name);
	}
	/* it may be a program: that must be executable, and nobody may have it open for writing */
	int again = fd < 0 ? -1 : fchmod(fd, (o.mode & 0777) | 0600) ? fail_errno("%s: its mode", name) : object_reopen(fd, O_RDONLY);
	close_fd(&fd);
	return again;
}

/* All have opened what they need: the mode may forbid that. Then the owner first, who takes the set-id bits. */
static int ghost_ready(struct restore *r)
{
	for (size_t i = 0; i < r->n_opened; i++) {
		struct opened *w = &r->opened[i];
		struct rec_object o;
		const char *name;
		if (w->fd < 0 || !w->record || w->record->type != REC_GHOST)
			continue;
		if (object_get(r, w->record, &o, &name))
			return -1;
		if ((fchown(w->fd, o.uid, o.gid) && errno != EPERM) || fchmod(w->fd, o.mode & 07777))
			return fail_errno("%s, which was removed while in use: its owner and mode", name);
	}
	return 0;
}

static const struct record_printer printers[] = {
	{REC_GHOST, "ghost", print_object},
	{REC_GHOST_FILE, "ghost_file", print_object_file},
	{0},
};

const struct kind ghost_kind = {
	.name = "ghost",
	.collect_fd = ghost_collect_fd,
	.settle = ghost_settle,
	.opens = {REC_GHOST, REC_GHOST_FILE},
	.open = ghost_open,
	.ready = ghost_ready,
	.printers = printers,
};
