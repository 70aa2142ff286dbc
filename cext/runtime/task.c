/* The task word and the free list. The transitions are in types.h, the proofs in protocol.md. */
#include "task.h"

#include <string.h>

#include "borrow.h"
#include "crew.h"
#include "lane.h"
#include "owner.h"
#include "runtime.h"
#include "scope.h"
#include "thread.h"
#include "ticker.h"

enum { SPARES_MAX = 256 };

tether_task_t *tether_task_new(tether_thread_t *thread, tether_node_t *owner)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    tether_task_t *task = thread->spare;
    if (task != NULL) {
        thread->spare = task->next;
        thread->spares--;
    } else if ((task = tether_alloc(rt->host.task_size)) == NULL) {
        return NULL;
    }
    memset(task, 0, sizeof *task);
    store_relaxed(&task->node.refs, 2);
    task->node.kind = TETHER_NODE_TASK;
    task->node.rt = rt;
    store_relaxed(&task->node.owner, owner);
    if (owner != NULL)
        add_relaxed(&owner->refs, 1);
    task->id = add_relaxed(&rt->next_id, 1) + 1;
    task->lane = (uint16_t)thread->lane;
    store_relaxed(&task->word, TETHER_NEW);
    return task;
}

void tether__task_recycle(tether_thread_t *thread, tether_task_t *task)
{
    if (thread == NULL || thread->spares >= SPARES_MAX) {
        tether_free(task);
        return;
    }
    task->next = thread->spare;
    thread->spare = task;
    thread->spares++;
}

void tether_node_unref(tether_thread_t *thread, tether_node_t *node)
{
    /* A loop, not a recursion: a chain of ended owners may be long. */
    while (node != NULL && sub_acq_rel(&node->refs, 1) == 1) {
        tether_node_t *owner = load_relaxed(&node->owner);
        tether_host_t *host = &node->rt->host;
        if (node->kind == TETHER_NODE_TASK) {
            if (host->dispose == NULL || host->dispose(thread, (tether_task_t *)node))
                tether__task_recycle(thread, (tether_task_t *)node);
        } else
            tether__scope_free((tether_scope_t *)node);
        node = owner;
    }
}

void tether_task_unref(tether_thread_t *thread, tether_task_t *task) { tether_node_unref(thread, &task->node); }

void tether_task_discard(tether_thread_t *thread, tether_task_t *task)
{
    tether_task_unref(thread, task);
    tether_task_unref(thread, task);
}

tether_status_t tether_task_queue(tether_task_t *task)
{
    tether_runtime_t *rt = task->node.rt;
    if (load_relaxed(&rt->closing))
        return TETHER_SHUTDOWN;
    /* Before publishing, so that a refusal leaves nothing behind. */
    tether_status_t status = tether_ticker_ensure(rt);
    if (status != TETHER_OK)
        return status;
    uint32_t queued = tether_lane_put(task);
    if (queued == 0)
        return TETHER_SHUTDOWN;
    tether_ticker_poke(rt);
    /* One task is likely to be joined in place; a second one is worth a thread, if two can run at the same time and the
     * spawner leaves it a core. */
    if (queued > 1 && (!rt->host.serial || task->native) && tether_crew_busy(rt) + 1 < rt->cores)
        tether_crew_nudge(rt);
    return TETHER_OK;
}

tether_status_t tether_task_dedicate(tether_task_t *task, size_t stack_size)
{
    tether_runtime_t *rt = task->node.rt;
    if (!tether_lane_add_dedicated(task))
        return TETHER_SHUTDOWN;
    tether_status_t status = tether_crew_give(rt, task, stack_size);
    if (status != TETHER_OK) {
        /* Back to NEW, unless somebody has cancelled and claimed it meanwhile: they end it, as one that never ran. */
        uint32_t word = load_relaxed(&task->word);
        do {
            if (tether_state(word) != TETHER_QUEUED)
                return TETHER_OK;
        } while (!cas_acq_rel(&task->word, &word, word & ~(uint32_t)(TETHER_STATE | TETHER_F_DEDICATED)));
        tether_lane_drop_dedicated(task);
    }
    return status;
}

bool tether_task_claim(tether_thread_t *thread, tether_task_t *task)
{
    uint32_t word = load_relaxed(&task->word);
    do {
        if (tether_state(word) != TETHER_QUEUED)
            return false;
    } while (!cas_acq_rel(&task->word, &word, (word & ~(uint32_t)TETHER_STATE) | TETHER_RUNNING));
    /* Between the exchange and this store the task is RUNNING on no thread: readers of `thread` allow for NULL. */
    store_release(&task->thread, thread);
    tether_lane_claimed(task, (word & TETHER_F_DEDICATED) != 0);
    return true;
}

bool tether_task_is_loose(const tether_task_t *task) { return (load_acquire(&task->word) & TETHER_F_LOOSE) != 0; }

