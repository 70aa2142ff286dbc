/* The lent ranges of a book, in order of their starts, and the answer to: which of them is in the way of another one?
 *
 * A B+ tree (Bayer and McCreight 1972; Comer 1979), augmented as interval trees are (Cormen et al.): an entry knows how far the
 * loans below it reach, and how far those reach that are left of it in its row. So on the way down one search in each row tells
 * where the first loan is that reaches beyond a place. What a search reads stands together, in rows of their own: loans are
 * inside of the host's handles, all over the memory, and are not looked at.
 *
 * Whoever calls has the book's lock. Rows are allocated, but for the first few loans; a tree without loans has none. */
#ifndef TETHER_RANGES_H
#define TETHER_RANGES_H

#include "types.h"

enum { TETHER_REACH_ALL, TETHER_REACH_EXCLUSIVE, TETHER_REACHES, TETHER_RANGES_FEW = 2 };

typedef struct tether_entry {
    size_t start;                /* of the first loan below; in the lowest rows: of the loan */
    tether_loan_t *loan;         /* likewise */
    size_t upto[TETHER_REACHES]; /* the furthest stop of this entry and of those left of it in its row: of all, of exclusive loans */
    size_t own[TETHER_REACHES];  /* the same of this entry alone */
    struct tether_entry *row;     /* what is below; NULL in the lowest rows */
    uint32_t n, room;            /* of `row`: entries in use, entries there are */
} tether_entry_t;

/* Zeroed memory is an empty tree. It does not move while it has loans. */
typedef struct {
    tether_entry_t root;
    tether_entry_t few[TETHER_RANGES_FEW]; /* the root's row while it is no longer */
    uint32_t depth;                       /* how many rows are between the root's and the lowest, and one of these two */
} tether_ranges_t;

/* The loan's range is not empty, and stays as it is until the loan is taken out. false: no memory, and nothing has changed. */
bool tether_ranges_put(tether_ranges_t *ranges, tether_loan_t *loan);

/* pre: it is in. */
void tether_ranges_take(tether_ranges_t *ranges, tether_loan_t *loan);

/* Puts `by`, of the same range, in its place. pre: as for take; and no other loan in the tree starts there. */
void tether_ranges_replace(tether_ranges_t *ranges, tether_loan_t *loan, tether_loan_t *by);

/* The first in order whose range has a byte of `wanted`'s, and one of the two is exclusive; or NULL. */
tether_loan_t *tether_ranges_find(const tether_ranges_t *ranges, const tether_loan_t *wanted);

/* Is there one of these for which is(loan, arg)? */
bool tether_ranges_any(const tether_ranges_t *ranges, const tether_loan_t *wanted, bool (*is)(tether_loan_t *loan, void *arg),
                       void *arg);

/* For tests: is the tree in order, and is each(loan, arg) true for all, in order? */
bool tether_ranges_are_sound(const tether_ranges_t *ranges, bool (*each)(tether_loan_t *loan, void *arg), void *arg);

#endif
