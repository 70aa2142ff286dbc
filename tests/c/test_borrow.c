/* The book of borrows on one thread: the rule, the queue, lending further, views, ends. G13, G14. */
#include <errno.h>

#include "harness.h"

#include "borrowing.h"

enum { TASKS = 3 };

/* A book, and tasks that the thread can act as; they never run. */
typedef struct {
    host_t host;
    tether_thread_t *thread;
    tether_book_t book;
    tether_task_t *tasks[TASKS];
} desk_t;

static void open_desk(desk_t *desk)
{
    memset(desk, 0, sizeof *desk);
    host_start(&desk->host, (host_options_t){.serial = true});
    desk->thread = host_thread(&desk->host);
    for (int i = 0; i < TASKS; i++) {
        desk->tasks[i] = tether_task_new(desk->thread, NULL);
        ((job_t *)desk->tasks[i])->host = &desk->host;
    }
}

static void act_as(desk_t *desk, int who) { store_relaxed(&desk->thread->top, who < 0 ? NULL : desk->tasks[who]); }

static void close_desk(desk_t *desk)
{
    act_as(desk, -1);
    CHECK(desk->book.lent.root.n == 0 && desk->book.first == NULL && desk->book.last == NULL);
    for (int i = 0; i < TASKS; i++) {
        CHECK(load_relaxed(&desk->tasks[i]->node.refs) == 2); /* no loan keeps it */
        CHECK(!tether_task_borrows(desk->tasks[i]));
        tether_task_discard(desk->thread, desk->tasks[i]);
    }
    host_finish(&desk->host);
}

#define SOUND(desk) CHECK(tether__book_is_sound(&(desk)->book))

static tether_status_t take(desk_t *desk, tether_loan_t *loan)
{
    tether_status_t status = borrow(&desk->host, &desk->book, loan);
    SOUND(desk);
    return status;
}

static tether_status_t queue(desk_t *desk, tether_claim_t *claim, tether_loan_t *loan)
{
    tether_status_t status = tether_borrow_queue(desk->thread, &desk->book, claim, loan);
    SOUND(desk);
    return status;
}

static bool granted(desk_t *desk, tether_claim_t *claim)
{
    if (!load_acquire(&claim->answer))
        return false;
    tether_wait_t how = {.deadline = 0};
    CHECK(tether_borrow_wait(desk->thread, claim, &how) == TETHER_OK);
    CHECK(claim->loan->state == TETHER_LOAN_LIVE);
    return true;
}

static void drop(desk_t *desk, tether_loan_t *loan)
{
    forget(&desk->host, loan);
    SOUND(desk);
}

static void note_blame(tether_loan_t *loan, void *arg) { *(tether_loan_t **)arg = loan; }

static tether_loan_t *blamed(desk_t *desk, tether_loan_t *wanted)
{
    tether_loan_t *culprit = NULL;
    CHECK(tether_borrow(desk->thread, &desk->book, &wanted, 1, note_blame, &culprit) == TETHER_CONFLICT);
    CHECK(wanted->state == TETHER_LOAN_NEW && load_relaxed(&wanted->holder) == NULL);
    SOUND(desk);
    return culprit;
}

/* G13: all pairs of ranges in a small space, empty ones too, and all kinds. */
TEST(overlapping_ranges_are_lent_together_only_to_readers)
{
    desk_t desk;
    open_desk(&desk);
    enum { MOST = 4 };
    for (int code = 0; code < 4 * (MOST + 1) * (MOST + 1) * (MOST + 1) * (MOST + 1); code++) {
        int rest = code / 4;
        size_t at[4];
        for (int i = 0; i < 4; i++, rest /= MOST + 1)
            at[i] = (size_t)(rest % (MOST + 1));
        if (at[0] > at[1] || at[2] > at[3])
            continue;
        tether_loan_t a = {.start = at[0], .stop = at[1], .exclusive = code & 1};
        tether_loan_t b = {.start = at[2], .stop = at[3], .exclusive = code & 2};
        bool together = false;
        for (size_t byte = 0; byte < MOST; byte++)
            together |= a.start <= byte && byte < a.stop && b.start <= byte && byte < b.stop;
        CHECK(take(&desk, &a) == TETHER_OK);
        bool refused = together && (code & 3);
        CHECK(take(&desk, &b) == (refused ? TETHER_CONFLICT : TETHER_OK));
        if (!refused)
            drop(&desk, &b);
        drop(&desk, &a);
    }
    close_desk(&desk);
}

TEST(the_far_end_of_the_address_space)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t all = writing(0, SIZE_MAX), last = reading(SIZE_MAX - 1, SIZE_MAX), none = writing(SIZE_MAX, SIZE_MAX);
    CHECK(take(&desk, &all) == TETHER_OK);
    CHECK(blamed(&desk, &last) == &all);
    CHECK(take(&desk, &none) == TETHER_OK);
    drop(&desk, &all);
    CHECK(take(&desk, &last) == TETHER_OK);
    drop(&desk, &last);
    drop(&desk, &none);
    close_desk(&desk);
}

