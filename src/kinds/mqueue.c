/*
 * POSIX message queues. Messages can only be read by taking them away (ipc/mqueue.c has no peek): only an empty one is dumped.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/proc.h"
#include "plan.h"

#define MQUEUE_MAGIC_ 0x19800202 /* ipc/mqueue.c */

/* tail: the name with its slash and NUL */
struct rec_mqueue {
	struct rec_description d;
	uint64_t max_messages, message_size;
	uint32_t mode, uid, gid;
	uint32_t removed;
};

static bool is_mqueue(const struct fd_entry *f)
{
	struct statfs fs;
	char path[64];
	if (!S_ISREG(f->st.st_mode) || f->link[0] != '/' || strchr(f->link + 1, '/') || f->flags & O_PATH)
		return false;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", f->process->host->tid, f->fd);
	return statfs(path, &fs) == 0 && fs.f_type == MQUEUE_MAGIC_;
}

/* What read(2) says: "QSIZE:%-10lu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d", mqueue_read_file. */
static int check_notify(const struct fd_entry *f, int fd)
{
	char text[128] = "";
	int pid = 0;
	/* one opened for writing alone cannot be asked */
	if (pread(fd, text, sizeof text - 1, 0) <= 0)
		return 0;
	const char *at = strstr(text, "NOTIFY_PID:");
	if (at && sscanf(at, "NOTIFY_PID:%d", &pid) == 1 && pid)
		return refuse_fd(f, "the message queue %s, of which process %d waits to be notified (mq_notify), which cannot be dumped",
				 f->link, pid);
	return 0;
}

static int mqueue_collect_fd(struct dump *d, struct fd_entry *f)
{
	static const char gone[] = " (deleted)";
	struct mq_attr attr;
	if (!is_mqueue(f))
		return 0;
	autoclose int fd = copy_fd(f);
	if (fd < 0)
		return -1;
	if (mq_getattr(fd, &attr))
		return fail_errno("%s", f->link);
	if (attr.mq_curmsgs)
		return refuse_fd(f, "the message queue %s with %ld messages, which can only be read by taking them away; receive them "
				    "first",
				 f->link, attr.mq_curmsgs);
	if (check_notify(f, fd))
		return -1;
	struct rec_mqueue r = {
		.d = {.id = f->description, .flags = f->flags},
		.max_messages = attr.mq_maxmsg,
		.message_size = attr.mq_msgsize,
		.mode = f->st.st_mode & 07777,
		.uid = f->st.st_uid,
		.gid = f->st.st_gid,
		.removed = !f->st.st_nlink,
	};
	size_t n = strlen(f->link), g = sizeof gone - 1;
	if (r.removed && n > g && strcmp(f->link + n - g, gone) == 0)
		f->link[n - g] = 0;
	return notes_add_record(&d->tree, REC_MQUEUE, &r, sizeof r, f->link, strlen(f->link) + 1) ? -1 : 1;
}

/* ---- restore ---- */

/* Queues that were removed and are still open more than once would have to be one: the name tells while we open them. */
static int open_queue(const struct rec_mqueue *r, const char *name, bool *made)
{
	struct mq_attr attr = {.mq_maxmsg = r->max_messages, .mq_msgsize = r->message_size}, got;
	int flags = r->d.flags & (O_ACCMODE | O_NONBLOCK);
	int fd = mq_open(name, flags | O_CREAT | O_EXCL, 0600, &attr);
	*made = fd >= 0;
	if (*made && (fchown(fd, r->uid, r->gid) || fchmod(fd, r->mode))) {
		fail_errno("owner and mode of the message queue %s", name);
		mq_unlink(name);
		close(fd);
		return -1;
	}
	if (fd < 0 && errno == EEXIST && !r->removed)
		fd = mq_open(name, flags);
	if (fd < 0)
		return fail_errno("the message queue %s of %lu messages of %lu bytes (see /proc/sys/fs/mqueue)", name, r->max_messages,
				  r->message_size);
	if (mq_getattr(fd, &got) || got.mq_maxmsg != attr.mq_maxmsg || got.mq_msgsize != attr.mq_msgsize) {
		close(fd);
		return fail("the message queue %s is another one now: it takes other messages; remove it", name);
	}
	return fd;
}

static int mqueue_open_record(struct restore *re, const struct record *rec, uint32_t *id)
{
	struct rec_mqueue r;
	size_t pos = 0;
	bool made;
	if (record_get(&re->tree, rec, &r, sizeof r))
		return -1;
	const char *name = record_string(&re->tree, rec, &pos);
	if (!name)
		return -1;
	*id = r.d.id;
	int fd = open_queue(&r, name, &made);
	if (fd >= 0 && made && r.removed)
		mq_unlink(name);
	return fd;
}

static void print_mqueue(struct json *j, const struct image_file *f, const struct record *rec)
{
	struct rec_mqueue r;
	size_t pos = 0;
	if (json_record(j, f, rec, &r, sizeof r) < 0)
		return;
	const char *name = json_tail_string(j, f, rec, &pos);
	if (!name)
		return;
	json_uint(j, "id", r.d.id);
	json_octal(j, "flags", r.d.flags);
	json_string(j, "name", name);
	json_uint(j, "max_messages", r.max_messages);
	json_uint(j, "message_size", r.message_size);
	json_octal(j, "mode", r.mode);
	json_bool(j, "removed", r.removed);
}

static const struct record_printer printers[] = {{REC_MQUEUE, "mqueue", print_mqueue}, {0}};

const struct kind mqueue_kind = {
	.name = "message queues",
	.collect_fd = mqueue_collect_fd,
	.opens = {REC_MQUEUE},
	.open = mqueue_open_record,
	.printers = printers,
};
