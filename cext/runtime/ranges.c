#include "borrow.h"

#include <string.h>

#include "platform.h"

enum { WIDTH = 32, DEEPEST = 16 }; /* entries of a row; all but the root's are a quarter full, on the average, or better */

_Static_assert(sizeof(tether_entry_t) == 64, "an entry is as large as a cache line");

static const size_t NO_REACH[TETHER_REACHES];

static bool before(const tether_loan_t *a, const tether_entry_t *b)
{
    return a->start < b->start || (a->start == b->start && a < b->loan);
}

/* How many entries of the row begin no later than the loan. */
static uint32_t place_of(const tether_entry_t *node, const tether_loan_t *loan)
{
    const tether_entry_t *from = node->row;
    for (uint32_t n = node->n; n != 0;) {
        uint32_t half = (n + 1) / 2;
        from = before(loan, &from[half - 1]) ? from : from + half;
        n -= half;
    }
    return (uint32_t)(from - node->row);
}

/* In which entry of the row the loan is, or belongs. */
static uint32_t way_to(const tether_entry_t *node, const tether_loan_t *loan)
{
    uint32_t place = place_of(node, loan);
    return place != 0 ? place - 1 : 0;
}

static uint32_t first_reaching(const tether_entry_t *node, size_t beyond, int which)
{
    const tether_entry_t *from = node->row;
    for (uint32_t n = node->n; n != 0;) {
        uint32_t half = (n + 1) / 2;
        from = from[half - 1].upto[which] > beyond ? from : from + half;
        n -= half;
    }
    return (uint32_t)(from - node->row);
}

/* ---- what entries know --------------------------------------------------------------------------------------------- */

/* What entry `at` knows of itself and its left. returns whether it did not know. */
static bool look_left(tether_entry_t *node, uint32_t at)
{
    tether_entry_t *entry = &node->row[at];
    const size_t *left = at == 0 ? NO_REACH : entry[-1].upto;
    bool new = false;
    for (int which = 0; which < TETHER_REACHES; which++) {
        size_t upto = left[which] > entry->own[which] ? left[which] : entry->own[which];
        new |= upto != entry->upto[which];
        entry->upto[which] = upto;
    }
    return new;
}

/* Those from `at` on have another one on their left, or it knows something else. Who hears nothing new has nothing to tell. */
static void tell_right(tether_entry_t *node, uint32_t at)
{
    while (at < node->n && look_left(node, at))
        at++;
}

