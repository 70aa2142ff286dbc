/* Written so that compilers make vector instructions of it: several accumulators side by side where the order of operations
 * matters (floats), and plain loops where it does not. */
#pragma GCC optimize("O3")
#include "kernel.h"

#include <string.h>

/* Numbers at any address. */
#define X(name, type) typedef type name##_any __attribute__((aligned(1), may_alias));
TETHER_KINDS(X)
#undef X

size_t tether_kind_size(tether_kind_t kind)
{
    static const uint8_t sizes[] = {
#define X(name, type) sizeof(type),
        TETHER_KINDS(X)
#undef X
    };
    return sizes[kind];
}

/* ---- fill and copy ------------------------------------------------------------------------------------------------------- */

int tether_fill_body(void *arg, size_t begin, size_t end)
{
    const tether_fill_t *fill = arg;
    unsigned char bytes[8];
    memcpy(bytes, &fill->pattern, sizeof bytes);
    if (memcmp(bytes, bytes + 1, sizeof bytes - 1) == 0) {
        memset(fill->data + begin, bytes[0], end - begin);
        return 0;
    }
    uint64_t pattern = fill->pattern;
    U64_any *at = (U64_any *)(fill->data + begin);
    size_t whole = (end - begin) / 8;
    for (size_t i = 0; i < whole; i++)
        at[i] = pattern;
    memcpy(at + whole, &pattern, (end - begin) % 8);
    return 0;
}

int tether_copy_body(void *arg, size_t begin, size_t end)
{
    const tether_copy_t *copy = arg;
    memcpy(copy->to + begin, copy->from + begin, end - begin);
    return 0;
}

/* ---- sums ---------------------------------------------------------------------------------------------------------------- */

enum { LEAF = 256, LANES = 16, LEVELS = 48 };

/* Pairs of pairs: the sums of 2**k neighbours wait for their neighbour. */
typedef struct {
    double waiting[LEVELS];
    unsigned n;
    size_t came;
} pairs_t;

static void pairs_add(pairs_t *pairs, double sum)
{
    for (size_t number = pairs->came++; number & 1; number >>= 1)
        sum = pairs->waiting[--pairs->n] + sum;
    pairs->waiting[pairs->n++] = sum;
}

static double pairs_total(pairs_t *pairs)
{
    if (pairs->n == 0)
        return 0.0;
    double sum = pairs->waiting[--pairs->n];
    while (pairs->n > 0)
        sum = pairs->waiting[--pairs->n] + sum;
    return sum;
}