/* G13 */
TEST(several_ranges_are_lent_all_or_none)
{
    desk_t desk;
    open_desk(&desk);
    act_as(&desk, 0);
    tether_loan_t in_the_way = reading(25, 26), many[5], *list[5];
    for (size_t i = 0; i < 5; i++) {
        many[i] = writing(10 * i, 10 * i + 10);
        list[i] = &many[i];
    }
    CHECK(take(&desk, &in_the_way) == TETHER_OK);
    tether_loan_t *culprit = NULL;
    CHECK(tether_borrow(desk.thread, &desk.book, list, 5, note_blame, &culprit) == TETHER_CONFLICT);
    CHECK(culprit == &in_the_way);
    CHECK(desk.book.lent.root.n == 1 && desk.book.lent.root.row[0].loan == &in_the_way);
    SOUND(&desk);
    drop(&desk, &in_the_way);
    CHECK(tether_borrow(desk.thread, &desk.book, list, 5, NULL, NULL) == TETHER_OK);
    CHECK(tether_borrow(desk.thread, &desk.book, NULL, 0, NULL, NULL) == TETHER_OK);
    SOUND(&desk);
    CHECK(tether_loans_end(desk.tasks[0], NULL, NULL) == 0);
    for (int i = 0; i < 5; i++)
        drop(&desk, &many[i]);
    close_desk(&desk);
}

/* fault 21: the message names the holder. */
TEST(blame_names_the_innermost_holder_or_the_claim)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t whole = writing(0, 100), low = writing(0, 50), high = writing(60, 90), inner = writing(70, 80);
    tether_loan_t *list[] = {&low, &high}, *deep[] = {&inner};
    act_as(&desk, 0);
    CHECK(take(&desk, &whole) == TETHER_OK);
    CHECK(tether_loan_lend(desk.thread, &whole, list, 2) == TETHER_OK);
    CHECK(tether_loan_lend(desk.thread, &high, deep, 1) == TETHER_OK);
    SOUND(&desk);
    act_as(&desk, 1);
    tether_loan_t a = reading(75, 76), b = reading(65, 66), c = reading(52, 53), d = reading(10, 11);
    CHECK(blamed(&desk, &a) == &inner);
    CHECK(blamed(&desk, &b) == &high);
    CHECK(blamed(&desk, &c) == &whole);
    CHECK(blamed(&desk, &d) == &low);
    tether_loan_t waiting = writing(100, 200), at_hand = reading(100, 110), behind = reading(150, 160);
    tether_claim_t claim;
    CHECK(take(&desk, &at_hand) == TETHER_OK);
    CHECK(queue(&desk, &claim, &waiting) == TETHER_CONFLICT);
    CHECK(blamed(&desk, &behind) == &waiting);
    tether_loan_t *culprit = NULL;
    CHECK(tether_borrow_leave(&claim, note_blame, &culprit) == TETHER_CONFLICT);
    CHECK(culprit == &at_hand);
    CHECK(load_relaxed(&waiting.holder) == NULL);
    CHECK(take(&desk, &behind) == TETHER_OK);
    tether_loan_t *all[] = {&inner, &high, &low, &whole, &at_hand, &behind};
    for (int i = 0; i < 6; i++)
        drop(&desk, all[i]);
    close_desk(&desk);
}

/* G13 */
TEST(lent_three_deep_and_taken_back)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t loans[4] = {writing(0, 100), writing(0, 100), writing(10, 90), reading(20, 30)}, outside = reading(99, 100);
    CHECK(take(&desk, &loans[0]) == TETHER_OK);
    for (int i = 1; i < 4; i++) {
        tether_loan_t *part = &loans[i];
        act_as(&desk, i - 1);
        CHECK(tether_loan_lend(desk.thread, &loans[i - 1], &part, 1) == TETHER_OK);
        CHECK(tether_loan_view(&loans[i - 1]) == TETHER_CONFLICT); /* suspended */
        CHECK(tether_loan_lend(desk.thread, &loans[i - 1], &part, 0) == TETHER_CONFLICT);
        CHECK(tether_loan_end(&loans[i - 1], false) == TETHER_CONFLICT);
        CHECK(loans[i - 1].state == TETHER_LOAN_LIVE);
        SOUND(&desk);
    }
    CHECK(tether_loan_view(&loans[3]) == TETHER_OK);
    CHECK(tether_loan_end(&loans[3], false) == TETHER_CONFLICT);
    tether_loan_unview(&loans[3]);
    CHECK(tether_loan_end(&loans[3], false) == TETHER_OK);
    CHECK(tether_loan_end(&loans[3], true) == TETHER_CONFLICT); /* once */
    CHECK(tether_loan_view(&loans[2]) == TETHER_OK); /* usable again */
    tether_loan_unview(&loans[2]);
    CHECK(tether_loan_view(&loans[1]) == TETHER_CONFLICT);
    /* The lenders end first: the range is lent until the innermost is back. */
    CHECK(tether_loan_end(&loans[0], true) == TETHER_OK && tether_loan_end(&loans[1], true) == TETHER_OK);
    SOUND(&desk);
    CHECK(blamed(&desk, &outside) == &loans[1]);
    CHECK(tether_loan_end(&loans[2], true) == TETHER_OK);
    CHECK(desk.book.lent.root.n == 0);
    for (int i = 3; i >= 0; i--)
        drop(&desk, &loans[i]);
    close_desk(&desk);
}

