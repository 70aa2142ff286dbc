#include "borrow.h"

#include "owner.h"
#include "park.h"
#include "task.h"
#include "thread.h"

/* state, views and parts are written under book->lock only, so a plain load and store do. */
#define bump(counter, by) store_relaxed(&(counter), load_relaxed(&(counter)) + (by))

/* ---- the book; book->lock ---------------------------------------------------------------------------------------- */

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static bool is_empty(const tether_loan_t *loan) { return loan->start == loan->stop; }

static bool overlap(const tether_loan_t *a, const tether_loan_t *b)
{
    return a->start < b->stop && b->start < a->stop && !is_empty(a) && !is_empty(b);
}

static bool conflict(const tether_loan_t *a, const tether_loan_t *b)
{
    return (a->exclusive || b->exclusive) && overlap(a, b);
}

/* How many are lent: the sum over lanes. */
static void count(const tether_loan_t *loan, int change)
{
    if ((loan->host == NULL && !loan->bare) || loan->taker == NULL)
        return;
    tether_runtime_t *rt = load_relaxed(&loan->taker->rt);
    if (rt != NULL)
        add_relaxed(&rt->lanes[loan->taker->lane].lent, change);
}

/* false: no memory, and nothing has changed. */
static bool lend_directly(tether_book_t *book, tether_loan_t *loan)
{
    if (!is_empty(loan) && !tether_ranges_put(&book->lent, loan))
        return false;
    store_relaxed(&loan->state, TETHER_LOAN_LIVE);
    count(loan, 1);
    return true;
}

/* ---- the queue; book->lock --------------------------------------------------------------------------------------- */

/* A claim older than `until` (NULL: than a newcomer) that conflicts with the loan. */
static tether_claim_t *older(tether_book_t *book, const tether_loan_t *loan, const tether_claim_t *until)
{
    for (tether_claim_t *c = book->first; c != until; c = c->next)
        if (conflict(c->loan, loan))
            return c;
    return NULL;
}

static void unqueue(tether_book_t *book, tether_claim_t *claim)
{
    *(claim->prev ? &claim->prev->next : &book->first) = claim->next;
    *(claim->next ? &claim->next->prev : &book->last) = claim->prev;
}

/* Its stack frame may be gone afterwards; the thread's record stays. pre: it is not in the queue any more. */
static void reply(tether_claim_t *claim, tether_answer_t answer)
{
    tether_thread_t *thread = claim->thread;
    store_release(&claim->answer, answer);
    tether_unpark(&thread->parker);
}

static int reshield(tether_book_t *book, const tether_loan_t *loan)
{
    return book->shield == NULL || is_empty(loan) ? 0 : book->shield(book, loan->start, loan->stop);
}

static void unlend(tether_book_t *book, tether_loan_t *loan)
{
    if (!is_empty(loan))
        tether_ranges_take(&book->lent, loan);
    store_relaxed(&loan->state, TETHER_LOAN_NEW);
    count(loan, -1);
}

/* All or none; false: no memory, or the shield failed. */
static bool lend_all(tether_book_t *book, tether_loan_t *const *loans, size_t n)
{
    size_t lent = 0, shielded = 0;
    while (lent < n && lend_directly(book, loans[lent]))
        lent++;
    while (lent == n && shielded < n && reshield(book, loans[shielded]) == 0)
        shielded++;
    if (shielded == n)
        return true;
    for (size_t i = 0; i < lent; i++)
        unlend(book, loans[i]);
    for (size_t i = 0; i < lent; i++)
        reshield(book, loans[i]); /* back to what it was; pages that are left too open are what no shield would be */
    return false;
}

/* Hands over to a claim. false: there was no memory, and it is told that. */
static bool hand_over(tether_book_t *book, tether_claim_t *claim)
{
    tether_loan_t *loan = claim->loan;
    unqueue(book, claim);
    bool ok = lend_all(book, &loan, 1);
    reply(claim, ok ? TETHER_CLAIM_GRANTED : TETHER_CLAIM_NO_MEMORY);
    return ok;
}

/* `gone`, a loan or what a claim was for, is not in the way any more: for whom is there room now? Whoever did not conflict
 * with it has something else in the way, still: a claim that is granted stays in the way of those behind it, as a loan. One
 * that fails does not: then it has gone, too, and those behind it are looked at again. */
