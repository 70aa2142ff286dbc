#include "crew.h"

#include "lane.h"
#include "loop.h"
#include "spin.h"
#include "task.h"
#include "thread.h"

static const uint64_t LINGER = 400000000;  /* ns that an idle thread sleeps before it retires */
static const uint64_t GATE = 50000;        /* ns that a thread waits for the GIL to be let go before it asks for it */
static const uint64_t RETRY = 1000000;     /* ns between attempts to attach without memory */
static const uint64_t IDLE_SPIN = 60000;   /* ns that an idle thread looks around before it sleeps */

uint32_t tether_crew_busy(tether_runtime_t *rt)
{
    uint32_t alive = load_relaxed(&rt->crew.alive), idle = load_relaxed(&rt->crew.idle);
    return alive > idle ? alive - idle : 0;
}

/* ---- the idle list; caller holds crew->lock ---------------------------------------------------------------------- */

/* In front, where it is taken first; but behind one that spins, which is awake and costs no wake-up. */
static void idle_push(tether_crew_t *crew, tether_thread_t *t, bool spins)
{
    tether_thread_t *before = crew->idle_first != NULL && crew->idle_first->spins ? crew->idle_first : NULL;
    t->idle_prev = before;
    t->idle_next = before ? before->idle_next : crew->idle_first;
    *(t->idle_next ? &t->idle_next->idle_prev : &crew->idle_last) = t;
    *(before ? &before->idle_next : &crew->idle_first) = t;
    t->spins = spins;
    store_relaxed(&t->idle, true);
    add_relaxed(&crew->idle, 1);
}

static void idle_remove(tether_crew_t *crew, tether_thread_t *t)
{
    *(t->idle_prev ? &t->idle_prev->idle_next : &crew->idle_first) = t->idle_next;
    *(t->idle_next ? &t->idle_next->idle_prev : &crew->idle_last) = t->idle_prev;
    store_relaxed(&t->idle, false);
    sub_relaxed(&crew->idle, 1);
}

/* ---- a crew thread ----------------------------------------------------------------------------------------------- */

/* The GIL is about to be let go by whoever gave us the work, who is on the way to a wait. Asking for it before would put
 * us to sleep in the kernel; so look for a moment whether a wait was entered since the hand-over. */
static void gate(tether_runtime_t *rt, uint32_t handoff)
{
    if (!rt->host.serial || rt->cores < 2)
        return;
    uint64_t until = 0;
    for (unsigned round = 0; load_acquire(&rt->releases) == handoff; round++) {
        if (round % 16 == 15) {
            uint64_t now = tether_now();
            if (until == 0)
                until = now + GATE;
            else if (now >= until)
                return;
            else if (until - now < GATE - TETHER_SPIN_ALONE)
                tether_native_yield();
        }
        tether_pause();
    }
}

/* What an idle thread finds to do by itself. */
typedef enum { SEES_NOTHING, SEES_TASK, SEES_LOOP } sight_t;

/* May this thread look for work in the lanes now, without having been asked to? */
static bool work_in_sight(tether_runtime_t *rt)
{
    return tether_lane_queued(rt, false) != 0 &&
           (!rt->host.serial || load_relaxed(&rt->waiters) != 0 || tether_lane_native(rt, false) != 0);
}

bool tether_crew_attach(tether_thread_t *me)
{
    if (me->away)
        me->away = !load_relaxed(&me->rt)->host.attach(me);
    return !me->away;
}

void tether_crew_detach(tether_thread_t *me)
{
    if (!me->away)
        load_relaxed(&me->rt)->host.detach(me);
    me->away = true;
}

void tether_crew_turning(tether_thread_t *me)
{
    if (me->turning)
        return;
    me->turning = true;
    add_relaxed(&load_relaxed(&me->rt)->crew.turning, 1);
}

static void turned(tether_thread_t *me)
{
    if (me->turning)
        sub_relaxed(&load_relaxed(&me->rt)->crew.turning, 1);
    me->turning = false;
}

