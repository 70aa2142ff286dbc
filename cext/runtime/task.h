/* A task's life in the runtime: made, queued, claimed once, ended once, reaped once, its block recycled.
 *
 * References: one for the guard (or handle), one for being alive (from spawn to end; for a failed child of a scope, until
 * the failure is collected), one for each node whose owner it is, and what the host adds (TaskRefs). The block returns to
 * a free list with the last one. So nothing here is freed under the feet of the thread that ends the task. */
#ifndef TETHER_TASK_H
#define TETHER_TASK_H

#include "types.h"

/* A NEW task with two references (guard, alive). owner is kept. Memory behind the runtime's part is not zeroed.
 * returns NULL: out of memory. */
tether_task_t *tether_task_new(tether_thread_t *thread, tether_node_t *owner);

/* Undoes tether_task_new before the task was published. */
void tether_task_discard(tether_thread_t *thread, tether_task_t *task);

/* Queues a NEW task of the root, a task or (with tether_scope_admit before) a scope, and sees to it that it will start.
 * returns OK, NO_THREAD or SHUTDOWN; the task is untouched unless OK. */
tether_status_t tether_task_queue(tether_task_t *task);

/* Gives a NEW task a native thread of its own. returns OK, NO_THREAD, NO_MEMORY, SHUTDOWN. */
tether_status_t tether_task_dedicate(tether_task_t *task, size_t stack_size);

/* QUEUED -> RUNNING; true for exactly one caller, who must then run it on the calling thread. */
bool tether_task_claim(tether_thread_t *thread, tether_task_t *task);

/* Enters and leaves the running of a claimed task on this thread's stack. */
static inline void tether_task_push(tether_thread_t *thread, tether_task_t *task)
{
    task->below = load_relaxed(&thread->top);
    store_relaxed(&thread->top, task);
}

static inline void tether_task_pop(tether_thread_t *thread, tether_task_t *task)
{
    store_relaxed(&thread->top, task->below);
}

/* RUNNING -> EXITED; the exit value is in place, the task popped. Wakes whoever waits. Drops the "alive" reference.
 * returns true when the task was loose and not a failed child of a scope: then the caller, attached, calls host.release. */
bool tether_task_end(tether_thread_t *thread, tether_task_t *task, bool failed);

/* Before the end: will tether_task_end answer true as things stand? Lets the host release while it is still attached. */
bool tether_task_is_loose(const tether_task_t *task);

/* EXITED -> REAPED; true for exactly one caller, who owns the exit value from then on. */
bool tether_task_reap(tether_task_t *task);

/* REAPED -> EXITED: the one who reaped it could not hand the value over, and leaves it for another try. Not of a failed child
 * of a scope, which has forgotten it. */
void tether_task_put_back(tether_task_t *task);

/* As tether_task_reap, but not of a task with one of the flags `refuse`. *before: the word that the exchange replaced. */
bool tether_task_take(tether_task_t *task, uint32_t refuse, uint32_t *before);

/* The guard lets go (flags: LOOSE with ADOPTED or DETACHED). true: the task has ended, so the caller must reap and release. */
bool tether_task_loosen(tether_task_t *task, uint32_t flags);

/* For an armed guard; false: it is not armed (any more), nothing was done. *ended: the caller must reap and release. */
bool tether_task_disarm(tether_task_t *task, uint32_t flags, bool *ended);

/* Asks the task to end. Sets CANCEL (and `also`); wakes it if it sleeps in a wait of tether.
 * returns false if it had ended. A task that has not started stays queued: the caller may claim it and end it at once. */
bool tether_task_cancel(tether_task_t *task, uint32_t also);

/* Asks a running task to end what it does now and to begin again (the host sees to that). Like a cancel, but for AGAIN.
 * pre: the host has begun to run it, and is not done. returns false if it is not running, or cancelled anyway. */
bool tether_task_renew(tether_task_t *task);

/* By the task's own thread: takes such a request back. returns whether there was one; a real cancel stays. */
bool tether_task_spare(tether_task_t *task);

/* Was the task itself, or the scope it belongs to, cancelled? */
bool tether_task_cancelled(const tether_task_t *task);

static inline uint32_t tether_task_word(const tether_task_t *task) { return load_acquire(&task->word); }

static inline bool tether_task_ended(const tether_task_t *task)
{
    return tether_state(load_acquire(&task->word)) >= TETHER_EXITED;
}

static inline tether_scope_t *tether_task_scope(const tether_task_t *task)
{
    return load_acquire(&task->word) & TETHER_F_SCOPED ? (tether_scope_t *)load_relaxed(&task->node.owner) : NULL;
}

static inline void tether_task_ref(tether_task_t *task) { add_relaxed(&task->node.refs, 1); }

/* thread: the caller's, for its free list. */
void tether_task_unref(tether_thread_t *thread, tether_task_t *task);

/* Puts a block that nobody refers to, and the host has cleared, on the free list (host.dispose). */
void tether__task_recycle(tether_thread_t *thread, tether_task_t *task);

void tether_node_unref(tether_thread_t *thread, tether_node_t *node);

#endif
