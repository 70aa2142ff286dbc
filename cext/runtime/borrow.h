/* Borrows checked while the program runs: a book per region or value says which ranges of it are lent, how, and to whom.
 *
 * The rule (G13): two lent ranges that overlap are both shared. Neighbours are independent, whatever their number: the book
 * keeps the ranges in a tree ordered by their start, where each node knows how far its subtree reaches.
 *
 * A loan is one lent range. Its memory is the host's (it stands inside a handle) and must stay until it has left the book;
 * who may free what, when, is in borrow.md, with the proofs.
 *
 *   loan     in the book   its range is usable by        leaves by
 *   NEW      no            nobody                        borrow -> LIVE
 *   LIVE     yes           its holder, unless suspended  end -> ENDED
 *   ENDED    while viewed or lent further, then no
 *
 * suspended: it is lent further, by `parts`; it is usable again when the last of them is gone.
 * viewed: raw views of its bytes exist (`views`); they keep it in the book after its end (G14).
 *
 * The host that wants a book for itself alone, for good or for a moment, borrows all of it exclusively; for good: and shuts it.
 *
 * Fairness: who waits stands in a queue. A borrow that conflicts with one that waits conflicts: so neither writers nor large
 * ranges starve. Whoever makes room grants, in the order of the queue, and hands the range over: the granted loan is in the
 * book before its waiter wakes. */
#ifndef TETHER_BORROW_H
#define TETHER_BORROW_H

#include "ranges.h"
#include "types.h"
#include "wait.h"

typedef enum { TETHER_LOAN_NEW, TETHER_LOAN_LIVE, TETHER_LOAN_ENDED } tether_loan_state_t;

/* Zeroed memory is an empty book. Whoever holds loans of a book, or waits for one, belongs to one runtime. */
typedef struct tether_book {
    tether_lock_t lock;            /* guards everything here and in the loans, but for what is said there */
    tether_ranges_t lent;          /* the loans that are lent directly, except for those of empty ranges */
    tether_claim_t *first, *last;  /* the queue */
    bool shut;                     /* nobody will be lent anything any more: who waits is told */
    /* May be NULL. Called after what is lent of start..stop has changed; 0, or an error: then a borrow is undone. */
    int (*shield)(struct tether_book *book, size_t start, size_t stop);
} tether_book_t;

struct tether_loan {
    size_t start, stop;            /* fixed by the host before it is lent; an empty range conflicts with nothing */
    bool exclusive;                /* fixed like the range */
    bool bare;                     /* likewise: somebody's, although no object of the host's stands for it */
    _Atomic uint8_t state;         /* these three are read anywhere */
    _Atomic uint32_t views;
    _Atomic uint32_t parts;        /* loans of this one that are not gone */
    tether_book_t *book;
    tether_loan_t *lender;         /* the loan that this is a part of, or NULL */
    tether_loan_t *part_first, *part_next, *part_prev; /* a lender's parts */
    tether_task_t *_Atomic holder; /* with a reference; NULL: the root. Written under book->lock and the holder's lane lock */
    tether_thread_t *taker;        /* who borrowed it for the root */
    tether_loan_t *next, *prev;    /* the holder's loans; the lock of the holder's lane */
    bool listed;                   /* likewise */
    void *host;                    /* the host's own, for `blame`; NULL: bare, or the runtime's own loan */
};

/* Not yet; the loan is LIVE; it would have been, but for want of memory (or of a shield); the book was shut. */
typedef enum { TETHER_CLAIM_WAITS, TETHER_CLAIM_GRANTED, TETHER_CLAIM_NO_MEMORY, TETHER_CLAIM_SHUT } tether_answer_t;

/* A borrow that waits. On its thread's stack. */
struct tether_claim {
    tether_loan_t *loan;
    tether_thread_t *thread;
    tether_claim_t *next, *prev;
    _Atomic uint32_t answer;       /* tether_answer_t */
    /* rt->graph (owner.c): */
    uint64_t walk;                 /* the last walk that came here */
    tether_claim_t *walk_from;     /* from which claim, */
    const tether_node_t *walk_via; /* by way of whom */
    tether_claim_t *walk_todo;     /* the next that it has to look into */
};

/* Called under the book's lock with what stands in the way, a loan or one that a claim is for: take what an error message
 * needs, and do not block. */
typedef void tether_blame_t(tether_loan_t *loan, void *arg);

/* Lends n NEW loans of one book, ascending and disjoint, to what runs on the calling thread: all or none. OK, CONFLICT or
 * NO_MEMORY (for the book, or the shield failed; `blame` was not called). */
