/*
 * Objects that no path leads to (shared memory, memfds, removed files): each is saved once, whoever maps it or has it
 * open, and made again once by the coordinator.
 */
#ifndef CRL_OBJECTS_H
#define CRL_OBJECTS_H

#include "kinds.h"
#include "lib/json.h"

/* The id of the object of that device and inode, 0: not saved yet. */
uint32_t object_find(const struct dump *d, uint64_t dev, uint64_t ino);
/* Another name of it: maps and stat tell different devices on some filesystems. */
int object_alias(struct dump *d, uint64_t dev, uint64_t ino, uint32_t id);

/*
 * Saves what FD (a description of our own: its position moves) is of: contents and a record TYPE. The fields of O that
 * stat tells are filled here, the others by the caller. The object's id; 0 with the error set.
 */
uint32_t object_save(struct dump *d, uint32_t type, struct rec_object *o, int fd, const char *name);
void objects_free(struct dump *d);

/* A description of our own of what F refers to, or of what V maps; -1 with the error set. */
int object_open_fd(const struct fd_entry *f);
int object_open_vma(const struct process *p, const struct vma *v);

/* Reads REC and its name, checked. */
int object_get(const struct restore *r, const struct record *rec, struct rec_object *o, const char **name);
/* Gives the new, empty FD the object's size and contents, whose sums are checked. */
int object_fill(struct restore *r, const struct record *rec, const struct rec_object *o, int fd);
/* Another open file description of FD's file. */
int object_reopen(int fd, uint32_t flags);
/* Opens what a struct rec_object_file says. */
int object_open_file(struct restore *r, const struct record *rec, uint32_t *id);

/* For show: struct rec_object, struct rec_object_file. */
void print_object(struct json *j, const struct image_file *f, const struct record *rec);
void print_object_file(struct json *j, const struct image_file *f, const struct record *rec);

#endif
