/*
 * Writing an image's files.
 *
 * One file:  ELF header, program headers, (section header 0 where they are too many to count in 16 bits,) notes,
 *            zeros to the next page, contents, zeros to 4 bytes, the sums' note.
 *
 * All sizes are known when a file is begun, so that all before the contents is written then; the contents come from
 * someone else (the parasite), in order; the sums are made behind it. image-dir.c looks after the directory.
 */
#include "image-write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

#define PAGE	 4096u
#define SUM_STEP (256u << 10) /* read at once while summing: fits a core's own cache */

static uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static int fail_writing(struct image_writer *w, const char *name, uint64_t offset)
{
	const char *advice = errno == ENOSPC || errno == EDQUOT ?
		"free some space or give a directory on another disk" :
		errno == EFBIG ? "raise the limit on file size (ulimit -f)" : NULL;
	if (advice)
		return fail("%s/%s: cannot write at offset %llu: %s; %s", w->dir, name, (unsigned long long)offset,
			    strerror(errno), advice);
	return fail_errno("%s/%s: cannot write at offset %llu", w->dir, name, (unsigned long long)offset);
}

int image_write_all(struct image_writer *w, const char *name, int fd, const void *buf, size_t len, uint64_t offset)
{
	const char *p = buf;
	while (len) {
		ssize_t n = pwrite(fd, p, len, offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return fail_writing(w, name, offset);
		p += n;
		len -= n;
		offset += n;
	}
	return 0;
}

int image_new_file(struct image_writer *w, const char *name)
{
	int fd = openat(w->dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail_errno("cannot make %s/%s", w->dir, name);
	if (fchmod(fd, 0600) < 0) {
		fail_errno("cannot make %s/%s private (mode 0600)", w->dir, name);
		close(fd);
		unlinkat(w->dirfd, name, 0);
		return -1;
	}
	return fd;
}

static size_t sums_note_size(size_t n_sums)
{
	return n_sums ? sizeof(Elf64_Nhdr) + 12 /* the owner, padded */ + sizeof(struct record_head) + 4 * n_sums : 0;
}

/* Where everything lies in the file. */
struct layout {
	size_t phnum, notes_offset, start;
	uint64_t end, sums_offset;
	size_t n_sums;
};

static int lay_out(struct layout *l, const char *name, const struct notes *notes, struct segment *segs, size_t n_segs)
{
	uint64_t len = 0, last = 0;
	for (size_t i = 0; i < n_segs; i++) {
		struct segment *s = &segs[i];
		uint64_t seg_end;
		if (!s->len || s->start < last || __builtin_add_overflow(s->start, s->len, &seg_end))
			return fail("%s: segment %zu at 0x%llx is empty or not above the one before it", name, i,
				    (unsigned long long)s->start);
		last = seg_end;
		len += s->len;
	}
	if (len > INT64_MAX / 2)
		return fail("%s: its contents are too long for a file", name);
	l->n_sums = (len + SUM_BLOCK - 1) / SUM_BLOCK;
	l->phnum = 1 + n_segs + (l->n_sums ? 1 : 0);
	l->notes_offset = sizeof(Elf64_Ehdr) + l->phnum * sizeof(Elf64_Phdr);
	if (l->phnum >= PN_XNUM)
		l->notes_offset += sizeof(Elf64_Shdr);
	l->start = align_up(l->notes_offset + notes->len, PAGE);
	if (!len)
		l->start = l->notes_offset + notes->len;
	l->end = l->start + len;
	if (l->start > FRAME_MAX / 2) /* the rest for the sums */
		return fail("%s: more than 1 GiB of records", name);
	l->sums_offset = align_up(l->end, 4);
	uint64_t offset = l->start;
	for (size_t i = 0; i < n_segs; i++) {
		segs[i].file_offset = offset;
		offset += segs[i].len;
	}
	return 0;
}

static void put_elf_header(char *head, const struct layout *l)
{
	bool many = l->phnum >= PN_XNUM;
	Elf64_Ehdr e = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof e,
		.e_ehsize = sizeof e,
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = many ? PN_XNUM : l->phnum,
	};
	if (many) {
		Elf64_Shdr s = { .sh_size = 1, .sh_info = l->phnum };
		e.e_shoff = l->notes_offset - sizeof s;
		e.e_shentsize = sizeof s;
		e.e_shnum = 1;
		memcpy(head + e.e_shoff, &s, sizeof s);
	}
	memcpy(head, &e, sizeof e);
}

static void put_program_headers(char *head, const struct layout *l, const struct notes *notes,
				const struct segment *segs, size_t n_segs)
{
	Elf64_Phdr *ph = (Elf64_Phdr *)(head + sizeof(Elf64_Ehdr));
	*ph++ = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = l->notes_offset, .p_filesz = notes->len, .p_align = 4 };
	for (size_t i = 0; i < n_segs; i++)
		*ph++ = (Elf64_Phdr){
			.p_type = PT_LOAD,
			.p_flags = segs[i].flags & (PF_R | PF_W | PF_X),
			.p_offset = segs[i].file_offset,
			.p_vaddr = segs[i].start,
			.p_filesz = segs[i].len,
			.p_memsz = segs[i].len,
			.p_align = PAGE,
		};
	if (l->n_sums)
		*ph = (Elf64_Phdr){
			.p_type = PT_NOTE,
			.p_offset = l->sums_offset,
			.p_filesz = sums_note_size(l->n_sums),
			.p_align = 4,
		};
}

