/*
 * Reading an image's files: nothing in them is trusted.
 *
 * What the manifest says (its own sum is right by now) is where a file's contents lie. All the rest of the file is read
 * into memory at once and compared with its sum before any of it is looked at; and because a sum stops accidents, not
 * people, every length, offset and count in it is checked all the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "image-manifest.h"

#define PAGE 4096u

ssize_t image_read_all(int fd, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;
	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, offset + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

/* What is wrong in F at OFFSET; always -1. */
static int bad(const struct image_file *f, uint64_t offset, const char *what)
{
	return fail("%s/%s: %s at offset %llu; the image is damaged, take another copy of it", f->dir, f->name, what,
		    (unsigned long long)offset);
}

/* The file without its contents: [0, start) and [end, length) of the file, one behind the other. */
struct frame {
	const struct manifest_entry *e;
	const char *bytes;
	size_t head, len; /* HEAD of the LEN bytes lie before the contents */
};

static int read_frame(struct image_file *f, struct frame *fr, const struct manifest_entry *e)
{
	*fr = (struct frame){ .e = e, .head = e->start, .len = e->length - (e->end - e->start) };
	if (fr->len > FRAME_MAX)
		return bad(f, 0, "more than 2 GiB of records");
	f->notes = malloc(fr->len + 1);
	if (!f->notes)
		return fail("%s/%s: no memory for %zu bytes of records", f->dir, f->name, fr->len);
	fr->bytes = f->notes;
	ssize_t a = image_read_all(f->fd, f->notes, fr->head, 0);
	ssize_t b = a < 0 ? -1 : image_read_all(f->fd, f->notes + fr->head, fr->len - fr->head, e->end);
	if (b < 0)
		return fail_errno("cannot read %s/%s", f->dir, f->name);
	if ((size_t)a != fr->head || (size_t)b != fr->len - fr->head)
		return fail("%s/%s became shorter while it was read", f->dir, f->name);
	uint32_t crc = crc32c(0, fr->bytes, fr->len);
	if (crc != e->crc)
		return fail("%s/%s is damaged between offsets 0 and %llu or %llu and %llu: its sum is %08x, its manifest says %08x; take another copy of the image",
			    f->dir, f->name, (unsigned long long)e->start, (unsigned long long)e->end,
			    (unsigned long long)e->length, crc, e->crc);
	return 0;
}

/* The program headers' number; 0 with the error set. */
static size_t read_elf_header(const struct image_file *f, const struct frame *fr)
{
	static const unsigned char ident[EI_NIDENT] = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT };
	Elf64_Ehdr h;
	Elf64_Shdr s;
	if (fr->head < sizeof h)
		return bad(f, 0, "no room for an ELF header"), 0;
	memcpy(&h, fr->bytes, sizeof h);
	if (memcmp(h.e_ident, ident, sizeof ident) || h.e_type != ET_CORE || h.e_machine != EM_X86_64 ||
	    h.e_version != EV_CURRENT || h.e_phoff != sizeof h || h.e_phentsize != sizeof(Elf64_Phdr))
		return bad(f, 0, "no ELF header of an x86_64 core"), 0;
	uint64_t n = h.e_phnum, more = 0;
	if (n == PN_XNUM) {
		if (h.e_shnum != 1 || h.e_shentsize != sizeof s || h.e_shoff < sizeof h || fr->head < sizeof s ||
		    h.e_shoff > fr->head - sizeof s)
			return bad(f, 0, "no section header for the number of program headers"), 0;
		memcpy(&s, fr->bytes + h.e_shoff, sizeof s);
		n = s.sh_info;
		more = sizeof s;
		if (h.e_shoff != sizeof h + n * sizeof(Elf64_Phdr))
			return bad(f, h.e_shoff, "a wrong number of program headers"), 0;
	}
	if (n == 0 || sizeof h + n * sizeof(Elf64_Phdr) + more > fr->head)
		return bad(f, 0, "a wrong number of program headers"), 0;
	return n;
}

static Elf64_Phdr program_header(const struct frame *fr, size_t i)
{
	Elf64_Phdr p;
	memcpy(&p, fr->bytes + sizeof(Elf64_Ehdr) + i * sizeof p, sizeof p);
	return p;
}

static int add_segment(struct image_file *f, const Elf64_Phdr *p, uint64_t at, uint64_t last, uint64_t offset)
{
	uint64_t end;
	bool core = !strncmp(f->name, "core.", 5);
	if (p->p_filesz != p->p_memsz || !p->p_filesz || __builtin_add_overflow(p->p_vaddr, p->p_filesz, &end))
		return bad(f, at, "a segment of wrong length");
	if (core ? (p->p_vaddr | p->p_filesz) % PAGE != 0 : p->p_vaddr != 0 || f->n_segs)
		return bad(f, at, "a segment that is not whole pages");
	if (p->p_vaddr < last)
		return bad(f, at, "a segment that is not above the one before it");
	if (p->p_offset != offset || offset % PAGE || p->p_filesz > f->contents_end - offset)
		return bad(f, at, "a segment that lies elsewhere in the file");
	f->segs[f->n_segs++] = (struct segment){ p->p_vaddr, p->p_filesz, p->p_offset, p->p_flags };
	return 0;
}

