/* Crew threads as Python threads, and the end of the interpreter.
 *
 * A crew thread makes its thread state itself, on its own native thread, at its first attach (so that PyGILState works in
 * tasks, too), keeps it as long as it lives, and takes it away before it ends. Thread states are explicit: no PyGILState
 * call of ours, which would know the main interpreter only. */
#include "binding.h"

static state_t *thread_state(tether_thread_t *thread) { return state_of(load_relaxed(&thread->rt)); }

static void begin(tether_thread_t *thread)
{
    (void)thread;
    tether_native_name("tether");
}

/* The entry in threading.enumerate(). A failure costs the entry, not the thread. */
static void enter_threading(state_t *st, face_t *face)
{
    PyObject *entry = PyObject_CallOneArg(st->crew_enter, st->renamed);
    if (entry == NULL)
        PyErr_WriteUnraisable(st->crew_enter);
    else
        names_begin(st, face, entry);
    Py_XDECREF(entry);
}

static void leave_threading(state_t *st, face_t *face)
{
    names_end(face);
    PyObject *r = PyObject_CallNoArgs(st->crew_leave);
    if (r == NULL)
        PyErr_WriteUnraisable(st->crew_leave);
    Py_XDECREF(r);
}

/* NULL: no memory. */
static PyThreadState *new_state(PyInterpreterState *interp)
{
#if PY_VERSION_HEX < 0x030C0000
    /* PyThreadState_New of 3.11 is these two, without the look at the first one's answer. */
    extern void _PyThreadState_SetCurrent(PyThreadState *ts);
    PyThreadState *ts = _PyThreadState_Prealloc(interp);
    if (ts != NULL)
        _PyThreadState_SetCurrent(ts);
    return ts;
#else
    return PyThreadState_New(interp);
#endif
}

/* Code of the program's has run on a thread of the crew, and may have forked. If we are the child, on the only thread of the
 * parent's that there is, it has done what that code wanted to do here: the process ends with the last thread, as it does for a
 * Thread. */
static void end_child(state_t *st, tether_thread_t *thread)
{
    if (!tether_runtime_foreign(load_relaxed(&thread->rt)))
        return;
    tether_thread_t *root = tether_thread(st->rt);
    PyEval_SaveThread();
    if (root != NULL)
        tether_runtime_rest(root);
    pthread_exit(NULL);
}

static bool attach(tether_thread_t *thread)
{
    if (thread->host == NULL) {
        if (load_relaxed(&load_relaxed(&thread->rt)->stopping))
            return false; /* what we would enter may be going, or gone */
        state_t *st = thread_state(thread);
        face_t *face = PyMem_RawCalloc(1, sizeof(face_t));
        forkgate_enter(thread);
        bool entered = face != NULL && anchor_enter(st, thread, new_state);
        if (WITH_GIL || !entered)
            forkgate_leave(); /* the rest is for those who have the GIL, as who forks does */
        if (!entered) {
            PyMem_RawFree(face);
            return false;
        }
        PyThreadState *ts = thread->host;
        thread->host_face = face;
        PyEval_RestoreThread(ts);
        pystate_fit(ts, thread);
        enter_threading(st, face);
        end_child(st, thread);
        if (!WITH_GIL)
            forkgate_leave();
    } else {
        PyEval_RestoreThread(thread->host);
    }
    return true;
}

static void detach(tether_thread_t *thread)
{
    (void)thread;
    PyEval_SaveThread();
}

static void end(tether_thread_t *thread)
{
    if (thread->host == NULL)
        return;
    names_sleep(thread); /* in a sub-interpreter the thread may serve on */
    face_t *face = thread->host_face;
    PyThreadState *ts = thread->host;
    if (!WITH_GIL) {
        tether_crew_detach(thread);
        forkgate_enter(thread);
    }
    if (thread->away)
        PyEval_RestoreThread(ts);
    thread->away = true;
    state_t *st = thread_state(thread);
    leave_threading(st, face);
    end_child(st, thread);
    thread->host = thread->host_face = NULL;
    PyMem_RawFree(face);
    PyThreadState_Clear(ts);
    end_child(st, thread);
    anchor_leave(st);
    PyThreadState_DeleteCurrent();
    thread->away = true; /* a wait in what was run here has ended with the opposite, and a sub-interpreter's thread goes on */
    if (!WITH_GIL)
        forkgate_leave();
    anchor_left(st);
}

static void run(tether_thread_t *thread, tether_task_t *task)
{
    state_t *st = thread_state(thread);
    job_run_on_crew(st, thread, job_of(task)); /* the task may be gone afterwards */
    end_child(st, thread);
}

/* In sub-interpreters a thread state lives no longer than the work: CPython up to 3.13 takes whatever state it finds first
 * when it enters or ends one from outside, and must not find that of a thread that merely lingers. */
