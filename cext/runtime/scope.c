#include "scope.h"

#include "lane.h"
#include "runtime.h"
#include "task.h"
#include "thread.h"

tether_scope_t *tether_scope_open(tether_thread_t *thread, uint64_t deadline)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    tether_scope_t *scope = tether_alloc(sizeof *scope);
    if (scope == NULL)
        return NULL;
    store_relaxed(&scope->node.refs, 2); /* the caller's, the chain's */
    scope->node.kind = TETHER_NODE_SCOPE;
    scope->node.rt = rt;
    if (load_relaxed(&thread->top) != NULL) {
        tether_task_ref(load_relaxed(&thread->top));
        store_relaxed(&scope->node.owner, &thread->top->node);
    }
    scope->thread = thread;
    scope->deadline = deadline;
    if (deadline != TETHER_FOREVER)
        add_relaxed(&rt->scopes_timed, 1);
    tether_scope_t **innermost = load_relaxed(&thread->top) ? &thread->top->scopes : &thread->scopes;
    tether_scope_drop_done(thread, innermost);
    scope->outer = *innermost;
    *innermost = scope;
    add_relaxed(&rt->scopes_open, 1);
    return scope;
}

void tether__scope_free(tether_scope_t *scope) { tether_free(scope); }

static void append(tether_scope_t *scope, tether_task_t *task)
{
    task->scope_next = NULL;
    task->scope_prev = scope->last;
    *(scope->last ? &scope->last->scope_next : &scope->first) = task;
    scope->last = task;
    if (scope->cursor == NULL)
        scope->cursor = task;
}

static void take_out(tether_scope_t *scope, tether_task_t *task)
{
    if (scope->cursor == task)
        scope->cursor = task->scope_next;
    *(task->scope_prev ? &task->scope_prev->scope_next : &scope->first) = task->scope_next;
    *(task->scope_next ? &task->scope_next->scope_prev : &scope->last) = task->scope_prev;
    task->scope_next = task->scope_prev = NULL;
}

tether_status_t tether_scope_admit(tether_scope_t *scope, tether_task_t *task)
{
    tether_status_t status = TETHER_CLOSED;
    tether_lock(&scope->lock);
    uint32_t flags = load_relaxed(&scope->flags);
    if (!(flags & TETHER_SCOPE_CLOSED) && (!(flags & TETHER_SCOPE_LEFT) || load_relaxed(&scope->alive) != 0)) {
        append(scope, task);
        store_relaxed(&scope->alive, load_relaxed(&scope->alive) + 1);
        or_acq_rel(&task->word, TETHER_F_SCOPED);
        status = TETHER_OK;
    }
    tether_unlock(&scope->lock);
    return status;
}

/* One child less; the caller holds the lock. true: somebody sleeps until the last child has ended. */
static bool one_less(tether_scope_t *scope)
{
    uint32_t alive = load_relaxed(&scope->alive) - 1;
    store_release(&scope->alive, alive);
    return alive == 0 && (load_relaxed(&scope->flags) & TETHER_SCOPE_WAITED);
}

void tether_scope_dismiss(tether_scope_t *scope, tether_task_t *task)
{
    tether_lock(&scope->lock);
    take_out(scope, task);
    and_acq_rel(&task->word, ~(uint32_t)TETHER_F_SCOPED);
    bool wake = one_less(scope);
    tether_unlock(&scope->lock);
    if (wake)
        tether_lot_wake_all(scope);
}

/* Wakes a child that sleeps. Its thread record outlives it, so a late wake is only spurious. */
static void wake_child(tether_task_t *task, void *unused)
{
    (void)unused;
    tether_thread_t *thread = load_acquire(&task->thread);
    if (thread != NULL && tether_state(tether_task_word(task)) == TETHER_RUNNING)
        tether_unpark(&thread->parker);
}