/* The first attach found no memory. A task that was promised this thread waits here until there is some, or until it is
 * cancelled; any other is left to whoever can, and the ticker asks again. */
static bool attach_later(tether_runtime_t *rt, tether_thread_t *me, tether_task_t *assigned)
{
    for (;;) {
        tether_park(&me->parker, tether_now() + RETRY);
        if (tether_crew_attach(me))
            return true;
        if (assigned == NULL || load_relaxed(&rt->stopping) || tether_state(tether_task_word(assigned)) != TETHER_QUEUED)
            return false;
    }
}

/* Before it asks for the host: tasks that need none. returns whether there is something else to do. */
static bool run_natives(tether_runtime_t *rt, tether_thread_t *me)
{
    sub_relaxed(&rt->crew.beginning, 1);
    for (tether_task_t *task; (task = tether_lane_take_native(me)) != NULL;) {
        turned(me);
        rt->host.run_native(me, task);
        me->away = true; /* it may have waited, which ends with the opposite */
    }
    /* Who was sent may have been sent for others, by the ticker, whoever has the host. */
    bool more = work_in_sight(rt) || (me->sent && tether_lane_queued(rt, false) != 0);
    if (more)
        add_relaxed(&rt->crew.beginning, 1);
    return more;
}

static void work(tether_runtime_t *rt, tether_thread_t *me, tether_task_t *assigned)
{
    if (assigned == NULL && (tether_lane_native(rt, false) != 0 || !me->sent) && !run_natives(rt, me))
        return; /* so does who has found something by itself, and comes too late for it */
    gate(rt, me->handoff);
    bool attached = tether_crew_attach(me);
    sub_relaxed(&rt->crew.beginning, 1);
    if (!attached && !attach_later(rt, me, assigned)) {
        if (assigned != NULL)
            tether_task_unref(me, assigned);
        return;
    }
    tether_task_t *task = assigned;
    if (assigned != NULL) {
        bool mine = tether_task_claim(me, assigned);
        tether_task_unref(me, assigned);
        if (!mine)
            task = NULL; /* cancelled before the start */
    }
    for (;;) {
        if (task == NULL && (me->asked_stack != 0 || (task = tether_lane_take(me)) == NULL))
            break; /* a thread with a stack of its own serves one task */
        turned(me);
        rt->host.run(me, task);
        task = NULL;
        if (me->away) {
            if (tether_lane_queued(rt, false) == 0)
                break;
            turned(me); /* it may take a while to get the host back */
            tether_crew_attach(me);
        }
    }
    if (me->asked_stack != 0)
        return; /* it ends now, attached: to ask for the host once more may take long, and threads would pile up */
    tether_crew_detach(me);
    if (rt->host.rest != NULL)
        rt->host.rest(me);
}

/* Is an idle thread to leave rather than to linger? */
static bool must_leave(tether_runtime_t *rt) { return load_relaxed(&rt->stopping) || atomic_load(&rt->resting) != 0; }

static sight_t in_sight(tether_runtime_t *rt)
{
    return work_in_sight(rt) ? SEES_TASK : tether_loop_wanted(rt) && !must_leave(rt) ? SEES_LOOP : SEES_NOTHING;
}

static void arrived(tether_runtime_t *rt, tether_thread_t *me)
{
    if (me->called)
        sub_relaxed(&rt->loops.called, 1);
    me->called = false;
}

