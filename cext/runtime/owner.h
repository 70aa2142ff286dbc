/* The owner graph: who may join, move or let go of a guard, and who sleeps for whom. owner_graph.md has the rules and
 * the proof that nothing comes to own itself. One lock per runtime; the common spawn and join never take it. */
#ifndef TETHER_OWNER_H
#define TETHER_OWNER_H

#include "types.h"
#include "wait.h"

/* The node that the calling thread acts as: its innermost task, or NULL, the root. */
static inline tether_node_t *tether_owner_current(const tether_thread_t *thread)
{
    return load_relaxed(&thread->top) ? &thread->top->node : NULL;
}

/* Does `node` own the guard of `task`? What an ended task owned belongs to its own owner; what a scope owns, to the
 * scope's opener. */
bool tether_owner_is(tether_task_t *task, const tether_node_t *node);

/* Who owns something that is no task's guard: a node with a reference, or NULL, the root. */
typedef tether_node_t *_Atomic tether_slot_t;

/* Is it owned by what runs on the calling thread? If not, *other is the owner, with a reference. */
bool tether_owner_holds(tether_thread_t *thread, tether_slot_t *slot, tether_node_t **other);

/* Gives it to `to`, if it is owned by what runs on the calling thread; or in any case. */
bool tether_owner_give(tether_thread_t *thread, tether_slot_t *slot, tether_node_t *to);
void tether_owner_assign(tether_thread_t *thread, tether_slot_t *slot, tether_node_t *to);

/* Is `task` `node` itself or one of its ancestors? */
bool tether_owner_above(const tether_task_t *task, tether_node_t *node);

/* Moves the guards of n tasks from the calling thread's node to `to` (NULL: the root), all or none. `scratch` has room
 * for n nodes. returns OK, NOT_OWNER or CYCLE; *culprit is the index of the one that does not go. */
tether_status_t tether_owner_move(tether_thread_t *thread, tether_task_t **tasks, tether_node_t **scratch, size_t n,
                                  tether_node_t *to, size_t *culprit);

/* Takes those of n guards that `from`, a task that has ended, owned, for the calling thread's node: a result has brought
 * them. The others stay where they are. */
void tether_owner_claim(tether_thread_t *thread, tether_task_t **tasks, size_t n, const tether_task_t *from);

/* Moves one guard into a scope, whose body then waits for it. returns OK, NOT_OWNER, CYCLE or CLOSED. */
tether_status_t tether_owner_send(tether_thread_t *thread, tether_task_t *task, tether_scope_t *scope);

/* The nearest task above that has not ended, with a reference; NULL: the root. */
tether_task_t *tether_owner_parent(tether_task_t *task);

/* Called as a task ends: shortens the way to its living owner, so that chains of ended owners do not grow. */
void tether_owner_settle(tether_thread_t *thread, tether_task_t *task);

/* Notes that the calling thread is about to sleep: for `node` (a task or a scope), or, when that is NULL, for a claim in a
 * queue (borrow.h), which waits for all that stand in its way; one that has been granted waits for nobody.
 * returns DEADLOCK if that sleep could never end: then nothing was noted, and how->cycle is filled. */
tether_status_t tether_owner_wait(tether_thread_t *thread, tether_node_t *node, tether_claim_t *claim, tether_wait_t *how);

/* Takes the note back. */
void tether_owner_awake(tether_thread_t *thread);

#endif