TEST(nothing_is_lent_of_a_viewed_or_ended_loan)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t loan = writing(0, 10), part = writing(0, 5), shared = reading(0, 10), *list[] = {&part};
    act_as(&desk, 1);
    CHECK(take(&desk, &loan) == TETHER_OK);
    CHECK(tether_loan_view(&loan) == TETHER_OK);
    CHECK(tether_loan_lend(desk.thread, &loan, list, 1) == TETHER_CONFLICT);
    CHECK(tether_loan_downgrade(desk.thread, &loan, &shared) == TETHER_CONFLICT);
    CHECK(tether_loan_clone(desk.thread, &loan, &shared) == TETHER_CONFLICT); /* exclusive */
    tether_loan_unview(&loan);
    tether_loan_t reader = reading(20, 30);
    CHECK(take(&desk, &reader) == TETHER_OK);
    CHECK(tether_loan_downgrade(desk.thread, &reader, &shared) == TETHER_CONFLICT); /* shared already */
    drop(&desk, &reader);
    CHECK(tether_loan_end(&loan, false) == TETHER_OK);
    CHECK(tether_loan_lend(desk.thread, &loan, list, 1) == TETHER_CONFLICT);
    CHECK(tether_loan_downgrade(desk.thread, &loan, &shared) == TETHER_CONFLICT);
    CHECK(tether_loan_view(&loan) == TETHER_CONFLICT);
    CHECK(load_relaxed(&part.holder) == NULL && load_relaxed(&shared.holder) == NULL);
    drop(&desk, &loan);
    close_desk(&desk);
}

TEST(a_clone_passes_those_who_wait)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t reader = reading(0, 10), copy = reading(0, 10), late = reading(0, 10), writer = writing(5, 6);
    tether_claim_t claim;
    act_as(&desk, 0);
    CHECK(take(&desk, &reader) == TETHER_OK);
    act_as(&desk, 1);
    CHECK(queue(&desk, &claim, &writer) == TETHER_CONFLICT);
    act_as(&desk, 0);
    CHECK(blamed(&desk, &late) == &writer); /* a newcomer does not */
    CHECK(tether_loan_clone(desk.thread, &reader, &copy) == TETHER_OK);
    SOUND(&desk);
    drop(&desk, &reader);
    CHECK(!granted(&desk, &claim));
    drop(&desk, &copy);
    CHECK(granted(&desk, &claim));
    CHECK(tether_loan_clone(desk.thread, &copy, &late) == TETHER_CONFLICT); /* ended */
    drop(&desk, &writer);
    close_desk(&desk);
}

TEST(downgrade_lets_readers_in_and_no_writer_between)
{
    desk_t desk;
    open_desk(&desk);
    for (int lent = 0; lent < 2; lent++) { /* directly; and as a part of another */
        tether_loan_t whole = writing(0, 20), mine = writing(0, 10), *list[] = {&mine}, shared = reading(0, 10);
        tether_loan_t first = reading(2, 3), writer = writing(4, 5), behind = reading(4, 5), beside = reading(8, 9);
        tether_claim_t claims[4];
        tether_loan_t *wants[] = {&first, &writer, &behind, &beside};
        act_as(&desk, 0);
        if (lent) {
            CHECK(take(&desk, &whole) == TETHER_OK);
            CHECK(tether_loan_lend(desk.thread, &whole, list, 1) == TETHER_OK);
        } else {
            CHECK(take(&desk, &mine) == TETHER_OK);
        }
        act_as(&desk, 1);
        for (int i = 0; i < 4; i++)
            CHECK(queue(&desk, &claims[i], wants[i]) == TETHER_CONFLICT);
        act_as(&desk, 0);
        CHECK(tether_loan_downgrade(desk.thread, &mine, &shared) == TETHER_OK);
        SOUND(&desk);
        CHECK(mine.state == TETHER_LOAN_ENDED && shared.state == TETHER_LOAN_LIVE);
        CHECK(granted(&desk, &claims[0]) == !lent && granted(&desk, &claims[3]) == !lent);
        CHECK(!granted(&desk, &claims[1]) && !granted(&desk, &claims[2]));
        drop(&desk, &mine);
        drop(&desk, &shared);
        if (lent) {
            drop(&desk, &whole);
            CHECK(granted(&desk, &claims[0]) && granted(&desk, &claims[3]));
        }
        CHECK(granted(&desk, &claims[1]) && !granted(&desk, &claims[2]));
        drop(&desk, &writer);
        CHECK(granted(&desk, &claims[2]));
        drop(&desk, &first);
        drop(&desk, &behind);
        drop(&desk, &beside);
    }
    close_desk(&desk);
}

