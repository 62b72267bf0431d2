/*
 * Membership in control groups, v1 and v2: a process is put back into the group that it was in. Groups themselves are the
 * administrator's: one that is gone is an error, unless --no-cgroup leaves the tree where restore runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

/* tail: /proc/PID/cgroup with a NUL */
struct rec_cgroup {
	struct record_head head;
	uint32_t reserved;
};

static int cgroup_collect(struct dump *d, struct process *p)
{
	(void)d;
	size_t len;
	autofree char *text = proc_read(&len, "/proc/%d/cgroup", p->host->tid);
	struct rec_cgroup r = {0};
	if (!text)
		return the_error.code == ENOENT ? 0 : -1; /* a kernel without control groups */
	return notes_add_record(&p->core, REC_CGROUP, &r, sizeof r, text, len + 1);
}

/*
 * Where a hierarchy is mounted, from mountinfo: "… MOUNTPOINT OPTIONS … - cgroup SOURCE rw,cpu,cpuacct". CONTROLLERS is
 * empty for version 2, else what stands between the colons of /proc/PID/cgroup.
 */
static int find_mount(const char *controllers, char *out, size_t size)
{
	autofree char *text = proc_read(NULL, "/proc/self/mountinfo");
	if (!text)
		return -1;
	for (char *line = text, *next; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		char *dash = strstr(line, " - "), at[PATH_MAX];
		if (!dash || sscanf(line, "%*s %*s %*s %*s %4095s", at) != 1)
			continue;
		const char *options = strrchr(dash, ' ') + 1;
		bool two = strncmp(dash + 3, "cgroup2 ", 8) == 0, one = strncmp(dash + 3, "cgroup ", 7) == 0;
		const char *found = one && *controllers ? strstr(options, controllers) : NULL;
		if ((two && !*controllers) || (found && (found[strlen(controllers)] == 0 || found[strlen(controllers)] == ','))) {
			snprintf(out, size, "%s", at);
			return 0;
		}
	}
	return fail("control group hierarchy \"%s\" is not mounted here; pass --no-cgroup to leave the tree where restore runs",
		    *controllers ? controllers : "version 2");
}

static int join(uint32_t pid, const char *controllers, const char *group)
{
	char mount[PATH_MAX], path[PATH_MAX * 2 + 32];
	if (find_mount(controllers, mount, sizeof mount))
		return -1;
	snprintf(path, sizeof path, "%s%s/cgroup.procs", mount, group);
	autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		return fail_errno("pid %u: joining control group %s (pass --no-cgroup to leave it where restore runs)", pid, path);
	return 0;
}

/* A line of TEXT, "ID:CONTROLLERS:PATH", whatever its id, which differs from boot to boot: is it in OTHER? */
static bool same_line(const char *line, const char *other)
{
	const char *rest = strchr(line, ':');
	for (const char *o = other; rest && *o; o = strchr(o, '\n') ? strchr(o, '\n') + 1 : "") {
		const char *colon = strchr(o, ':');
		size_t n = strlen(rest);
		if (colon && strncmp(colon, rest, n) == 0 && (colon[n] == '\n' || !colon[n]))
			return true;
	}
	return false;
}

static int cgroup_install(struct restore *re, struct rtask *t)
{
	if (re->opt->no_cgroup)
		return 0;
	each_record(&t->core, rec) {
		size_t pos = 0;
		if (rec->type != REC_CGROUP)
			continue;
		/* past the fixed part, which is of no use yet */
		const char *text = record_string(&t->core, rec, &pos);
		autofree char *copy = text ? format_string("%s", text) : NULL;
		autofree char *own = proc_read(NULL, "/proc/self/cgroup");
		if (!copy || !own)
			return -1;
		for (char *line = copy, *next; line && *line; line = next) {
			next = strchr(line, '\n');
			if (next)
				*next++ = 0;
			char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
			if (!group || group[1] != '/' || strstr(group, "/../"))
				return fail("%s: control group \"%s\" is impossible", t->core.name, line);
			if (same_line(line, own))
				continue;
			*group++ = 0;
			if (join(t->proc.pid, controllers + 1, group))
				return -1;
		}
	}
	return 0;
}

static void print_cgroup(struct json *out, const struct image_file *f, const struct record *rec)
{
	struct rec_cgroup r;
	if (json_record(out, f, rec, &r, sizeof r) < 0)
		return;
	size_t pos = 0;
	const char *text = record_string(f, rec, &pos);
	json_string(out, "groups", text ? text : "?");
}

static const struct record_printer printers[] = {{REC_CGROUP, "cgroup", print_cgroup}, {0}};

const struct kind cgroup_kind = {
	.name = "control groups",
	.collect = cgroup_collect,
	.install = cgroup_install,
	.printers = printers,
};
