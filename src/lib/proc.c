#include "lib/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/error.h"

char *proc_read_at(int dirfd, const char *name, size_t *len)
{
	autoclose int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fail_errno("%s", name);
		return NULL;
	}
	size_t cap = 0, n = 0;
	char *buf = NULL;
	for (;;) {
		char *bigger = grow_array(buf, &cap, n + 4096, 1);
		if (!bigger)
			break;
		buf = bigger;
		ssize_t got = read(fd, buf + n, cap - n - 1);
		if (got < 0) {
			fail_errno("%s", name);
			break;
		}
		n += got;
		if (!got) {
			buf[n] = 0;
			if (len)
				*len = n;
			return buf;
		}
	}
	free(buf);
	return NULL;
}

char *proc_read(size_t *len, const char *fmt, ...)
{
	char path[PATH_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(path, sizeof path, fmt, ap);
	va_end(ap);
	return proc_read_at(AT_FDCWD, path, len);
}

char *proc_readlink(const char *fmt, ...)
{
	char path[PATH_MAX], target[PATH_MAX + 1];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(path, sizeof path, fmt, ap);
	va_end(ap);
	ssize_t n = readlink(path, target, sizeof target - 1);
	if (n < 0) {
		fail_errno("%s", path);
		return NULL;
	}
	target[n] = 0;
	return format_string("%s", target);
}

static int compare_ints(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return (x > y) - (x < y);
}

int proc_list_numbers(const char *path, int **out, size_t *n)
{
	DIR *dir = opendir(path);
	if (!dir)
		return fail_errno("%s", path);
	size_t cap = 0;
	*out = NULL;
	*n = 0;
	for (;;) {
		errno = 0;
		struct dirent *e = readdir(dir);
		if (!e)
			break;
		char *end;
		long v = strtol(e->d_name, &end, 10);
		if (*end || end == e->d_name || v < 0 || v > INT_MAX)
			continue;
		int *bigger = grow_array(*out, &cap, *n + 1, sizeof **out);
		if (!bigger) {
			errno = ENOMEM;
			break;
		}
		*out = bigger;
		(*out)[(*n)++] = v;
	}
	int why = errno;
	closedir(dir);
	if (why) {
		free(*out);
		*out = NULL;
		errno = why;
		return fail_errno("%s", path);
	}
	if (*n)
		qsort(*out, *n, sizeof **out, compare_ints);
	return 0;
}

const char *status_field(const char *text, const char *key)
{
	size_t n = strlen(key);
	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (strncmp(line, key, n) == 0 && line[n] == ':')
			return line + n + 1 + strspn(line + n + 1, " \t");
	}
	return NULL;
}

uint64_t status_number(const char *text, const char *key, int base, uint64_t otherwise)
{
	const char *v = status_field(text, key);
	return v ? strtoull(v, NULL, base) : otherwise;
}

int proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *st)
{
	autofree char *text = tid ? proc_read(NULL, "/proc/%d/task/%d/stat", pid, tid) : proc_read(NULL, "/proc/%d/stat", pid);
	if (!text)
		return -1;
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	if (!open || !close || close < open || close - open - 1 > 64)
		return fail("/proc/%d/stat is not in the form that is known", pid);
	memset(st, 0, sizeof *st);
	snprintf(st->comm, sizeof st->comm, "%.*s", (int)(close - open - 1), open + 1);
	/* f[0] is field 3, the state; proc_pid_stat(5) counts from 1 */
	uint64_t f[60] = {0};
	size_t n = 0;
	st->state = close[1] == ' ' ? close[2] : '?';
	for (char *p = close + 3; n < 50 && *p && *p != '\n';) {
		char *end;
		f[4 + n++] = strtoull(p, &end, 10);
		if (end == p)
			break;
		p = end;
	}
	st->ppid = f[4];
	st->pgrp = f[5];
	st->session = f[6];
	st->tty_nr = f[7];
	st->tpgid = (pid_t)f[8];
	st->flags = f[9];
	st->start_time = f[22];
	st->start_code = f[26];
	st->end_code = f[27];
	st->start_stack = f[28];
	st->exit_signal = f[38];
	st->start_data = f[45];
	st->end_data = f[46];
	st->start_brk = f[47];
	st->arg_start = f[48];
	st->arg_end = f[49];
	st->env_start = f[50];
	st->env_end = f[51];
	st->exit_code = f[52];
	return 0;
}
