/*
 * A terminal with both ends in the tree: this process holds the master, as script or tmux do, and a child leads the session
 * that the slave controls and answers lines. `tty packet` has the master in packet mode.
 */
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "target.h"

static int master, packet;
static pid_t shell;
static char slave_name[64];

/* The child: tells what it sees of its terminal, a line for a line. */
static void answer(void)
{
	char line[128];
	for (;;) {
		ssize_t n = read(0, line, sizeof line);
		if (n <= 0)
			_exit(n < 0);
		struct winsize w;
		struct termios t;
		char out[256];
		if (ioctl(0, TIOCGWINSZ, &w) || tcgetattr(0, &t))
			_exit(3);
		int len = snprintf(out, sizeof out, "%.*s %d %d %d %d %d %d\n", (int)n - 1, line, w.ws_row, w.ws_col,
				   t.c_cc[VINTR], (int)tcgetpgrp(0) == getpgrp(), (int)tcgetsid(0) == getsid(0),
				   open("/dev/tty", O_RDWR) >= 0);
		close(3);
		if (write(1, out, len) != len)
			_exit(4);
	}
}

static int check(void)
{
	static int n;
	char line[64], got[512], want[128];
	size_t have = 0;
	int len = snprintf(line, sizeof line, "line%d\n", ++n), on = 0;
	snprintf(want, sizeof want, "line%d 33 99 7 1 1 1\r\n", n);
	if (write(master, line, len) != len)
		return wrong("writing to the master: %s", strerror(errno));
	while (have < strlen(want)) {
		struct pollfd p = {master, POLLIN, 0};
		if (poll(&p, 1, 30000) <= 0)
			return wrong("no answer from the terminal: %.*s", (int)have, got);
		char part[256];
		ssize_t k = read(master, part, sizeof part);
		if (k <= 0)
			return wrong("reading the master: %s", strerror(errno));
		/* in packet mode a byte says that the rest is data */
		memcpy(got + have, part + packet, k - packet);
		have += k - packet;
		if (have > 400)
			break;
	}
	got[have] = 0;
	if (strcmp(got, want))
		return wrong("the terminal answered %s instead of %s", got, want);
	if (ioctl(master, TIOCGPKT, &on) || on != packet)
		return wrong("packet mode is %d", on);
	if (tcgetpgrp(master) != shell)
		return wrong("the foreground group is %d, not %d", tcgetpgrp(master), shell);
	return 0;
}

int main(int argc, char **argv)
{
	int slave;
	struct winsize w = {33, 99, 0, 0};
	target_block_signals();
	packet = argc > 1 && strcmp(argv[1], "packet") == 0;
	if (openpty(&master, &slave, slave_name, NULL, &w))
		fatal("openpty");
	struct termios t;
	if (tcgetattr(slave, &t))
		fatal("tcgetattr");
	t.c_lflag &= ~ECHO;
	t.c_cc[VINTR] = 7;
	if (tcsetattr(slave, TCSANOW, &t) || ioctl(master, TIOCPKT, &packet))
		fatal("the terminal's settings");
	shell = fork();
	if (shell == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		if (ioctl(slave, TIOCSCTTY, 0))
			_exit(2);
		dup2(slave, 0);
		dup2(slave, 1);
		dup2(slave, 2);
		close(slave);
		close(master);
		answer();
	}
	close(slave);
	if (check())
		fatal(target_why);
	return target_loop(check);
}