/* Sleeps until there is work. returns false when it is time to go; *assigned is a task given to us, or NULL: look around. */
static bool idle(tether_runtime_t *rt, tether_thread_t *me, tether_task_t **assigned)
{
    tether_crew_t *crew = &rt->crew;
    *assigned = NULL;
    /* Who has just helped with a loop may soon be wanted for another one, with all the others. */
    uint32_t spinners = me->helps ? rt->cores - 1 : rt->cores / 2;
    bool spins = rt->cores > 1 && atomic_fetch_add(&crew->spinning, 1) < spinners;
    if (rt->cores > 1 && !spins)
        atomic_fetch_sub(&crew->spinning, 1);
    tether_lock(&crew->lock);
    idle_push(crew, me, spins);
    turned(me);
    tether_unlock(&crew->lock);

    uint64_t now = tether_now();
    uint64_t leave = now + LINGER;
    sight_t found = SEES_NOTHING;
    if (spins) {
        bool chosen = false;
        for (uint64_t until = now + IDLE_SPIN; now < until && !found && !chosen; now = tether_now()) {
            for (int i = 0; i < 16 && !found && !chosen; i++) {
                chosen = !load_relaxed(&me->idle) || must_leave(rt);
                found = in_sight(rt);
                tether_pause();
            }
            if (until - now < IDLE_SPIN - TETHER_SPIN_ALONE)
                tether_native_yield();
        }
        tether_lock(&crew->lock);
        me->spins = false;
        tether_unlock(&crew->lock);
        atomic_fetch_sub(&crew->spinning, 1);
    }
    /* A nudge that relied on our spinning, or came before we stood in the list, was for a task that this look sees: it
     * takes the lanes' locks (protocol.md, "Sleeping"). The same for a loop (loop.md). */
    if (found != SEES_TASK && tether_lane_queued(rt, true) != 0 &&
        (!rt->host.serial || atomic_load(&rt->waiters) != 0 || tether_lane_native(rt, true) != 0))
        found = SEES_TASK;
    if (found == SEES_NOTHING)
        found = in_sight(rt);

    tether_status_t status = TETHER_OK;
    for (;;) {
        tether_lock(&crew->lock);
        if (!load_relaxed(&me->idle)) { /* somebody chose us */
            *assigned = me->assigned;
            me->assigned = NULL;
            tether_unlock(&crew->lock);
            return true;
        }
        if (load_relaxed(&rt->stopping) || (!found && (status == TETHER_TIMEOUT || must_leave(rt)))) {
            idle_remove(crew, me);
            tether_unlock(&crew->lock);
            return false;
        }
        if (found) {
            idle_remove(crew, me);
            me->helps = found == SEES_LOOP;
            me->sent = false;
            if (!me->helps)
                add_relaxed(&crew->beginning, 1);
            me->handoff = load_relaxed(&rt->releases) - 1; /* no hand-over to wait for */
            tether_unlock(&crew->lock);
            return true;
        }
        tether_unlock(&crew->lock);
        if (rt->host.sleeps != NULL)
            rt->host.sleeps(me);
        status = tether_park(&me->parker, leave);
        found = status == TETHER_OK ? in_sight(rt) : SEES_NOTHING;
    }
}

/* ---- those who have retired -------------------------------------------------------------------------------------- */

static void gone_push(tether_runtime_t *rt, tether_thread_t *t)
{
    tether_lock(&rt->crew.lock);
    t->idle_next = NULL; /* who has retired is in no other list */
    *(rt->crew.gone_last ? &rt->crew.gone_last->idle_next : &rt->crew.gone_first) = t;
    rt->crew.gone_last = t;
    tether_unlock(&rt->crew.lock);
}

static tether_thread_t *gone_pop(tether_runtime_t *rt)
{
    tether_lock(&rt->crew.lock);
    tether_thread_t *t = rt->crew.gone_first;
    if (t != NULL && (rt->crew.gone_first = t->idle_next) == NULL)
        rt->crew.gone_last = NULL;
    tether_unlock(&rt->crew.lock);
    return t;
}

static void join(tether_thread_t *t)
{
    pthread_join(t->handle, NULL);
    atomic_store_explicit(&t->exited, true, memory_order_release); /* its record may serve another */
}

/* The last step: others may join it now. It joins two of those before it, if that takes no waiting: who leaves queues for
 * nobody, and what is left of them stays few. */
static void retire(tether_runtime_t *rt, tether_thread_t *me)
{
    for (int i = 0; i < 2; i++) {
        tether_thread_t *t = gone_pop(rt);
        if (t != NULL && tether_native_exists(load_relaxed(&t->native_id)))
            gone_push(rt, t);
        else if (t != NULL)
            join(t);
    }
    gone_push(rt, me);
}