tether_status_t tether_scope_adopt(tether_scope_t *scope, tether_task_t *task)
{
    tether_lock(&scope->lock);
    uint32_t flags = load_relaxed(&scope->flags);
    if (flags & TETHER_SCOPE_CLOSED) {
        tether_unlock(&scope->lock);
        return TETHER_CLOSED;
    }
    /* One exchange decides whether it ends as our child (tether_scope_child_ended then waits for this lock) or had ended. */
    uint32_t word = load_relaxed(&task->word);
    do {
        if (tether_state(word) == TETHER_REAPED || (word & TETHER_F_LOOSE)) { /* another thread of the owner was faster */
            tether_unlock(&scope->lock);
            return TETHER_NOT_OWNER;
        }
    } while (!cas_acq_rel(&task->word, &word, word | TETHER_F_SCOPED));
    bool alive = tether_state(word) < TETHER_EXITED;
    if (alive || (word & TETHER_F_FAILED)) {
        append(scope, task);
        task->scope_kept = !alive;
    }
    if (alive)
        store_relaxed(&scope->alive, load_relaxed(&scope->alive) + 1);
    else if (word & TETHER_F_FAILED)
        tether_task_ref(task); /* its own was dropped at its end */
    tether_unlock(&scope->lock);
    if (flags & TETHER_SCOPE_CANCELLED) {
        atomic_fetch_add_explicit(&scope->node.rt->cancels, 1, memory_order_release);
        wake_child(task, NULL); /* the canceller has passed; the caller's reference keeps the task */
    } else if (!alive && (word & TETHER_F_FAILED) && !(flags & TETHER_SCOPE_WAIT_ALL))
        tether_scope_cancel(scope);
    return TETHER_OK;
}

bool tether_scope_child_ended(tether_scope_t *scope, tether_task_t *task, bool failed)
{
    /* Before the count goes down: until then the leaver cannot close the scope, so both are alive. */
    if (failed && !(load_relaxed(&scope->flags) & TETHER_SCOPE_WAIT_ALL))
        tether_scope_cancel(scope);
    tether_lock(&scope->lock);
    /* An abandoned scope has no one left who would collect; a joiner may have been faster. */
    bool keep = failed && !(load_relaxed(&scope->flags) & TETHER_SCOPE_CLOSED) &&
                tether_state(tether_task_word(task)) == TETHER_EXITED;
    if (keep)
        task->scope_kept = true;
    else
        take_out(scope, task);
    bool wake = one_less(scope);
    tether_unlock(&scope->lock);
    if (wake)
        tether_lot_wake_all(scope);
    return keep;
}

bool tether_scope_forget(tether_scope_t *scope, tether_task_t *task)
{
    tether_lock(&scope->lock);
    /* Not kept: its end has not been noted here yet, and child_ended will find it reaped. */
    bool kept = task->scope_kept;
    if (kept) {
        take_out(scope, task);
        task->scope_kept = false;
    }
    tether_unlock(&scope->lock);
    return kept;
}

void tether_scope_cancel(tether_scope_t *scope)
{
    uint32_t before = or_acq_rel(&scope->flags, TETHER_SCOPE_CANCELLED);
    if (before & TETHER_SCOPE_CANCELLED)
        return;
    atomic_fetch_add_explicit(&scope->node.rt->cancels, 1, memory_order_release);
    tether_scope_each(scope, wake_child, NULL);
    tether_unpark(&scope->thread->parker);
}

void tether_scope_leave(tether_scope_t *scope)
{
    tether_lock(&scope->lock);
    or_acq_rel(&scope->flags, TETHER_SCOPE_LEFT);
    tether_unlock(&scope->lock);
}

bool tether_scope_close(tether_scope_t *scope)
{
    tether_lock(&scope->lock);
    bool none = load_relaxed(&scope->alive) == 0;
    if (none)
        or_acq_rel(&scope->flags, TETHER_SCOPE_CLOSED);
    tether_unlock(&scope->lock);
    return none;
}

