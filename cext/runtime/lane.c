#include "lane.h"

#include "task.h"

static void list_append(tether_tasklist_t *list, tether_task_t *task)
{
    task->next = NULL;
    task->prev = list->tail;
    *(list->tail ? &list->tail->next : &list->head) = task;
    list->tail = task;
}

static void list_remove(tether_tasklist_t *list, tether_task_t *task)
{
    *(task->prev ? &task->prev->next : &list->head) = task->next;
    *(task->next ? &task->next->prev : &list->tail) = task->prev;
}

/* The counters are written under the lane's lock only, so a plain load and store do. */
#define bump(counter, by) store_relaxed(&(counter), load_relaxed(&(counter)) + (by))

static tether_tasklist_t *queue_of(tether_lane_t *lane, const tether_task_t *task)
{
    return task->native ? &lane->natives : &lane->queue;
}

static void note_oldest(tether_lane_t *lane)
{
    uint64_t one = lane->queue.head ? lane->queue.head->id : 0, other = lane->natives.head ? lane->natives.head->id : 0;
    store_relaxed(&lane->oldest, one == 0 || (other != 0 && other < one) ? other : one);
}

/* NEW -> QUEUED, in the same section as the list: whoever claims it finds it there. A scope's child is known to others
 * already, who may set flags. */
static void publish(tether_task_t *task, uint32_t bits)
{
    uint32_t word = load_relaxed(&task->word);
    if (word & TETHER_F_SCOPED)
        or_acq_rel(&task->word, bits);
    else
        store_release(&task->word, word | bits);
}

uint32_t tether_lane_put(tether_task_t *task)
{
    tether_lane_t *lane = tether_task_lane(task);
    tether_lock(&lane->lock);
    if (load_relaxed(&task->node.rt->closing)) {
        tether_unlock(&lane->lock);
        return 0;
    }
    list_append(queue_of(lane, task), task);
    /* Under the lock: a scope's leaver finds the task in the scope's list, and its claim must find it in our queue. */
    publish(task, TETHER_QUEUED);
    if (queue_of(lane, task)->head == task)
        note_oldest(lane);
    if (task->native)
        bump(lane->native, 1);
    uint32_t queued = load_relaxed(&lane->queued) + 1;
    store_relaxed(&lane->queued, queued);
    tether_unlock(&lane->lock);
    return queued;
}

bool tether_lane_add_dedicated(tether_task_t *task)
{
    tether_lane_t *lane = tether_task_lane(task);
    tether_lock(&lane->lock);
    if (load_relaxed(&task->node.rt->closing)) {
        tether_unlock(&lane->lock);
        return false;
    }
    list_append(&lane->active, task);
    publish(task, TETHER_QUEUED | TETHER_F_DEDICATED);
    bump(lane->waiting, 1);
    tether_unlock(&lane->lock);
    return true;
}

void tether_lane_drop_dedicated(tether_task_t *task)
{
    tether_lane_t *lane = tether_task_lane(task);
    tether_lock(&lane->lock);
    list_remove(&lane->active, task);
    bump(lane->waiting, -1u);
    tether_unlock(&lane->lock);
}

void tether_lane_claimed(tether_task_t *task, bool dedicated)
{
    tether_lane_t *lane = tether_task_lane(task);
    tether_lock(&lane->lock);
    if (dedicated) {
        bump(lane->waiting, -1u);
    } else {
        tether_tasklist_t *queue = queue_of(lane, task);
        bool was_head = queue->head == task;
        list_remove(queue, task);
        if (was_head)
            note_oldest(lane);
        if (task->native)
            bump(lane->native, -1u);
        bump(lane->queued, -1u);
        list_append(&lane->active, task);
    }
    bump(lane->running, 1);
    bump(lane->started, 1);
    tether_unlock(&lane->lock);
}

void tether_lane_ended(tether_task_t *task)
{
    tether_lane_t *lane = tether_task_lane(task);
    tether_lock(&lane->lock);
    list_remove(&lane->active, task);
    bump(lane->running, -1u);
    tether_unlock(&lane->lock);
}

/* The oldest task of the lane that is still to be had. A reference keeps it while the lock is away: a joiner may claim and
 * finish it at any moment. */
static tether_task_t *take_from(tether_thread_t *thread, tether_lane_t *lane, bool native)
{
    while (load_relaxed(native ? &lane->native : &lane->queued) != 0) {
        tether_lock(&lane->lock);
        tether_task_t *task = (native ? &lane->natives : &lane->queue)->head;
        while (task != NULL && tether_state(load_relaxed(&task->word)) != TETHER_QUEUED)
            task = task->next; /* claimed a moment ago, about to leave the queue */
        if (task != NULL)
            tether_task_ref(task);
        tether_unlock(&lane->lock);
        if (task == NULL)
            return NULL;
        bool mine = tether_task_claim(thread, task);
        tether_task_unref(thread, task); /* the "alive" reference remains if it is ours */
        if (mine)
            return task;
    }
    return NULL;
}