/* G14 */
TEST(an_escaped_view_keeps_the_range_lent)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t loan = writing(0, 10), other = reading(9, 12);
    tether_claim_t claim;
    CHECK(take(&desk, &loan) == TETHER_OK);
    CHECK(tether_loan_view(&loan) == TETHER_OK && tether_loan_view(&loan) == TETHER_OK);
    CHECK(tether_loan_end(&loan, false) == TETHER_CONFLICT && loan.state == TETHER_LOAN_LIVE);
    CHECK(tether_loan_end(&loan, true) == TETHER_OK && loan.state == TETHER_LOAN_ENDED);
    CHECK(tether_loan_view(&loan) == TETHER_CONFLICT);
    CHECK(blamed(&desk, &other) == &loan);
    CHECK(queue(&desk, &claim, &other) == TETHER_CONFLICT);
    tether_loan_unview(&loan);
    SOUND(&desk);
    CHECK(!granted(&desk, &claim));
    tether_loan_unview(&loan);
    CHECK(granted(&desk, &claim));
    drop(&desk, &loan);
    drop(&desk, &other);
    close_desk(&desk);
}

static void count_blame(tether_loan_t *loan, void *arg)
{
    CHECK(loan->state == TETHER_LOAN_ENDED && loan->views == 1);
    ++*(int *)arg;
}

/* G14, fault 22 */
TEST(a_tasks_end_ends_its_loans)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t plain = writing(0, 10), viewed = writing(10, 20), lender = writing(20, 30), part = writing(20, 25),
                  all = writing(0, 100), *list[] = {&part}, mine = reading(40, 50), empty = writing(7, 7);
    tether_claim_t claim;
    act_as(&desk, 0);
    CHECK(take(&desk, &plain) == TETHER_OK && take(&desk, &viewed) == TETHER_OK && take(&desk, &lender) == TETHER_OK &&
          take(&desk, &empty) == TETHER_OK);
    CHECK(tether_loan_view(&viewed) == TETHER_OK);
    act_as(&desk, 1); /* lent by one task, held by another */
    CHECK(tether_loan_lend(desk.thread, &lender, list, 1) == TETHER_OK);
    act_as(&desk, -1);
    CHECK(take(&desk, &mine) == TETHER_OK);
    act_as(&desk, 2);
    CHECK(queue(&desk, &claim, &all) == TETHER_CONFLICT);
    CHECK(tether_task_borrows(desk.tasks[0]) && tether_task_borrows(desk.tasks[1]) && !tether_task_borrows(desk.tasks[2]));
    int escaped = 0;
    CHECK(tether_loans_end(desk.tasks[0], count_blame, &escaped) == 1 && escaped == 1);
    SOUND(&desk);
    CHECK(!tether_task_borrows(desk.tasks[0]));
    CHECK(plain.state == TETHER_LOAN_ENDED && empty.state == TETHER_LOAN_ENDED && lender.state == TETHER_LOAN_ENDED);
    CHECK(part.state == TETHER_LOAN_LIVE && tether_loan_view(&part) == TETHER_OK);
    tether_loan_unview(&part);
    CHECK(tether_loans_end(desk.tasks[1], NULL, NULL) == 0);
    CHECK(!granted(&desk, &claim));
    drop(&desk, &mine);
    CHECK(!granted(&desk, &claim));
    tether_loan_unview(&viewed);
    CHECK(granted(&desk, &claim));
    CHECK(tether_loans_end(desk.tasks[2], NULL, NULL) == 0 && all.state == TETHER_LOAN_ENDED);
    tether_loan_t *loans[] = {&plain, &viewed, &part, &lender, &all, &empty};
    for (int i = 0; i < 6; i++)
        drop(&desk, loans[i]);
    close_desk(&desk);
}

TEST(a_loan_moves_between_the_root_and_tasks)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t loan = writing(0, 10);
    CHECK(take(&desk, &loan) == TETHER_OK);
    tether_loan_move(desk.thread, &loan, desk.tasks[0]);
    CHECK(load_relaxed(&loan.holder) == desk.tasks[0] && tether_task_borrows(desk.tasks[0]));
    act_as(&desk, 0);
    tether_loan_move(desk.thread, &loan, desk.tasks[1]);
    CHECK(!tether_task_borrows(desk.tasks[0]) && tether_task_borrows(desk.tasks[1]));
    CHECK(tether_loans_end(desk.tasks[0], NULL, NULL) == 0 && loan.state == TETHER_LOAN_LIVE);
    act_as(&desk, 1);
    tether_loan_move(desk.thread, &loan, NULL);
    CHECK(!tether_task_borrows(desk.tasks[1]) && load_relaxed(&loan.holder) == NULL);
    act_as(&desk, -1);
    tether_loan_move(desk.thread, &loan, desk.tasks[2]);
    CHECK(tether_loans_end(desk.tasks[2], NULL, NULL) == 0 && loan.state == TETHER_LOAN_ENDED);
    tether_loan_move(desk.thread, &loan, desk.tasks[1]); /* an expired one may travel, and is nobody's burden */
    CHECK(!tether_task_borrows(desk.tasks[1]));
    drop(&desk, &loan);
    close_desk(&desk);
}

