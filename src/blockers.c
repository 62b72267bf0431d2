#include "blockers.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* The names are the kernel's: anon_inode_getfd's callers. What ends in * may go on. */
static const struct {
	const char *link, *what;
} objects[] = {
	{"anon_inode:[io_uring]", "an io_uring, whose requests and buffers the kernel shows to nobody; run the program with io_uring off"},
	{"anon_inode:[perf_event]", "a perf event, which cannot be made again; end perf, or whatever measures, first"},
	{"anon_inode:bpf-map", "a BPF map, which cannot be dumped; have the program close it first, or pin it and open it anew"},
	{"anon_inode:bpf*", "a BPF object, which cannot be dumped; have the program close it first"},
	{"anon_inode:btf", "BPF type information, which cannot be dumped; have the program close it first"},
	{"anon_inode:[userfaultfd]", "a userfaultfd, whose waiting faults cannot be carried over; have the program close it first"},
	{"anon_inode:kvm*", "a virtual machine (KVM), which cannot be dumped; use the hypervisor's own way of saving it"},
	{"anon_inode:seccomp notify", "a seccomp listener, which cannot be made again; end the supervision first"},
	{"anon_inode:[landlock-ruleset]", "a Landlock ruleset, which cannot be read; have the program close it first"},
	{"anon_inode:[fanotify]", "a fanotify group, which cannot be dumped; stop what watches the file system first"},
	{"/dev/kvm", "KVM's device (/dev/kvm), whose machines cannot be dumped; use the hypervisor's own way of saving them"},
	{"/dev/fuse", "a FUSE server's connection (/dev/fuse), which cannot be made again; unmount that file system first"},
	{"/dev/userfaultfd", "a userfaultfd's device, which cannot be carried over; have the program close it first"},
	{"/dev/dri/*", "a graphics device, whose buffers cannot be dumped; run the program without acceleration"},
	{"/dev/nvidia*", "a graphics device, whose buffers cannot be dumped; run the program without acceleration"},
	{"/dev/net/tun", "a network tunnel (/dev/net/tun), which cannot be dumped; close it first"},
};

const char *unsupported_object(const char *link)
{
	for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
		size_t n = strlen(objects[i].link);
		bool prefix = objects[i].link[n - 1] == '*';
		if (prefix ? strncmp(link, objects[i].link, n - 1) == 0 : strcmp(link, objects[i].link) == 0)
			return objects[i].what;
	}
	return NULL;
}