#define SUM_OF_REALS(name)                                                                                                     \
    static double leaf_##name(const name##_any *at, size_t n)                                                                  \
    {                                                                                                                          \
        double lanes[LANES] = {0};                                                                                             \
        size_t i = 0;                                                                                                          \
        for (; i + LANES <= n; i += LANES)                                                                                     \
            for (int k = 0; k < LANES; k++)                                                                                    \
                lanes[k] += (double)at[i + (size_t)k];                                                                         \
        for (size_t k = 0; i + k < n; k++)                                                                                     \
            lanes[k] += (double)at[i + k];                                                                                     \
        for (int half = LANES / 2; half > 0; half /= 2)                                                                        \
            for (int k = 0; k < half; k++)                                                                                     \
                lanes[k] += lanes[k + half];                                                                                   \
        return lanes[0];                                                                                                       \
    }                                                                                                                          \
    static tether_part_t sum_##name(const char *data, size_t n)                                                                \
    {                                                                                                                          \
        const name##_any *at = (const name##_any *)data;                                                                       \
        pairs_t pairs = {.n = 0};                                                                                              \
        for (size_t i = 0; i < n; i += LEAF)                                                                                   \
            pairs_add(&pairs, leaf_##name(at + i, n - i < LEAF ? n - i : LEAF));                                               \
        return (tether_part_t){.real = pairs_total(&pairs)};                                                                   \
    }

SUM_OF_REALS(F32)
SUM_OF_REALS(F64)

/* Small numbers in 32 bits, as long as they cannot run over; then in 64. */
#define SUM_OF_SMALL(name, wide)                                                                                               \
    static tether_part_t sum_##name(const char *data, size_t n)                                                                \
    {                                                                                                                          \
        const name##_any *at = (const name##_any *)data;                                                                       \
        int64_t sum = 0;                                                                                                       \
        for (size_t i = 0; i < n;) {                                                                                           \
            size_t stop = n - i < 32768 ? n : i + 32768;                                                                       \
            wide part = 0;                                                                                                     \
            for (; i < stop; i++)                                                                                              \
                part += at[i];                                                                                                 \
            sum += part;                                                                                                       \
        }                                                                                                                      \
        return (tether_part_t){.whole = sum};                                                                                  \
    }

SUM_OF_SMALL(I8, int32_t)
SUM_OF_SMALL(U8, uint32_t)
SUM_OF_SMALL(I16, int32_t)
SUM_OF_SMALL(U16, uint32_t)

#define SUM_OF_MIDDLE(name)                                                                                                    \
    static tether_part_t sum_##name(const char *data, size_t n)                                                                \
    {                                                                                                                          \
        const name##_any *at = (const name##_any *)data;                                                                       \
        int64_t sum = 0;                                                                                                       \
        for (size_t i = 0; i < n; i++)                                                                                         \
            sum += at[i];                                                                                                      \
        return (tether_part_t){.whole = sum};                                                                                  \
    }

SUM_OF_MIDDLE(I32)
SUM_OF_MIDDLE(U32)

/* Halves of 32 bits apart. A signed number is made unsigned by adding 2**63, which is taken away in the end. */
static tether_part_t sum_of_large(const char *data, size_t n, uint64_t flip)
{
    const U64_any *at = (const U64_any *)data;
    uint64_t low = 0, high = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t number = at[i] ^ flip;
        low += number & UINT32_MAX;
        high += number >> 32;
    }
    __int128 sum = ((__int128)high << 32) + (__int128)low;
    return (tether_part_t){.whole = sum - (__int128)flip * (__int128)n};
}

static tether_part_t sum_U64(const char *data, size_t n) { return sum_of_large(data, n, 0); }
static tether_part_t sum_I64(const char *data, size_t n) { return sum_of_large(data, n, (uint64_t)1 << 63); }

/* ---- least and most ------------------------------------------------------------------------------------------------------ */

#define EXTREME_OF_WHOLES(fold, name, type, better)                                                                            \
    static tether_part_t fold##_##name(const char *data, size_t n)                                                             \
    {                                                                                                                          \
        const name##_any *at = (const name##_any *)data;                                                                       \
        type best = at[0];                                                                                                     \
        for (size_t i = 1; i < n; i++)                                                                                         \
            best = at[i] better best ? at[i] : best;                                                                           \
        return (tether_part_t){.whole = best};                                                                                 \
    }

/* A comparison with NaN is false, so NaNs do not get in; they are looked for beside it, and are the answer if there is one. */
#define EXTREME_OF_REALS(fold, name, type, mask, better)                                                                       \
    static tether_part_t fold##_##name(const char *data, size_t n)                                                             \
    {                                                                                                                          \
        enum { WIDTH = 16 / sizeof(type), STEP = 4 * WIDTH };                                                                  \
        typedef type vector_t __attribute__((vector_size(16)));                                                                \
        typedef mask mask_t __attribute__((vector_size(16)));                                                                  \
        const name##_any *at = (const name##_any *)data;                                                                       \
        type best = at[0];                                                                                                     \
        bool odd = best != best;                                                                                               \
        size_t i = 0;                                                                                                          \
        vector_t lanes[4];                                                                                                     \
        mask_t odds = {0};                                                                                                     \
        for (int k = 0; k < 4; k++)                                                                                            \
            for (size_t j = 0; j < WIDTH; j++)                                                                                 \
                lanes[k][j] = best;                                                                                            \
        for (; i + STEP <= n; i += STEP) {                                                                                     \
            for (int k = 0; k < 4; k++) {                                                                                      \
                vector_t now;                                                                                                  \
                memcpy(&now, at + i + (size_t)k * WIDTH, sizeof now);                                                          \
                mask_t take = now better lanes[k];                                                                             \
                lanes[k] = (vector_t)(((mask_t)now & take) | ((mask_t)lanes[k] & ~take));                                      \
                odds |= now != now;                                                                                            \
            }                                                                                                                  \
        }                                                                                                                      \
        for (int k = 0; k < 4; k++)                                                                                            \
            for (size_t j = 0; j < WIDTH; j++)                                                                                 \
                best = lanes[k][j] better best ? lanes[k][j] : best;                                                           \
        for (size_t j = 0; j < WIDTH; j++)                                                                                     \
            odd = odd || odds[j] != 0;                                                                                         \
        for (; i < n; i++) {                                                                                                   \
            best = at[i] better best ? at[i] : best;                                                                           \
            odd = odd || at[i] != at[i];                                                                                       \
        }                                                                                                                      \
        return (tether_part_t){.real = odd ? (double)__builtin_nanf("") : (double)best};                                       \
    }