/* Fairness: in turn, readers side by side, and nobody passes a writer. */
TEST(the_queue_is_served_in_turn)
{
    desk_t desk;
    open_desk(&desk);
    enum { N = 6 };
    tether_loan_t held = writing(0, 10),
                  wants[N] = {reading(0, 5), reading(3, 9), writing(4, 6), reading(5, 6), writing(20, 30), reading(0, 10)};
    tether_claim_t claims[N];
    CHECK(take(&desk, &held) == TETHER_OK);
    act_as(&desk, 0);
    for (int i = 0; i < N; i++) /* the fifth is elsewhere: it does not wait */
        CHECK(queue(&desk, &claims[i], &wants[i]) == (i == 4 ? TETHER_OK : TETHER_CONFLICT));
    drop(&desk, &held);
    CHECK(granted(&desk, &claims[0]) && granted(&desk, &claims[1]) && !granted(&desk, &claims[2]));
    CHECK(!granted(&desk, &claims[3]) && !granted(&desk, &claims[5]));
    drop(&desk, &wants[0]);
    CHECK(!granted(&desk, &claims[2]));
    drop(&desk, &wants[1]);
    CHECK(granted(&desk, &claims[2]) && !granted(&desk, &claims[3]) && !granted(&desk, &claims[5]));
    drop(&desk, &wants[2]);
    CHECK(granted(&desk, &claims[3]) && granted(&desk, &claims[5]));
    for (int i = 3; i < N; i++)
        drop(&desk, &wants[i]);
    close_desk(&desk);
}

TEST(who_gives_up_lets_those_behind_go_on)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t held = reading(0, 10), writer = writing(0, 10), behind = reading(2, 3), last = writing(3, 4);
    tether_claim_t claims[3];
    act_as(&desk, 0);
    CHECK(take(&desk, &held) == TETHER_OK);
    CHECK(queue(&desk, &claims[0], &writer) == TETHER_CONFLICT);
    CHECK(queue(&desk, &claims[1], &behind) == TETHER_CONFLICT);
    CHECK(queue(&desk, &claims[2], &last) == TETHER_CONFLICT);
    tether_wait_t how = {.deadline = 1};
    CHECK(tether_borrow_wait(desk.thread, &claims[0], &how) == TETHER_TIMEOUT); /* fault 21 */
    CHECK(tether_borrow_leave(&claims[0], NULL, NULL) == TETHER_CONFLICT);
    SOUND(&desk);
    CHECK(granted(&desk, &claims[1]) && !granted(&desk, &claims[2]));
    drop(&desk, &held);
    /* Granted after the time-out, before the leave: it is ours. */
    tether_loan_t *culprit = NULL;
    CHECK(tether_borrow_leave(&claims[2], note_blame, &culprit) == TETHER_OK && culprit == NULL);
    CHECK(last.state == TETHER_LOAN_LIVE && load_relaxed(&last.holder) == desk.tasks[0]);
    CHECK(tether_loans_end(desk.tasks[0], NULL, NULL) == 0 && last.state == TETHER_LOAN_ENDED);
    drop(&desk, &behind);
    drop(&desk, &last);
    close_desk(&desk);
}

/* Room is made for `first`, and its shield fails: what was behind it alone must not sleep on. G13, fault 15. */
static int refuse_at(tether_book_t *book, size_t start, size_t stop)
{
    (void)stop;
    tether_loan_t probe = {.start = start, .stop = start + 1};
    return start == 5 && tether__book_access(book, probe.start, probe.stop) == TETHER_ACCESS_WRITE ? ENOMEM : 0;
}

TEST(a_claim_whose_shield_fails_lets_those_behind_go_on)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t held = writing(0, 10), first = writing(5, 20), behind = writing(15, 25), last = reading(24, 30);
    tether_claim_t claims[3];
    CHECK(take(&desk, &held) == TETHER_OK);
    CHECK(queue(&desk, &claims[0], &first) == TETHER_CONFLICT);
    CHECK(queue(&desk, &claims[1], &behind) == TETHER_CONFLICT);
    CHECK(queue(&desk, &claims[2], &last) == TETHER_CONFLICT);
    desk.book.shield = refuse_at;
    drop(&desk, &held);
    tether_wait_t how = {.deadline = TETHER_FOREVER};
    CHECK(tether_borrow_wait(desk.thread, &claims[0], &how) == TETHER_NO_MEMORY);
    CHECK(tether_borrow_leave(&claims[0], NULL, NULL) == TETHER_NO_MEMORY);
    CHECK(granted(&desk, &claims[1]) && !granted(&desk, &claims[2]));
    drop(&desk, &behind);
    CHECK(granted(&desk, &claims[2]));
    drop(&desk, &last);
    close_desk(&desk);
}

