/* Loops over memory that is full of numbers: fill, copy, sum, least, most. Bodies for tether_loop_run (loop.h), and what comes
 * before and after it. Numbers may lie at any address, aligned or not.
 *
 * A reduction works on blocks of a fixed size, whose results are put together in order: it does not depend on who did what. */
#ifndef TETHER_KERNEL_H
#define TETHER_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TETHER_KINDS(X)                                                                                                        \
    X(I8, int8_t) X(U8, uint8_t) X(I16, int16_t) X(U16, uint16_t) X(I32, int32_t) X(U32, uint32_t) X(I64, int64_t)             \
    X(U64, uint64_t) X(F32, float) X(F64, double)

typedef enum {
#define X(name, type) TETHER_##name,
    TETHER_KINDS(X)
#undef X
} tether_kind_t;

size_t tether_kind_size(tether_kind_t kind);

static inline bool tether_kind_is_real(tether_kind_t kind) { return kind >= TETHER_F32; }
static inline bool tether_kind_is_signed(tether_kind_t kind)
{
    return kind == TETHER_I8 || kind == TETHER_I16 || kind == TETHER_I32 || kind == TETHER_I64;
}

/* ---- fill and copy: over bytes, in parts that begin at multiples of TETHER_KERNEL_GRAIN ---------------------------------- */

enum { TETHER_KERNEL_GRAIN = 65536 };

typedef struct {
    char *data;
    uint64_t pattern; /* the number, repeated in all eight bytes' worth */
} tether_fill_t;

int tether_fill_body(void *fill, size_t begin, size_t end);

typedef struct {
    char *to;
    const char *from;
} tether_copy_t;

/* pre: they do not overlap. */
int tether_copy_body(void *copy, size_t begin, size_t end);

/* ---- reductions: over blocks --------------------------------------------------------------------------------------------- */

typedef enum { TETHER_SUM, TETHER_LEAST, TETHER_MOST } tether_fold_t;

/* What came of a block, or of all. whole: sums of integers, and integers; real: the others. */
typedef union {
    __int128 whole;
    double real;
} tether_part_t;

typedef struct {
    tether_fold_t fold;
    tether_kind_t kind;
    const char *data;
    size_t count;         /* of numbers, at least 1 for LEAST and MOST */
    size_t block;         /* numbers in a block */
    size_t blocks;
    tether_part_t *parts; /* the caller's, one for each block */
} tether_reduction_t;

/* Fills in block and blocks. */
void tether_reduction_plan(tether_reduction_t *reduction);

int tether_reduction_body(void *reduction, size_t begin, size_t end);

/* Of all parts. Sums of integers are exact. A sum of floats is made in double, by pairs: with u = 2**-53 it is off by at most
 * (log2(count) + 20) * u * (the sum of their absolute values), to first order in u (Higham 1993). LEAST and MOST of floats are
 * NaN if one of them is. Uses up the parts. */
tether_part_t tether_reduction_result(tether_reduction_t *reduction);

#endif