static tether_task_t *take(tether_thread_t *thread, bool native)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    for (unsigned i = 0; i < rt->lanes_used; i++) {
        tether_task_t *task = take_from(thread, &rt->lanes[(thread->lane + i) % rt->lanes_used], native);
        if (task != NULL)
            return task;
    }
    return NULL;
}

tether_task_t *tether_lane_take(tether_thread_t *thread) { return take(thread, false); }
tether_task_t *tether_lane_take_native(tether_thread_t *thread) { return take(thread, true); }

/* Is task a child of a scope that lies inside node's subtree? The way up follows scopes and their openers only: their
 * links never change, and each holds a reference on the next. */
static bool must_end_before(const tether_task_t *task, const tether_node_t *node)
{
    for (int steps = 0; steps < 64; steps++) {
        const tether_scope_t *scope = tether_task_scope(task);
        if (scope == NULL)
            return false;
        const tether_node_t *opener = load_relaxed(&scope->node.owner);
        if (&scope->node == node || opener == node)
            return true;
        if (opener == NULL)
            return false;
        task = (const tether_task_t *)opener;
    }
    return false;
}

tether_task_t *tether_lane_take_below(tether_thread_t *thread, const tether_node_t *node, bool native)
{
    enum { LOOK_AT = 32 };
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    for (unsigned i = 0; i < rt->lanes_used; i++) {
        tether_lane_t *lane = &rt->lanes[(thread->lane + i) % rt->lanes_used];
        if (load_relaxed(native ? &lane->native : &lane->queued) == 0)
            continue;
        tether_task_t *found = NULL;
        tether_lock(&lane->lock);
        tether_task_t *t = (native ? &lane->natives : &lane->queue)->tail;
        for (int looked = 0; t && !found && looked < LOOK_AT; t = t->prev, looked++)
            if (tether_state(load_relaxed(&t->word)) == TETHER_QUEUED && !(t->apart && node->kind == TETHER_NODE_TASK) &&
                must_end_before(t, node))
                found = t;
        if (found)
            tether_task_ref(found);
        tether_unlock(&lane->lock);
        if (found) {
            bool mine = tether_task_claim(thread, found);
            tether_task_unref(thread, found);
            if (mine)
                return found;
        }
    }
    return NULL;
}

#define SUM_QUEUED(name, field)                                  \
    uint64_t tether_lane_##name(tether_runtime_t *rt, bool exact) \
    {                                                            \
        uint64_t sum = 0;                                        \
        for (unsigned i = 0; i < rt->lanes_used; i++) {          \
            if (exact)                                           \
                tether_lock(&rt->lanes[i].lock);                 \
            sum += load_relaxed(&rt->lanes[i].field);            \
            if (exact)                                           \
                tether_unlock(&rt->lanes[i].lock);               \
        }                                                        \
        return sum;                                              \
    }

SUM_QUEUED(queued, queued)
SUM_QUEUED(native, native)

#define SUM(name, type, field)                            \
    type tether_lane_##name(tether_runtime_t *rt)         \
    {                                                     \
        type sum = 0;                                     \
        for (unsigned i = 0; i < rt->lanes_used; i++)     \
            sum += load_relaxed(&rt->lanes[i].field);     \
        return sum;                                       \
    }

SUM(running, uint64_t, running)
SUM(waiting, uint64_t, waiting)
SUM(armed, int64_t, armed)
SUM(movables, int64_t, movable)
SUM(lent, int64_t, lent)
SUM(started, uint64_t, started)

uint64_t tether_lane_oldest(tether_runtime_t *rt)
{
    uint64_t oldest = 0;
    for (unsigned i = 0; i < rt->lanes_used; i++) {
        uint64_t id = load_relaxed(&rt->lanes[i].oldest);
        if (id != 0 && (oldest == 0 || id < oldest))
            oldest = id;
    }
    return oldest;
}

void tether_lane_each(tether_runtime_t *rt, void (*each)(tether_task_t *, void *), void *arg)
{
    for (unsigned i = 0; i < rt->lanes_used; i++) {
        tether_lane_t *lane = &rt->lanes[i];
        tether_lock(&lane->lock);
        for (tether_task_t *t = lane->active.head; t; t = t->next)
            each(t, arg);
        for (tether_task_t *t = lane->queue.head; t; t = t->next)
            each(t, arg);
        for (tether_task_t *t = lane->natives.head; t; t = t->next)
            each(t, arg);
        tether_unlock(&lane->lock);
    }
}
