/*
 * eventfd, timerfd and signalfd with every piece of state that they have.
 */
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "target.h"

static int count, semaphore, sig;
static uint64_t counted, semaphored;
static int far, wall, ticked, idle;
static uint64_t far_ends, wall_ends;

#define HOUR 3600

static int timer(int clock, int flags, time_t s, long ns, time_t every_s, long every_ns)
{
	int fd = timerfd_create(clock, TFD_NONBLOCK);
	struct itimerspec it = {{every_s, every_ns}, {s, ns}};
	if (fd < 0 || timerfd_settime(fd, flags, &it, NULL))
		fatal("timerfd");
	return fd;
}

static void set_up(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &set, NULL);
	counted = 0x1234567890abull;
	semaphored = 100;
	count = eventfd(0, EFD_CLOEXEC);
	semaphore = eventfd((unsigned int)semaphored, EFD_SEMAPHORE | EFD_NONBLOCK);
	sig = signalfd(-1, &set, SFD_NONBLOCK);
	if (count < 0 || semaphore < 0 || sig < 0 || write(count, &counted, 8) != 8)
		fatal("eventfd, signalfd");
	far = timer(CLOCK_MONOTONIC, 0, HOUR, 0, 7, 500);
	far_ends = now_ns(CLOCK_MONOTONIC) + HOUR * 1000000000ull;
	wall_ends = now_ns(CLOCK_REALTIME) + 2 * HOUR * 1000000000ull;
	wall = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, (time_t)(wall_ends / 1000000000),
		     (long)(wall_ends % 1000000000), 0, 0);
	ticked = timer(CLOCK_MONOTONIC, 0, 0, 1, HOUR, 0);
	idle = timer(CLOCK_BOOTTIME, 0, 0, 0, 0, 0);
	struct pollfd p = {.fd = ticked, .events = POLLIN};
	if (poll(&p, 1, 60000) != 1)
		fatal("a timer of a nanosecond");
}

static int eventfds(void)
{
	uint64_t v = 0;
	if (read(count, &v, 8) != 8 || v != counted)
		return wrong("an eventfd counts %lx instead of %lx", v, counted);
	counted++;
	if (write(count, &counted, 8) != 8)
		return wrong("writing to an eventfd: %s", strerror(errno));
	if (read(semaphore, &v, 8) != 8 || v != 1)
		return wrong("a semaphore is read as %lu", v);
	semaphored--;
	char text[400];
	char path[40];
	const char *at;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", semaphore);
	if (slurp(path, text, sizeof text) < 0 || !(at = strstr(text, "eventfd-count:")) ||
	    strtoull(at + 14, NULL, 16) != semaphored)
		return wrong("a semaphore should be %lu: %s", semaphored, text);
	if (fcntl(count, F_GETFD) != FD_CLOEXEC || fcntl(semaphore, F_GETFL) != (O_RDWR | O_NONBLOCK))
		return wrong("flags of an eventfd");
	return 0;
}

/* What is left may be more by the time between dump and restore, in which nothing of ours ran. */
static int left(const char *what, int fd, uint64_t most_ns, uint64_t least_ns, uint64_t every_ns, int flags)
{
	struct itimerspec it;
	char path[40], text[400], line[40];
	if (timerfd_gettime(fd, &it))
		return wrong("%s: %s", what, strerror(errno));
	uint64_t ns = (uint64_t)it.it_value.tv_sec * 1000000000 + (uint64_t)it.it_value.tv_nsec;
	uint64_t every = (uint64_t)it.it_interval.tv_sec * 1000000000 + (uint64_t)it.it_interval.tv_nsec;
	if (ns > most_ns || ns < least_ns || every != every_ns)
		return wrong("%s: %lu ns are left, every %lu ns", what, ns, every);
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	snprintf(line, sizeof line, "settime flags: 0%o\n", flags);
	if (slurp(path, text, sizeof text) < 0 || !strstr(text, line))
		return wrong("%s: no %s in %s", what, line, text);
	return 0;
}

static int timers(void)
{
	const uint64_t s = 1000000000;
	uint64_t now = now_ns(CLOCK_MONOTONIC), wall_now = now_ns(CLOCK_REALTIME);
	static unsigned int round;
	if (left("an hour", far, HOUR * s, far_ends - now - 10 * s, 7 * s + 500, 0) ||
	    left("a time of day", wall, wall_ends - wall_now + s, wall_ends - wall_now - 10 * s, 0, 3) ||
	    left("an idle one", idle, 0, 0, 0, 0))
		return -1;
	uint64_t n = 0;
	/* read in the third round: the first two find the tick as it was left */
	struct pollfd p = {.fd = ticked, .events = POLLIN};
	if (poll(&p, 1, 0) != (round < 3))
		return wrong("a timer that has ticked is %s readable in round %u", round < 3 ? "not" : "still", round);
	if (round++ == 2 && (read(ticked, &n, 8) != 8 || n != 1))
		return wrong("it has ticked %lu times", n);
	return round < 3 ? 0 : left("one that ticked", ticked, HOUR * s, s, HOUR * s, 0);
}

static int signals(void)
{
	struct signalfd_siginfo info;
	if (read(sig, &info, sizeof info) != -1 || errno != EAGAIN)
		return wrong("a signalfd has a signal that nobody sent");
	kill(getpid(), SIGUSR2);
	if (read(sig, &info, sizeof info) != sizeof info || info.ssi_signo != SIGUSR2)
		return wrong("a signalfd does not give SIGUSR2: %s", strerror(errno));
	char path[40], text[400];
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", sig);
	if (slurp(path, text, sizeof text) < 0 || !strstr(text, "sigmask:\t0000001000000800"))
		return wrong("a signalfd's mask: %s", text);
	return 0;
}

static int check(void)
{
	return eventfds() || timers() || signals() ? -1 : 0;
}

int main(void)
{
	target_block_signals();
	set_up();
	return target_loop(check);
}
