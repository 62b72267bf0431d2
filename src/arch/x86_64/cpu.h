/* What this processor can do. */
#ifndef CRL_CPU_H
#define CRL_CPU_H

#include <stddef.h>
#include <stdint.h>

/* The words of rec_tree.cpu_features. */
void cpu_features(uint64_t words[4]);
/* The name of a feature that is in WANTED and not in THIS machine's, or NULL. */
const char *cpu_missing(const uint64_t wanted[4], const uint64_t here[4]);
/* XCR0's components that an NT_X86_XSTATE area holds in use (XSTATE_BV). */
uint64_t xstate_in_use(const void *xstate, size_t len);
/* The components that this kernel and CPU let a process use (XCR0). */
uint64_t cpu_xfeatures(void);

#define XSTATE_INTEL_SIZE 2696
/*
 * Copies an NT_X86_XSTATE area to OUT (XSTATE_INTEL_SIZE bytes) with the components where Intel's processors have them,
 * up to PKRU, and returns its length. Before version 14 gdb knows no other layout, and CPUID gives AMD's another.
 */
size_t xstate_intel_layout(void *out, const void *xstate, size_t len);

#endif
