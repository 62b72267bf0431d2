/* The manifest's text: writing it, and reading it back without trusting it. */
#include "image-manifest.h"

#include <ctype.h>
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
