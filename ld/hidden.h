/* SPDX-License-Identifier: MIT */
/*
 * Included before everything else in a blob's sources. A blob is linked once, whole: no symbol of it is found from
 * outside or replaced at run time. The compiler learns it here for declarations too (-fvisibility=hidden is about
 * definitions only), and so reaches every object and function directly instead of through a GOT.
 */
#pragma GCC visibility push(hidden)