/* After the row below entry `at` has changed. returns whether that made a difference to the entry. */
static bool look_down(tether_entry_t *node, uint32_t at)
{
    tether_entry_t *entry = &node->row[at];
    const tether_entry_t *first = entry->row, *last = entry->row + entry->n - 1;
    bool same = entry->start == first->start && entry->loan == first->loan && memcmp(entry->own, last->upto, sizeof entry->own) == 0;
    if (same)
        return false;
    entry->start = first->start;
    entry->loan = first->loan;
    memcpy(entry->own, last->upto, sizeof entry->own);
    tell_right(node, at);
    return true;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void free_row(tether_ranges_t *ranges, tether_entry_t *node)
{
    if (node->row != ranges->few)
        tether_free(node->row);
    node->row = NULL;
    node->n = node->room = 0;
}

static void open_gap(tether_entry_t *node, uint32_t at)
{
    memmove(node->row + at + 1, node->row + at, (node->n - at) * sizeof *node->row);
    node->n++;
}

static void close_gap(tether_entry_t *node, uint32_t at)
{
    node->n--;
    memmove(node->row + at, node->row + at + 1, (node->n - at) * sizeof *node->row);
    tell_right(node, at);
}

/* Room for one entry more. Rows of the full width are all that ever get below another one. */
static bool widen(tether_ranges_t *ranges, tether_entry_t *node)
{
    if (node->n < node->room)
        return true;
    uint32_t room = node->room == 0 ? TETHER_RANGES_FEW : node->room < WIDTH / 4 ? WIDTH / 4 : WIDTH;
    tether_entry_t *row = node->room == 0 ? ranges->few : tether_alloc(room * sizeof *row);
    if (row == NULL)
        return false;
    if (node->n != 0)
        memcpy(row, node->row, node->n * sizeof *row);
    uint32_t n = node->n;
    free_row(ranges, node);
    node->row = row;
    node->n = n;
    node->room = room;
    return true;
}

/* The root's row is full: it goes below a new one. */
static bool raise_root(tether_ranges_t *ranges)
{
    tether_entry_t *row = tether_alloc(WIDTH * sizeof *row), *root = &ranges->root;
    if (row == NULL)
        return false;
    *row = (tether_entry_t){.row = root->row, .n = root->n, .room = root->room};
    root->row = row;
    root->n = 1;
    root->room = WIDTH;
    ranges->depth++;
    look_down(root, 0);
    return true;
}

/* The row below entry `at` is full: the upper part of it goes into a row of its own. That is half of it; but if the loan comes
 * last of all, as when ranges are lent from left to right, the lower row stays nearly full. pre: there is room for its entry. */
static bool part(tether_entry_t *node, uint32_t at, const tether_loan_t *loan)
{
    tether_entry_t *row = tether_alloc(WIDTH * sizeof *row);
    if (row == NULL)
        return false;
    bool last = at + 1 == node->n && place_of(&node->row[at], loan) == WIDTH;
    open_gap(node, at + 1);
    tether_entry_t *lower = &node->row[at], *upper = lower + 1;
    lower->n = last ? WIDTH - 1 : WIDTH / 2;
    *upper = (tether_entry_t){.row = row, .n = WIDTH - lower->n, .room = WIDTH};
    memcpy(row, lower->row + lower->n, upper->n * sizeof *row);
    tell_right(upper, 0);
    look_down(node, at);
    look_down(node, at + 1);
    return true;
}

/* Are the rows below entry `at` and the next one half a row together? Then they become one. returns whether they did. */
static bool fold(tether_ranges_t *ranges, tether_entry_t *node, uint32_t at)
{
    if (at + 1 >= node->n)
        return false;
    tether_entry_t *lower = &node->row[at], *upper = lower + 1;
    if (lower->n + upper->n > WIDTH / 2)
        return false;
    uint32_t n = lower->n;
    memcpy(lower->row + n, upper->row, upper->n * sizeof *upper->row);
    lower->n += upper->n;
    tell_right(lower, n);
    free_row(ranges, upper);
    close_gap(node, at + 1);
    look_down(node, at);
    return true;
}

/* ---- loans ------------------------------------------------------------------------------------------------------- */

/* The way from the root to a row, by the entries that it goes through. */
typedef struct {
    tether_entry_t *nodes[DEEPEST];
    uint32_t at[DEEPEST];
} way_t;

static void set_entry(tether_entry_t *entry, tether_loan_t *loan)
{
    *entry = (tether_entry_t){.start = loan->start, .loan = loan, .own = {loan->stop, loan->exclusive ? loan->stop : 0}};
}

static tether_entry_t *go_down(tether_ranges_t *ranges, const tether_loan_t *loan, way_t *way)
{
    tether_entry_t *node = &ranges->root;
    for (uint32_t d = 0; d < ranges->depth; d++) {
        way->nodes[d] = node;
        way->at[d] = way_to(node, loan);
        node = &node->row[way->at[d]];
    }
    return node;
}

static void tell_above(uint32_t depth, const way_t *way)
{
    while (depth-- != 0 && look_down(way->nodes[depth], way->at[depth]))
        ;
}

bool tether_ranges_put(tether_ranges_t *ranges, tether_loan_t *loan)
{
    way_t way;
    if (ranges->root.n == WIDTH && !raise_root(ranges))
        return false;
    tether_entry_t *node = &ranges->root;
    for (uint32_t d = 0; d < ranges->depth; d++) { /* rows are made room in on the way down: so there is always room above */
        uint32_t at = way_to(node, loan);
        if (node->row[at].n == WIDTH) {
            if (!part(node, at, loan))
                return false;
            at = way_to(node, loan);
        }
        way.nodes[d] = node;
        way.at[d] = at;
        node = &node->row[at];
    }
    if (!widen(ranges, node))
        return false;
    uint32_t at = place_of(node, loan);
    open_gap(node, at);
    set_entry(&node->row[at], loan);
    look_left(node, at);
    tell_right(node, at + 1);
    tell_above(ranges->depth, &way);
    return true;
}

void tether_ranges_replace(tether_ranges_t *ranges, tether_loan_t *loan, tether_loan_t *by)
{
    way_t way;
    tether_entry_t *node = go_down(ranges, loan, &way);
    uint32_t at = way_to(node, loan);
    set_entry(&node->row[at], by);
    look_left(node, at);
    tell_right(node, at + 1);
    tell_above(ranges->depth, &way);
}

/* The row below entry `at` has lost an entry. returns whether that makes a difference above. */
static bool shrink(tether_ranges_t *ranges, tether_entry_t *node, uint32_t at)
{
    if (node->row[at].n == 0) {
        free_row(ranges, &node->row[at]);
        close_gap(node, at);
        return true;
    }
    bool different = look_down(node, at);
    return fold(ranges, node, at) || (at != 0 && fold(ranges, node, at - 1)) || different;
}

void tether_ranges_take(tether_ranges_t *ranges, tether_loan_t *loan)
{
    way_t way;
    tether_entry_t *node = go_down(ranges, loan, &way), *root = &ranges->root;
    close_gap(node, way_to(node, loan));
    for (uint32_t d = ranges->depth; d-- != 0 && shrink(ranges, way.nodes[d], way.at[d]);)
        ;
    while (ranges->depth != 0 && root->n == 1) {
        tether_entry_t only = root->row[0];
        free_row(ranges, root);
        root->row = only.row;
        root->n = only.n;
        root->room = only.room;
        ranges->depth--;
    }
    if (root->n == 0)
        free_row(ranges, root);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static int reach_against(const tether_loan_t *wanted) { return wanted->exclusive ? TETHER_REACH_ALL : TETHER_REACH_EXCLUSIVE; }

/* The first that reaches beyond where `wanted` begins. If that begins behind its end, so do all that come after. */
tether_loan_t *tether_ranges_find(const tether_ranges_t *ranges, const tether_loan_t *wanted)
{
    if (wanted->start == wanted->stop)
        return NULL;
    const tether_entry_t *node = &ranges->root;
    for (uint32_t rows = ranges->depth + 1; rows != 0; rows--) {
        uint32_t at = first_reaching(node, wanted->start, reach_against(wanted));
        if (at == node->n || node->row[at].start >= wanted->stop)
            return NULL;
        node = &node->row[at];
    }
    return node->loan;
}

static bool any_below(const tether_entry_t *node, uint32_t depth, const tether_loan_t *wanted,
                      bool (*is)(tether_loan_t *loan, void *arg), void *arg)
{
    int which = reach_against(wanted);
    for (uint32_t i = first_reaching(node, wanted->start, which); i < node->n && node->row[i].start < wanted->stop; i++) {
        const tether_entry_t *entry = &node->row[i];
        if (entry->own[which] > wanted->start && (depth ? any_below(entry, depth - 1, wanted, is, arg) : is(entry->loan, arg)))
            return true;
    }
    return false;
}

bool tether_ranges_any(const tether_ranges_t *ranges, const tether_loan_t *wanted, bool (*is)(tether_loan_t *loan, void *arg),
                       void *arg)
{
    return wanted->start != wanted->stop && any_below(&ranges->root, ranges->depth, wanted, is, arg);
}

/* ---- for the tests ----------------------------------------------------------------------------------------------- */

static bool entry_is_sound(const tether_entry_t *entry, uint32_t depth, bool (*each)(tether_loan_t *loan, void *arg), void *arg);

static bool row_is_sound(const tether_entry_t *node, uint32_t depth, bool (*each)(tether_loan_t *loan, void *arg), void *arg)
{
    const size_t *left = NO_REACH;
    for (uint32_t i = 0; i < node->n; left = node->row[i++].upto) {
        const tether_entry_t *entry = &node->row[i];
        for (int which = 0; which < TETHER_REACHES; which++)
            if (entry->upto[which] != (left[which] > entry->own[which] ? left[which] : entry->own[which]))
                return false;
        if ((i != 0 && !before(entry[-1].loan, entry)) || entry->start != entry->loan->start ||
            !entry_is_sound(entry, depth, each, arg))
            return false;
    }
    return node->n <= node->room && node->room <= WIDTH;
}

static bool entry_is_sound(const tether_entry_t *entry, uint32_t depth, bool (*each)(tether_loan_t *loan, void *arg), void *arg)
{
    const tether_loan_t *loan = entry->loan;
    if (depth == 0)
        return entry->row == NULL && entry->own[TETHER_REACH_ALL] == loan->stop &&
               entry->own[TETHER_REACH_EXCLUSIVE] == (loan->exclusive ? loan->stop : 0) && each(entry->loan, arg);
    return entry->n != 0 && entry->room == WIDTH && entry->loan == entry->row[0].loan &&
           memcmp(entry->own, entry->row[entry->n - 1].upto, sizeof entry->own) == 0 && row_is_sound(entry, depth - 1, each, arg);
}

bool tether_ranges_are_sound(const tether_ranges_t *ranges, bool (*each)(tether_loan_t *loan, void *arg), void *arg)
{
    const tether_entry_t *root = &ranges->root;
    return (root->n != 0 || (root->row == NULL && ranges->depth == 0)) && row_is_sound(root, ranges->depth, each, arg);
}