TEST(who_waits_for_a_book_that_is_shut_is_told)
{
    desk_t desk;
    open_desk(&desk);
    tether_loan_t all = writing(0, 100), early = reading(0, 10), late = reading(3, 4), other = writing(50, 60);
    tether_claim_t claims[3];
    CHECK(take(&desk, &all) == TETHER_OK);
    act_as(&desk, 0);
    CHECK(queue(&desk, &claims[0], &early) == TETHER_CONFLICT);
    CHECK(queue(&desk, &claims[1], &other) == TETHER_CONFLICT);
    tether_book_shut(&desk.book);
    SOUND(&desk);
    tether_wait_t how = {.deadline = TETHER_FOREVER};
    CHECK(tether_borrow_wait(desk.thread, &claims[0], &how) == TETHER_CLOSED);
    CHECK(tether_borrow_leave(&claims[0], NULL, NULL) == TETHER_CLOSED);
    CHECK(tether_borrow_leave(&claims[1], NULL, NULL) == TETHER_CLOSED); /* it had not looked yet */
    CHECK(queue(&desk, &claims[2], &late) == TETHER_CLOSED);
    CHECK(!tether_task_borrows(desk.tasks[0]));
    drop(&desk, &all);
    close_desk(&desk);
}

/* ---- random operations against the rule, spelled out over a list ------------------------------------------------- */

enum { SLOTS = 40, SPACE = 24, STEPS = SCALE(6000, 1500), SEEDS = 12 };

typedef enum { FREE, WAITING, LIVE, ENDED } kind_t;

typedef struct {
    kind_t kind;
    tether_loan_t *loan; /* allocated one by one: who touches one that is forgotten is found */
    tether_claim_t *claim;
    size_t start, stop;
    bool exclusive;
    int views, holder, lender, born_of, children; /* lender: -1 or a slot, while in the book; children: slots born of it */
    long turn;
} slot_t;

typedef struct {
    desk_t desk;
    slot_t slots[SLOTS];
    uint32_t seed;
    long turns;
} model_t;

static size_t pick(model_t *m, size_t n)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 17;
    m->seed ^= m->seed << 5;
    return m->seed % n;
}

static bool clash(const slot_t *a, const slot_t *b)
{
    size_t start = a->start > b->start ? a->start : b->start, stop = a->stop < b->stop ? a->stop : b->stop;
    return (a->exclusive || b->exclusive) && start < stop;
}

static int parts_of(const model_t *m, int lender)
{
    int n = 0;
    for (int i = 0; i < SLOTS; i++)
        n += m->slots[i].kind >= LIVE && m->slots[i].lender == lender;
    return n;
}

static bool in_book(const model_t *m, int i)
{
    const slot_t *s = &m->slots[i];
    return s->kind == LIVE || (s->kind == ENDED && (s->views > 0 || parts_of(m, i) > 0));
}

static bool blocked(const model_t *m, const slot_t *wanted, long turn)
{
    for (int i = 0; i < SLOTS; i++) {
        const slot_t *s = &m->slots[i];
        bool counts = s->kind == WAITING ? s->turn < turn : s->kind >= LIVE && s->lender < 0 && in_book(m, i);
        if (s != wanted && counts && clash(s, wanted))
            return true;
    }
    return false;
}

/* Parts that are gone leave their lenders, then those who waited come in, oldest first. */
static void settle_model(model_t *m)
{
    for (bool again = true; again;) {
        again = false;
        for (int i = 0; i < SLOTS; i++) {
            slot_t *s = &m->slots[i];
            if (s->kind == ENDED && s->lender >= 0 && !in_book(m, i)) {
                s->lender = -1;
                again = true;
            }
        }
    }
    for (long turn = 0; turn <= m->turns; turn++)
        for (int i = 0; i < SLOTS; i++)
            if (m->slots[i].kind == WAITING && m->slots[i].turn == turn && !blocked(m, &m->slots[i], turn))
                m->slots[i].kind = LIVE;
}

static int slot_of(const model_t *m, const tether_loan_t *loan)
{
    for (int i = 0; i < SLOTS; i++)
        if (m->slots[i].kind != FREE && m->slots[i].loan == loan)
            return i;
    return -1;
}

