#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct error the_error;
int verbosity;

int fail_errno(const char *fmt, ...)
{
	int code = errno;
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(the_error.text, sizeof the_error.text, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof the_error.text)
		snprintf(the_error.text + n, sizeof the_error.text - n, ": %s", strerror(code));
	the_error.code = code;
	errno = code;
	return -1;
}

int fail(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(the_error.text, sizeof the_error.text, fmt, ap);
	va_end(ap);
	the_error.code = 0;
	return -1;
}

int fail_within(const char *fmt, ...)
{
	char inner[sizeof the_error.text];
	memcpy(inner, the_error.text, sizeof inner);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(the_error.text, sizeof the_error.text, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof the_error.text)
		snprintf(the_error.text + n, sizeof the_error.text - n, ": %s", inner);
	return -1;
}

void verbose(const char *fmt, ...)
{
	if (!verbosity)
		return;
	va_list ap;
	va_start(ap, fmt);
	fputs("criu-lite: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

void *alloc_zeroed(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);
	if (!p)
		fail_errno("%zu bytes of memory", n * size);
	return p;
}

void *grow_array(void *array, size_t *cap, size_t n, size_t size)
{
	if (array && n <= *cap)
		return array;
	size_t want = *cap ? *cap : 16;
	while (want < n)
		want *= 2;
	if (want > SIZE_MAX / size) {
		fail("an array of %zu elements is too large", n);
		return NULL;
	}
	void *p = realloc(array, want * size);
	if (!p) {
		fail_errno("%zu bytes of memory", want * size);
		return NULL;
	}
	*cap = want;
	return p;
}

char *format_string(const char *fmt, ...)
{
	char *s;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0) {
		fail("no memory for a string");
		return NULL;
	}
	return s;
}

void free_ptr(void *pp)
{
	free(*(void **)pp);
}

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