void host_fill(tether_host_t *host)
{
    *host = (tether_host_t){
        .task_size = sizeof(job_t),
#ifdef Py_GIL_DISABLED
        .serial = false,
#else
        .serial = true,
#endif
        .begin = begin,
        .end = end,
        .attach = attach,
        .detach = detach,
        .run = run,
        .run_native = job_run_native,
        .rest = PyInterpreterState_Get() == PyInterpreterState_Main() ? NULL : end, /* in a sub-interpreter */
        .sleeps = names_sleep,
        .dispose = job_dispose,
    };
}

/* ---- the collector ----------------------------------------------------------------------------------------------- */

/* gc.callbacks: which thread is inside the collector now? Destructors that it calls must not wait (G5). */
static PyObject *gc_event(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    state_t *st = PyModule_GetState(module);
    if (nargs >= 1 && PyUnicode_Check(args[0])) {
        bool starts = PyUnicode_CompareWithASCIIString(args[0], "start") == 0;
        /* Once each, though we were hooked twice (hook_once); and no end of one that began before we were. */
        if (starts == (load_relaxed(&st->collecting) == 0))
            add_relaxed(starts ? &st->collections_begun : &st->collections_ended, 1);
        store_relaxed(&st->collecting, starts ? (unsigned long)PyThread_get_thread_ident() : 0ul);
    }
    Py_RETURN_NONE;
}

/* CrewThread's: a name set in Python has reached the system (3.14 and later). */
static PyObject *renamed(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = PyModule_GetState(module);
    names_renamed(tether_thread(st->rt));
    Py_RETURN_NONE;
}

static PyMethodDef renamed_def = {"_renamed", renamed, METH_NOARGS, NULL};
static PyMethodDef gc_event_def = {"_gc_event", (PyCFunction)(void (*)(void))gc_event, METH_FASTCALL, NULL};

/* ---- the end of the interpreter ---------------------------------------------------------------------------------- */

static void cancel_if_asked(tether_task_t *task, void *unused)
{
    (void)unused;
    if (job_of(task)->cancel_at_exit)
        tether_task_cancel(task, 0);
}

static void cancel_any(tether_task_t *task, void *unused)
{
    (void)unused;
    tether_task_cancel(task, 0);
}

static bool process_ends(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

static void write_abandoned(state_t *st, const char *why)
{
    PyObject *r = PyObject_CallFunction(st->tell_abandoned, "s", why);
    if (r == NULL)
        PyErr_WriteUnraisable(NULL);
    Py_XDECREF(r);
}

/* CPython ends interpreters that were left open with the process, and up to 3.13 when no thread may attach any more: those that
 * try are ended on the spot. Their tasks will never go on, so nothing is waited for, and the runtime stays where it is. */
static void drain_too_late(state_t *st)
{
    tether_runtime_t *rt = st->rt;
    tether_runtime_close(rt);
    if (tether_runtime_live(rt) != 0)
        write_abandoned(st, "the process ends, and with it an interpreter that was left open; not waiting for");
    tether_ticker_stop(rt); /* it never attaches */
    atomic_store(&rt->stopping, true);
    tether_crew_send_away(rt);
    anchor_sweep(st);
}

/* Registered with threading: every task has ended, and every thread of ours is gone, before the interpreter takes itself
 * apart. Never raises. */
static PyObject *drain(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = PyModule_GetState(module);
    tether_runtime_t *rt = st->rt;
    if (load_relaxed(&rt->closing))
        Py_RETURN_NONE;
    if (st->sub && process_ends()) {
        drain_too_late(st);
        Py_RETURN_NONE;
    }
    tether_thread_t *thread = have_thread(st);
    int interrupts = 0;
    atomic_store(&st->draining, true);
    tether_lane_each(rt, cancel_if_asked, NULL); /* what comes after it sees `draining`: spawn.c */
    for (bool closed = false; !closed;) {
        PyThreadState *ts = PyEval_SaveThread();
        tether_wait_enter(thread);
        tether_status_t status = tether_runtime_drain(thread);
        tether_wait_leave(thread);
        PyEval_RestoreThread(ts);
        if (status == TETHER_OK) {
            /* Tasks may spawn to the last; what slipped in before the door was shut is waited for, too. */
            closed = tether_runtime_close(rt);
            continue;
        }
        bool raised = look_at_signals() < 0;
        rt = st->rt; /* another one, if a handler forked */
        thread = have_thread(st);
        if (raised) {
            PyErr_Clear();
            tether_lane_each(rt, cancel_any, NULL);
            if (++interrupts == 2) {
                write_abandoned(st, "interrupted twice at exit; not waiting for");
                tether_runtime_close(rt);
                Py_RETURN_NONE;
            }
        }
    }
    PyThreadState *ts = PyEval_SaveThread();
    tether_runtime_stop(rt);
    PyEval_RestoreThread(ts);
    job_clear_graves(st);
    anchor_weigh(st);
    st->stopped = true;
    Py_RETURN_NONE;
}

static PyMethodDef drain_def = {"_drain", drain, METH_NOARGS, NULL};

/* Has threading begun (or finished, and been cleared) to shut down? It takes no exit function then, so no task could be
 * promised its end. Raises. */
static bool going_down(state_t *st)
{
    PyObject *flag = dict_item(st->threading, "_SHUTTING_DOWN");
    if (flag != Py_False && !PyErr_Occurred())
        PyErr_SetString(st->ShutdownError, "tether spawns no tasks: the interpreter is shutting down");
    Py_XDECREF(flag);
    return flag != Py_False;
}

static int hook_exit(state_t *st)
{
    PyObject *reg = dict_item(st->threading, "_register_atexit");
    if (reg == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "threading._register_atexit is missing");
        return -1;
    }
    PyObject *hook = PyCFunction_New(&drain_def, st->module);
    PyObject *r = hook ? PyObject_CallOneArg(reg, hook) : NULL;
    Py_XDECREF(hook);
    Py_XDECREF(r);
    Py_DECREF(reg);
    return r == NULL ? -1 : 0;
}