static void compare(model_t *m)
{
    SOUND(&m->desk);
    for (int i = 0; i < SLOTS; i++) {
        slot_t *s = &m->slots[i];
        if (s->kind == FREE)
            continue;
        static const tether_loan_state_t states[] = {0, TETHER_LOAN_NEW, TETHER_LOAN_LIVE, TETHER_LOAN_ENDED};
        CHECK(s->loan->state == states[s->kind]);
        CHECK((int)s->loan->views == s->views && (int)s->loan->parts == parts_of(m, i));
        if (s->claim != NULL && s->kind == LIVE) {
            CHECK(granted(&m->desk, s->claim));
            free(s->claim);
            s->claim = NULL;
        }
    }
}

static int new_slot(model_t *m, size_t start, size_t stop, bool exclusive)
{
    for (int i = 0; i < SLOTS; i++) {
        slot_t *s = &m->slots[i];
        if (s->kind != FREE)
            continue;
        *s = (slot_t){.start = start, .stop = stop, .exclusive = exclusive, .lender = -1, .born_of = -1};
        s->loan = malloc(sizeof *s->loan);
        memset(s->loan, 0xa5, sizeof *s->loan);
        s->loan->start = start;
        s->loan->stop = stop;
        s->loan->exclusive = exclusive;
        return i;
    }
    return -1;
}

static void born(model_t *m, int i, kind_t kind, int lender)
{
    slot_t *s = &m->slots[i];
    tether_task_t *top = load_relaxed(&m->desk.thread->top);
    s->kind = kind;
    s->holder = -1;
    for (int t = 0; t < TASKS; t++)
        if (m->desk.tasks[t] == top)
            s->holder = t;
    s->lender = s->born_of = lender;
    if (lender >= 0)
        m->slots[lender].children++;
}

static void unborn(model_t *m, int i) { free(m->slots[i].loan); }

static void op_borrow(model_t *m)
{
    int ids[3], n = 0;
    tether_loan_t *list[3];
    size_t at = pick(m, SPACE), want = 1 + pick(m, 3);
    for (size_t k = 0; k < want; k++) {
        size_t start = at + pick(m, 4), stop = start + pick(m, 6);
        int i = new_slot(m, start, stop, pick(m, 2));
        if (i < 0)
            break;
        m->slots[i].kind = ENDED; /* holds the place; nothing yet in the book */
        ids[n] = i;
        list[n++] = m->slots[i].loan;
        at = stop;
    }
    bool may = true;
    for (int k = 0; k < n; k++)
        may &= !blocked(m, &m->slots[ids[k]], m->turns + 1);
    tether_loan_t *culprit = NULL;
    tether_status_t status = tether_borrow(m->desk.thread, &m->desk.book, list, (size_t)n, note_blame, &culprit);
    CHECK(status == (may ? TETHER_OK : TETHER_CONFLICT));
    for (int k = 0; k < n; k++)
        m->slots[ids[k]].kind = FREE;
    if (!may) {
        int c = slot_of(m, culprit);
        CHECK(c >= 0 && (m->slots[c].kind == WAITING || in_book(m, c)));
        bool overlaps = false;
        for (int k = 0; k < n; k++)
            overlaps |= culprit->start < list[k]->stop && list[k]->start < culprit->stop;
        CHECK(overlaps);
    }
    for (int k = 0; k < n; k++) {
        if (status == TETHER_OK)
            born(m, ids[k], LIVE, -1);
        else
            unborn(m, ids[k]);
    }
}

static void op_queue(model_t *m)
{
    size_t start = pick(m, SPACE), stop = start + pick(m, 10);
    int i = new_slot(m, start, stop, pick(m, 2));
    if (i < 0)
        return;
    slot_t *s = &m->slots[i];
    s->claim = malloc(sizeof *s->claim);
    s->turn = ++m->turns;
    tether_status_t status = tether_borrow_queue(m->desk.thread, &m->desk.book, s->claim, s->loan);
    CHECK(status == (blocked(m, s, s->turn) ? TETHER_CONFLICT : TETHER_OK));
    born(m, i, status == TETHER_OK ? LIVE : WAITING, -1);
    if (status == TETHER_OK) {
        free(s->claim);
        s->claim = NULL;
    }
}

static void op_lend(model_t *m, int i)
{
    slot_t *s = &m->slots[i];
    bool idle = s->kind == LIVE && s->views == 0 && parts_of(m, i) == 0;
    size_t middle = s->start + pick(m, s->stop - s->start + 1);
    int a = new_slot(m, s->start, middle, s->exclusive && pick(m, 2));
    if (a < 0)
        return;
    m->slots[a].kind = ENDED;
    int b = new_slot(m, middle, s->stop, s->exclusive && pick(m, 2));
    m->slots[a].kind = FREE;
    tether_loan_t *list[] = {m->slots[a].loan, b < 0 ? NULL : m->slots[b].loan};
    tether_status_t status = tether_loan_lend(m->desk.thread, s->loan, list, b < 0 ? 1 : 2);
    CHECK(status == (idle ? TETHER_OK : TETHER_CONFLICT));
    for (int k = 0; k < (b < 0 ? 1 : 2); k++) {
        if (idle)
            born(m, k ? b : a, LIVE, i);
        else
            unborn(m, k ? b : a);
    }
}

