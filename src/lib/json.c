#include "json.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"

static void put(struct json *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct json *j, const char *fmt, ...)
{
	if (!j->out)
		return;
	va_list ap;
	va_start(ap, fmt);
	vfprintf(j->out, fmt, ap);
	va_end(ap);
}

/*
 * One character of UTF-8 at S, of at most LEN bytes: its code, and its length in *N. 0: not one, or one that must not reach
 * a terminal: controls, and what hides or turns round the text about it.
 */
static uint32_t printable(const unsigned char *s, size_t len, size_t *n)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	*n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 && s[0] < 0xf8 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
	if (*n == 0 || *n > len || s[0] >= 0xf8)
		return 0;
	uint32_t c = *n == 1 ? s[0] : s[0] & (0x7fu >> *n);
	for (size_t i = 1; i < *n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[*n] || c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || (c >= 0xd800 && c < 0xe000))
		return 0;
	if (c == 0x61c || (c >= 0x200b && c < 0x2010) || (c >= 0x2028 && c < 0x202f) || (c >= 0x2060 && c < 0x2070))
		return 0;
	if (c == 0xfeff || (c >= 0xfff0 && c < 0xfffc) || (c & 0xfffe) == 0xfffe || c >= 0xe0000)
		return 0;
	return c;
}

/* In JSON a byte that is no UTF-8 becomes \udc80 … \udcff, as Python's surrogateescape would have it. */
static void put_escape(struct json *j, unsigned char c)
{
	if (c == '\n')
		put(j, "\\n");
	else if (c == '\t')
		put(j, "\\t");
	else if (j->text)
		put(j, "\\x%02x", c);
	else
		put(j, "\\u%04x", c < 0x80 ? c : 0xdc00u + c);
}

static void put_escaped(struct json *j, const unsigned char *s, size_t len)
{
	size_t n;
	for (size_t i = 0; i < len; i += n) {
		if (!printable(s + i, len - i, &n)) {
			put_escape(j, s[i]);
			n = 1;
		} else if (s[i] == '"' || s[i] == '\\') {
			put(j, "\\%c", s[i]);
		} else {
			put(j, "%.*s", (int)n, s + i);
		}
	}
}

/* Quotes only where they help. */
static bool plain(const unsigned char *s, size_t len)
{
	size_t n;
	for (size_t i = 0; i < len; i += n)
		if (!printable(s + i, len - i, &n) || (n == 1 && strchr(" \"\\'=[]{}", s[i])))
			return false;
	return len > 0;
}

static void put_string(struct json *j, const void *s, size_t len)
{
	const char *quote = j->text && plain(s, len) ? "" : "\"";
	put(j, "%s", quote);
	put_escaped(j, s, len);
	put(j, "%s", quote);
}

/* What comes before a value. */
static void begin_value(struct json *j, const char *key)
{
	if (!j->first)
		put(j, j->text ? " " : ",");
	j->first = false;
	if (key)
		put(j, j->text ? "%s=" : "\"%s\":", key);
}

static void begin_nested(struct json *j, const char *key, const char *bracket)
{
	begin_value(j, key);
	put(j, "%s", bracket);
	j->first = true;
}

static void end_nested(struct json *j, const char *bracket)
{
	put(j, "%s", bracket);
	j->first = false;
}

void json_begin_object(struct json *j, const char *key)
{
	begin_nested(j, key, "{");
}

void json_end_object(struct json *j)
{
	end_nested(j, "}");
}

void json_begin_array(struct json *j, const char *key)
{
	begin_nested(j, key, "[");
}

void json_end_array(struct json *j)
{
	end_nested(j, "]");
}

void json_uint(struct json *j, const char *key, uint64_t v)
{
	begin_value(j, key);
	put(j, "%" PRIu64, v);
}

void json_int(struct json *j, const char *key, int64_t v)
{
	begin_value(j, key);
	put(j, "%" PRId64, v);
}

void json_hex(struct json *j, const char *key, uint64_t v)
{
	begin_value(j, key);
	put(j, j->text ? "0x%" PRIx64 : "\"0x%" PRIx64 "\"", v);
}

void json_octal(struct json *j, const char *key, uint64_t v)
{
	begin_value(j, key);
	put(j, j->text ? "0%" PRIo64 : "\"0%" PRIo64 "\"", v);
}

void json_bool(struct json *j, const char *key, bool v)
{
	begin_value(j, key);
	put(j, "%s", j->text ? (v ? "yes" : "no") : (v ? "true" : "false"));
}

void json_bytes(struct json *j, const char *key, const void *s, size_t len)
{
	begin_value(j, key);
	put_string(j, s, strnlen(s, len));
}

void json_string(struct json *j, const char *key, const char *s)
{
	json_bytes(j, key, s, strlen(s));
}

static void put_flag_names(struct json *j, uint64_t v, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (v >> i & 1 && names[i]) {
			json_string(j, NULL, names[i]);
			v &= ~(1ull << i);
		}
	if (v)
		json_hex(j, NULL, v);
}

void json_flags(struct json *j, const char *key, uint64_t v, const char *const *names, size_t n)
{
	json_begin_array(j, key);
	put_flag_names(j, v, names, n);
	json_end_array(j);
}

void json_text(struct json *j, const char *fmt, ...)
{
	if (!j->text || !j->out)
		return;
	va_list ap;
	va_start(ap, fmt);
	vfprintf(j->out, fmt, ap);
	va_end(ap);
}

void json_text_string(struct json *j, const char *s)
{
	if (j->text)
		put_string(j, s, strlen(s));
}

void json_newline(struct json *j)
{
	put(j, "\n");
}

int json_record(struct json *out, const struct image_file *f, const struct record *r, void *rec, size_t size)
{
	if (record_get(f, r, rec, size) == 0)
		return 0;
	out->failed = true;
	return -1;
}

const char *json_tail_string(struct json *out, const struct image_file *f, const struct record *r, size_t *pos)
{
	const char *s = record_string(f, r, pos);
	if (!s)
		out->failed = true;
	return s;
}

int json_tail_array(struct json *out, const struct image_file *f, const struct record *r, uint64_t n, uint64_t size)
{
	uint64_t len;
	if (!__builtin_mul_overflow(n, size, &len) && len == r->tail_len)
		return 0;
	out->failed = true;
	return fail("%s/%s: the record of type 0x%x at offset %zu tells a wrong number of elements; the image is damaged, take another copy of it",
		    f->dir, f->name, r->type, r->offset);
}
