/*
 * One error, filled where it happens, given context on the way up and printed once by main.
 *
 * A function that fails returns -1 (or NULL) with the error set. Nothing is printed half way up.
 */
#ifndef CRL_ERROR_H
#define CRL_ERROR_H

#include <stddef.h>

struct error {
	int code; /* an errno value, 0 where the text says all */
	char text[1024];
};

extern struct error the_error;

/* Sets the error to "TEXT: strerror(errno)"; always returns -1. */
int fail_errno(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Sets the error to TEXT alone: a refusal, or a fault in what was read; always returns -1. */
int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Puts "TEXT: " before the error that is set; always returns -1. */
int fail_within(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Says TEXT on stderr if -v was given; never part of what an error says. */
void verbose(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
extern int verbosity;

/* Memory that ends with the process cannot be had: an error like any other. NULL with the error set. */
void *alloc_zeroed(size_t n, size_t size);
/* Grows ARRAY (of SIZE-byte elements, *CAP of them allocated) to hold at least N; NULL with the error set, the array kept. */
void *grow_array(void *array, size_t *cap, size_t n, size_t size);
char *format_string(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* For __attribute__((cleanup)): */
void free_ptr(void *pp);   /* void ** */
void close_fd(int *fd);    /* closes when >= 0 */
#define autofree  __attribute__((cleanup(free_ptr)))
#define autoclose __attribute__((cleanup(close_fd)))

#endif
