/*
 * The directory that becomes an image.
 *
 * 1. image_create makes it, or takes an empty one. A replacement is written to a directory of its own beside it.
 * 2. Files are written (image-write.c).
 * 3. image_publish: everything to disk, then the manifest under its name: from here on it is an image. A replacement is
 *    then exchanged with what it replaces, in one step, and that is removed.
 * 4. image_discard: what was not published is removed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "image-write.h"

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

enum holds { HOLDS_NOTHING, HOLDS_IMAGE, HOLDS_REMAINS, HOLDS_OTHER, HOLDS_UNKNOWN = -1 };

/* What lies in the directory FD; OTHER gets a name that is none of an image's. */
static enum holds look_into(const char *dir, int fd, char other[NAME_MAX + 1])
{
	enum holds holds = HOLDS_NOTHING;
	int own = openat(fd, ".", OPEN_DIR);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	if (!d) {
		fail_errno("cannot read directory %s", dir);
		if (own >= 0)
			close(own);
		return HOLDS_UNKNOWN;
	}
	struct dirent *e;
	while ((errno = 0, e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!image_owns_name(e->d_name)) {
			snprintf(other, NAME_MAX + 1, "%s", e->d_name);
			holds = HOLDS_OTHER;
			break;
		}
		if (!strcmp(e->d_name, "manifest"))
			holds = HOLDS_IMAGE;
		else if (holds == HOLDS_NOTHING)
			holds = HOLDS_REMAINS;
	}
	if (!e && errno) {
		fail_errno("cannot read directory %s", dir);
		holds = HOLDS_UNKNOWN;
	}
	closedir(d);
	return holds;
}

static int refuse(const char *dir, enum holds holds, bool replace, const char *other)
{
	if (holds == HOLDS_OTHER && replace)
		return fail("%s holds '%s', which is no part of an image: --replace would remove it; give another directory",
			    dir, other);
	if (holds == HOLDS_OTHER)
		return fail("%s is not empty (it holds '%s'); give an empty directory or one to be made", dir, other);
	if (holds == HOLDS_IMAGE)
		return fail("%s holds an image; give an empty directory or pass --replace", dir);
	if (holds == HOLDS_REMAINS)
		return fail("%s is not empty: it holds what an interrupted dump left; give an empty directory or pass --replace",
			    dir);
	return -1;
}

static int fail_making(const char *dir)
{
	if (errno == ENOENT)
		return fail("cannot make %s: the directory that it should lie in does not exist; make that first (mkdir -p)", dir);
	if (errno == EACCES || errno == EPERM || errno == EROFS)
		return fail("cannot make %s: %s; give a directory where you may write", dir, strerror(errno));
	return fail_errno("cannot make directory %s", dir);
}

