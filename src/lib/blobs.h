/* The two blobs, as asm/blobs.S includes them. */
#ifndef CRL_BLOBS_H
#define CRL_BLOBS_H

extern const char parasite_blob_start[], parasite_blob_end[];
extern const char restorer_blob_start[], restorer_blob_end[];

#endif