static void *thread_main(void *arg)
{
    tether_thread_t *me = arg;
    tether_runtime_t *rt = load_relaxed(&me->rt);
    me->handle = pthread_self();
    tether_thread_bind(me);
    rt->host.begin(me);

    tether_lock(&rt->crew.lock);
    tether_task_t *assigned = me->assigned;
    me->assigned = NULL;
    tether_unlock(&rt->crew.lock);
    add_relaxed(&rt->crew.start_cost, tether_cpu_of_thread());
    do {
        if (me->helps) {
            arrived(rt, me);
            tether_loop_help(me);
        } else {
            work(rt, me, assigned);
        }
    } while (me->asked_stack == 0 && idle(rt, me, &assigned)); /* a thread with a stack of its own serves one task */
    turned(me); /* a thread with a stack of its own never came to the idle list */
    if (me->asked_stack == 0)
        add_relaxed(&rt->crew.idle, 1); /* still not busy */
    rt->host.end(me);
    tether_thread_unbind(me);

    bool lingered = me->asked_stack == 0;
    retire(rt, me); /* the record is not ours any more */
    bool rested = atomic_load(&rt->resting) != 0;
    if (lingered)
        sub_relaxed(&rt->crew.idle, 1);
    /* Who begins to rest now looks again by itself. */
    if (atomic_fetch_sub(&rt->crew.alive, 1) == 1 || rested)
        tether_lot_wake_all(&rt->crew);
    return NULL;
}

/* One more thread is alive. Tasks keep the runtime from stopping; a loop does not, so here one of two is seen by the other:
 * this by tether_crew_stop, or that by us. */
static bool come_alive(tether_runtime_t *rt, bool helps)
{
    tether_lock(&rt->crew.lock);
    bool may = !(helps && load_relaxed(&rt->stopping));
    if (may)
        add_relaxed(&rt->crew.alive, 1);
    tether_unlock(&rt->crew.lock);
    return may;
}

/* task NULL: it is to look into the lanes, or, if it helps, for loops. */
static tether_status_t start(tether_runtime_t *rt, tether_task_t *task, size_t stack_size, bool helps)
{
    uint32_t most = load_relaxed(&rt->max_threads);
    if (task == NULL && most != 0 && load_relaxed(&rt->crew.alive) >= most)
        return TETHER_NO_THREAD; /* a dedicated task was promised its thread */
    tether_thread_t *t = tether_thread_new(rt, true);
    if (t == NULL)
        return TETHER_NO_MEMORY;
    t->away = true;
    t->asked_stack = stack_size;
    t->assigned = task;
    t->handoff = load_relaxed(&rt->releases);
    t->helps = t->called = helps;
    t->sent = true;
    _Atomic uint32_t *coming = helps ? &rt->loops.called : &rt->crew.beginning;
    if (!come_alive(rt, helps)) {
        atomic_store_explicit(&t->exited, true, memory_order_release);
        return TETHER_SHUTDOWN;
    }
    add_relaxed(coming, 1);
    pthread_t handle; /* the thread notes its own: it may be over before we could */
    tether_status_t status = tether_native_start(&handle, thread_main, t, stack_size);
    if (status != TETHER_OK) {
        sub_relaxed(coming, 1);
        sub_relaxed(&rt->crew.alive, 1);
        t->assigned = NULL;
        atomic_store_explicit(&t->exited, true, memory_order_release); /* the record serves another */
    }
    return status;
}

/* Takes an idle thread out of the list for `task` (NULL: look into the lanes, or help) and wakes it. */
static bool wake_one(tether_runtime_t *rt, tether_task_t *task, bool helps)
{
    tether_crew_t *crew = &rt->crew;
    if (load_relaxed(&crew->idle) == 0)
        return false;
    tether_lock(&crew->lock);
    tether_thread_t *t = crew->idle_first;
    while (helps && t != NULL && t->spins)
        t = t->idle_next; /* it sees the loop by itself */
    if (t != NULL) {
        idle_remove(crew, t);
        t->assigned = task;
        t->handoff = load_relaxed(&rt->releases);
        t->helps = t->called = helps;
        t->sent = true;
        add_relaxed(helps ? &rt->loops.called : &crew->beginning, 1);
    }
    tether_unlock(&crew->lock);
    if (t == NULL)
        return false;
    tether_unpark(&t->parker);
    return true;
}