#define EXTREMES_OF_WHOLES(name, type)                                                                                         \
    EXTREME_OF_WHOLES(least, name, type, <) EXTREME_OF_WHOLES(most, name, type, >)
#define EXTREMES_OF_REALS(name, type, mask)                                                                                    \
    EXTREME_OF_REALS(least, name, type, mask, <) EXTREME_OF_REALS(most, name, type, mask, >)

EXTREMES_OF_WHOLES(I8, int8_t)
EXTREMES_OF_WHOLES(U8, uint8_t)
EXTREMES_OF_WHOLES(I16, int16_t)
EXTREMES_OF_WHOLES(U16, uint16_t)
EXTREMES_OF_WHOLES(I32, int32_t)
EXTREMES_OF_WHOLES(U32, uint32_t)
EXTREMES_OF_WHOLES(I64, int64_t)
EXTREMES_OF_WHOLES(U64, uint64_t)
EXTREMES_OF_REALS(F32, float, int32_t)
EXTREMES_OF_REALS(F64, double, int64_t)

/* ---- blocks -------------------------------------------------------------------------------------------------------------- */

typedef tether_part_t fold_block_t(const char *data, size_t n);

static fold_block_t *const folds[][10] = {
#define X(name, type) sum_##name,
    {TETHER_KINDS(X)},
#undef X
#define X(name, type) least_##name,
    {TETHER_KINDS(X)},
#undef X
#define X(name, type) most_##name,
    {TETHER_KINDS(X)},
#undef X
};

enum { BLOCK_LEAST = 1 << 14, BLOCK_MOST = 1 << 30, BLOCKS_GOOD = 1 << 14 };

void tether_reduction_plan(tether_reduction_t *r)
{
    r->block = BLOCK_LEAST; /* less than 2**32 numbers: sums of 32 bits fit into 64 */
    while (r->block < BLOCK_MOST && r->count / r->block > BLOCKS_GOOD)
        r->block *= 2;
    r->blocks = r->count / r->block + (r->count % r->block != 0);
}

int tether_reduction_body(void *arg, size_t begin, size_t end)
{
    tether_reduction_t *r = arg;
    size_t size = tether_kind_size(r->kind);
    for (size_t i = begin; i < end; i++) {
        size_t first = i * r->block, left = r->count - first;
        r->parts[i] = folds[r->fold][r->kind](r->data + first * size, left < r->block ? left : r->block);
    }
    return 0;
}

static bool is_better(const tether_reduction_t *r, tether_part_t a, tether_part_t b)
{
    if (tether_kind_is_real(r->kind)) /* NaN is better than anything */
        return a.real != a.real || (r->fold == TETHER_LEAST ? a.real < b.real : a.real > b.real);
    return r->fold == TETHER_LEAST ? a.whole < b.whole : a.whole > b.whole;
}

tether_part_t tether_reduction_result(tether_reduction_t *r)
{
    bool real = tether_kind_is_real(r->kind);
    pairs_t pairs = {.n = 0};
    tether_part_t total = r->fold == TETHER_SUM ? (tether_part_t){.whole = 0} : r->parts[0];
    for (size_t i = 0; i < r->blocks; i++) {
        if (r->fold != TETHER_SUM)
            total = is_better(r, r->parts[i], total) ? r->parts[i] : total;
        else if (real)
            pairs_add(&pairs, r->parts[i].real);
        else
            total.whole += r->parts[i].whole;
    }
    if (r->fold == TETHER_SUM && real)
        total.real = pairs_total(&pairs);
    return total;
}