/* All before the contents, in memory; to be freed. */
static char *make_head(const struct layout *l, const struct notes *notes, const struct segment *segs, size_t n_segs)
{
	char *head = alloc_zeroed(l->start, 1);
	if (!head)
		return NULL;
	put_elf_header(head, l);
	put_program_headers(head, l, notes, segs, n_segs);
	if (notes->len)
		memcpy(head + l->notes_offset, notes->buf, notes->len);
	return head;
}

static void forget_current(struct image_writer *w)
{
	if (w->fd >= 0)
		close(w->fd);
	free(w->sums);
	free(w->step);
	w->fd = -1;
	w->sums = NULL;
	w->step = NULL;
}

/* The file's entry in the manifest, so that it is removed if all fails. */
static struct manifest_entry *add_entry(struct image_writer *w, const char *name, const struct layout *l)
{
	struct manifest_entry *e = grow_array(w->entries, &w->cap, w->n_entries + 1, sizeof *e);
	if (!e)
		return NULL;
	w->entries = e;
	e += w->n_entries;
	*e = (struct manifest_entry){ .start = l->start, .end = l->end };
	snprintf(e->name, sizeof e->name, "%s", name);
	e->length = l->sums_offset + sums_note_size(l->n_sums);
	return e;
}

static int begin_file(struct image_writer *w, const char *name, const struct notes *notes, struct segment *segs,
		      size_t n_segs)
{
	struct layout l = { 0 };
	if (w->fd >= 0)
		return fail("%s/%s is begun before %s is ended", w->dir, name, w->entries[w->n_entries - 1].name);
	if (!manifest_name_ok(name))
		return fail("'%s' cannot be the name of an image's file", name);
	if (lay_out(&l, name, notes, segs, n_segs) < 0)
		return -1;
	autofree char *head = make_head(&l, notes, segs, n_segs);
	struct manifest_entry *e = head ? add_entry(w, name, &l) : NULL;
	if (!e)
		return -1;
	w->fd = image_new_file(w, name);
	if (w->fd < 0)
		return -1;
	w->n_entries++;
	w->n_sums = l.n_sums;
	w->summed = l.start;
	w->sums = alloc_zeroed(l.n_sums, sizeof *w->sums);
	w->step = l.n_sums ? malloc(SUM_STEP) : NULL;
	if (!w->sums || (l.n_sums && !w->step)) {
		fail("no memory for %s's sums", name);
		goto failed;
	}
	e->crc = crc32c(0, head, l.start);
	if (image_write_all(w, name, w->fd, head, l.start, 0) < 0)
		goto failed;
	return w->fd;
failed:
	forget_current(w);
	return -1;
}