static int hook_gc(state_t *st)
{
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *callbacks = gc ? PyObject_GetAttrString(gc, "callbacks") : NULL;
    PyObject *event = callbacks ? PyCFunction_New(&gc_event_def, st->module) : NULL;
    int r = event ? PyList_Append(callbacks, event) : -1;
    Py_XDECREF(event);
    Py_XDECREF(callbacks);
    Py_XDECREF(gc);
    return r;
}

/* Two threads may come here together, and hook twice: of two calls the second does nothing. */
static int hook_once(state_t *st, _Atomic bool *done, int (*hook)(state_t *st))
{
    if (!load_acquire(done) && hook(st) < 0)
        return -1;
    store_release(done, true);
    return 0;
}

int host_watch_collector(state_t *st) { return hook_once(st, &st->gc_hooked, hook_gc); }

#ifdef Py_GIL_DISABLED
static void collect(void)
{
    PyObject *gc = PyImport_ImportModule("gc"), *r = gc ? PyObject_CallMethod(gc, "collect", NULL) : NULL;
    if (r == NULL)
        PyErr_WriteUnraisable(gc);
    Py_XDECREF(r);
    Py_XDECREF(gc);
}

static const uint64_t COLLECT_GIVE_UP = 100000000; /* 100 ms: a destructor that another collection runs may wait for us */

/* One thread collects at a time, and who asks meanwhile is sent away at once. So again until one that has begun since has ended,
 * whoever ran it. */
bool host_collect(state_t *st)
{
    if (load_relaxed(&st->collecting) == (unsigned long)PyThread_get_thread_ident())
        return false;
    if (host_watch_collector(st) < 0)
        PyErr_WriteUnraisable(NULL);
    uint32_t begun = load_relaxed(&st->collections_begun);
    for (uint64_t until = tether_now() + COLLECT_GIVE_UP;;) {
        collect();
        if ((int32_t)(load_relaxed(&st->collections_ended) - begun) > 0 || tether_now() >= until)
            return true;
        nap();
    }
}
#else
bool host_collect(state_t *st)
{
    (void)st;
    return false;
}
#endif

/* Threads may prepare together; what the first one has put there may be in use by its task. */
static void keep(state_t *st, PyObject **slot, PyObject **object)
{
    tether_lock(&st->graves_lock);
    if (*slot == NULL) {
        *slot = *object;
        *object = NULL;
    }
    tether_unlock(&st->graves_lock);
}

/* Before the first task: what costs time or memory only for those who spawn. */
int host_prepare(state_t *st)
{
    if (going_down(st) || need_exit_names(st) < 0)
        return -1;
    int result = -1;
    /* threading's exit functions run last-in first-out. Executors' threads may be what tasks wait for, or the other way
     * round, so ours must run before theirs: theirs must be registered. */
    PyObject *pool = PyImport_ImportModule("concurrent.futures.thread");
    PyObject *crew = pool ? PyImport_ImportModule("tether._crew") : NULL;
    PyObject *rename = crew ? PyCFunction_New(&renamed_def, st->module) : NULL;
    PyObject *leave = rename ? PyObject_GetAttrString(crew, "leave") : NULL;
    PyObject *tell = leave ? PyObject_GetAttrString(crew, "tell_abandoned") : NULL;
    PyObject *give_back = tell ? PyObject_GetAttrString(crew, "give_back") : NULL;
    PyObject *enter = give_back ? PyObject_GetAttrString(crew, "enter") : NULL;
    if (enter == NULL)
        goto done;
    keep(st, &st->renamed, &rename);
    keep(st, &st->crew_leave, &leave);
    keep(st, &st->tell_abandoned, &tell);
    keep(st, &st->give_back, &give_back);
    keep(st, &st->crew_enter, &enter);
    /* `started`: another thread was faster, while the imports ran */
    if (!st->started && (hook_once(st, &st->exit_hooked, hook_exit) < 0 || host_watch_collector(st) < 0))
        goto done;
    st->started = true;
    result = 0;
done:
    Py_XDECREF(pool);
    Py_XDECREF(crew);
    Py_XDECREF(rename);
    Py_XDECREF(leave);
    Py_XDECREF(tell);
    Py_XDECREF(give_back);
    Py_XDECREF(enter);
    return result;
}