static void op_beside(model_t *m, int i, bool downgrade)
{
    slot_t *s = &m->slots[i];
    bool may = s->kind == LIVE && (downgrade ? s->exclusive && s->views == 0 && parts_of(m, i) == 0 : !s->exclusive);
    int k = new_slot(m, s->start, s->stop, false);
    if (k < 0)
        return;
    tether_status_t status = downgrade ? tether_loan_downgrade(m->desk.thread, s->loan, m->slots[k].loan)
                                       : tether_loan_clone(m->desk.thread, s->loan, m->slots[k].loan);
    CHECK(status == (may ? TETHER_OK : TETHER_CONFLICT));
    if (!may) {
        unborn(m, k);
        return;
    }
    born(m, k, LIVE, s->lender);
    if (downgrade)
        s->kind = ENDED;
}

static void op_task_end(model_t *m)
{
    int t = (int)pick(m, TASKS);
    size_t viewed = 0;
    for (int i = 0; i < SLOTS; i++) {
        slot_t *s = &m->slots[i];
        if (s->kind == LIVE && s->holder == t) {
            s->kind = ENDED;
            viewed += s->views > 0;
        }
    }
    CHECK(tether_loans_end(m->desk.tasks[t], NULL, NULL) == viewed);
}

static void op_forget(model_t *m, int i)
{
    slot_t *s = &m->slots[i];
    if (s->views > 0 || s->children > 0)
        return;
    forget(&m->desk.host, s->loan);
    free(s->loan);
    if (s->born_of >= 0)
        m->slots[s->born_of].children--;
    s->kind = FREE;
}

static void op_leave(model_t *m, int i)
{
    slot_t *s = &m->slots[i];
    CHECK(tether_borrow_leave(s->claim, NULL, NULL) == TETHER_CONFLICT);
    free(s->claim);
    free(s->loan);
    s->kind = FREE;
}

static void op_on(model_t *m, int i)
{
    slot_t *s = &m->slots[i];
    switch (pick(m, 12)) {
    case 0:
    case 1:
        op_lend(m, i);
        break;
    case 2:
        op_beside(m, i, false);
        break;
    case 3:
        op_beside(m, i, true);
        break;
    case 4:
    case 5: {
        bool all = pick(m, 2), may = s->kind == LIVE && (all || (s->views == 0 && parts_of(m, i) == 0));
        CHECK(tether_loan_end(s->loan, all) == (may ? TETHER_OK : TETHER_CONFLICT));
        if (may)
            s->kind = ENDED;
        break;
    }
    case 6: {
        bool may = s->kind == LIVE && parts_of(m, i) == 0;
        CHECK(tether_loan_view(s->loan) == (may ? TETHER_OK : TETHER_CONFLICT));
        s->views += may;
        break;
    }
    case 7:
    case 8:
        if (s->views > 0) {
            tether_loan_unview(s->loan);
            s->views--;
        }
        break;
    case 9:
        s->holder = (int)pick(m, TASKS + 1) - 1;
        tether_loan_move(m->desk.thread, s->loan, s->holder < 0 ? NULL : m->desk.tasks[s->holder]);
        break;
    default:
        op_forget(m, i);
    }
}

static void run_model(uint32_t seed)
{
    model_t *m = calloc(1, sizeof *m);
    m->seed = seed * 2654435761u | 1;
    open_desk(&m->desk);
    for (int step = 0; step < STEPS && atomic_load(&harness_failures) == 0; step++) {
        act_as(&m->desk, (int)pick(m, TASKS + 1) - 1);
        int i = (int)pick(m, SLOTS);
        if (pick(m, 40) == 0)
            op_task_end(m);
        else if (m->slots[i].kind == WAITING && pick(m, 3) == 0)
            op_leave(m, i);
        else if (m->slots[i].kind >= LIVE)
            op_on(m, i);
        else if (pick(m, 2))
            op_borrow(m);
        else
            op_queue(m);
        settle_model(m);
        compare(m);
    }
    for (bool again = true; again;) {
        again = false;
        for (int i = 0; i < SLOTS; i++) {
            slot_t *s = &m->slots[i];
            if (s->kind == FREE)
                continue;
            again = true;
            for (; s->views > 0; s->views--)
                tether_loan_unview(s->loan);
            if (s->kind == WAITING)
                op_leave(m, i);
            else
                op_forget(m, i);
            settle_model(m);
            compare(m);
        }
        if (atomic_load(&harness_failures) != 0)
            break;
    }
    close_desk(&m->desk);
    free(m);
}

TEST(random_operations_agree_with_the_rule)
{
    for (uint32_t seed = 1; seed <= SEEDS && atomic_load(&harness_failures) == 0; seed++) {
        run_model(seed);
        if (atomic_load(&harness_failures) != 0)
            fprintf(stderr, "seed %u\n", seed);
    }
}
