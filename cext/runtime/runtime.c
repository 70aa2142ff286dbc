#include "runtime.h"

#include "crew.h"
#include "lane.h"
#include "thread.h"
#include "ticker.h"

tether_runtime_t *tether_runtime_new(const tether_host_t *host, void *host_data)
{
    tether_runtime_t *rt = tether_alloc(sizeof *rt);
    if (rt == NULL)
        return NULL;
    rt->host = *host;
    rt->host_data = host_data;
    rt->cores = tether_cores();
    unsigned lanes = host->lanes != 0 ? host->lanes : host->serial ? 1 : rt->cores;
    rt->lanes_used = lanes < TETHER_LANES_MAX ? lanes : TETHER_LANES_MAX;
    store_relaxed(&rt->max_threads, host->max_threads);
    return rt;
}

void tether_runtime_close(tether_runtime_t *rt) { atomic_store(&rt->closing, true); }

uint64_t tether_runtime_live(tether_runtime_t *rt)
{
    return tether_lane_queued(rt, false) + tether_lane_running(rt) + tether_lane_waiting(rt);
}

static bool live_still(void *arg)
{
    tether_runtime_t *rt = arg;
    atomic_store(&rt->drain_waited, 1);
    /* All the locks at once: a task moves from one counter to another under its lane's, and one that ends may have
     * spawned another in a lane that a sum lane by lane has passed. */
    for (unsigned i = 0; i < rt->lanes_used; i++)
        tether_lock(&rt->lanes[i].lock);
    bool live = tether_runtime_live(rt) != 0;
    for (unsigned i = 0; i < rt->lanes_used; i++)
        tether_unlock(&rt->lanes[i].lock);
    return live;
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

void tether_after_fork(void)
{
    tether__lot_after_fork();
    tether__thread_after_fork();
}

void tether_runtime_free(tether_runtime_t *rt)
{
    tether_thread_forget_all(rt);
    tether_free(rt);
}
