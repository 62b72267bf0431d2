/* What cannot be carried over and can be seen from outside: for the dump's refusals and for `check -t`. */
#ifndef CRL_BLOCKERS_H
#define CRL_BLOCKERS_H

/* What a descriptor with LINK (/proc/PID/fd/N) is, and the way out; NULL: nothing speaks against it. */
const char *unsupported_object(const char *link);

#endif