tether_status_t tether_crew_give(tether_runtime_t *rt, tether_task_t *task, size_t stack_size)
{
    tether_task_ref(task); /* the thread's, until it has tried to claim */
    /* Whoever spawns again the moment a join returns finds the thread still on its way to the idle list: that is a fraction
     * of a microsecond, a new thread is fifty. */
    for (int i = 0; stack_size == 0; i++) {
        if (wake_one(rt, task, false))
            return TETHER_OK;
        if (load_relaxed(&rt->crew.turning) == 0 || i == 200)
            break;
        tether_pause();
    }
    tether_status_t status = start(rt, task, stack_size, false);
    if (status != TETHER_OK)
        sub_relaxed(&task->node.refs, 1); /* never the last: the caller has two */
    return status;
}

void tether_crew_nudge(tether_runtime_t *rt)
{
    if (load_relaxed(&rt->crew.beginning) == 0 && atomic_load(&rt->crew.spinning) == 0)
        wake_one(rt, NULL, false);
}

tether_status_t tether_crew_grow(tether_runtime_t *rt)
{
    return wake_one(rt, NULL, false) ? TETHER_OK : start(rt, NULL, 0, false);
}

void tether_crew_call(tether_runtime_t *rt, unsigned wanted, unsigned most)
{
    uint32_t coming = load_relaxed(&rt->loops.called) + atomic_load(&rt->crew.spinning);
    for (; coming < wanted && load_relaxed(&rt->loops.helping) + load_relaxed(&rt->loops.called) < most; coming++)
        if (!wake_one(rt, NULL, true) && start(rt, NULL, 0, true) != TETHER_OK)
            return;
}

static bool somebody_alive(void *rt) { return load_acquire(&((tether_runtime_t *)rt)->crew.alive) != 0; }

void tether_crew_send_away(tether_runtime_t *rt)
{
    tether_lock(&rt->crew.lock);
    for (tether_thread_t *t = rt->crew.idle_first; t; t = t->idle_next)
        tether_unpark(&t->parker);
    tether_unlock(&rt->crew.lock);
}

bool tether_crew_unjoined(tether_runtime_t *rt)
{
    tether_lock(&rt->crew.lock);
    bool there = rt->crew.gone_first != NULL;
    tether_unlock(&rt->crew.lock);
    return there;
}

void tether_crew_join_gone(tether_runtime_t *rt, uint64_t until)
{
    tether_thread_t *left = NULL;
    unsigned long me = tether_native_id();
    for (tether_thread_t *t; (t = gone_pop(rt)) != NULL;) {
        unsigned long id = load_relaxed(&t->native_id);
        if (id != me) { /* a thread-local's destructor may fork */
            tether_native_await_end(id, until);
            /* Whatever that has seen: the number may be another thread's by now. */
            if (pthread_tryjoin_np(t->handle, NULL) == 0) {
                atomic_store_explicit(&t->exited, true, memory_order_release);
                continue;
            }
        }
        t->idle_next = left;
        left = t;
    }
    for (tether_thread_t *next; left != NULL; left = next) {
        next = left->idle_next;
        gone_push(rt, left);
    }
}

void tether_crew_stop(tether_runtime_t *rt)
{
    tether_thread_t *me = tether_thread(rt);
    tether_crew_send_away(rt); /* at least once: its lock is where a thread that is started for a loop meets us (come_alive) */
    while (somebody_alive(rt)) {
        tether_crew_send_away(rt);
        tether_lot_wait(&rt->crew, &me->parker, somebody_alive, rt, tether_now() + 1000000);
    }
    for (tether_thread_t *t; (t = gone_pop(rt)) != NULL;)
        join(t);
}
