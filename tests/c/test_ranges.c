#include "borrow.h"
#include "harness.h"
#include "platform.h"

enum { MOST = 5000 };

/* The same loans in no order. */
typedef struct {
    tether_ranges_t ranges;
    tether_loan_t *loans[MOST];
    int n;
    uint32_t seed;
} model_t;

static size_t below(model_t *m, size_t limit)
{
    m->seed = m->seed * 1664525u + 1013904223u;
    return (m->seed >> 8) % limit;
}

/* Short ranges, and long ones now and then; many begin at the same place. */
static tether_loan_t a_range(model_t *m)
{
    size_t start = below(m, 2000), length = 1 + below(m, below(m, 10) != 0 ? 3 : 500);
    return (tether_loan_t){.start = start, .stop = start + length, .exclusive = below(m, 2)};
}

static bool in_order(const tether_loan_t *a, const tether_loan_t *b)
{
    return a->start < b->start || (a->start == b->start && a < b);
}

static bool hinders(const tether_loan_t *a, const tether_loan_t *b)
{
    return (a->exclusive || b->exclusive) && a->start < b->stop && b->start < a->stop;
}

static bool count_one(tether_loan_t *loan, void *n)
{
    (void)loan;
    ++*(int *)n;
    return true;
}

static bool count_and_go_on(tether_loan_t *loan, void *n) { return !count_one(loan, n); }

static void compare(model_t *m)
{
    tether_loan_t wanted = a_range(m), *first = NULL;
    int all = 0, found = 0;
    for (int i = 0; i < m->n; i++) {
        if (!hinders(m->loans[i], &wanted))
            continue;
        all++;
        if (first == NULL || in_order(m->loans[i], first))
            first = m->loans[i];
    }
    CHECK(tether_ranges_find(&m->ranges, &wanted) == first);
    CHECK(!tether_ranges_any(&m->ranges, &wanted, count_and_go_on, &found) && found == all);
    CHECK(tether_ranges_any(&m->ranges, &wanted, count_one, &found) == (all != 0));
}

static void check_all(model_t *m)
{
    int n = 0;
    CHECK(tether_ranges_are_sound(&m->ranges, count_one, &n) && n == m->n);
}

static bool put(model_t *m)
{
    tether_loan_t *loan = malloc(sizeof *loan);
    *loan = a_range(m);
    bool there = tether_ranges_put(&m->ranges, loan);
    if (there)
        m->loans[m->n++] = loan;
    else
        free(loan);
    return there;
}

static void take(model_t *m, int i)
{
    tether_loan_t *loan = m->loans[i];
    m->loans[i] = m->loans[--m->n];
    tether_ranges_take(&m->ranges, loan);
    free(loan);
}

static void take_all(model_t *m)
{
    while (m->n != 0)
        take(m, (int)below(m, (size_t)m->n));
    check_all(m);
    CHECK(m->ranges.root.row == NULL && m->ranges.depth == 0);
}

TEST(finds_what_a_look_at_all_of_them_finds)
{
    static model_t m;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        m.seed = seed;
        for (int most = 4; most <= MOST; most *= 6) {
            /* mostly put until they are so many, then mostly taken until none is left */
            for (bool grows = true; grows || m.n != 0; grows = grows && m.n < most) {
                if (m.n != 0 && below(&m, 4) == (grows ? 0 : 1))
                    take(&m, (int)below(&m, (size_t)m.n));
                else if (m.n == 0 || grows || below(&m, 3) == 0)
                    CHECK(put(&m));
                else
                    take(&m, (int)below(&m, (size_t)m.n));
                compare(&m);
                if (most < 1000 || below(&m, 50) == 0)
                    check_all(&m);
            }
        }
        take_all(&m);
    }
}

/* Rows that few are left in become one, whatever the order in which the others went. */
TEST(rows_go_with_their_loans)
{
    static model_t m;
    m.seed = 7;
    for (int way = 0; way < 3; way++) {
        long before = harness_blocks;
        for (int i = 0; i < MOST; i++) {
            tether_loan_t *loan = malloc(sizeof *loan);
            *loan = (tether_loan_t){.start = (size_t)i, .stop = (size_t)i + 1};
            CHECK(tether_ranges_put(&m.ranges, loan));
            m.loans[m.n++] = loan;
        }
        long full = harness_blocks - before;
        for (int i = 0; i < MOST; i++) /* up, down, and from the middle */
            if (i % 50 != 0) {
                int at = way == 0 ? i : way == 1 ? MOST - i : (i + MOST / 2) % MOST;
                tether_ranges_take(&m.ranges, m.loans[at]);
                free(m.loans[at]);
                m.loans[at] = NULL;
            }
        int n = 0;
        for (int i = 0; i < MOST; i++)
            if (m.loans[i] != NULL)
                m.loans[n++] = m.loans[i];
        m.n = n;
        check_all(&m);
        CHECK((harness_blocks - before) * 10 < full);
        take_all(&m);
        CHECK(harness_blocks == before);
    }
}

TEST(without_memory_nothing_changes)
{
    static model_t m;
    m.seed = 3;
    int refused = 0;
    while (m.n < MOST) {
        int before = m.n;
        tether_fail_nth(TETHER_FAIL_ALLOC, (long)below(&m, 3));
        if (!put(&m)) {
            refused++;
            CHECK(m.n == before);
        }
        tether_fail_nth(TETHER_FAIL_ALLOC, 0);
        if (m.n % 64 == 0)
            check_all(&m);
        if (below(&m, 3) == 0 && m.n != 0)
            take(&m, (int)below(&m, (size_t)m.n));
    }
    CHECK(refused > 10);
    take_all(&m);
}

TEST(a_loan_is_replaced_where_it_is)
{
    static model_t m;
    m.seed = 11;
    for (int i = 0; i < 500; i++) {
        tether_loan_t *loan = malloc(sizeof *loan);
        *loan = (tether_loan_t){.start = 2 * (size_t)i, .stop = 2 * (size_t)i + 1, .exclusive = true};
        CHECK(tether_ranges_put(&m.ranges, loan));
        m.loans[m.n++] = loan;
    }
    for (int i = 0; i < m.n; i++) {
        tether_loan_t *old = m.loans[i], *by = malloc(sizeof *by);
        *by = (tether_loan_t){.start = old->start, .stop = old->stop};
        tether_ranges_replace(&m.ranges, old, by);
        m.loans[i] = by;
        free(old);
        check_all(&m);
        tether_loan_t reader = {.start = by->start, .stop = by->stop}, writer = reader;
        writer.exclusive = true;
        CHECK(tether_ranges_find(&m.ranges, &reader) == NULL && tether_ranges_find(&m.ranges, &writer) == by);
    }
    take_all(&m);
}
