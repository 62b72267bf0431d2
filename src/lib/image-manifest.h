/*
 * The manifest: the text that makes a directory of files an image, and sums what the files' own sums do not.
 *
 *     criu-lite image 1
 *     machine x86_64
 *     kernel 6.12.5
 *     file core.412 length 1056800 contents 8192 1056768 crc 0a1b2c3d
 *     sum 89abcdef
 *
 * A file's crc is that of all its bytes but the contents (from the first offset to before the second), which are summed in
 * the file itself by the MiB. The last line sums all lines before it.
 */
#ifndef CRL_IMAGE_MANIFEST_H
#define CRL_IMAGE_MANIFEST_H

#include "image.h"

/* What a file may hold beside its contents: it is read into memory at once. */
#define FRAME_MAX (2ull << 30)

struct manifest_entry {
	char name[64];
	uint64_t length;
	uint64_t start, end; /* of the contents */
	uint32_t crc;
};

/* What another criu-lite than this one could not have written. */
bool manifest_name_ok(const char *name);

/* Is NAME one that an image's file may bear, so that replacing an image may remove it? */
bool image_owns_name(const char *name);

/* The manifest's text, to be freed, and its length; NULL with the error set. */
char *manifest_format(const struct manifest_entry *entries, size_t n, size_t *len);

/* NULL if there is none; sets no error. */
const struct manifest_entry *manifest_find(const struct image *im, const char *name);

/* As much of LEN bytes as the file has; -1 with errno set. */
ssize_t image_read_all(int fd, void *buf, size_t len, uint64_t offset);

#endif
