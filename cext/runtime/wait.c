#include "wait.h"

#include "borrow.h"
#include "crew.h"
#include "lane.h"
#include "owner.h"
#include "scope.h"
#include "spin.h"
#include "task.h"
#include "thread.h"

/* A signal handler of Python runs on the main thread only, but the kernel may deliver the signal to any thread that does
 * not block it, or in the instant before the sleep. So a sleep that must notice signals ends now and then by itself. */
static const uint64_t SLICE = 50000000; /* 50 ms */

void tether_wait_enter(tether_thread_t *thread)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    thread->away = true;
    atomic_fetch_add(&rt->waiters, 1);
    atomic_fetch_add_explicit(&rt->releases, 1, memory_order_release);
    if (tether_lane_queued(rt, false) != 0)
        tether_crew_nudge(rt);
}

void tether_wait_leave(tether_thread_t *thread)
{
    thread->away = false;
    sub_relaxed(&load_relaxed(&thread->rt)->waiters, 1);
}

typedef struct {
    bool (*done)(void *what);
    bool (*still)(void *what); /* not done, and whoever makes it done will wake us */
    void *what;                /* also the key */
    tether_node_t *node;       /* of the same */
} goal_t;

static void blocked(tether_thread_t *thread, bool on)
{
    tether_task_t *task = load_relaxed(&thread->top);
    if (task == NULL)
        return;
    if (on)
        or_acq_rel(&task->word, TETHER_F_BLOCKED);
    else
        and_acq_rel(&task->word, ~(uint32_t)TETHER_F_BLOCKED);
}

static bool spin_for(const goal_t *goal, tether_spin_t *spin)
{
    while (!goal->done(goal->what)) {
        if (!tether_spin_more(spin))
            return false;
    }
    tether_spin_learn(spin);
    return true;
}

/* When a sleep must end by itself, whatever happens. */
static uint64_t first_look(tether_thread_t *thread, const tether_wait_t *how)
{
    uint64_t until = how->deadline;
    if (how->slices) {
        uint64_t slice = tether_now() + SLICE;
        until = slice < until ? slice : until;
    }
    if (how->look != 0 && how->look < until)
        until = how->look;
    uint64_t limit = tether_thread_limit(thread); /* a scope's time: an uncancellable wait passes the news on, too */
    return limit < until ? limit : until;
}

static void forget_cycle(tether_thread_t *thread, tether_wait_t *how)
{
    while (how->cycle_len > 0)
        tether_task_unref(thread, how->cycle[--how->cycle_len]);
}

/* Before each sleep: is there a reason to give up? A wait with a deadline ends by itself: no edge of a deadlock. Cancellation
 * is looked at after the last thing that could take our wake-up token, and whoever cancels sets the flag before it wakes: so
 * it is either seen here or its wake-up keeps us from sleeping. It comes before a deadlock: who is cancelled waits no more. */
static tether_status_t look(tether_thread_t *thread, tether_node_t *node, tether_claim_t *claim, tether_wait_t *how)
{
    tether_status_t status = TETHER_OK;
    if (how->deadline == TETHER_FOREVER)
        status = tether_owner_wait(thread, node, claim, how);
    if (how->cancellable && tether_thread_cancelled(thread)) {
        if (status == TETHER_DEADLOCK)
            forget_cycle(thread, how);
        return TETHER_CANCELLED;
    }
    return status;
}

static tether_status_t wait_for(tether_thread_t *thread, const goal_t *goal, tether_wait_t *how)
{
    if (goal->done(goal->what))
        return TETHER_OK;
    if (how->cancellable && tether_thread_cancelled(thread))
        return TETHER_CANCELLED;
    if (how->help && (how->helped = tether_lane_take_below(thread, goal->node, how->native)) != NULL)
        return TETHER_HELP;
    tether_spin_t spin = tether_spin_start(thread);
    if (spin_for(goal, &spin))
        return TETHER_OK;

    uint64_t until = first_look(thread, how);
    tether_status_t status;
    blocked(thread, true);
    for (;;) {
        status = look(thread, goal->node, NULL, how);
        if (status != TETHER_OK)
            break;
        status = tether_lot_wait(goal->what, &thread->parker, goal->still, goal->what, until);
        if (goal->done(goal->what)) {
            tether_spin_learn(&spin);
            status = TETHER_OK;
            break;
        }
        if (status == TETHER_TIMEOUT) {
            if (how->deadline <= tether_now())
                break;
            status = TETHER_INTERRUPTED;
        }
        if (status != TETHER_OK)
            break;
        if (how->help) {
            /* First: with the edge still noted, what we claim would seem to be waited for by itself. */
            tether_owner_awake(thread);
            if ((how->helped = tether_lane_take_below(thread, goal->node, how->native)) != NULL) {
                status = TETHER_HELP;
                break;
            }
        }
    }
    tether_owner_awake(thread);
    blocked(thread, false);
    return status;
}

