#include "ticker.h"

#include "crew.h"
#include "lane.h"

static const uint64_t TICK = 1000000;          /* ns between looks */
static const uint64_t TICK_GROWING = 250000;   /* ns, while threads are being added */
static const uint64_t LINGER = 100000000;      /* ns without work before it dozes */
static const uint64_t RETIRE = 400000000;      /* ns of dozing before its thread ends */
static const uint64_t PATIENCE = 20000000;     /* ns between threads added under a busy CPU */
static const uint64_t BEGIN_WAIT = 100000;     /* ns that it waits for a thread to begin before it adds another */
enum { BATCH_MOST = 256, SLOW_STARTS = 20 };   /* fewer starts than that a millisecond: worth a thread */

typedef struct {
    uint64_t now;
    uint64_t cpu;          /* used by the program so far, less our own and what starting threads cost */
    uint64_t last_queued;  /* the newest id there was at the last tick: what is older has waited for a tick */
    uint64_t started;
    uint64_t oldest;
    uint64_t unmoved;      /* since when `oldest` is the oldest */
    uint64_t added;        /* when a thread was last added under a busy CPU */
    uint64_t seen_work;
    unsigned batch;
} look_t;

static uint64_t cpu_of_program(tether_runtime_t *rt)
{
    uint64_t all = tether_cpu_of_process();
    uint64_t ours = tether_cpu_of_thread() + load_relaxed(&rt->crew.start_cost);
    return all > ours ? all - ours : 0;
}

/* At most two threads at a time compete for the GIL to begin: more would only sleep in its queue. */
static bool may_begin(tether_runtime_t *rt)
{
    uint64_t until = 0;
    while (load_relaxed(&rt->crew.beginning) >= (rt->host.serial ? 3 : 2 * rt->cores)) {
        uint64_t now = tether_now();
        if (until == 0)
            until = now + BEGIN_WAIT;
        else if (now >= until)
            return false;
        tether_pause();
    }
    return true;
}

/* Adds up to n threads while there is something for them. returns how many. */
static unsigned add_threads(tether_runtime_t *rt, unsigned n)
{
    unsigned added = 0;
    while (added < n && tether_lane_queued(rt, false) > load_relaxed(&rt->crew.beginning) && may_begin(rt)) {
        if (tether_crew_grow(rt) != TETHER_OK)
            break; /* the system or max_threads says no; the next tick asks again */
        added++;
    }
    return added;
}

/* Little CPU used may also mean that the machine has little to give: then a thread that computes can be seen waiting for a
 * processor, and those that wait for it need no company. Of many threads only some are looked at. */
static bool is_starved(tether_runtime_t *rt)
{
    enum { LOOK_AT = 32 };
    unsigned long ids[LOOK_AT];
    unsigned n = 0;
    tether_lock(&rt->threads_lock);
    for (tether_thread_t *t = rt->threads; t && n < LOOK_AT; t = t->next) {
        ids[n] = load_relaxed(&t->native_id);
        if (ids[n] != 0 && !load_relaxed(&t->exited) && !load_relaxed(&t->idle))
            n++;
    }
    tether_unlock(&rt->threads_lock);
    for (unsigned i = 0; i < n; i++)
        if (tether_native_runs(ids[i]))
            return true;
    return false;
}

/* One look; returns how long to sleep. */
static uint64_t look(tether_runtime_t *rt, look_t *l)
{
    uint64_t now = tether_now();
    uint64_t cpu = cpu_of_program(rt);
    uint64_t elapsed = now - l->now, used = cpu > l->cpu ? cpu - l->cpu : 0;
    uint64_t oldest = tether_lane_oldest(rt), started = tether_lane_started(rt);
    uint64_t starts = started - l->started;
    bool waited = oldest != 0 && oldest <= l->last_queued;
    uint64_t sleep = TICK;

    if (oldest != l->oldest)
        l->unmoved = now;
    l->now = now;
    l->cpu = cpu;
    l->started = started;
    l->oldest = oldest;
    l->last_queued = load_relaxed(&rt->next_id);
    if (oldest != 0 || starts != 0)
        l->seen_work = now;

    if (!waited) {
        l->batch = 1;
        return oldest != 0 ? TICK_GROWING : sleep;
    }
    /* How many cores' worth of work leave one idle? With a GIL, half of one; else all but half of one. */
    uint64_t spare = rt->host.serial ? elapsed / 2 : elapsed * rt->cores - elapsed / 2;
    if (used < spare && load_relaxed(&rt->crew.beginning) == 0) {
        /* A thread that blocks starts one task and stays with it. If more were started than that, threads are not what is
         * missing: small tasks that wait for one another leave the CPU idle for moments, too. */
        uint32_t busy = tether_crew_busy(rt);
        bool all_blocked = used < elapsed / 2 && starts <= 2 * (uint64_t)(busy + 1) && !is_starved(rt);
        if (all_blocked || busy < rt->cores) {
            add_threads(rt, all_blocked ? l->batch : 1);
            l->batch = !all_blocked ? 1 : l->batch * 2 < BATCH_MOST ? l->batch * 2 : BATCH_MOST;
            return TICK_GROWING;
        }
    }
    l->batch = 1;
    bool slow = starts * TICK < SLOW_STARTS * elapsed;
    if (oldest > 0 && slow && starts != 0 && tether_crew_busy(rt) + 1 < rt->cores) {
        add_threads(rt, 1);
    } else if (now - l->unmoved >= PATIENCE && now - l->added >= PATIENCE) {
        add_threads(rt, 1);
        l->added = now;
    }
    return sleep;
}

