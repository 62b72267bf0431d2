#ifndef CRL_SHOW_H
#define CRL_SHOW_H

#include "lib/json.h"

/* `criu-lite show DIR [--json]`: 0, -1 with the error set, 2 for wrong usage. */
int cmd_show(int argc, char **argv);

/* The printers of records that no kind prints; the kinds' own are in their line of kinds[]. */
extern const struct record_printer basic_printers[];

#endif
