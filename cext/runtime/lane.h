/* Run queues. A lane holds the tasks that were spawned from the threads assigned to it: a queue of those that nobody has
 * started, oldest first, and a list of those that have been claimed. On builds with a GIL there is one lane; on the others
 * about one per core, so that spawners do not meet on one lock.
 *
 * A joiner takes its task out of the middle, a crew thread takes the oldest. The claim itself is the compare-exchange on
 * the task word; the lists follow under the lane's lock, so for a moment a claimed task may still stand in the queue. */
#ifndef TETHER_LANE_H
#define TETHER_LANE_H

#include "types.h"

/* Makes a NEW task QUEUED and appends it; returns how many are queued in its lane. 0: refused, the runtime is closing. */
uint32_t tether_lane_put(tether_task_t *task);

/* Makes a NEW task QUEUED and keeps account of it as a dedicated one, which is never in the queue (false: the runtime is
 * closing); undoes it. */
bool tether_lane_add_dedicated(tether_task_t *task);
void tether_lane_drop_dedicated(tether_task_t *task);

/* Follow-ups of a claim and of an end. */
void tether_lane_claimed(tether_task_t *task, bool dedicated);
void tether_lane_ended(tether_task_t *task);

/* Claims the oldest task of some lane for the calling thread, its own lane first. NULL: nothing is queued. Native tasks are
 * taken by the second only, which is for threads that are detached. */
tether_task_t *tether_lane_take(tether_thread_t *thread);
tether_task_t *tether_lane_take_native(tether_thread_t *thread);

/* Claims a task that must end before `node` does: one of a scope opened inside node's subtree (runtime rule: a waiting
 * thread may run nothing else). Looks at the newest few of each lane only. NULL: none found. native: native ones only, else no
 * native ones. */
tether_task_t *tether_lane_take_below(tether_thread_t *thread, const tether_node_t *node, bool native);

/* Sums over the lanes. queued is a hint unless exact, which takes the locks. */
uint64_t tether_lane_queued(tether_runtime_t *rt, bool exact);
uint64_t tether_lane_native(tether_runtime_t *rt, bool exact); /* of the queued ones */
uint64_t tether_lane_running(tether_runtime_t *rt);
uint64_t tether_lane_waiting(tether_runtime_t *rt);
int64_t tether_lane_armed(tether_runtime_t *rt);
int64_t tether_lane_movables(tether_runtime_t *rt);
int64_t tether_lane_lent(tether_runtime_t *rt);
uint64_t tether_lane_started(tether_runtime_t *rt);
uint64_t tether_lane_oldest(tether_runtime_t *rt);

/* Accounts for a guard that is armed (+1) or let go (-1). */
static inline void tether_lane_arm(tether_lane_t *lane, int change) { add_relaxed(&lane->armed, change); }

/* The same for whatever else a task may be given that has one owner. */
static inline void tether_lane_movable(tether_lane_t *lane, int change) { add_relaxed(&lane->movable, change); }

/* Calls each(task, arg) for every task that has not ended, with the lane's lock held: each() may take a reference on the
 * task and must not block. */
void tether_lane_each(tether_runtime_t *rt, void (*each)(tether_task_t *, void *), void *arg);

#endif
