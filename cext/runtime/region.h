/* A region: mapped memory with one owner, and the book of what of it is lent.
 *
 *   base          data                     data + nbytes      base + mapped
 *   |-- lead ---->|======== usable ========|------ rest ------|
 *
 * base and mapped are whole granules (pages, or huge pages). lead is not zero only for files that were opened at an offset
 * which is not a page's.
 *
 * Invariants (G15): base..base+mapped belongs to this region alone, and is unmapped once, by tether_region_unmap. Nothing is
 * lent when it is unmapped, cut, merged or protected: the host holds the whole book for that (tether_region_seize), and keeps
 * it when the region is gone or has become others, so nobody borrows from it again. */
#ifndef TETHER_REGION_H
#define TETHER_REGION_H

#include "borrow.h"
#include "platform.h"

typedef struct {
    _Atomic uint32_t refs;
    int fd;
} tether_file_t; /* the memory behind TETHER_PAGES_SHARED without a path */

typedef struct {
    tether_runtime_t *rt;
    char *base;                  /* NULL: consumed. Read by who has something lent of it, or all of it */
    size_t mapped;
    char *data;
    size_t lead, nbytes, granule; /* these never change */
    uint64_t origin;             /* equal in regions that were cut from one mapping */
    tether_pages_t kind;
    bool may_write;              /* the mapping allows it */
    _Atomic tether_access_t access; /* as it is now: READ or WRITE; changed by who has all of it */
    tether_file_t *file;         /* with a reference, or NULL */
    tether_book_t book;
    _Atomic bool seized;         /* `whole` is somebody's: only he may write to it */
    tether_loan_t whole;         /* of whoever seized it */
} tether_region_t;

/* Each answers 0 or the system's error number, and changes nothing then. */

/* size bytes of zeroes; huge: at an address where huge pages are possible, and asked for. */
int tether_region_map(tether_region_t *region, tether_runtime_t *rt, size_t size, bool huge);

/* The same over a memory file, so that other processes may map it. name: for /proc/self/maps. */
int tether_region_map_shared(tether_region_t *region, tether_runtime_t *rt, size_t size, const char *name);

/* size bytes of an open file from `offset` on. The file may be closed afterwards. */
int tether_region_map_file(tether_region_t *region, tether_runtime_t *rt, int fd, uint64_t offset, size_t size,
                           tether_pages_t kind, bool write);

/* Takes the whole book for the caller, or CONFLICT with what is lent (blame as in borrow.h). Gives it back. */
tether_status_t tether_region_seize(tether_thread_t *thread, tether_region_t *region, tether_blame_t *blame, void *arg);
void tether_region_let_go(tether_thread_t *thread, tether_region_t *region);

/* pre for all that follow: seized. */
int tether_region_unmap(tether_region_t *region);
int tether_region_protect(tether_region_t *region, tether_access_t access);

/* From now on the memory unit guards what is lent (tether.Region, protect=True). pre: nothing is lent yet. */
int tether_region_shield(tether_region_t *region);

/* May it be cut there? 0 < offset < nbytes. Cuts: `region` is consumed; left and right are new, not seized. */
bool tether_region_may_cut(const tether_region_t *region, size_t offset);
int tether_region_cut(tether_region_t *region, size_t offset, tether_region_t *left, tether_region_t *right);

/* Are they neighbours of one mapping, with equal rights? Merges: both are consumed; `whole` is new, not seized. */
bool tether_region_may_merge(const tether_region_t *left, const tether_region_t *right);
int tether_region_merge(tether_region_t *left, tether_region_t *right, tether_region_t *whole);

/* Where part i of n begins: sizes differ by at most one unit, and the last takes the rest. The unit is a granule when there
 * are at least 64 of them a part, else a byte. */
size_t tether_region_part(const tether_region_t *region, size_t start, size_t stop, size_t i, size_t n);

#endif
