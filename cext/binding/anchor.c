/* Thread states in sub-interpreters, whose ends CPython looks after badly.
 *
 * The anchor. A sub-interpreter's first thread state is a part of the interpreter. CPython 3.12 and 3.13 hand it out whenever
 * no other exists, even before its last user's end has cleaned it ("thread state already initialized"), and crew threads begin
 * while nobody else is inside. So while a task is alive there, a thread state that nobody uses keeps the list from being empty.
 *
 * The end. An interpreter that its program leaves open is ended with the process: up to 3.13 CPython takes the first thread
 * state that it finds there, whosever it is, and frees it; threads that want to attach are ended by then. So whoever has seen
 * the end of the last task waits until the crew has taken its thread states away (settle): it may be about to leave the
 * interpreter for good. What is there nevertheless (of a task that nobody joined) is swept up. */
#include "binding.h"

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000
#define NEEDS_ANCHOR 1
#else
#define NEEDS_ANCHOR 0
#endif

/* A crew thread takes microseconds to leave. But destructors of its thread-locals run then, and they may wait for the very
 * thread that waits here: it gives up. */
static const uint64_t SETTLE_GIVE_UP = 1000000000; /* 1 s */

int anchor_drop(state_t *st)
{
    if (!st->sub)
        return 0;
    atomic_fetch_add(&st->spawning, 1);
    if (!NEEDS_ANCHOR)
        return 0;
    tether_lock(&st->anchor_lock);
    bool wanted = st->anchor == NULL;
    tether_unlock(&st->anchor_lock);
    if (!wanted)
        return 0;
    /* Not under the lock: without a GIL it may stop the world, which would wait for those who wait for the lock. */
    PyThreadState *made = PyThreadState_New(st->interp);
    if (made == NULL) {
        atomic_fetch_sub(&st->spawning, 1);
        PyErr_NoMemory();
        return -1;
    }
    made->thread_id = 0; /* PyThreadState_SetAsyncExc must not take it for the thread that made it */
    tether_lock(&st->anchor_lock);
    wanted = st->anchor == NULL;
    if (wanted)
        st->anchor = made;
    tether_unlock(&st->anchor_lock);
    if (!wanted) { /* another thread was faster */
        PyThreadState_Clear(made);
        PyThreadState_Delete(made);
    }
    return 0;
}

/* The task may be over by now, and its thread have found us still spawning. */
void anchor_spawned(state_t *st)
{
    if (!st->sub)
        return;
    atomic_fetch_sub(&st->spawning, 1);
    anchor_weigh(st);
}

/* Whoever ends the interpreter may have freed it, or may have picked it to do so: then it goes with the interpreter. */
static void take_away(state_t *st, PyThreadState *anchor)
{
    if (anchor == NULL || anchor == PyThreadState_Get())
        return;
    for (PyThreadState *at = PyInterpreterState_ThreadHead(st->interp); at; at = PyThreadState_Next(at)) {
        if (at == anchor) {
            PyThreadState_Clear(anchor);
            PyThreadState_Delete(anchor);
            return;
        }
    }
}

void anchor_weigh(state_t *st)
{
    if (!st->sub)
        return;
    PyThreadState *anchor = NULL;
    tether_lock(&st->anchor_lock);
    if (atomic_load(&st->spawning) == 0 && tether_runtime_live(st->rt) == 0 && atomic_load(&st->crew_at_work) == 0) {
        anchor = st->anchor;
        st->anchor = NULL;
    }
    tether_unlock(&st->anchor_lock);
    take_away(st, anchor);
}

bool anchor_enter(state_t *st, tether_thread_t *thread, PyThreadState *(*make)(PyInterpreterState *interp))
{
    /* not under the lock, see above */
    PyThreadState *made = st->sub && load_relaxed(&st->rt->stopping) ? NULL : make(st->interp);
    if (made == NULL)
        return false;
    /* Under the lock: sweep finds the state, or we find that it has been here. */
    if (st->sub)
        tether_lock(&st->anchor_lock);
    bool swept = st->sub && load_relaxed(&st->rt->stopping);
    if (!swept) {
        thread->host = made;
        atomic_fetch_add(&st->crew_at_work, 1);
        atomic_fetch_add(&st->crew_inside, 1);
    }
    if (st->sub)
        tether_unlock(&st->anchor_lock);
    if (swept)
        PyThreadState_Delete(made); /* nothing has used it */
    return !swept;
}

/* Of several that leave at once the last one to say so takes the anchor away, before its own thread state goes. */
void anchor_leave(state_t *st)
{
    atomic_fetch_sub(&st->crew_at_work, 1);
    anchor_weigh(st);
}

void anchor_left(state_t *st)
{
    atomic_fetch_sub(&st->crew_inside, 1);
    if (st->sub)
        tether_lot_wake_all(&st->crew_inside);
}

typedef struct {
    state_t *st;
    uint32_t own; /* crew thread states that are the caller's */
} settling_t;

static bool unsettled(void *arg)
{
    settling_t *s = arg;
    /* In this order: a thread that begins is inside before it is not beginning any more. */
    return atomic_load(&s->st->rt->crew.beginning) != 0 || atomic_load(&s->st->crew_inside) > s->own;
}

void anchor_settle(state_t *st, tether_thread_t *thread)
{
    if (!st->sub || tether_runtime_live(st->rt) != 0)
        return;
    settling_t s = {st, thread->crew && thread->host != NULL};
    if (!unsettled(&s))
        return;
    uint64_t until = tether_now() + SETTLE_GIVE_UP;
    PyThreadState *ts = PyEval_SaveThread();
    tether_wait_enter(thread);
    while (unsettled(&s) && tether_runtime_live(st->rt) == 0 && tether_now() < until)
        /* In slices: a thread that began for nothing, and without memory, tells nobody. */
        tether_lot_wait(&st->crew_inside, &thread->parker, unsettled, &s, tether_now() + 1000000);
    tether_wait_leave(thread);
    PyEval_RestoreThread(ts);
}

/* In use by another thread at this moment? With a GIL that cannot be: it is ours. */
static bool in_use(const PyThreadState *ts)
{
#ifdef Py_GIL_DISABLED
    return __atomic_load_n(&ts->state, __ATOMIC_ACQUIRE) != 0; /* not _Py_THREAD_DETACHED */
#else
    (void)ts;
    return false;
#endif
}

/* All states but the caller's, as CPython does in the main interpreter: it insists on being the last. Not only ours: up to 3.12
 * it may have picked the anchor to end the interpreter with, and what is left over is the interpreter's own first. */
void anchor_sweep(state_t *st)
{
    tether_lock(&st->anchor_lock);
    st->anchor = NULL;
    tether_unlock(&st->anchor_lock); /* from here on no thread of ours makes a state (anchor_enter) */
    PyThreadState *me = PyThreadState_Get();
    for (PyThreadState *at = PyInterpreterState_ThreadHead(st->interp); at;) {
        PyThreadState *ts = at;
        at = PyThreadState_Next(at);
        if (ts != me && !in_use(ts)) {
            PyThreadState_Clear(ts);
            PyThreadState_Delete(ts);
        }
    }
}