void tether_scope_abandon(tether_scope_t *scope)
{
    tether_lock(&scope->lock);
    or_acq_rel(&scope->flags, TETHER_SCOPE_CLOSED | TETHER_SCOPE_ABANDONED);
    tether_unlock(&scope->lock);
}

bool tether_scope_collects(tether_scope_t *scope, const tether_task_t *task)
{
    tether_lock(&scope->lock);
    bool will = task->scope_kept || !(load_relaxed(&scope->flags) & TETHER_SCOPE_ABANDONED);
    tether_unlock(&scope->lock);
    return will;
}

tether_task_t *tether_scope_claim(tether_thread_t *thread, tether_scope_t *scope)
{
    for (;;) {
        tether_lock(&scope->lock);
        tether_task_t *task = scope->cursor, *fresh = NULL;
        for (; task != NULL; task = task->scope_next) {
            uint32_t word = load_relaxed(&task->word) & (TETHER_STATE | TETHER_F_DEDICATED);
            if (word == TETHER_QUEUED)
                break;
            if (fresh == NULL && tether_state(word) == TETHER_NEW)
                fresh = task; /* admitted, about to be queued: the cursor stays there */
        }
        scope->cursor = fresh ? fresh : task; /* states only move on, so nothing before it becomes queued again */
        if (task != NULL)
            tether_task_ref(task);
        tether_unlock(&scope->lock);
        if (task == NULL)
            return NULL;
        bool mine = tether_task_claim(thread, task);
        tether_task_unref(thread, task);
        if (mine)
            return task;
    }
}

tether_task_t *tether_scope_collect(tether_scope_t *scope)
{
    tether_lock(&scope->lock);
    tether_task_t *task = scope->first;
    while (task != NULL && !task->scope_kept)
        task = task->scope_next;
    if (task != NULL) {
        take_out(scope, task);
        task->scope_kept = false;
    }
    tether_unlock(&scope->lock);
    return task;
}

void tether_scope_each(tether_scope_t *scope, void (*each)(tether_task_t *, void *), void *arg)
{
    tether_lock(&scope->lock);
    for (tether_task_t *t = scope->first; t; t = t->scope_next)
        each(t, arg);
    tether_unlock(&scope->lock);
}

void tether_scope_drop_done(tether_thread_t *thread, tether_scope_t **chain)
{
    while (*chain != NULL && (load_acquire(&(*chain)->flags) & TETHER_SCOPE_DONE)) {
        tether_scope_t *scope = *chain;
        *chain = scope->outer;
        tether_node_unref(thread, &scope->node);
    }
}

void tether_scope_drop_all(tether_thread_t *thread, tether_task_t *task)
{
    while (task->scopes != NULL) {
        tether_scope_t *scope = task->scopes;
        task->scopes = scope->outer;
        tether_node_unref(thread, &scope->node);
    }
}

void tether_scope_done(tether_thread_t *thread, tether_scope_t *scope)
{
    tether_node_t *body = load_relaxed(&scope->node.owner);
    sub_relaxed(&scope->node.rt->scopes_open, 1);
    if (scope->deadline != TETHER_FOREVER)
        sub_relaxed(&scope->node.rt->scopes_timed, 1);
    or_acq_rel(&scope->flags, TETHER_SCOPE_DONE);
    /* A generator may carry the block elsewhere. The chain belongs to the body's thread: others leave it to that one. */
    if (thread == scope->thread && (load_relaxed(&thread->top) ? &thread->top->node : NULL) == body) {
        for (tether_scope_t **at = load_relaxed(&thread->top) ? &thread->top->scopes : &thread->scopes; *at; at = &(*at)->outer) {
            if (*at == scope) {
                *at = scope->outer;
                tether_node_unref(thread, &scope->node);
                break;
            }
        }
    }
    tether_node_unref(thread, &scope->node);
}
