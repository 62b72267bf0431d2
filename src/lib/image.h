/*
 * An image: a directory of ELF files (core.PID, tree, and contents mem.N, file.N) and the manifest that makes them one.
 *
 * Writing:  image_create → image_file_create/… for each file → image_publish. Until image_publish has returned 0 the
 * directory holds no image; image_discard removes every file that was written (and the directory, if it was made here).
 * Reading:  image_open checks the manifest; image_file_open checks a file's headers and its records' sum.
 */
#ifndef CRL_IMAGE_H
#define CRL_IMAGE_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "records.h"

/* ---- notes: ELF notes in memory, being built ---- */

struct notes {
	char *buf;
	size_t len, cap;
};

/* Appends one ELF note of any owner. -1 with the error set. */
int notes_add(struct notes *n, const char *owner, uint32_t type, const void *desc, size_t len);

/*
 * Appends a record of ours: REC of SIZE bytes begins with a struct record_head, whose two fields are filled here;
 * TAIL (may be NULL) of TAIL_LEN bytes follows it.
 */
int notes_add_record(struct notes *n, uint32_t type, void *rec, size_t size, const void *tail, size_t tail_len);
/* All of MORE behind what is in N. */
int notes_append(struct notes *n, const struct notes *more);
void notes_free(struct notes *n);

/* ---- writing ---- */

struct image_writer;

/* A run of memory whose bytes lie in a core: becomes a PT_LOAD. */
struct segment {
	uint64_t start, len; /* whole pages */
	uint64_t file_offset; /* filled by image_core_begin */
	uint32_t flags;	     /* PF_R | PF_W | PF_X */
};

/*
 * DIR is made where it is missing (mode 0700; its parent must exist), or taken if empty; one that holds anything is
 * refused. With `replace` one that holds an image is taken: the new image is written to a new directory beside it and the
 * two are exchanged by image_publish (renameat2 RENAME_EXCHANGE, then the old one removed). NULL with the error set.
 */
struct image_writer *image_create(const char *dir, bool replace);

/* The directory's descriptor; the writer's. */
int image_dirfd(struct image_writer *w);

/*
 * Begins a core file NAME: ELF header (ET_CORE, EM_X86_64), one PT_NOTE with NOTES, a PT_LOAD for each segment with page
 * aligned file offsets one behind the other in the order given, and a last PT_NOTE at the file's end for the sums
 * (REC_SUMS) that image_core_end writes. More than 65,534 program headers: PN_XNUM. Fills the segments' file_offset.
 * One file at a time: it is ended before the next is begun. Returns the file's descriptor, positioned nowhere in particular, open for reading and writing; owned by the writer
 * until image_core_end. -1 with the error set.
 */
int image_core_begin(struct image_writer *w, const char *name, const struct notes *notes, struct segment *segs, size_t n_segs);

/* The contents up to file offset END are written now: sums what is new, reading it back. */
int image_core_sum(struct image_writer *w, uint64_t end);

/* Sums the rest, writes the sums' note, records the file for the manifest. */
int image_core_end(struct image_writer *w);

/* A file of notes alone (tree). */
int image_notes_file(struct image_writer *w, const char *name, const struct notes *notes);

/*
 * A file NAME of plain contents beside the ELF files: file.N, mem.N: like a core without notes: its contents are
 * one run that begins at *offset in the file, LEN bytes long. Returns the descriptor; ended by image_core_end.
 */
int image_contents_begin(struct image_writer *w, const char *name, uint64_t len, uint64_t *offset);

/* fsync of every file, manifest.new, fsync, rename to manifest, fsync of the directory. After 0 the image is there. */
int image_publish(struct image_writer *w);

/* Removes what was written, unless it was published, and frees. NULL is allowed. */
void image_discard(struct image_writer *w);

/* ---- reading ---- */

struct image {
	char *dir;
	int dirfd;
	struct manifest_entry *entries; /* by name, numbers in it as numbers: core.9, core.10, tree */
	size_t n_entries;
	char kernel[65]; /* the release that it was made on */
};

/* One record as it lies in the file's notes, its two lengths already checked against the note's. */
struct record {
	uint32_t type;
	uint32_t size, tail_len;
	const char *fixed, *tail; /* 4-byte aligned in memory at best: copy what is wider */
	size_t offset; /* of its desc in the file: for messages */
};

struct image_file {
	char name[64];
	const char *dir; /* the image's: for messages */
	int fd;
	char *notes; /* everything but the contents; owns the bytes that the records point into */
	struct record *records;
	size_t n_records;
	/*
	 * As the program headers say, checked: ascending, contiguous in the file, no overflow, within it; in core.* whole
	 * pages, else (file.N, mem.N) at most one, from 0, of any length.
	 */
	struct segment *segs;
	size_t n_segs;
	uint64_t contents_start, contents_end; /* file offsets */
	uint32_t *sums; /* one CRC32C a MiB of contents, the last may be shorter */
	size_t n_sums;
};

/* Reads and checks the manifest: its own sum, version, machine. -1: DIR is no image or not one for us, error set. */
int image_open(struct image *im, const char *dir);
void image_close(struct image *im);
/* The i-th file's name, or NULL past the last. There is always a `tree`. */
const char *image_file_name(const struct image *im, size_t i);

/* Opens NAME, checks length, ELF header, program headers, the sum of everything that is not contents, and every note's bounds. */
int image_file_open(const struct image *im, const char *name, struct image_file *f);
void image_file_close(struct image_file *f);
/* Compares every MiB of contents with its sum, reading them. */
int image_file_check_contents(const struct image_file *f);

/*
 * Copies R's fixed part to OUT (SIZE bytes): zero-extended if shorter; if longer, the rest must be zero. -1: error set,
 * naming F, the record's type and its offset.
 */
int record_get(const struct image_file *f, const struct record *r, void *out, size_t size);

/* The NUL-terminated string at *pos of R's tail; moves *pos past it. NULL with the error set if it does not end. */
const char *record_string(const struct image_file *f, const struct record *r, size_t *pos);

/* ---- */

#define SUM_BLOCK (1u << 20)
/* CRC32C (Castagnoli) of BUF continued from CRC (0 at first). The instruction where the CPU has it. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);

#endif
