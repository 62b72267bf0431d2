/*
 * What the bench dumps: `work memory MIB`, `work threads N`, `work idle`. Prints `ready`; at SIGUSR1 checks that it has what it
 * had and prints `ok`: a restore whose check fails is no time.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned long *memory, words;

static void *thread(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static int check(void)
{
	for (unsigned long i = 0; i < words; i++)
		if (memory[i] != (i + 1) * 0x9e3779b97f4a7c15ul)
			return 0;
	return 1;
}

static int make_threads(long n)
{
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (long i = 1; i < n; i++) {
		pthread_t t;
		if (pthread_create(&t, &attr, thread, NULL))
			return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	long n = argc > 2 ? atol(argv[2]) : 0;
	if (argc > 1 && strcmp(argv[1], "memory") == 0) {
		words = (unsigned long)n << 17;
		memory = malloc(words * 8);
		for (unsigned long i = 0; i < words; i++)
			memory[i] = (i + 1) * 0x9e3779b97f4a7c15ul;
	} else if (argc > 1 && strcmp(argv[1], "threads") == 0 && make_threads(n)) {
		return 1;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int sig;
		sigwait(&set, &sig);
		puts(check() ? "ok" : "FAIL");
		fflush(stdout);
	}
}
