/*
 * What both blobs have: system calls that return -errno, and memory functions that gcc may call.
 */
#ifndef CRL_PIE_H
#define CRL_PIE_H

#include <asm/unistd.h>
#include <linux/errno.h>
#include <stddef.h>
#include <stdint.h>

long pie_syscall(long nr, long a, long b, long c, long d, long e, long f);

#define SYS6(nr, a, b, c, d, e, f) pie_syscall(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define SYS5(nr, a, b, c, d, e)	   SYS6(nr, a, b, c, d, e, 0)
#define SYS4(nr, a, b, c, d)	   SYS6(nr, a, b, c, d, 0, 0)
#define SYS3(nr, a, b, c)	   SYS6(nr, a, b, c, 0, 0, 0)
#define SYS2(nr, a, b)		   SYS6(nr, a, b, 0, 0, 0, 0)
#define SYS1(nr, a)		   SYS6(nr, a, 0, 0, 0, 0, 0)
#define SYS0(nr)		   SYS6(nr, 0, 0, 0, 0, 0, 0)

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

#endif
