/* Thread records. `world` guards the link between records and native threads across runtimes; it is taken only when a
 * thread is met for the first time or ends, and when a runtime goes away. */
#include "thread.h"

#include <stddef.h>
#include <string.h>

#include "scope.h"
#include "task.h"

_Thread_local tether_thread_t *tether__thread;
static _Thread_local tether_thread_t *records; /* all records of this native thread */

static tether_lock_t world;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_exit_key;

static void native_thread_ends(void *unused)
{
    (void)unused;
    tether_lock(&world);
    for (tether_thread_t *t = records, *next; t; t = next) {
        next = t->next_of_native;
        t->next_of_native = NULL;
        if (load_relaxed(&t->rt) == NULL)
            tether_free(t); /* its runtime went first */
        else
            atomic_store_explicit(&t->exited, true, memory_order_release);
    }
    tether_unlock(&world);
    records = tether__thread = NULL;
}

static void make_key(void) { pthread_key_create(&at_exit_key, native_thread_ends); }

static void start_afresh(tether_thread_t *t, bool crew)
{
    tether_task_t *spare = t->spare;
    unsigned spares = t->spares;
    tether_thread_t *next = t->next;
    enum { KEPT = offsetof(tether_thread_t, top) }; /* the parker: a stray wake-up is allowed, a torn word is not */
    memset((char *)t + KEPT, 0, sizeof *t - KEPT);
    t->spare = spare;
    t->spares = spares;
    t->next = next;
    t->crew = crew;
    t->spin = 20000;
}

tether_thread_t *tether_thread_new(tether_runtime_t *rt, bool crew)
{
    tether_thread_t *t;
    tether_lock(&rt->graph); /* who looks for deadlocks may have met the record of a thread that has just ended */
    tether_lock(&rt->threads_lock);
    for (t = rt->threads; t; t = t->next)
        if (atomic_load_explicit(&t->exited, memory_order_acquire))
            break;
    if (t) {
        start_afresh(t, crew);
    } else if ((t = tether_alloc(sizeof *t)) != NULL) {
        t->next = rt->threads;
        store_relaxed(&t->rt, rt);
        t->lane = add_relaxed(&rt->next_lane, 1) % rt->lanes_used;
        start_afresh(t, crew);
        rt->threads = t;
    }
    tether_unlock(&rt->threads_lock);
    tether_unlock(&rt->graph);
    return t;
}

void tether_thread_bind(tether_thread_t *t)
{
    pthread_once(&once, make_key);
    pthread_setspecific(at_exit_key, t); /* any value but NULL arms the destructor */
    tether_native_stack(&t->stack_low, &t->stack_size);
    store_relaxed(&t->native_id, tether_native_id());
    t->ident = (unsigned long)pthread_self();
    tether_lock(&world);
    t->next_of_native = records;
    records = t;
    tether_unlock(&world);
    tether__thread = t;
}

void tether_thread_unbind(tether_thread_t *thread)
{
    tether_lock(&world);
    for (tether_thread_t **at = &records; *at; at = &(*at)->next_of_native) {
        if (*at == thread) {
            *at = thread->next_of_native;
            break;
        }
    }
    thread->next_of_native = NULL;
    tether__thread = records;
    tether_unlock(&world);
}

tether_thread_t *tether__thread_find(tether_runtime_t *rt)
{
    for (tether_thread_t *t = records; t; t = t->next_of_native)
        if (load_relaxed(&t->rt) == rt)
            return tether__thread = t;
    tether_thread_t *t = tether_thread_new(rt, false);
    if (t != NULL)
        tether_thread_bind(t);
    return t;
}

static bool body_cancelled(const tether_scope_t *innermost)
{
    for (const tether_scope_t *s = innermost; s; s = s->outer)
        if ((load_relaxed(&s->flags) & (TETHER_SCOPE_CANCELLED | TETHER_SCOPE_DONE)) == TETHER_SCOPE_CANCELLED)
            return true;
    return false;
}

static void look_at_clock(tether_scope_t *scope, uint64_t now, uint64_t *earliest)
{
    if (scope->deadline == TETHER_FOREVER || (load_relaxed(&scope->flags) & (TETHER_SCOPE_CANCELLED | TETHER_SCOPE_DONE)))
        return;
    if (scope->deadline <= now) {
        or_acq_rel(&scope->flags, TETHER_SCOPE_TIMED_OUT);
        tether_scope_cancel(scope);
    } else if (scope->deadline < *earliest) {
        *earliest = scope->deadline;
    }
}

uint64_t tether_thread_limit(tether_thread_t *thread)
{
    uint64_t earliest = TETHER_FOREVER;
    if (load_relaxed(&load_relaxed(&thread->rt)->scopes_timed) == 0)
        return earliest;
    uint64_t now = tether_now();
    for (tether_task_t *t = load_relaxed(&thread->top); t; t = t->below) {
        /* Up the tree, not only down the stack: a task ends with every scope that it is inside of. */
        for (const tether_task_t *up = t; up != NULL;) {
            tether_scope_t *scope = tether_task_scope(up);
            if (scope == NULL)
                break;
            look_at_clock(scope, now, &earliest);
            up = (const tether_task_t *)load_relaxed(&scope->node.owner);
        }
        for (tether_scope_t *s = t->scopes; s; s = s->outer)
            look_at_clock(s, now, &earliest);
    }
    for (tether_scope_t *s = thread->scopes; s; s = s->outer)
        look_at_clock(s, now, &earliest);
    return earliest;
}

bool tether_thread_cancelled(tether_thread_t *thread)
{
    if (load_relaxed(&load_relaxed(&thread->rt)->scopes_timed) != 0)
        tether_thread_limit(thread);
    uint32_t cancels = load_acquire(&load_relaxed(&thread->rt)->cancels);
    if (cancels == thread->cancels_seen)
        return false;
    /* Whatever runs in place on a cancelled task's stack is cancelled with it: it could not go on before that ends. */
    for (tether_task_t *t = load_relaxed(&thread->top); t; t = t->below)
        if (tether_task_cancelled(t) || body_cancelled(t->scopes))
            return true;
    if (body_cancelled(thread->scopes))
        return true;
    thread->cancels_seen = cancels;
    return false;
}

void tether_thread_forget_all(tether_runtime_t *rt)
{
    tether_lock(&world);
    for (tether_thread_t *t = rt->threads, *next; t; t = next) {
        next = t->next;
        while (t->spare) {
            tether_task_t *spare = t->spare;
            t->spare = spare->next;
            tether_free(spare);
        }
        if (load_relaxed(&t->exited))
            tether_free(t);
        else
            store_relaxed(&t->rt, NULL); /* its native thread frees it at its end */
    }
    rt->threads = NULL;
    tether_unlock(&world);
}

void tether__thread_after_fork(void)
{
    store_relaxed(&world.word, 0);
    records = tether__thread = NULL;
}
