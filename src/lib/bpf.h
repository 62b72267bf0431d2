/* Classic BPF as seccomp(2) runs it. */
#ifndef CRL_BPF_H
#define CRL_BPF_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>

/* What the program says of the call: a SECCOMP_RET_* with its data. SECCOMP_RET_KILL_PROCESS where it makes no sense. */
uint32_t bpf_run(const struct sock_filter *prog, size_t len, const struct seccomp_data *call);

/* Whether some return of the program is ACTION (without its data); of computed returns it is not known: true. */
int bpf_may_return(const struct sock_filter *prog, size_t len, uint32_t action);

#endif