bool tether_task_end(tether_thread_t *thread, tether_task_t *task, bool failed)
{
    tether_runtime_t *rt = task->node.rt;
    tether_owner_settle(thread, task);
    if (task->scopes != NULL)
        tether_scope_drop_all(thread, task);
    if (load_acquire(&task->loans) != NULL) /* the host has looked already; what a destructor borrowed since */
        tether_loans_end(task, NULL, NULL);
    tether_lane_ended(task);
    if (thread->crew && load_relaxed(&thread->top) == NULL)
        tether_crew_turning(thread);
    /* Read once: a guard may be sent into a scope up to the moment the task ends (owner.h), so the flag is fixed by the
     * same exchange that ends the task. */
    uint32_t word = load_relaxed(&task->word), ended;
    do {
        ended = (word & ~(uint32_t)(TETHER_STATE | TETHER_F_BLOCKED)) | TETHER_EXITED | (failed ? TETHER_F_FAILED : 0);
    } while (!cas_acq_rel(&task->word, &word, ended));

    bool release = (word & TETHER_F_LOOSE) != 0;
    if (word & TETHER_F_WAITED)
        tether_lot_wake_all(task);
    /* A failed child stays in the scope's list, with its reference, until somebody collects the failure. */
    bool kept = (word & TETHER_F_SCOPED) &&
                tether_scope_child_ended((tether_scope_t *)load_relaxed(&task->node.owner), task, failed);
    if (kept)
        release = false;
    else if (!release)
        tether_task_unref(thread, task); /* a loose task's caller still needs it: there the reference passes on */
    if (load_relaxed(&rt->drain_waited))
        tether_runtime_check_drained(rt);
    return release;
}

bool tether_task_take(tether_task_t *task, uint32_t refuse, uint32_t *before)
{
    uint32_t word = load_acquire(&task->word);
    do {
        *before = word;
        if (tether_state(word) != TETHER_EXITED || (word & refuse))
            return false;
    } while (!cas_acq_rel(&task->word, &word, (word & ~(uint32_t)TETHER_STATE) | TETHER_REAPED));
    return true;
}

bool tether_task_reap(tether_task_t *task)
{
    uint32_t before;
    return tether_task_take(task, 0, &before);
}

void tether_task_put_back(tether_task_t *task)
{
    uint32_t word = load_relaxed(&task->word);
    while (!cas_acq_rel(&task->word, &word, (word & ~(uint32_t)TETHER_STATE) | TETHER_EXITED))
        ;
}

bool tether_task_loosen(tether_task_t *task, uint32_t flags)
{
    return tether_state(or_acq_rel(&task->word, TETHER_F_LOOSE | flags)) >= TETHER_EXITED;
}

bool tether_task_disarm(tether_task_t *task, uint32_t flags, bool *ended)
{
    uint32_t word = load_acquire(&task->word);
    do {
        if (tether_state(word) == TETHER_REAPED || (word & (TETHER_F_LOOSE | TETHER_F_SCOPED)))
            return false;
    } while (!cas_acq_rel(&task->word, &word, word | TETHER_F_LOOSE | flags));
    *ended = tether_state(word) == TETHER_EXITED;
    return true;
}

/* After CANCEL was set in `word`: it is seen from now on. */
static void tell_cancelled(tether_task_t *task, uint32_t word)
{
    atomic_fetch_add_explicit(&task->node.rt->cancels, 1, memory_order_release);
    if (tether_state(word) == TETHER_RUNNING) {
        tether_thread_t *thread = load_acquire(&task->thread);
        if (thread != NULL)
            tether_unpark(&thread->parker);
    }
}

bool tether_task_cancel(tether_task_t *task, uint32_t also)
{
    uint32_t word = load_acquire(&task->word);
    do {
        if (tether_state(word) >= TETHER_EXITED)
            return false;
    } while (!cas_acq_rel(&task->word, &word, (word & ~(uint32_t)TETHER_F_AGAIN) | TETHER_F_CANCEL | also));
    tell_cancelled(task, word);
    return true;
}

bool tether_task_renew(tether_task_t *task)
{
    uint32_t word = load_acquire(&task->word);
    do {
        if (tether_state(word) != TETHER_RUNNING || (word & TETHER_F_CANCEL))
            return false;
    } while (!cas_acq_rel(&task->word, &word, word | TETHER_F_CANCEL | TETHER_F_AGAIN));
    tell_cancelled(task, word);
    return true;
}

bool tether_task_spare(tether_task_t *task)
{
    uint32_t word = load_acquire(&task->word);
    do {
        if (!(word & TETHER_F_AGAIN))
            return false;
    } while (!cas_acq_rel(&task->word, &word, word & ~(uint32_t)(TETHER_F_CANCEL | TETHER_F_AGAIN)));
    return true;
}

bool tether_task_cancelled(const tether_task_t *task)
{
    uint32_t word = load_acquire(&task->word); /* SCOPED: the owner is a scope from then on */
    if (word & TETHER_F_CANCEL)
        return true;
    return (word & TETHER_F_SCOPED) &&
           (load_relaxed(&((const tether_scope_t *)load_relaxed(&task->node.owner))->flags) & TETHER_SCOPE_CANCELLED);
}