/* The same dance once more: a task queued between the last look and GONE may have nobody else. */
static bool called_back(tether_runtime_t *rt)
{
    if (tether_lane_queued(rt, true) == 0)
        return false;
    tether_lock(&rt->ticker.lock);
    bool still_gone = load_relaxed(&rt->ticker.state) == TETHER_TICKER_GONE && rt->ticker.joinable; /* else a successor is at
                                                   work, or whoever joins us looks after the task */
    if (still_gone)
        store_relaxed(&rt->ticker.state, TETHER_TICKER_AWAKE);
    tether_unlock(&rt->ticker.lock);
    return still_gone;
}

static bool sent_away(tether_runtime_t *rt) { return atomic_load(&rt->resting) != 0; }

static void *ticker_main(void *arg)
{
    tether_runtime_t *rt = arg;
    tether_ticker_t *ticker = &rt->ticker;
    tether_native_name("tether-ticker");
    tether_native_precise_timers();
    store_relaxed(&ticker->native_id, tether_native_id());
    look_t l = {.now = tether_now(), .batch = 1};
    l.seen_work = l.unmoved = l.now;
    l.cpu = cpu_of_program(rt);
    uint64_t sleep = TICK_GROWING;
    while (!load_acquire(&ticker->stop)) {
        tether_park(&ticker->parker, tether_now() + sleep);
        sleep = look(rt, &l);
        if (l.now - l.seen_work < LINGER && !sent_away(rt))
            continue;
        /* Going to sleep: say so first, then look once more, through the lanes' locks. Whoever queued before that look is
         * seen by it; whoever queues after it sees the new state and pokes. */
        tether_lock(&ticker->lock);
        store_relaxed(&ticker->state, TETHER_TICKER_DOZING);
        tether_unlock(&ticker->lock);
        tether_status_t status = TETHER_OK;
        bool away = false;
        while (tether_lane_queued(rt, true) == 0 && load_relaxed(&ticker->state) == TETHER_TICKER_DOZING &&
               !load_acquire(&ticker->stop) && status != TETHER_TIMEOUT && !(away = sent_away(rt)))
            status = tether_park(&ticker->parker, l.now + LINGER + RETIRE);
        tether_lock(&ticker->lock);
        bool retire = (status == TETHER_TIMEOUT || away) && load_relaxed(&ticker->state) == TETHER_TICKER_DOZING;
        store_relaxed(&ticker->state, retire ? TETHER_TICKER_GONE : TETHER_TICKER_AWAKE);
        tether_unlock(&ticker->lock);
        if (retire && !called_back(rt)) {
            if (sent_away(rt))
                tether_lot_wake_all(&rt->crew);
            return NULL;
        }
        l.now = l.seen_work = l.unmoved = tether_now();
        l.cpu = cpu_of_program(rt);
        sleep = TICK_GROWING;
    }
    return NULL;
}

tether_status_t tether__ticker_start(tether_runtime_t *rt)
{
    tether_ticker_t *ticker = &rt->ticker;
    tether_status_t status = TETHER_OK;
    pthread_t former;
    _Atomic unsigned long former_id = 0;
    bool join = false;
    tether_lock(&ticker->lock);
    uint32_t state = load_relaxed(&ticker->state);
    if (state == TETHER_TICKER_DOZING) {
        store_relaxed(&ticker->state, TETHER_TICKER_AWAKE);
    } else if (state == TETHER_TICKER_GONE && !load_relaxed(&ticker->stop)) {
        pthread_t handle;
        store_relaxed(&former_id, load_relaxed(&ticker->native_id));
        status = tether_native_start(&handle, ticker_main, rt, 0);
        if (status == TETHER_OK) {
            store_relaxed(&ticker->state, TETHER_TICKER_AWAKE);
            former = ticker->handle;
            join = ticker->joinable;
            ticker->handle = handle;
            ticker->joinable = true;
        }
    }
    tether_unlock(&ticker->lock);
    if (state == TETHER_TICKER_DOZING)
        tether_unpark(&ticker->parker);
    if (join)
        tether_native_join(former, &former_id); /* it is past its last look; outside the lock, which that look may take */
    return status;
}

void tether_ticker_send_away(tether_runtime_t *rt)
{
    if (load_relaxed(&rt->ticker.state) != TETHER_TICKER_GONE)
        tether_unpark(&rt->ticker.parker);
}

bool tether_ticker_unjoined(tether_runtime_t *rt)
{
    tether_lock(&rt->ticker.lock);
    bool there = rt->ticker.joinable && load_relaxed(&rt->ticker.state) == TETHER_TICKER_GONE;
    tether_unlock(&rt->ticker.lock);
    return there;
}

void tether_ticker_join_gone(tether_runtime_t *rt)
{
    tether_ticker_t *ticker = &rt->ticker;
    tether_lock(&ticker->lock);
    bool gone = ticker->joinable && load_relaxed(&ticker->state) == TETHER_TICKER_GONE;
    pthread_t handle = ticker->handle;
    _Atomic unsigned long native_id = load_relaxed(&ticker->native_id);
    if (gone)
        ticker->joinable = false; /* it cannot be called back any more */
    tether_unlock(&ticker->lock);
    if (!gone)
        return;
    tether_native_join(handle, &native_id);
    if (tether_lane_queued(rt, true) != 0)
        tether__ticker_start(rt);
}

void tether_ticker_stop(tether_runtime_t *rt)
{
    tether_ticker_t *ticker = &rt->ticker;
    tether_lock(&ticker->lock);
    atomic_store_explicit(&ticker->stop, true, memory_order_release);
    bool join = ticker->joinable;
    pthread_t handle = ticker->handle;
    ticker->joinable = false;
    tether_unlock(&ticker->lock);
    if (join) {
        tether_unpark(&ticker->parker);
        tether_native_join(handle, &ticker->native_id);
    }
}
