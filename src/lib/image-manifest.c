/* The manifest's text: writing it, and reading it back without trusting it. */
#include "image-manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "error.h"

#define MAGIC	     "criu-lite image "
#define MACHINE	     "x86_64"
#define MANIFEST_MAX (256u << 20)
#define SUM_LINE     13 /* "sum ", eight digits, newline */

bool manifest_name_ok(const char *name)
{
	size_t n = strlen(name);
	if (n == 0 || n >= sizeof ((struct manifest_entry *)0)->name || name[0] == '.' || !strncmp(name, "manifest", 8))
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

bool image_owns_name(const char *name)
{
	static const char *const numbered[] = { "core.", "mem.", "file." };
	if (!strcmp(name, "manifest") || !strcmp(name, "manifest.new") || !strcmp(name, "tree"))
		return true;
	for (size_t i = 0; i < sizeof numbered / sizeof *numbered; i++) {
		size_t n = strlen(numbered[i]);
		if (!strncmp(name, numbered[i], n))
			return name[n] && strspn(name + n, "0123456789") == strlen(name + n);
	}
	return false;
}

char *manifest_format(const struct manifest_entry *entries, size_t n, size_t *len)
{
	struct utsname u;
	char *text = NULL;
	if (uname(&u) < 0) {
		fail_errno("uname");
		return NULL;
	}
	FILE *f = open_memstream(&text, len);
	if (!f) {
		fail_errno("memory for the manifest");
		return NULL;
	}
	fprintf(f, MAGIC "%d\nmachine " MACHINE "\nkernel %s\n", CRL_IMAGE_VERSION, u.release);
	for (size_t i = 0; i < n; i++) {
		const struct manifest_entry *e = &entries[i];
		fprintf(f, "file %s length %" PRIu64 " contents %" PRIu64 " %" PRIu64 " crc %08x\n", e->name, e->length,
			e->start, e->end, e->crc);
	}
	fflush(f);
	if (!ferror(f))
		fprintf(f, "sum %08x\n", crc32c(0, text, *len));
	bool bad = ferror(f);
	if (fclose(f) != 0 || bad) {
		fail("no memory for the manifest");
		free(text);
		return NULL;
	}
	return text;
}

/* ---- reading ---- */

/* What is left to be read of the text. */
struct cursor {
	const char *p, *end;
};

static bool take(struct cursor *c, const char *literal)
{
	size_t n = strlen(literal);
	if ((size_t)(c->end - c->p) < n || memcmp(c->p, literal, n))
		return false;
	c->p += n;
	return true;
}

/* Decimal or hexadecimal (lower case) digits, at least one. */
static bool take_number(struct cursor *c, unsigned base, uint64_t *v)
{
	const char *begin = c->p;
	for (*v = 0; c->p < c->end; c->p++) {
		const char *digits = "0123456789abcdef", *d = *c->p ? strchr(digits, *c->p) : NULL;
		if (!d || (unsigned)(d - digits) >= base)
			break;
		if (__builtin_mul_overflow(*v, base, v) || __builtin_add_overflow(*v, d - digits, v))
			return false;
	}
	return c->p > begin;
}

/* Printable bytes up to END, which is passed over. */
static bool take_word(struct cursor *c, char end, char *word, size_t size)
{
	size_t n = 0;
	for (; c->p < c->end && *c->p != end; c->p++) {
		if (*c->p <= ' ' || *c->p > '~' || n + 1 >= size)
			return false;
		word[n++] = *c->p;
	}
	word[n] = 0;
	return n && c->p++ < c->end;
}

static bool take_entry(struct cursor *c, struct manifest_entry *e)
{
	uint64_t crc;
	if (!take(c, "file ") || !take_word(c, ' ', e->name, sizeof e->name) || !take(c, "length ") ||
	    !take_number(c, 10, &e->length) || !take(c, " contents ") || !take_number(c, 10, &e->start) || !take(c, " ") ||
	    !take_number(c, 10, &e->end) || !take(c, " crc ") || !take_number(c, 16, &crc) || !take(c, "\n"))
		return false;
	e->crc = crc;
	return crc <= UINT32_MAX && manifest_name_ok(e->name) && e->start <= e->end && e->end <= e->length &&
	       e->length <= INT64_MAX;
}

static int by_name(const void *a, const void *b)
{
	return strverscmp(((const struct manifest_entry *)a)->name, ((const struct manifest_entry *)b)->name);
}

static int take_entries(struct image *im, struct cursor *c, const char *text)
{
	size_t cap = 0;
	while (c->p < c->end) {
		struct manifest_entry *e = grow_array(im->entries, &cap, im->n_entries + 1, sizeof *e);
		if (!e)
			return -1;
		im->entries = e;
		const char *line = c->p;
		if (!take_entry(c, &e[im->n_entries]))
			return fail("%s/manifest: no sense in the line at offset %zu", im->dir, line - text);
		im->n_entries++;
	}
	if (im->n_entries)
		qsort(im->entries, im->n_entries, sizeof *im->entries, by_name);
	for (size_t i = 1; i < im->n_entries; i++)
		if (!strcmp(im->entries[i - 1].name, im->entries[i].name))
			return fail("%s/manifest: names %s twice", im->dir, im->entries[i].name);
	if (!manifest_find(im, "tree"))
		return fail("%s/manifest: names no file 'tree'", im->dir);
	return 0;
}

static int check_sum(const struct image *im, const char *text, size_t len)
{
	char sum[SUM_LINE + 1];
	if (len >= SUM_LINE) {
		snprintf(sum, sizeof sum, "sum %08x\n", crc32c(0, text, len - SUM_LINE));
		if (!memcmp(sum, text + len - SUM_LINE, SUM_LINE))
			return 0;
	}
	return fail("%s/manifest is damaged or cut short: its last line is not the sum of the %zu bytes before it; take another copy of the image",
		    im->dir, len >= SUM_LINE ? len - SUM_LINE : len);
}

static int parse(struct image *im, const char *text, size_t len)
{
	struct cursor c = { text, text + len };
	char machine[65];
	uint64_t version;
	if (!take(&c, MAGIC))
		return fail("%s is not an image, or a damaged one: %s/manifest does not begin with '" MAGIC "'", im->dir, im->dir);
	if (check_sum(im, text, len) < 0)
		return -1;
	c.end -= SUM_LINE;
	if (!take_number(&c, 10, &version) || !take(&c, "\n"))
		return fail("%s/manifest: no sense in the version at offset %zu", im->dir, strlen(MAGIC));
	if (version != CRL_IMAGE_VERSION)
		return fail("%s is an image of version %" PRIu64 ", this criu-lite reads version %d; use the criu-lite that made it",
			    im->dir, version, CRL_IMAGE_VERSION);
	if (!take(&c, "machine ") || !take_word(&c, '\n', machine, sizeof machine) || !take(&c, "kernel ") ||
	    !take_word(&c, '\n', im->kernel, sizeof im->kernel))
		return fail("%s/manifest: no sense in machine and kernel, before offset %zu", im->dir, c.p - text);
	if (strcmp(machine, MACHINE))
		return fail("%s was made on %s and cannot be used on " MACHINE "; restore it on a machine of its own kind",
			    im->dir, machine);
	return take_entries(im, &c, text);
}

/* The manifest's text, to be freed. */
static char *read_manifest(const struct image *im, size_t *len)
{
	struct stat st;
	autoclose int fd = openat(im->dirfd, "manifest", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		fail("%s is not an image: it has no manifest (a dump that was cut short leaves none)", im->dir);
		return NULL;
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		fail_errno("cannot open %s/manifest", im->dir);
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > MANIFEST_MAX) {
		fail("%s/manifest is not a regular file of at most 256 MiB: this is no image", im->dir);
		return NULL;
	}
	char *text = alloc_zeroed(st.st_size + 1, 1);
	if (!text)
		return NULL;
	ssize_t n = image_read_all(fd, text, st.st_size, 0);
	if (n < 0) {
		fail_errno("cannot read %s/manifest", im->dir);
		free(text);
		return NULL;
	}
	*len = n;
	return text;
}

int image_open(struct image *im, const char *dir)
{
	size_t len;
	*im = (struct image){ .dirfd = -1, .dir = strdup(dir) };
	if (!im->dir)
		return fail("no memory for a name");
	im->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (im->dirfd < 0 && errno == ENOTDIR)
		fail("%s is not an image: it is not a directory", dir);
	else if (im->dirfd < 0)
		fail_errno("cannot open image %s", dir);
	autofree char *text = im->dirfd < 0 ? NULL : read_manifest(im, &len);
	if (!text || parse(im, text, len) < 0) {
		image_close(im);
		return -1;
	}
	return 0;
}

void image_close(struct image *im)
{
	if (im->dir)
		close_fd(&im->dirfd);
	free(im->dir);
	free(im->entries);
	*im = (struct image){ .dirfd = -1 };
}

const char *image_file_name(const struct image *im, size_t i)
{
	return i < im->n_entries ? im->entries[i].name : NULL;
}

const struct manifest_entry *manifest_find(const struct image *im, const char *name)
{
	struct manifest_entry key;
	if (!im->n_entries || strlen(name) >= sizeof key.name)
		return NULL;
	strcpy(key.name, name);
	return bsearch(&key, im->entries, im->n_entries, sizeof key, by_name);
}