static void grant(tether_book_t *book, const tether_loan_t *gone)
{
    tether_loan_t room = {.start = gone->start, .stop = gone->stop, .exclusive = gone->exclusive};
    for (tether_claim_t *c = book->first, *next; c != NULL; c = next) {
        next = c->next;
        if (!conflict(c->loan, &room) || tether_ranges_find(&book->lent, c->loan) != NULL || older(book, c->loan, c) != NULL)
            continue;
        const tether_loan_t wanted = {.start = c->loan->start, .stop = c->loan->stop};
        if (hand_over(book, c))
            continue;
        room.start = wanted.start < room.start ? wanted.start : room.start;
        room.stop = most(wanted.stop, room.stop);
        room.exclusive = true;
        next = book->first;
    }
}

/* The loan is not in the book any more. */
static void made_room(tether_book_t *book, const tether_loan_t *loan)
{
    reshield(book, loan);
    grant(book, loan);
}

static bool is_idle(const tether_loan_t *loan)
{
    return loan->state == TETHER_LOAN_LIVE && loan->views == 0 && loan->parts == 0;
}

/* ---- holders ----------------------------------------------------------------------------------------------------- */

/* pre: the task's lane lock. */
static void enlist_locked(tether_task_t *task, tether_loan_t *loan)
{
    loan->prev = NULL;
    loan->next = load_relaxed(&task->loans);
    if (loan->next != NULL)
        loan->next->prev = loan;
    store_relaxed(&task->loans, loan);
    loan->listed = true;
}

static void enlist(tether_loan_t *loan)
{
    tether_task_t *task = load_relaxed(&loan->holder);
    if (task == NULL)
        return;
    tether_lock_t *lock = &tether_task_lane(task)->lock;
    tether_lock(lock);
    enlist_locked(task, loan);
    tether_unlock(lock);
}

/* pre: the holder's lane lock. */
static void unlist_locked(tether_task_t *task, tether_loan_t *loan)
{
    if (loan->prev != NULL)
        loan->prev->next = loan->next;
    else
        store_release(&task->loans, loan->next); /* the task's end looks without the lock: what it misses has ended */
    if (loan->next != NULL)
        loan->next->prev = loan->prev;
    loan->listed = false;
}

/* The lock of the holder's lane, which stays when the holder goes; NULL: the root has no list. */
static tether_lock_t *list_lock(const tether_loan_t *loan)
{
    tether_task_t *task = load_relaxed(&loan->holder);
    return task != NULL ? &tether_task_lane(task)->lock : NULL;
}

/* The holder's end may be at work on the loan: its lane lock keeps us out until it is done. While it is listed there, the
 * holder is the same. */
static void unlist_under(tether_loan_t *loan, tether_lock_t *lock)
{
    if (lock == NULL)
        return;
    tether_lock(lock);
    if (loan->listed)
        unlist_locked(load_relaxed(&loan->holder), loan);
    tether_unlock(lock);
}

/* pre: the caller acts for the holder. */
static void unlist(tether_loan_t *loan) { unlist_under(loan, list_lock(loan)); }

static void set_holder(tether_thread_t *thread, tether_book_t *book, tether_loan_t *loan)
{
    tether_task_t *task = load_relaxed(&thread->top);
    if (task != NULL)
        tether_task_ref(task);
    loan->book = book;
    store_relaxed(&loan->state, TETHER_LOAN_NEW);
    loan->listed = false;
    store_relaxed(&loan->views, 0);
    store_relaxed(&loan->parts, 0);
    loan->lender = loan->part_first = NULL;
    loan->taker = thread;
    store_relaxed(&loan->holder, task);
}

static void drop_holder(tether_thread_t *thread, tether_loan_t *loan)
{
    tether_task_t *task = load_relaxed(&loan->holder);
    store_relaxed(&loan->holder, NULL);
    if (task != NULL)
        tether_task_unref(thread, task);
}

void tether_loan_move(tether_thread_t *thread, tether_loan_t *loan, tether_task_t *to)
{
    tether_task_t *from = load_relaxed(&loan->holder);
    unlist(loan);
    if (to != NULL)
        tether_task_ref(to);
    tether_lock(&loan->book->lock); /* a conflict that is being told reads it */
    store_relaxed(&loan->holder, to);
    loan->taker = thread;
    bool live = loan->state == TETHER_LOAN_LIVE;
    tether_unlock(&loan->book->lock);
    if (live)
        enlist(loan);
    if (from != NULL)
        tether_task_unref(thread, from);
}

