/* Loops over numbers against the plain ones, at odd addresses, with the extremes of every kind. */
#include "harness.h"

#include <math.h>

#include "kernel.h"

enum { MOST = 40000 };

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

static tether_part_t reduce(tether_fold_t fold, tether_kind_t kind, const char *data, size_t n)
{
    tether_reduction_t r = {.fold = fold, .kind = kind, .data = data, .count = n};
    tether_reduction_plan(&r);
    r.parts = malloc((r.blocks + 1) * sizeof *r.parts);
    for (size_t i = r.blocks; i > 0; i--) /* in any order */
        tether_reduction_body(&r, i - 1, i);
    tether_part_t total = tether_reduction_result(&r);
    free(r.parts);
    return total;
}

#define CHECK_WHOLES(name, type)                                                                             \
    static void check_##name(const char *data, size_t n)                                                     \
    {                                                                                                        \
        __int128 sum = 0, least = 0, most = 0;                                                               \
        for (size_t i = 0; i < n; i++) {                                                                     \
            type number;                                                                                     \
            memcpy(&number, data + i * sizeof number, sizeof number);                                        \
            sum += number;                                                                                   \
            least = i == 0 || number < least ? number : least;                                               \
            most = i == 0 || number > most ? number : most;                                                  \
        }                                                                                                    \
        CHECK(reduce(TETHER_SUM, TETHER_##name, data, n).whole == sum);                                      \
        CHECK(n == 0 || reduce(TETHER_LEAST, TETHER_##name, data, n).whole == least);                        \
        CHECK(n == 0 || reduce(TETHER_MOST, TETHER_##name, data, n).whole == most);                          \
    }

#define CHECK_REALS(name, type)                                                                              \
    static void check_##name(const char *data, size_t n)                                                     \
    {                                                                                                        \
        long double sum = 0, size = 0;                                                                       \
        type least = 0, most = 0;                                                                            \
        char *copy = malloc(n * sizeof(type) + 1);                                                           \
        memcpy(copy, data, n * sizeof(type));                                                                \
        for (size_t i = 0; i < n; i++) {                                                                     \
            int32_t small;                                                                                   \
            memcpy(&small, data + i * sizeof(type), sizeof small);                                           \
            type number = (type)small / 1024;                                                                \
            memcpy(copy + i * sizeof number, &number, sizeof number);                                        \
            sum += (long double)number;                                                                      \
            size += fabsl((long double)number);                                                              \
            least = i == 0 || number < least ? number : least;                                               \
            most = i == 0 || number > most ? number : most;                                                  \
        }                                                                                                    \
        long double off = fabsl((long double)reduce(TETHER_SUM, TETHER_##name, copy, n).real - sum);         \
        CHECK(off <= 36 * 0x1p-53L * size);                                                                  \
        CHECK(n == 0 || reduce(TETHER_LEAST, TETHER_##name, copy, n).real == (double)least);                 \
        CHECK(n == 0 || reduce(TETHER_MOST, TETHER_##name, copy, n).real == (double)most);                   \
        for (size_t at = 0; at < n; at += 1 + n / 7) { /* one NaN, anywhere */                               \
            type odd = (type)NAN, before;                                                                    \
            memcpy(&before, copy + at * sizeof odd, sizeof odd);                                             \
            memcpy(copy + at * sizeof odd, &odd, sizeof odd);                                                \
            CHECK(isnan(reduce(TETHER_LEAST, TETHER_##name, copy, n).real));                                 \
            CHECK(isnan(reduce(TETHER_MOST, TETHER_##name, copy, n).real));                                  \
            CHECK(isnan(reduce(TETHER_SUM, TETHER_##name, copy, n).real));                                   \
            memcpy(copy + at * sizeof odd, &before, sizeof odd);                                             \
        }                                                                                                    \
        free(copy);                                                                                          \
    }

CHECK_WHOLES(I8, int8_t)
CHECK_WHOLES(U8, uint8_t)
CHECK_WHOLES(I16, int16_t)
CHECK_WHOLES(U16, uint16_t)
CHECK_WHOLES(I32, int32_t)
CHECK_WHOLES(U32, uint32_t)
CHECK_WHOLES(I64, int64_t)
CHECK_WHOLES(U64, uint64_t)
CHECK_REALS(F32, float)
CHECK_REALS(F64, double)

static void check_all(const char *data, size_t n)
{
#define X(name, type) check_##name(data, n);
    TETHER_KINDS(X)
#undef X
}

static const size_t sizes[] = {0, 1, 2, 3, 15, 16, 17, 31, 64, 255, 256, 257, 4095, 16384, 16385, MOST};

TEST(random_numbers)
{
    uint64_t seed = 12345;
    char *data = malloc(8 * MOST + 8);
    for (size_t i = 0; i < 8 * MOST + 8; i++)
        data[i] = (char)next_random(&seed);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t shift = 0; shift < 4; shift++)
            check_all(data + shift, sizes[s]);
    free(data);
}

TEST(largest_and_smallest_numbers)
{
    char *data = malloc(8 * MOST);
    for (int what = 0; what < 4; what++) {
        memset(data, what == 0 ? 0 : what == 1 ? 0xff : what == 2 ? 0x7f : 0x80, 8 * MOST);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            check_all(data, sizes[s]);
        for (size_t i = 0; i < MOST; i++) /* signs alone */
            memset(data + 8 * i, 0, 7);
        check_I64(data, MOST);
        check_U64(data, MOST);
    }
    free(data);
}

TEST(infinities)
{
    double some[100];
    for (int i = 0; i < 100; i++)
        some[i] = i;
    some[40] = INFINITY;
    CHECK(reduce(TETHER_SUM, TETHER_F64, (char *)some, 100).real == INFINITY);
    CHECK(reduce(TETHER_MOST, TETHER_F64, (char *)some, 100).real == INFINITY);
    CHECK(reduce(TETHER_LEAST, TETHER_F64, (char *)some, 100).real == 0);
    some[70] = -INFINITY;
    CHECK(isnan(reduce(TETHER_SUM, TETHER_F64, (char *)some, 100).real));
    CHECK(reduce(TETHER_LEAST, TETHER_F64, (char *)some, 100).real == -INFINITY);
}

TEST(a_sum_does_not_lose_small_numbers)
{
    enum { N = 1 << 22 };
    float *ones = malloc(N * sizeof *ones);
    for (int i = 0; i < N; i++)
        ones[i] = 0.1f;
    double want = (double)0.1f * N;
    CHECK(fabs(reduce(TETHER_SUM, TETHER_F32, (char *)ones, N).real - want) < 1e-8 * want);
    free(ones);
}

TEST(blocks_cover_everything_however_large)
{
    for (size_t n = 0; n <= SIZE_MAX / 16; n = n * 3 + 1) {
        tether_reduction_t r = {.count = n};
        tether_reduction_plan(&r);
        CHECK(n == 0 ? r.blocks == 0 : (r.blocks - 1) < n / r.block + 1 && r.block * (__int128)r.blocks >= (__int128)n);
        CHECK(r.block <= (size_t)1 << 30);
    }
}

TEST(filled_and_copied)
{
    enum { N = 1000 };
    char data[N + 2], other[N];
    for (unsigned width = 1; width <= 8; width *= 2) {
        for (size_t size = 0; size <= N; size += 8) {
            memset(data, 'x', sizeof data);
            unsigned char pattern[8];
            for (unsigned i = 0; i < 8; i++)
                pattern[i] = (unsigned char)(1 + i % width);
            tether_fill_t fill = {.data = data + 1};
            memcpy(&fill.pattern, pattern, 8);
            tether_fill_body(&fill, 0, size);
            bool right = data[0] == 'x' && data[size + 1] == 'x';
            for (size_t i = 0; i < size; i++)
                right = right && data[i + 1] == (char)(1 + i % width);
            CHECK(right);
            tether_copy_t copy = {other, data + 1};
            tether_copy_body(&copy, 0, size);
            CHECK(memcmp(other, data + 1, size) == 0);
        }
    }
}
