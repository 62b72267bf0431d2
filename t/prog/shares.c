/*
 * `shares vm|files|fs|sighand|uts|none`: has a child that shares that with it (clone without CLONE_THREAD), or is in a namespace
 * of its own. The child ends with its parent.
 */
#include <sched.h>

#include "target.h"

static char stack[65536];

static int child(void *arg)
{
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		syscall(SYS_pause);
	return 0;
}

static int check(void)
{
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int flags;
	} cases[] = {{"vm", CLONE_VM}, {"files", CLONE_FILES}, {"fs", CLONE_FS}, {"sighand", CLONE_SIGHAND | CLONE_VM}};
	target_block_signals();
	if (argc > 1 && strcmp(argv[1], "uts") == 0 && unshare(CLONE_NEWUTS))
		fatal("unshare");
	for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
		if (strcmp(argv[1], cases[i].name) == 0 &&
		    clone(child, stack + sizeof stack, cases[i].flags | SIGCHLD, NULL) < 0)
			fatal("clone");
	return target_loop(check);
}
