/* Scopes: a body, the tasks spawned into it, and the promise that the first does not end before the second have.
 *
 *   tether_scope_t *s = tether_scope_open(thread, TETHER_FOREVER);
 *   tether_task_t *t = tether_task_new(thread, &s->node);
 *   if (tether_scope_admit(s, t) == TETHER_OK) tether_task_queue(t);
 *   tether_scope_leave(s);
 *   while (!tether_scope_close(s))                  // somebody is alive
 *       ... claim with tether_scope_claim and run, or tether_wait_scope ...
 *   while ((t = tether_scope_collect(s))) ...       // failures that nobody collected
 *   tether_scope_done(thread, s);
 */
#ifndef TETHER_SCOPE_H
#define TETHER_SCOPE_H

#include "types.h"

/* Opens a scope in the body that the calling thread is in. The caller holds one reference. NULL: out of memory.
 * deadline: when it is cancelled (TETHER_FOREVER: never). Nobody watches the clock for it: body and children look at their
 * checkpoints, and no wait of theirs is longer (tether_thread_limit). */
tether_scope_t *tether_scope_open(tether_thread_t *thread, uint64_t deadline);

/* Makes a NEW task a child. returns OK or CLOSED. */
tether_status_t tether_scope_admit(tether_scope_t *scope, tether_task_t *task);

/* Undoes an admit whose task could not be queued. */
void tether_scope_dismiss(tether_scope_t *scope, tether_task_t *task);

/* Makes an older task, which may end at any moment or have ended, a child (owner.h, send). returns OK or CLOSED. */
tether_status_t tether_scope_adopt(tether_scope_t *scope, tether_task_t *task);

/* A child has ended (tether_task_end only). true: the scope keeps it and its reference. The scope may be gone afterwards. */
bool tether_scope_child_ended(tether_scope_t *scope, tether_task_t *task, bool failed);

/* Takes a collected failure out of the list: true if it was there; its reference is then the caller's. */
bool tether_scope_forget(tether_scope_t *scope, tether_task_t *task);

/* Asks body and children to end; wakes those that sleep. Idempotent. */
void tether_scope_cancel(tether_scope_t *scope);

/* The body is over. */
void tether_scope_leave(tether_scope_t *scope);

/* CLOSED if nobody is alive; false otherwise. */
bool tether_scope_close(tether_scope_t *scope);

/* CLOSED in any case (the leaver gives up waiting): living children go on and are released as they end. */
void tether_scope_abandon(tether_scope_t *scope);

/* Of a failed child that has ended: is there, or will there be, somebody who collects its failure? */
bool tether_scope_collects(tether_scope_t *scope, const tether_task_t *task);

/* Claims the oldest queued child for the calling thread. NULL: none is queued. */
tether_task_t *tether_scope_claim(tether_thread_t *thread, tether_scope_t *scope);

/* Takes the next failed child, in spawn order, out of a closed scope; its reference is the caller's. NULL: no more. */
tether_task_t *tether_scope_collect(tether_scope_t *scope);

/* Calls each(task, arg) for every child in the list, the scope's lock held. */
void tether_scope_each(tether_scope_t *scope, void (*each)(tether_task_t *, void *), void *arg);

/* The block is over: takes a closed scope out of the chain of open ones and drops the opener's reference. */
void tether_scope_done(tether_thread_t *thread, tether_scope_t *scope);

/* Lets go of scopes at the head of a chain that were done elsewhere; of all that a task that ends leaves open. */
void tether_scope_drop_done(tether_thread_t *thread, tether_scope_t **chain);
void tether_scope_drop_all(tether_thread_t *thread, tether_task_t *task);

void tether__scope_free(tether_scope_t *scope);

#endif