int image_core_begin(struct image_writer *w, const char *name, const struct notes *notes, struct segment *segs, size_t n_segs)
{
	for (size_t i = 0; i < n_segs; i++)
		if ((segs[i].start | segs[i].len) & (PAGE - 1))
			return fail("%s: segment %zu at 0x%llx is not whole pages", name, i,
				    (unsigned long long)segs[i].start);
	return begin_file(w, name, notes, segs, n_segs);
}

int image_contents_begin(struct image_writer *w, const char *name, uint64_t len, uint64_t *offset)
{
	struct segment whole = { .len = len, .flags = PF_R };
	int fd = begin_file(w, name, &(struct notes){ 0 }, &whole, len ? 1 : 0);
	if (fd >= 0)
		*offset = w->summed;
	return fd;
}

/*
 * Read, not mapped: a copy into the core's own cache costs less than the page faults, and a file that someone
 * truncates is an error instead of SIGBUS.
 */
int image_core_sum(struct image_writer *w, uint64_t end)
{
	const struct manifest_entry *e = &w->entries[w->n_entries - 1];
	if (w->fd < 0 || end > e->end)
		return fail("%s: no contents at offset %llu to be summed", w->dir, (unsigned long long)end);
	while (w->summed < end) {
		uint64_t done = w->summed - e->start;
		size_t want = SUM_STEP - done % SUM_STEP;
		if (want > end - w->summed)
			want = end - w->summed;
		ssize_t n = pread(w->fd, w->step, want, w->summed);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno("%s/%s: cannot read back at offset %llu", w->dir, e->name,
					  (unsigned long long)w->summed);
		if (n == 0)
			return fail("%s/%s: ends at offset %llu, before its contents do: someone else changed it",
				    w->dir, e->name, (unsigned long long)w->summed);
		uint32_t *sum = &w->sums[done / SUM_BLOCK];
		*sum = crc32c(*sum, w->step, n);
		w->summed += n;
	}
	return 0;
}

/* The padding behind the contents and the sums' note, as they lie in the file. */
static int write_sums(struct image_writer *w, struct manifest_entry *e)
{
	static const char zeros[4];
	struct notes notes = { 0 };
	struct record_head rec;
	size_t pad = align_up(e->end, 4) - e->end;
	if (notes_add_record(&notes, REC_SUMS, &rec, sizeof rec, w->sums, w->n_sums * sizeof *w->sums) < 0)
		return -1;
	e->crc = crc32c(crc32c(e->crc, zeros, pad), notes.buf, notes.len);
	int rc = image_write_all(w, e->name, w->fd, zeros, pad, e->end);
	if (rc == 0)
		rc = image_write_all(w, e->name, w->fd, notes.buf, notes.len, e->end + pad);
	notes_free(&notes);
	return rc;
}

int image_core_end(struct image_writer *w)
{
	struct manifest_entry *e = &w->entries[w->n_entries - 1];
	struct stat st;
	if (w->fd < 0)
		return fail("%s: no file to be ended", w->dir);
	if (image_core_sum(w, e->end) < 0)
		return -1;
	if (w->n_sums && write_sums(w, e) < 0)
		return -1;
	if (fstat(w->fd, &st) < 0)
		return fail_errno("%s/%s", w->dir, e->name);
	if ((uint64_t)st.st_size != e->length)
		return fail("%s/%s: is %llu bytes long instead of %llu: someone else changed it", w->dir, e->name,
			    (unsigned long long)st.st_size, (unsigned long long)e->length);
	forget_current(w);
	return 0;
}

int image_notes_file(struct image_writer *w, const char *name, const struct notes *notes)
{
	return begin_file(w, name, notes, NULL, 0) < 0 ? -1 : image_core_end(w);
}

void image_abandon_file(struct image_writer *w)
{
	forget_current(w);
}