/* Makes DIR or opens what is there. */
static int make_or_open(struct image_writer *w)
{
	struct stat st;
	if (mkdir(w->dir, 0700) == 0)
		w->made = true;
	else if (errno != EEXIST)
		return fail_making(w->dir);
	w->dirfd = open(w->dir, OPEN_DIR);
	if (w->dirfd < 0 && (errno == ENOTDIR || errno == ENOENT || errno == ELOOP))
		return fail("%s is not a directory; give an empty directory or one to be made", w->dir);
	if (w->dirfd < 0)
		return fail_errno("cannot open directory %s", w->dir);
	if (fstat(w->dirfd, &st) < 0)
		return fail_errno("%s", w->dir);
	w->mode = st.st_mode & 07777;
	if (faccessat(w->dirfd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return fail("cannot write in %s: %s; give a directory where you may write", w->dir, strerror(errno));
	return 0;
}

/* A directory that someone else owns keeps its mode: the files' own modes keep them private. */
static int make_private(struct image_writer *w)
{
	if (fchmod(w->dirfd, 0700) < 0 && errno != EPERM)
		return fail_errno("cannot make directory %s private (mode 0700)", w->dir);
	return 0;
}

/* DIR is open and holds what is to be replaced: the directory to be written instead, beside it. */
static int begin_replacement(struct image_writer *w)
{
	autofree char *path = realpath(w->dir, NULL);
	char *slash = path ? strrchr(path, '/') : NULL;
	unsigned long long number;
	if (!slash || !slash[1])
		return fail("%s cannot be replaced: it has no directory above it", w->dir);
	if (getrandom(&number, sizeof number, 0) != sizeof number)
		return fail_errno("random number");
	w->name = strdup(slash + 1);
	w->new_name = format_string(".criu-lite.%016llx", number);
	w->parentfd = openat(w->dirfd, "..", OPEN_DIR);
	if (!w->name || !w->new_name)
		return fail("no memory for a name");
	if (w->parentfd < 0)
		return fail_errno("cannot open the directory that %s lies in", w->dir);
	if (mkdirat(w->parentfd, w->new_name, 0700) < 0)
		return fail_errno("cannot make a directory beside %s for the new image", w->dir);
	w->made = true;
	close(w->dirfd);
	w->dirfd = openat(w->parentfd, w->new_name, OPEN_DIR | O_NOFOLLOW);
	if (w->dirfd < 0)
		return fail_errno("cannot open the directory beside %s for the new image", w->dir);
	return 0;
}

static int begin_dir(struct image_writer *w, bool replace)
{
	char other[NAME_MAX + 1];
	if (make_or_open(w) < 0)
		return -1;
	enum holds holds = look_into(w->dir, w->dirfd, other);
	if (holds == HOLDS_NOTHING)
		return make_private(w);
	w->mode = 0; /* not ours: left as it is */
	if (replace && (holds == HOLDS_IMAGE || holds == HOLDS_REMAINS))
		return begin_replacement(w) < 0 ? -1 : make_private(w);
	return refuse(w->dir, holds, replace, other);
}

struct image_writer *image_create(const char *dir, bool replace)
{
	struct image_writer *w = alloc_zeroed(1, sizeof *w);
	if (!w)
		return NULL;
	w->dirfd = w->parentfd = w->fd = -1;
	w->dir = strdup(dir);
	if (!w->dir)
		fail("no memory for a name");
	if (!w->dir || begin_dir(w, replace) < 0) {
		image_discard(w);
		return NULL;
	}
	return w;
}

int image_dirfd(struct image_writer *w)
{
	return w->dirfd;
}

static int sync_files(struct image_writer *w)
{
	for (size_t i = 0; i < w->n_entries; i++) {
		const char *name = w->entries[i].name;
		autoclose int fd = openat(w->dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || fsync(fd) < 0)
			return fail_errno("cannot bring %s/%s to disk", w->dir, name);
	}
	return 0;
}

static int write_manifest(struct image_writer *w)
{
	size_t len;
	autofree char *text = manifest_format(w->entries, w->n_entries, &len);
	if (!text)
		return -1;
	autoclose int fd = image_new_file(w, "manifest.new");
	if (fd < 0 || image_write_all(w, "manifest.new", fd, text, len, 0) < 0)
		return -1;
	if (fsync(fd) < 0)
		return fail_errno("cannot bring %s/manifest.new to disk", w->dir);
	return 0;
}

/* That DIR itself is there after a crash. A parent that may not be read is left to the file system. */
static int sync_parent(struct image_writer *w)
{
	autoclose int fd = openat(w->dirfd, "..", OPEN_DIR);
	if (fd >= 0 && fsync(fd) < 0 && errno != EINVAL)
		return fail_errno("cannot bring the directory that %s lies in to disk", w->dir);
	return 0;
}

/* Removes what an image's files may be called; whatever else is there keeps the directory. */
static int empty_dir(int fd)
{
	int own = openat(fd, ".", OPEN_DIR);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	if (!d) {
		if (own >= 0)
			close(own);
		return -1;
	}
	unlinkat(fd, "manifest", 0); /* first: what is half removed is no image */
	struct dirent *e;
	while ((e = readdir(d)))
		if (image_owns_name(e->d_name))
			unlinkat(fd, e->d_name, 0);
	closedir(d);
	return 0;
}

/* The new image under DIR's name; the old one, now under the other name, is removed. */
static int exchange(struct image_writer *w)
{
	if (renameat2(w->parentfd, w->new_name, w->parentfd, w->name, RENAME_EXCHANGE) < 0)
		return fail_errno("cannot put the new image in the place of %s (is it a mount point?); give another directory",
				  w->dir);
	if (fsync(w->parentfd) < 0)
		verbose("%s: fsync of the directory above: %s", w->dir, strerror(errno));
	autoclose int old = openat(w->parentfd, w->new_name, OPEN_DIR | O_NOFOLLOW);
	if (old < 0 || empty_dir(old) < 0 || unlinkat(w->parentfd, w->new_name, AT_REMOVEDIR) < 0)
		verbose("%s: the old image could not be removed from %s beside it: %s", w->dir, w->new_name,
			strerror(errno));
	return 0;
}

int image_publish(struct image_writer *w)
{
	if (w->fd >= 0)
		return fail("%s: published before a file was ended", w->dir);
	if (sync_files(w) < 0 || write_manifest(w) < 0 || sync_parent(w) < 0)
		return -1;
	if (renameat(w->dirfd, "manifest.new", w->dirfd, "manifest") < 0)
		return fail_errno("cannot rename %s/manifest.new to manifest", w->dir);
	if (fsync(w->dirfd) < 0) {
		fail_errno("cannot bring directory %s to disk", w->dir);
		unlinkat(w->dirfd, "manifest", 0);
		return -1;
	}
	if (w->new_name && exchange(w) < 0) {
		unlinkat(w->dirfd, "manifest", 0);
		return -1;
	}
	w->published = true;
	return 0;
}

/* The manifests first, so that what is left if this is cut short is no image. */
static void remove_written(struct image_writer *w)
{
	unlinkat(w->dirfd, "manifest.new", 0);
	for (size_t i = 0; i < w->n_entries; i++)
		unlinkat(w->dirfd, w->entries[i].name, 0);
	if (w->made && w->new_name)
		unlinkat(w->parentfd, w->new_name, AT_REMOVEDIR);
	else if (w->made)
		rmdir(w->dir);
	else if (w->mode)
		fchmod(w->dirfd, w->mode);
}

void image_discard(struct image_writer *w)
{
	if (!w)
		return;
	int code = errno;
	image_abandon_file(w);
	if (!w->published && w->dirfd >= 0)
		remove_written(w);
	close_fd(&w->dirfd);
	close_fd(&w->parentfd);
	free(w->dir);
	free(w->name);
	free(w->new_name);
	free(w->entries);
	free(w);
	errno = code;
}
