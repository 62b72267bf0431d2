/*
 * Reading /proc: whole files, lists of tasks, the fields of status and stat.
 */
#ifndef CRL_PROC_H
#define CRL_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The whole file, NUL-terminated, caller frees; *len (may be NULL) without the NUL. NULL with the error set. */
char *proc_read(size_t *len, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* As proc_read, relative to DIRFD. */
char *proc_read_at(int dirfd, const char *name, size_t *len);
/* The link's target, caller frees; NULL with the error set. */
char *proc_readlink(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Ascending numbers of the entries of a directory that are numbers: tasks, descriptors. Caller frees *out. */
int proc_list_numbers(const char *path, int **out, size_t *n);

/* The value behind "KEY:" at a line's beginning in a status-like TEXT (blanks skipped), or NULL. */
const char *status_field(const char *text, const char *key);
uint64_t status_number(const char *text, const char *key, int base, uint64_t otherwise);

struct proc_stat {
	char comm[17]; /* of a line that may hold anything between the parentheses */
	char state;
	pid_t ppid, pgrp, session;
	uint32_t tty_nr;
	pid_t tpgid; /* the terminal's foreground group, -1: no terminal */
	uint64_t flags;
	uint64_t start_time;
	uint64_t start_code, end_code, start_stack;
	uint64_t start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end;
	int exit_signal;
	int exit_code;
};
/* proc_pid_stat(5). PID's own when TID is 0. */
int proc_stat_read(pid_t pid, pid_t tid, struct proc_stat *st);

#endif
