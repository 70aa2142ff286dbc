/* Waiting: spin a little, then sleep; look for cancellation and for cycles. All of these are called detached (without the
 * GIL), between tether_wait_enter and tether_wait_leave.
 *
 * returns OK (what was waited for is so; for sleep: the time is over), TIMEOUT, INTERRUPTED (let the host look at signals,
 * then call again), CANCELLED, DEADLOCK (tether_wait_t.cycle is filled) or, where it says so, HELP. */
#ifndef TETHER_WAIT_H
#define TETHER_WAIT_H

#include "types.h"

enum { TETHER_CYCLE_MAX = 32 };

typedef struct {
    uint64_t deadline;      /* TETHER_FOREVER: none */
    uint64_t look;          /* when to answer INTERRUPTED in any case; 0: never */
    bool cancellable;       /* look at cancellation of the caller */
    bool help;              /* may answer HELP */
    bool native;            /* with a native task, and with none else */
    bool slices;            /* wake up now and then for signals that another thread may have received */
    bool strangers;         /* the program may have threads that the runtime has not met: nobody is taken for all of the root */
    tether_task_t *helped;  /* HELP: claimed for the caller, who must run it and then call again */
    tether_task_t *cycle[TETHER_CYCLE_MAX]; /* DEADLOCK: who waits for whom, each with a reference */
    size_t cycle_len;
} tether_wait_t;

/* The caller has just let the host go, and takes it back soon: lets crew threads begin. */
void tether_wait_enter(tether_thread_t *thread);
void tether_wait_leave(tether_thread_t *thread);

/* Until the task has ended. */
tether_status_t tether_wait_task(tether_thread_t *thread, tether_task_t *task, tether_wait_t *how);

/* Until no child of the scope is alive. */
tether_status_t tether_wait_scope(tether_thread_t *thread, tether_scope_t *scope, tether_wait_t *how);

/* Until the claim has been granted (borrow.h). */
tether_status_t tether_wait_claim(tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how);

/* Until the deadline. */
tether_status_t tether_wait_until(tether_thread_t *thread, tether_wait_t *how);

#endif
