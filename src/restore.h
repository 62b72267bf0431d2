#ifndef CRL_RESTORE_H
#define CRL_RESTORE_H

#include "kinds.h"

/*
 * Brings the image in opt->dir back. With opt->detach returns as soon as it runs; else waits for the root's end and sets
 * *status as wait(2) tells it. -1 with the error set: nothing runs, nothing is left.
 */
int restore_tree(const struct options *opt, int *status);

/* What all tasks have done before any goes on: struct shared's `forked`. */
enum { FAMILY_BORN = 1, FAMILY_JOINED, FAMILY_LEFT, FAMILY_DONE };

/* restore-task.c: what a new process does until it has become the target; never returns. */
void task_main(struct restore *r, struct rtask *t) __attribute__((noreturn));
/* clone3 with T's number; 0 in the child, -1 with the error set. */
pid_t task_fork(struct rtask *t);

/* What a task has left in the shared page becomes the error. */
int restore_take_failure(struct restore *r);

/* catch.c: all processes are there, and wait: from now on they die with us. */
int catch_leaders(struct restore *r);
/* catch.c: every task stands in its restorer: takes each thread through rt_sigreturn and lets all go. */
int catch_all(struct restore *r);

#endif