static bool task_done(void *task) { return tether_task_ended(task); }

static bool task_still(void *arg)
{
    tether_task_t *task = arg;
    return tether_state(or_acq_rel(&task->word, TETHER_F_WAITED)) < TETHER_EXITED;
}

tether_status_t tether_wait_task(tether_thread_t *thread, tether_task_t *task, tether_wait_t *how)
{
    goal_t goal = {task_done, task_still, task, &task->node};
    return wait_for(thread, &goal, how);
}

static bool scope_done(void *scope) { return load_acquire(&((tether_scope_t *)scope)->alive) == 0; }

static bool scope_still(void *arg)
{
    /* The flag is read under the scope's lock by whoever makes `alive` zero (scope.c, one_less). */
    tether_scope_t *scope = arg;
    tether_lock(&scope->lock);
    or_acq_rel(&scope->flags, TETHER_SCOPE_WAITED);
    bool alive = load_relaxed(&scope->alive) != 0;
    tether_unlock(&scope->lock);
    return alive;
}

tether_status_t tether_wait_scope(tether_thread_t *thread, tether_scope_t *scope, tether_wait_t *how)
{
    goal_t goal = {scope_done, scope_still, scope, &scope->node};
    return wait_for(thread, &goal, how);
}

static bool claim_done(void *claim) { return load_acquire(&((tether_claim_t *)claim)->answer) != TETHER_CLAIM_WAITS; }

/* One look after another, until it is granted or something else is the matter. */
static tether_status_t sleep_for_claim(tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how, uint64_t until)
{
    tether_status_t status = TETHER_OK;
    while (status == TETHER_OK && !claim_done(claim)) {
        status = look(thread, NULL, claim, how);
        if (status != TETHER_OK || claim_done(claim))
            break;
        status = tether_park(&thread->parker, until);
        if (status == TETHER_TIMEOUT && how->deadline > tether_now())
            status = TETHER_INTERRUPTED;
    }
    return status;
}

/* Whoever grants sets the flag and then wakes this thread's parker: no lot is needed, a claim has one waiter. */
tether_status_t tether_wait_claim(tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how)
{
    goal_t goal = {.done = claim_done, .what = claim};
    tether_spin_t spin = tether_spin_start(thread);
    if (spin_for(&goal, &spin))
        return TETHER_OK;
    uint64_t until = first_look(thread, how);
    blocked(thread, true);
    tether_status_t status = sleep_for_claim(thread, claim, how, until);
    tether_owner_awake(thread);
    blocked(thread, false);
    if (!claim_done(claim))
        return status;
    if (status == TETHER_DEADLOCK)
        forget_cycle(thread, how); /* somebody from outside the cycle has made room */
    tether_spin_learn(&spin);
    return TETHER_OK;
}

tether_status_t tether_wait_until(tether_thread_t *thread, tether_wait_t *how)
{
    uint64_t until = first_look(thread, how);
    tether_status_t status = TETHER_OK;
    blocked(thread, true);
    while (status == TETHER_OK) {
        if (how->cancellable && tether_thread_cancelled(thread))
            status = TETHER_CANCELLED;
        else if (how->deadline <= tether_now())
            break;
        else
            status = tether_park(&thread->parker, until);
        if (status == TETHER_TIMEOUT)
            status = how->deadline <= tether_now() ? TETHER_OK : TETHER_INTERRUPTED;
    }
    blocked(thread, false);
    return status;
}