tether_status_t tether_loan_give(tether_thread_t *thread, tether_loan_t *loan, tether_task_t *to)
{
    tether_task_t *from = load_relaxed(&thread->top);
    if (load_relaxed(&loan->holder) != from)
        return TETHER_CONFLICT;
    if (from != NULL)
        unlist(loan);
    tether_task_ref(to);
    /* The root is many threads: two may give it away at once, or one end it. So what decides, the holder and its list change
     * together, and whoever ends it afterwards finds it in the list. */
    tether_lock_t *lane = &tether_task_lane(to)->lock;
    tether_lock(lane);
    tether_lock(&loan->book->lock);
    bool may = load_relaxed(&loan->holder) == from && is_idle(loan);
    bool still = !may && loan->state == TETHER_LOAN_LIVE;
    if (may) {
        store_relaxed(&loan->holder, to);
        loan->taker = thread;
        enlist_locked(to, loan);
    }
    tether_unlock(&loan->book->lock);
    tether_unlock(lane);
    if (still && from != NULL)
        enlist(loan);
    tether_task_t *done = may ? from : to;
    if (done != NULL)
        tether_task_unref(thread, done);
    return may ? TETHER_OK : TETHER_CONFLICT;
}

/* ---- borrowing --------------------------------------------------------------------------------------------------- */

/* The part of a loan that is lent further and in the way, as deep as it goes; else the loan. */
static tether_loan_t *innermost(tether_loan_t *loan, const tether_loan_t *wanted)
{
    for (tether_loan_t *part = loan->part_first; part != NULL;) {
        if (overlap(part, wanted))
            loan = part;
        part = loan == part ? part->part_first : part->part_next;
    }
    return loan;
}

/* What is in the way of a borrow that does not wait yet. */
static tether_loan_t *in_the_way(tether_book_t *book, const tether_loan_t *wanted)
{
    tether_loan_t *loan = tether_ranges_find(&book->lent, wanted);
    if (loan != NULL)
        return innermost(loan, wanted);
    tether_claim_t *claim = older(book, wanted, NULL);
    return claim ? claim->loan : NULL;
}

tether_status_t tether_borrow(tether_thread_t *thread, tether_book_t *book, tether_loan_t *const *loans, size_t n,
                              tether_blame_t *blame, void *arg)
{
    for (size_t i = 0; i < n; i++)
        set_holder(thread, book, loans[i]);
    tether_loan_t *other = NULL;
    tether_lock(&book->lock);
    for (size_t i = 0; i < n && other == NULL; i++)
        other = in_the_way(book, loans[i]);
    bool failed = other == NULL && !lend_all(book, loans, n);
    if (other != NULL && blame != NULL)
        blame(other, arg);
    tether_unlock(&book->lock);
    for (size_t i = 0; i < n; i++) {
        if (other != NULL || failed)
            drop_holder(thread, loans[i]);
        else
            enlist(loans[i]);
    }
    return failed ? TETHER_NO_MEMORY : other != NULL ? TETHER_CONFLICT : TETHER_OK;
}

tether_status_t tether_borrow_queue(tether_thread_t *thread, tether_book_t *book, tether_claim_t *claim, tether_loan_t *loan)
{
    set_holder(thread, book, loan);
    *claim = (tether_claim_t){.loan = loan, .thread = thread};
    tether_lock(&book->lock);
    bool shut = book->shut, free_now = !shut && in_the_way(book, loan) == NULL, failed = false;
    if (free_now) {
        failed = !lend_all(book, &loan, 1);
    } else if (!shut) {
        claim->prev = book->last;
        *(book->last ? &book->last->next : &book->first) = claim;
        book->last = claim;
    }
    tether_unlock(&book->lock);
    if (failed || shut)
        drop_holder(thread, loan);
    else if (free_now)
        enlist(loan);
    return shut ? TETHER_CLOSED : failed ? TETHER_NO_MEMORY : free_now ? TETHER_OK : TETHER_CONFLICT;
}

static tether_status_t answered(tether_claim_t *claim)
{
    static const tether_status_t statuses[] = {TETHER_CONFLICT, TETHER_OK, TETHER_NO_MEMORY, TETHER_CLOSED};
    return statuses[load_relaxed(&claim->answer)];
}

tether_status_t tether_borrow_wait(tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how)
{
    tether_status_t status = tether_wait_claim(thread, claim, how);
    if (status == TETHER_OK)
        status = answered(claim);
    if (status == TETHER_OK)
        enlist(claim->loan);
    return status;
}

