#include "runtime.h"

#include "crew.h"
#include "lane.h"
#include "loop.h"
#include "thread.h"
#include "ticker.h"

_Atomic uint32_t tether__forks;

static void watch_forks(void) { tether_native_at_fork(tether_after_fork); }

tether_runtime_t *tether_runtime_new(const tether_host_t *host, void *host_data)
{
    tether_runtime_t *rt = tether_alloc(sizeof *rt);
    if (rt == NULL)
        return NULL;
    rt->host = *host;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    rt->forks = load_relaxed(&tether__forks);
    rt->host_data = host_data;
    rt->cores = tether_cores();
    unsigned lanes = host->lanes != 0 ? host->lanes : host->serial ? 1 : rt->cores;
    rt->lanes_used = lanes < TETHER_LANES_MAX ? lanes : TETHER_LANES_MAX;
    store_relaxed(&rt->max_threads, host->max_threads);
    return rt;
}

uint64_t tether_runtime_live(tether_runtime_t *rt)
{
    return tether_lane_queued(rt, false) + tether_lane_running(rt) + tether_lane_waiting(rt);
}

/* All the locks at once: a task moves from one counter to another under its lane's, and one that ends may have spawned
 * another in a lane that a sum lane by lane has passed. */
static bool any_alive(tether_runtime_t *rt)
{
    for (unsigned i = 0; i < rt->lanes_used; i++)
        tether_lock(&rt->lanes[i].lock);
    bool live = tether_runtime_live(rt) != 0;
    for (unsigned i = 0; i < rt->lanes_used; i++)
        tether_unlock(&rt->lanes[i].lock);
    return live;
}

bool tether_runtime_close(tether_runtime_t *rt)
{
    atomic_store(&rt->closing, true); /* looked at under a lane's lock: whoever did not see it has put its task there by now */
    return !any_alive(rt);
}

static bool live_still(void *arg)
{
    tether_runtime_t *rt = arg;
    atomic_store(&rt->drain_waited, 1);
    return any_alive(rt);
}

tether_status_t tether_runtime_drain(tether_thread_t *thread)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    while (live_still(rt)) {
        tether_crew_nudge(rt);
        /* Now and then for signals, and so that nothing hangs on one wake-up at the very end. */
        if (tether_lot_wait(rt, &thread->parker, live_still, rt, tether_now() + 20000000) != TETHER_OK)
            return TETHER_INTERRUPTED;
    }
    return TETHER_OK;
}

void tether_runtime_check_drained(tether_runtime_t *rt)
{
    if (tether_runtime_live(rt) == 0)
        tether_lot_wake_all(rt);
}

void tether_runtime_stop(tether_runtime_t *rt)
{
    atomic_store(&rt->closing, true);
    tether_ticker_stop(rt);
    atomic_store(&rt->stopping, true);
    tether_crew_stop(rt);
}

/* ---- before a fork ----------------------------------------------------------------------------------------------- */

static const uint64_t REST_SLICE = 1000000;     /* 1 ms */
static const uint64_t REST_GIVE_UP = 1000000000; /* 1 s in which nobody has ended */

/* Is a task alive that does not run on this stack, or is there a loop? Then the process needs threads, or soon will. */
static bool needed(tether_runtime_t *rt, const tether_thread_t *me)
{
    if (tether_loop_open(rt))
        return true;
    uint64_t own = 0;
    for (const tether_task_t *t = load_relaxed(&me->top); t; t = t->below)
        own++;
    return tether_runtime_live(rt) > own;
}

static bool still_there(void *arg)
{
    tether_thread_t *me = arg;
    tether_runtime_t *rt = load_relaxed(&me->rt);
    uint32_t forking = atomic_load(&rt->crew_resting); /* they do not end before they have forked */
    return atomic_load(&rt->crew.alive) > (forking != 0 ? forking : me->crew ? 1u : 0u) || load_relaxed(&rt->ticker.state) != TETHER_TICKER_GONE;
}

bool tether_runtime_lingers(tether_thread_t *me)
{
    tether_runtime_t *rt = load_relaxed(&me->rt);
    return !needed(rt, me) && (still_there(me) || tether_crew_unjoined(rt) || tether_ticker_unjoined(rt));
}

void tether_runtime_rest(tether_thread_t *me)
{
    tether_runtime_t *rt = load_relaxed(&me->rt);
    uint32_t alive = UINT32_MAX;
    uint64_t until = 0;
    atomic_fetch_add(&rt->resting, 1);
    atomic_fetch_add(&rt->crew_resting, me->crew);
    while (still_there(me) && !needed(rt, me)) {
        uint32_t now_alive = load_relaxed(&rt->crew.alive);
        uint64_t now = tether_now();
        if (now_alive < alive)
            until = now + REST_GIVE_UP;
        else if (now >= until)
            break;
        alive = now_alive;
        tether_crew_send_away(rt);
        tether_ticker_send_away(rt);
        tether_lot_wait(&rt->crew, &me->parker, still_there, me, now + REST_SLICE);
    }
    tether_crew_join_gone(rt, tether_now() + REST_GIVE_UP);
    tether_ticker_join_gone(rt);
    atomic_fetch_sub(&rt->crew_resting, me->crew);
    atomic_fetch_sub(&rt->resting, 1);
}

void tether_after_fork(void)
{
    add_relaxed(&tether__forks, 1);
    tether__lot_after_fork();
    tether__thread_after_fork();
}

void tether_runtime_free(tether_runtime_t *rt)
{
    if (tether_runtime_foreign(rt) || atomic_load(&rt->resting) != 0 || tether_loop_open(rt))
        return; /* the parent's; or a daemon thread forks, or has a loop, while the interpreter goes: it stays */
    tether_thread_forget_all(rt);
    tether_free(rt);
}
