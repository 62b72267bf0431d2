/*
 * ELF notes being built in memory: three words (lengths of owner and desc, type), the owner with its NUL, the desc,
 * each padded with zeros to 4 bytes. Our own records are notes of owner CRIULITE; the standard ones (CORE, LINUX) are
 * made by who knows their contents, with notes_add.
 */
#include "image.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"

static size_t padded(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

/* Room for one note whose desc is LEN bytes; the desc's place, zeroed, or NULL with the error set. */
static char *note_begin(struct notes *n, const char *owner, uint32_t type, size_t len)
{
	size_t owner_len = strlen(owner) + 1;
	if (len > UINT32_MAX - 8) {
		fail("a note of type 0x%x would be %zu bytes long; a note holds at most 4 GiB", type, len);
		return NULL;
	}
	size_t size = sizeof(Elf64_Nhdr) + padded(owner_len) + padded(len);
	char *buf = grow_array(n->buf, &n->cap, n->len + size, 1);
	if (!buf)
		return NULL;
	n->buf = buf;
	char *p = buf + n->len;
	memset(p, 0, sizeof(Elf64_Nhdr) + padded(owner_len));
	Elf64_Nhdr head = { .n_namesz = owner_len, .n_descsz = len, .n_type = type };
	memcpy(p, &head, sizeof head);
	p += sizeof head;
	memcpy(p, owner, owner_len);
	p += padded(owner_len);
	memset(p + len, 0, padded(len) - len);
	n->len += size;
	return p;
}

int notes_add(struct notes *n, const char *owner, uint32_t type, const void *desc, size_t len)
{
	char *p = note_begin(n, owner, type, len);
	if (!p)
		return -1;
	if (len)
		memcpy(p, desc, len);
	return 0;
}

int notes_add_record(struct notes *n, uint32_t type, void *rec, size_t size, const void *tail, size_t tail_len)
{
	if (tail_len > UINT32_MAX - 8 - size)
		return fail("a record of type 0x%x would be %zu bytes long; a note holds at most 4 GiB", type, tail_len);
	struct record_head *head = rec;
	head->size = size;
	head->tail = tail_len;
	char *p = note_begin(n, CRL_OWNER, type, size + tail_len);
	if (!p)
		return -1;
	memcpy(p, rec, size);
	if (tail_len)
		memcpy(p + size, tail, tail_len);
	return 0;
}

void notes_free(struct notes *n)
{
	free(n->buf);
	*n = (struct notes){ 0 };
}

int notes_append(struct notes *n, const struct notes *more)
{
	char *bigger = grow_array(n->buf, &n->cap, n->len + more->len, 1);
	if (!bigger && more->len)
		return -1;
	n->buf = bigger;
	if (more->len)
		memcpy(n->buf + n->len, more->buf, more->len);
	n->len += more->len;
	return 0;
}