void tether_book_shut(tether_book_t *book)
{
    tether_lock(&book->lock);
    book->shut = true;
    for (tether_claim_t *c; (c = book->first) != NULL;) {
        unqueue(book, c);
        reply(c, TETHER_CLAIM_SHUT);
    }
    tether_unlock(&book->lock);
}

tether_status_t tether_borrow_leave(tether_claim_t *claim, tether_blame_t *blame, void *arg)
{
    tether_book_t *book = claim->loan->book;
    tether_lock(&book->lock);
    tether_status_t status = answered(claim);
    if (status == TETHER_CONFLICT) {
        tether_loan_t *loan = tether_ranges_find(&book->lent, claim->loan);
        tether_claim_t *first = loan ? NULL : older(book, claim->loan, claim);
        if (blame != NULL && (loan != NULL || first != NULL))
            blame(loan ? innermost(loan, claim->loan) : first->loan, arg);
        unqueue(book, claim);
        grant(book, claim->loan);
    }
    tether_unlock(&book->lock);
    if (status == TETHER_OK)
        enlist(claim->loan);
    else
        drop_holder(claim->thread, claim->loan);
    return status;
}

/* ---- lending further, and ending; book->lock --------------------------------------------------------------------- */

static void add_part(tether_loan_t *lender, tether_loan_t *part)
{
    store_relaxed(&part->state, TETHER_LOAN_LIVE);
    part->lender = lender;
    part->part_prev = NULL;
    part->part_next = lender->part_first;
    if (part->part_next != NULL)
        part->part_next->part_prev = part;
    lender->part_first = part;
    bump(lender->parts, 1);
    count(part, 1);
}

/* It has ended, and nothing keeps it any more: out of the book, and with it, perhaps, the lender. */
static void settle(tether_loan_t *loan)
{
    tether_book_t *book = loan->book;
    while (loan != NULL && loan->state == TETHER_LOAN_ENDED && loan->views == 0 && loan->parts == 0) {
        tether_loan_t *lender = loan->lender;
        count(loan, -1);
        if (lender == NULL) {
            if (!is_empty(loan)) {
                tether_ranges_take(&book->lent, loan);
                made_room(book, loan);
            }
            break;
        }
        *(loan->part_prev ? &loan->part_prev->part_next : &lender->part_first) = loan->part_next;
        if (loan->part_next != NULL)
            loan->part_next->part_prev = loan->part_prev;
        bump(lender->parts, -1u);
        loan->lender = NULL;
        loan = lender;
    }
}

static void end(tether_loan_t *loan)
{
    store_relaxed(&loan->state, TETHER_LOAN_ENDED);
    settle(loan);
}

/* Out of the holder's list only afterwards: whoever finds that empty may rely on it that all of them have ended. */
tether_status_t tether_loan_end(tether_loan_t *loan, bool views_too)
{
    tether_lock(&loan->book->lock);
    bool may = loan->state == TETHER_LOAN_LIVE && (views_too || is_idle(loan));
    tether_lock_t *list = may ? list_lock(loan) : NULL; /* later the holder may be gone: a task not spawned after all */
    if (may)
        end(loan);
    tether_unlock(&loan->book->lock);
    unlist_under(loan, list);
    return may ? TETHER_OK : TETHER_CONFLICT;
}

tether_status_t tether_loan_lend(tether_thread_t *thread, tether_loan_t *loan, tether_loan_t *const *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        set_holder(thread, loan->book, parts[i]);
    tether_lock(&loan->book->lock);
    bool may = is_idle(loan);
    for (size_t i = 0; may && i < n; i++)
        add_part(loan, parts[i]);
    tether_unlock(&loan->book->lock);
    for (size_t i = 0; i < n; i++) {
        if (may)
            enlist(parts[i]);
        else
            drop_holder(thread, parts[i]);
    }
    return may ? TETHER_OK : TETHER_CONFLICT;
}

/* Beside it in the book, or as a part of the same lender. false: no memory. */
static bool put_beside(tether_loan_t *loan, tether_loan_t *other)
{
    if (loan->lender == NULL)
        return lend_directly(loan->book, other);
    add_part(loan->lender, other);
    return true;
}