tether_status_t tether_borrow(tether_thread_t *thread, tether_book_t *book, tether_loan_t *const *loans, size_t n,
                              tether_blame_t *blame, void *arg);

/* The same for one, which may wait: returns OK, CLOSED (the book is shut), NO_MEMORY, or CONFLICT with the claim in the queue.
 * Then tether_borrow_wait until it does not say INTERRUPTED; anything but OK is followed by tether_borrow_leave. */
tether_status_t tether_borrow_queue(tether_thread_t *thread, tether_book_t *book, tether_claim_t *claim, tether_loan_t *loan);
tether_status_t tether_borrow_wait(tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how);

/* Gives up waiting: CONFLICT, and `blame` is called with what still stands in the way. If it had been answered meanwhile, what
 * wait would have said: OK (then the loan is LIVE), CLOSED or NO_MEMORY. */
tether_status_t tether_borrow_leave(tether_claim_t *claim, tether_blame_t *blame, void *arg);

/* Is it in the way of the claim, among others, that somebody has a raw view? */
bool tether_claim_is_viewed(tether_claim_t *claim);

/* For a host that keeps all of the book for good: who waits for some of it is answered CLOSED. */
void tether_book_shut(tether_book_t *book);

/* Lends a LIVE loan that is neither viewed nor lent further on: n NEW parts inside its range, ascending and disjoint, exclusive
 * only if it is. OK; CONFLICT: it is viewed, lent or ended. */
tether_status_t tether_loan_lend(tether_thread_t *thread, tether_loan_t *loan, tether_loan_t *const *parts, size_t n);

/* Adds one more shared loan of the same range: no matter who waits. CONFLICT: it has ended. NO_MEMORY. */
tether_status_t tether_loan_clone(tether_thread_t *thread, tether_loan_t *loan, tether_loan_t *copy);

/* Ends an exclusive loan and begins a shared one of its range, with nobody in between. CONFLICT as for lend, and if
 * it is a shared one. */
tether_status_t tether_loan_downgrade(tether_thread_t *thread, tether_loan_t *loan, tether_loan_t *shared);

/* Ends it. Without `views_too` a loan that is viewed or lent further stays LIVE, and the answer is CONFLICT; so it is for one
 * that has ended. */
tether_status_t tether_loan_end(tether_loan_t *loan, bool views_too);

/* Begins and ends a raw view, by anyone the host admits. begin: CONFLICT when it is not LIVE, or suspended. */
tether_status_t tether_loan_view(tether_loan_t *loan);
void tether_loan_unview(tether_loan_t *loan);

/* Gives it to a task that nobody runs yet. CONFLICT, and nothing changes, unless it is held by what runs on the calling thread,
 * LIVE, and neither viewed nor lent further. */
tether_status_t tether_loan_give(tether_thread_t *thread, tether_loan_t *loan, tether_task_t *to);

/* Makes `to` (running nothing yet, or NULL: the root) the holder. The caller acts for the present one. */
void tether_loan_move(tether_thread_t *thread, tether_loan_t *loan, tether_task_t *to);

/* Ends all loans that a task holds; called by its thread before tether_task_end. each: called for every one that stays in the
 * book because it is viewed, under locks, as blame is; may be NULL. returns their number. */
size_t tether_loans_end(tether_task_t *task, tether_blame_t *each, void *arg);

/* Calls each for every loan that a task holds, under locks. */
void tether_loans_each(tether_task_t *task, tether_blame_t *each, void *arg);

/* Does the task hold any? Others may end them at any moment. */
bool tether_task_borrows(tether_task_t *task);

/* Before the loan's memory is freed, on any thread; also of one that was refused, but not of one that was never asked for.
 * pre: it is not viewed, and its parts have been forgotten. */
void tether_loan_forget(tether_thread_t *thread, tether_loan_t *loan);

/* Is any loan in the way of the claim, any part of such a loan, or any claim before it, such that is(blocker, waiter, arg)?
 * waiter: NULL, or the claim that the blocker is for. pre: book->lock is held (owner.c, which looks for deadlocks). */
typedef bool tether_blocker_t(tether_loan_t *blocker, tether_claim_t *waiter, void *arg);
bool tether__claim_blocked(tether_claim_t *claim, tether_blocker_t *is, void *arg);

/* How the bytes start..stop are lent. pre: book->lock. */
tether_access_t tether__book_access(tether_book_t *book, size_t start, size_t stop);

/* For tests: is the tree in order, does nothing in it conflict (G13), and does nobody wait for nothing? */
bool tether__book_is_sound(tether_book_t *book);

#endif