/* The N program headers from the second on, but for the last if that is the sums' note. */
static int read_segments(struct image_file *f, const struct frame *fr, size_t n)
{
	uint64_t offset = f->contents_start, last = 0;
	f->segs = alloc_zeroed(n, sizeof *f->segs);
	if (!f->segs)
		return -1;
	for (size_t i = 0; i < n; i++) {
		Elf64_Phdr p = program_header(fr, 1 + i);
		uint64_t at = sizeof(Elf64_Ehdr) + (1 + i) * sizeof p;
		if (p.p_type != PT_LOAD)
			return bad(f, at, "a program header of unknown type");
		if (add_segment(f, &p, at, last, offset) < 0)
			return -1;
		last = p.p_vaddr + p.p_filesz;
		offset += p.p_filesz;
	}
	if (offset != f->contents_end)
		return bad(f, sizeof(Elf64_Ehdr), "contents that no program header accounts for");
	return 0;
}

/* One note at *POS of the SIZE bytes at P, which lie at file offset BASE; moves *POS behind it. */
struct note {
	uint32_t type;
	bool ours;
	const char *desc;
	size_t len;
	uint64_t offset;
};

static int read_note(const struct image_file *f, const char *p, size_t size, uint64_t base, size_t *pos, struct note *note)
{
	Elf64_Nhdr h;
	if (size - *pos < sizeof h)
		return bad(f, base + *pos, "half a note");
	memcpy(&h, p + *pos, sizeof h);
	size_t room = size - *pos - sizeof h;
	uint64_t name = ((uint64_t)h.n_namesz + 3) & ~3ull, desc = ((uint64_t)h.n_descsz + 3) & ~3ull;
	if (name > room || desc > room - name)
		return bad(f, base + *pos, "a note that is longer than its segment");
	const char *owner = p + *pos + sizeof h;
	note->type = h.n_type;
	note->ours = h.n_namesz == sizeof CRL_OWNER && !memcmp(owner, CRL_OWNER, sizeof CRL_OWNER);
	note->desc = owner + name;
	note->len = h.n_descsz;
	note->offset = base + (note->desc - p);
	*pos += sizeof h + name + desc;
	return 0;
}

static int make_record(const struct image_file *f, const struct note *note, struct record *r)
{
	struct record_head h;
	if (note->len < sizeof h)
		return bad(f, note->offset, "a record without its lengths");
	memcpy(&h, note->desc, sizeof h);
	if (h.size < sizeof h || (uint64_t)h.size + h.tail != note->len)
		return bad(f, note->offset, "a record whose lengths are not its note's");
	*r = (struct record){
		.type = note->type,
		.size = h.size,
		.tail_len = h.tail,
		.fixed = note->desc,
		.tail = note->desc + h.size,
		.offset = note->offset,
	};
	return 0;
}

static int read_records(struct image_file *f, const struct frame *fr, size_t earliest)
{
	Elf64_Phdr p = program_header(fr, 0);
	struct note note;
	size_t pos = 0, cap = 0;
	if (p.p_type != PT_NOTE || p.p_offset < earliest || p.p_offset > fr->head || p.p_filesz > fr->head - p.p_offset)
		return bad(f, sizeof(Elf64_Ehdr), "no notes where they should be");
	while (pos < p.p_filesz) {
		if (read_note(f, fr->bytes + p.p_offset, p.p_filesz, p.p_offset, &pos, &note) < 0)
			return -1;
		if (!note.ours)
			continue;
		if (note.type == REC_SUMS)
			return bad(f, note.offset, "sums where records should be");
		struct record *r = grow_array(f->records, &cap, f->n_records + 1, sizeof *r);
		if (!r)
			return -1;
		f->records = r;
		if (make_record(f, &note, &r[f->n_records]) < 0)
			return -1;
		f->n_records++;
	}
	return 0;
}

/* The last program header P, at file offset AT: a note of the contents' sums, up to the file's end. */
static int read_sums(struct image_file *f, const struct frame *fr, size_t i)
{
	Elf64_Phdr p = program_header(fr, i);
	uint64_t want = (f->contents_end - f->contents_start + SUM_BLOCK - 1) / SUM_BLOCK;
	uint64_t at = sizeof(Elf64_Ehdr) + i * sizeof p;
	struct note note;
	struct record r;
	size_t pos = 0;
	if (p.p_type != PT_NOTE || p.p_offset < f->contents_end || p.p_offset > fr->e->length ||
	    p.p_filesz != fr->e->length - p.p_offset)
		return bad(f, at, "no note of sums at the file's end");
	const char *bytes = fr->bytes + fr->head + (p.p_offset - f->contents_end);
	if (read_note(f, bytes, p.p_filesz, p.p_offset, &pos, &note) < 0)
		return -1;
	if (!note.ours || note.type != REC_SUMS || pos != p.p_filesz)
		return bad(f, p.p_offset, "something else than sums");
	if (make_record(f, &note, &r) < 0)
		return -1;
	if (r.tail_len != want * sizeof *f->sums)
		return bad(f, r.offset, "a wrong number of sums");
	f->sums = alloc_zeroed(want, sizeof *f->sums);
	if (!f->sums)
		return -1;
	memcpy(f->sums, r.tail, r.tail_len);
	f->n_sums = want;
	return 0;
}