tether_status_t tether_loan_clone(tether_thread_t *thread, tether_loan_t *loan, tether_loan_t *copy)
{
    set_holder(thread, loan->book, copy);
    tether_lock(&loan->book->lock);
    bool is = loan->state == TETHER_LOAN_LIVE && !loan->exclusive, may = is && put_beside(loan, copy);
    tether_unlock(&loan->book->lock);
    if (may)
        enlist(copy);
    else
        drop_holder(thread, copy);
    return may ? TETHER_OK : is ? TETHER_NO_MEMORY : TETHER_CONFLICT;
}

/* Readers that wait are granted theirs when the shared one stands: so no writer slips in. */
static void replace(tether_loan_t *loan, tether_loan_t *shared)
{
    if (loan->lender != NULL) {
        add_part(loan->lender, shared);
        end(loan);
        return;
    }
    store_relaxed(&loan->state, TETHER_LOAN_ENDED);
    store_relaxed(&shared->state, TETHER_LOAN_LIVE);
    count(loan, -1);
    count(shared, 1);
    if (!is_empty(loan)) {
        tether_ranges_replace(&loan->book->lent, loan, shared);
        made_room(loan->book, loan);
    }
}

tether_status_t tether_loan_downgrade(tether_thread_t *thread, tether_loan_t *loan, tether_loan_t *shared)
{
    set_holder(thread, loan->book, shared);
    tether_lock(&loan->book->lock);
    bool may = is_idle(loan) && loan->exclusive;
    if (may)
        replace(loan, shared);
    tether_unlock(&loan->book->lock);
    if (may) {
        enlist(shared);
        unlist(loan);
    } else {
        drop_holder(thread, shared);
    }
    return may ? TETHER_OK : TETHER_CONFLICT;
}

/* ---- views ------------------------------------------------------------------------------------------------------- */

tether_status_t tether_loan_view(tether_loan_t *loan)
{
    tether_lock(&loan->book->lock);
    bool may = loan->state == TETHER_LOAN_LIVE && loan->parts == 0;
    if (may)
        bump(loan->views, 1);
    tether_unlock(&loan->book->lock);
    return may ? TETHER_OK : TETHER_CONFLICT;
}

void tether_loan_unview(tether_loan_t *loan)
{
    tether_lock(&loan->book->lock);
    bump(loan->views, -1u);
    settle(loan);
    tether_unlock(&loan->book->lock);
}

/* ---- the ends of tasks and of memory ----------------------------------------------------------------------------- */

/* pre: the lane's lock, which keeps the loan from being forgotten. returns whether views keep it. */
static bool end_for_task(tether_task_t *task, tether_loan_t *loan, tether_blame_t *each, void *arg)
{
    unlist_locked(task, loan);
    tether_lock(&loan->book->lock);
    if (loan->state == TETHER_LOAN_LIVE)
        end(loan);
    bool viewed = loan->views != 0;
    if (viewed && each != NULL)
        each(loan, arg);
    tether_unlock(&loan->book->lock);
    return viewed;
}

size_t tether_loans_end(tether_task_t *task, tether_blame_t *each, void *arg)
{
    size_t kept = 0;
    tether_lock_t *lock = &tether_task_lane(task)->lock;
    while (load_acquire(&task->loans) != NULL) {
        tether_lock(lock); /* for one at a time: the lane is everybody's */
        tether_loan_t *loan = load_relaxed(&task->loans);
        if (loan != NULL)
            kept += end_for_task(task, loan, each, arg);
        tether_unlock(lock);
    }
    return kept;
}

void tether_loans_each(tether_task_t *task, tether_blame_t *each, void *arg)
{
    tether_lock_t *lock = &tether_task_lane(task)->lock;
    tether_lock(lock);
    for (tether_loan_t *loan = load_relaxed(&task->loans); loan != NULL; loan = loan->next)
        each(loan, arg);
    tether_unlock(lock);
}

bool tether_task_borrows(tether_task_t *task) { return load_acquire(&task->loans) != NULL; }

void tether_loan_forget(tether_thread_t *thread, tether_loan_t *loan)
{
    tether_loan_end(loan, true); /* if the holder's end was faster, it has no more to do with the loan */
    drop_holder(thread, loan);
}

/* ---- for owner.c and the tests ----------------------------------------------------------------------------------- */

/* The loan and what is lent of it, as deep as it goes: all of them must be gone before its range is free. */
static bool any_of(tether_loan_t *loan, tether_blocker_t *is, void *arg)
{
    for (tether_loan_t *at = loan;;) {
        if (is(at, NULL, arg))
            return true;
        if (at->part_first != NULL) {
            at = at->part_first;
            continue;
        }
        while (at != loan && at->part_next == NULL)
            at = at->lender;
        if (at == loan)
            return false;
        at = at->part_next;
    }
}

