/* An image being written: what image-write.c (its files) and image-dir.c (its directory) share. */
#ifndef CRL_IMAGE_WRITE_H
#define CRL_IMAGE_WRITE_H

#include "image-manifest.h"

struct image_writer {
	char *dir;	/* as the user named it */
	int dirfd;	/* where the files are written: DIR, or with a replacement the directory beside it */
	int parentfd;	/* of a replacement: where both lie */
	char *name;	/* of a replacement: DIR's name there */
	char *new_name; /* of a replacement: that of the directory being written */
	bool made;	/* DIR was made here */
	bool published;
	mode_t mode; /* what DIR had, if it was not made here */

	struct manifest_entry *entries; /* one for each file begun */
	size_t n_entries, cap;

	/* the file that is begun and not ended */
	int fd; /* -1: none */
	uint32_t *sums;
	size_t n_sums;
	uint64_t summed; /* up to here */
	char *step;
};

/* A new file of mode 0600; its descriptor. */
int image_new_file(struct image_writer *w, const char *name);
int image_write_all(struct image_writer *w, const char *name, int fd, const void *buf, size_t len, uint64_t offset);
/* Lets go of a file that was begun and will not be ended. */
void image_abandon_file(struct image_writer *w);

#endif
