/*
 * Printing fields, for people (`name=value` on a line) or as JSON: one printer of a record serves both.
 *
 *     json_uint(out, "pid", r.pid);              pid=412                    "pid":412
 *     json_hex(out, "rip", r.rip);               rip=0x7f12                 "rip":"0x7f12"   (JSON's numbers are doubles)
 *     json_begin_object(out, "owner");           owner={                    "owner":{
 *
 * Key NULL: an array's element. Whatever comes from an image goes through json_string, which escapes what is not
 * printable. With `out` NULL in struct json nothing is printed: the records are only looked at.
 */
#ifndef CRL_JSON_H
#define CRL_JSON_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "image.h"

struct json {
	FILE *out;
	bool text;
	bool failed; /* a record was not what it should be: the error is set */
	bool first;  /* nothing has been put into the innermost object or array */
};

void json_begin_object(struct json *j, const char *key);
void json_end_object(struct json *j);
void json_begin_array(struct json *j, const char *key);
void json_end_array(struct json *j);

void json_uint(struct json *j, const char *key, uint64_t v);
void json_int(struct json *j, const char *key, int64_t v);
void json_hex(struct json *j, const char *key, uint64_t v);
void json_octal(struct json *j, const char *key, uint64_t v); /* modes: a string in JSON */
void json_bool(struct json *j, const char *key, bool v);
void json_string(struct json *j, const char *key, const char *s);
void json_bytes(struct json *j, const char *key, const void *s, size_t len); /* a string that may lack its NUL */

/* The bits of V by their names (NAMES[i] is bit i's, NULL: none), the rest as hexadecimal: an array of strings. */
void json_flags(struct json *j, const char *key, uint64_t v, const char *const *names, size_t n);

/* For people alone: FMT as it is; nothing in JSON. What is printed so must be safe. */
void json_text(struct json *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* For people alone: S escaped, without a name before it. */
void json_text_string(struct json *j, const char *s);
/* A line's end; in JSON a place where a line may end. */
void json_newline(struct json *j);

/*
 * One kind of record. PRINT puts the record's fields; what it finds wrong it reports with an error and
 * out->failed, as the two functions below do. Arrays of these end with one without print.
 */
struct record_printer {
	uint32_t type;
	const char *name;
	void (*print)(struct json *out, const struct image_file *f, const struct record *r);
};

/* record_get and record_string, that note a failure in OUT. */
int json_record(struct json *out, const struct image_file *f, const struct record *r, void *rec, size_t size);
const char *json_tail_string(struct json *out, const struct image_file *f, const struct record *r, size_t *pos);
/* R's tail holds N elements of SIZE bytes, no more and no less: 0, or -1 with the error set and noted in OUT. */
int json_tail_array(struct json *out, const struct image_file *f, const struct record *r, uint64_t n, uint64_t size);

#endif