tether_access_t tether__book_access(tether_book_t *book, size_t start, size_t stop)
{
    tether_loan_t probe = {.start = start, .stop = stop};
    if (tether_ranges_find(&book->lent, &probe) != NULL)
        return TETHER_ACCESS_WRITE;
    probe.exclusive = true;
    return tether_ranges_find(&book->lent, &probe) != NULL ? TETHER_ACCESS_READ : TETHER_ACCESS_NONE;
}

typedef struct {
    tether_blocker_t *is;
    void *arg;
} asks_t;

static bool any_of_each(tether_loan_t *loan, void *asks)
{
    const asks_t *a = asks;
    return any_of(loan, a->is, a->arg);
}

bool tether__claim_blocked(tether_claim_t *claim, tether_blocker_t *is, void *arg)
{
    tether_book_t *book = claim->loan->book;
    if (load_relaxed(&claim->answer) != TETHER_CLAIM_WAITS)
        return false;
    asks_t asks = {is, arg};
    if (tether_ranges_any(&book->lent, claim->loan, any_of_each, &asks))
        return true;
    for (tether_claim_t *c = book->first; c != NULL && c != claim; c = c->next)
        if (conflict(c->loan, claim->loan) && is(c->loan, c, arg))
            return true;
    return false;
}

static bool has_views(tether_loan_t *loan, tether_claim_t *waiter, void *unused)
{
    (void)unused;
    return waiter == NULL && load_relaxed(&loan->views) != 0;
}

bool tether_claim_is_viewed(tether_claim_t *claim)
{
    tether_book_t *book = claim->loan->book;
    tether_lock(&book->lock);
    bool is = tether__claim_blocked(claim, has_views, NULL);
    tether_unlock(&book->lock);
    return is;
}

/* How far what stands left of a place in the book reaches. */
typedef struct {
    size_t stop, stop_exclusive;
} left_t;

static bool parts_are_sound(const tether_loan_t *lender)
{
    uint32_t parts = 0;
    const tether_loan_t *prev = NULL;
    for (const tether_loan_t *p = lender->part_first; p != NULL; prev = p, p = p->part_next, parts++) {
        if (p->lender != lender || p->part_prev != prev || p->book != lender->book || p->state == TETHER_LOAN_NEW)
            return false;
        if (p->start < lender->start || p->stop > lender->stop || p->exclusive > lender->exclusive)
            return false;
        for (const tether_loan_t *q = p->part_next; q != NULL; q = q->part_next)
            if (conflict(p, q))
                return false;
        if (!parts_are_sound(p))
            return false;
    }
    return parts == lender->parts;
}

static bool is_kept(const tether_loan_t *loan)
{
    return loan->state == TETHER_LOAN_LIVE || (loan->state == TETHER_LOAN_ENDED && (loan->views != 0 || loan->parts != 0));
}

static bool loan_is_sound(tether_loan_t *loan, void *seen)
{
    left_t *left = seen;
    if (loan->start < left->stop_exclusive || (loan->exclusive && loan->start < left->stop)) /* G13 */
        return false;
    if (is_empty(loan) || loan->lender != NULL || !is_kept(loan) || !parts_are_sound(loan))
        return false;
    left->stop = most(left->stop, loan->stop);
    left->stop_exclusive = most(left->stop_exclusive, loan->exclusive ? loan->stop : 0);
    return true;
}

static bool queue_is_sound(tether_book_t *book)
{
    tether_claim_t *last = NULL;
    for (tether_claim_t *c = book->first; c != NULL; last = c, c = c->next) {
        if (c->prev != last || load_relaxed(&c->answer) != TETHER_CLAIM_WAITS || c->loan->state != TETHER_LOAN_NEW)
            return false;
        if (tether_ranges_find(&book->lent, c->loan) == NULL && older(book, c->loan, c) == NULL)
            return false; /* it waits for nothing */
    }
    return last == book->last;
}

bool tether__book_is_sound(tether_book_t *book)
{
    left_t left = {0};
    tether_lock(&book->lock);
    bool is = tether_ranges_are_sound(&book->lent, loan_is_sound, &left) && queue_is_sound(book);
    tether_unlock(&book->lock);
    return is;
}
