/* The ticker keeps the progress guarantee (G8): a task that was queued is claimed within a bounded time, however many
 * others are blocked and whether or not anyone joins it.
 *
 *   state    means                                     next
 *   GONE     no thread                                 AWAKE (ensure: starts one)
 *   DOZING   nothing was queued for LINGER             AWAKE (poke wakes it), GONE (after RETIRE more)
 *   AWAKE    looks at the lanes every tick             DOZING
 *
 * Each tick it looks whether something has been waiting in the queues since the tick before, and why:
 *   - the CPU is idle: everything that runs is blocked. Add threads: 1, 2, 4, 8, ... one batch a tick.
 *   - the queue moves, but slowly: tasks are long enough that a thread pays. Up to one runner per core.
 *   - nothing moves and the CPU is busy: one thread every 20 ms, so that a long computation does not hold up the rest
 *     and yet 10,000 computing tasks do not become 10,000 threads. */
#ifndef TETHER_TICKER_H
#define TETHER_TICKER_H

#include "types.h"

/* Before queueing: makes sure that there is a ticker thread. returns OK or NO_THREAD. */
tether_status_t tether__ticker_start(tether_runtime_t *rt);

static inline tether_status_t tether_ticker_ensure(tether_runtime_t *rt)
{
    return load_relaxed(&rt->ticker.state) == TETHER_TICKER_AWAKE ? TETHER_OK : tether__ticker_start(rt);
}

/* After queueing: wakes it if it has gone to sleep meanwhile. */
static inline void tether_ticker_poke(tether_runtime_t *rt)
{
    if (load_relaxed(&rt->ticker.state) != TETHER_TICKER_AWAKE)
        tether__ticker_start(rt);
}

/* While rt->resting: the thread is to end as soon as nothing is queued. */
void tether_ticker_send_away(tether_runtime_t *rt);

/* Has a thread ended that nobody has joined yet? Joins it. */
bool tether_ticker_unjoined(tether_runtime_t *rt);
void tether_ticker_join_gone(tether_runtime_t *rt);

/* Ends the thread and waits for it. */
void tether_ticker_stop(tether_runtime_t *rt);

#endif
