/* For the tests of borrows: ranges, holders, and a wait as the binding does it. */
#ifndef BORROWING_H
#define BORROWING_H

#include <sched.h>

#include "borrow.h"
#include "host.h"

static inline tether_loan_t reading(size_t start, size_t stop) { return (tether_loan_t){.start = start, .stop = stop}; }

static inline tether_loan_t writing(size_t start, size_t stop)
{
    return (tether_loan_t){.start = start, .stop = stop, .exclusive = true};
}

static inline tether_status_t borrow(host_t *host, tether_book_t *book, tether_loan_t *loan)
{
    return tether_borrow(host_thread(host), book, &loan, 1, NULL, NULL);
}

static inline void forget(host_t *host, tether_loan_t *loan) { tether_loan_forget(host_thread(host), loan); }

/* One wait of a claim, attached; DEADLOCK: *cycle_len (may be NULL) tasks were named. */
static inline tether_status_t sleep_for(host_t *host, tether_claim_t *claim, tether_wait_t *how)
{
    tether_thread_t *thread = host_thread(host);
    tether_status_t status;
    host_detach(host);
    tether_wait_enter(thread);
    do
        status = tether_borrow_wait(thread, claim, how);
    while (status == TETHER_INTERRUPTED);
    tether_wait_leave(thread);
    host_attach(host);
    for (size_t i = 0; i < how->cycle_len; i++)
        tether_task_unref(thread, how->cycle[i]);
    return status;
}

static inline tether_status_t borrow_or_wait(host_t *host, tether_book_t *book, tether_loan_t *loan, tether_wait_t *how)
{
    tether_claim_t claim;
    tether_status_t status = tether_borrow_queue(host_thread(host), book, &claim, loan);
    if (status != TETHER_CONFLICT)
        return status;
    status = sleep_for(host, &claim, how);
    if (status == TETHER_OK)
        return status;
    tether_status_t left = tether_borrow_leave(&claim, NULL, NULL);
    return left == TETHER_CONFLICT ? status : left;
}

static inline tether_status_t borrow_in_the_end(host_t *host, tether_book_t *book, tether_loan_t *loan)
{
    tether_wait_t how = {.deadline = TETHER_FOREVER};
    return borrow_or_wait(host, book, loan, &how);
}

/* Does the thread that runs the task, or for NULL any program thread, sleep with its wait noted? */
static inline bool is_asleep(host_t *host, job_t *job)
{
    bool is = false;
    tether_lock(&host->rt->graph);
    for (tether_thread_t *t = host->rt->threads; t; t = t->next)
        if (job != NULL ? t == load_acquire(&job->task.thread) : !t->crew)
            is |= t->waits_for != NULL || t->waits_claim != NULL;
    tether_unlock(&host->rt->graph);
    return is;
}

static inline void await_sleep(host_t *host, job_t *job)
{
    while (!is_asleep(host, job))
        host_yield(host);
}

#endif