static int read_headers(struct image_file *f, const struct frame *fr)
{
	f->contents_start = fr->e->start;
	f->contents_end = fr->e->end;
	bool contents = f->contents_end > f->contents_start;
	size_t n = read_elf_header(f, fr);
	if (!n)
		return -1;
	if (contents && n < 3)
		return bad(f, 0, "too few program headers");
	if (read_records(f, fr, sizeof(Elf64_Ehdr) + n * sizeof(Elf64_Phdr)) < 0 ||
	    read_segments(f, fr, n - (contents ? 2 : 1)) < 0)
		return -1;
	return contents ? read_sums(f, fr, n - 1) : 0;
}

static int open_file(const struct image *im, const struct manifest_entry *e, struct image_file *f)
{
	struct stat st;
	f->fd = openat(im->dirfd, e->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (f->fd < 0 && errno == ENOENT)
		return fail("%s/%s is missing, its manifest names it; take another copy of the image", im->dir, e->name);
	if (f->fd < 0 || fstat(f->fd, &st) < 0)
		return fail_errno("cannot open %s/%s", im->dir, e->name);
	if (!S_ISREG(st.st_mode))
		return fail("%s/%s is not a regular file", im->dir, e->name);
	if ((uint64_t)st.st_size != e->length)
		return fail("%s/%s is %llu bytes long, its manifest says %llu; take another copy of the image", im->dir,
			    e->name, (unsigned long long)st.st_size, (unsigned long long)e->length);
	return 0;
}

int image_file_open(const struct image *im, const char *name, struct image_file *f)
{
	struct frame fr;
	*f = (struct image_file){ .fd = -1, .dir = im->dir };
	const struct manifest_entry *e = manifest_find(im, name);
	if (!e)
		return fail("%s: the image has no file '%s'", im->dir, name);
	memcpy(f->name, e->name, sizeof f->name);
	if (open_file(im, e, f) < 0 || read_frame(f, &fr, e) < 0 || read_headers(f, &fr) < 0) {
		image_file_close(f);
		return -1;
	}
	return 0;
}

void image_file_close(struct image_file *f)
{
	close_fd(&f->fd);
	free(f->notes);
	free(f->records);
	free(f->segs);
	free(f->sums);
	*f = (struct image_file){ .fd = -1 };
}

static int check_block(const struct image_file *f, size_t i, void *buf)
{
	uint64_t offset = f->contents_start + (uint64_t)i * SUM_BLOCK, len = f->contents_end - offset;
	if (len > SUM_BLOCK)
		len = SUM_BLOCK;
	ssize_t n = image_read_all(f->fd, buf, len, offset);
	if (n < 0)
		return fail_errno("cannot read %s/%s at offset %llu", f->dir, f->name, (unsigned long long)offset);
	uint32_t crc = crc32c(0, buf, n);
	if ((uint64_t)n != len || crc != f->sums[i])
		return fail("%s/%s is damaged between offsets %llu and %llu: the sum of its contents is %08x, not %08x; take another copy of the image",
			    f->dir, f->name, (unsigned long long)offset, (unsigned long long)(offset + len), crc, f->sums[i]);
	return 0;
}

int image_file_check_contents(const struct image_file *f)
{
	autofree void *buf = f->n_sums ? alloc_zeroed(SUM_BLOCK, 1) : NULL;
	if (f->n_sums && !buf)
		return -1;
	for (size_t i = 0; i < f->n_sums; i++)
		if (check_block(f, i, buf) < 0)
			return -1;
	return 0;
}

int record_get(const struct image_file *f, const struct record *r, void *out, size_t size)
{
	size_t known = r->size < size ? r->size : size;
	memset(out, 0, size);
	memcpy(out, r->fixed, known);
	for (size_t i = known; i < r->size; i++)
		if (r->fixed[i])
			return fail("%s/%s: the record of type 0x%x at offset %zu holds something that this criu-lite does not know; use the criu-lite that made the image",
				    f->dir, f->name, r->type, r->offset);
	return 0;
}

const char *record_string(const struct image_file *f, const struct record *r, size_t *pos)
{
	const char *s = r->tail + *pos;
	const char *end = *pos < r->tail_len ? memchr(s, 0, r->tail_len - *pos) : NULL;
	if (!end) {
		fail("%s/%s: the record of type 0x%x at offset %zu lacks a string or its end; the image is damaged, take another copy of it",
		     f->dir, f->name, r->type, r->offset);
		return NULL;
	}
	*pos += end + 1 - s;
	return s;
}
