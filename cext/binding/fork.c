/* os.fork (protocol.md, "Fork").
 *
 * Before: threads that merely linger are ended, so that a process whose tasks have all ended forks with one thread; and
 * none may come or go during the fork (forkgate.c).
 *
 * The child has one thread and none of ours. It starts afresh with a new runtime; the forking task's stack is its root.
 * Guards, scopes and references made by the parent belong to the old runtime: they are foreign, and nothing touches them. What
 * the child's stack was in the middle of (a join that ran the forking task in place, a wait that a signal handler forked
 * in) ends there with what was raised, or with ForkedError. */
#include "binding.h"

int need_own(state_t *st, tether_runtime_t *rt)
{
    if (!tether_runtime_foreign(rt))
        return 0;
    PyErr_SetString(st->ForkedError, "this belongs to the parent process, which forked this one: its task does not exist "
                                     "here. Join it there, or spawn anew here");
    return -1;
}

int need_own_source(state_t *st, tether_runtime_t *rt)
{
    if (!tether_runtime_foreign(rt))
        return 0;
    PyErr_SetString(st->ForkedError,
                    "this belongs to the parent process, which forked this one: what is lent of it is not known here. Make a "
                    "new one");
    return -1;
}

int fork_passed(state_t *st, tether_thread_t *thread, job_t *job)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    if (!tether_runtime_foreign(rt))
        return 0; /* the job may be gone */
    if ((job->outcome == OUTCOME_FAILED || job->outcome == OUTCOME_KILLED) && job->value != NULL) {
        PyObject *exc = job->value;
        job->value = NULL;
        give_exception(exc);
        return -1;
    }
    return need_own(st, rt);
}

void fork_silence(state_t *st)
{
    if (PyErr_ExceptionMatches(st->ForkedError))
        PyErr_Clear();
    else
        PyErr_WriteUnraisable(NULL);
}

static PyObject *before(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = PyModule_GetState(module);
    tether_thread_t *thread = st->started ? tether_thread(st->rt) : NULL;
    if (thread != NULL && tether_runtime_lingers(thread)) {
        PyThreadState *ts = PyEval_SaveThread(); /* whoever ends takes its thread state away, and needs the GIL for that */
        tether_runtime_rest(thread);
        PyEval_RestoreThread(ts);
    }
    if (!forkgate_close() && (thread = tether_thread(st->rt)) != NULL) { /* in the way may be threads of a sub-interpreter */
        PyThreadState *ts = PyEval_SaveThread();
        forkgate_await(thread);
        PyEval_RestoreThread(ts);
    }
    Py_RETURN_NONE;
}

static PyObject *after_in_parent(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    forkgate_open();
    Py_RETURN_NONE;
}

/* To threading, the thread that forked is the main thread. Ours are not made for that (_crew.py). */
static void tell_threading(void)
{
    PyObject *crew = PyImport_ImportModule("tether._crew");
    PyObject *r = crew ? PyObject_CallMethod(crew, "forked", NULL) : NULL;
    if (r == NULL)
        PyErr_WriteUnraisable(crew);
    Py_XDECREF(r);
    Py_XDECREF(crew);
}

static PyObject *after_in_child(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = PyModule_GetState(module);
    tether_runtime_t *old = st->rt;
    if (!tether_runtime_foreign(old))
        tether_after_fork(); /* not the C library's fork */
    unsigned long me = (unsigned long)PyThread_get_thread_ident();
    st->kill_lock = st->graves_lock = (tether_lock_t){0};
    store_relaxed(&st->graves, NULL);
    if (load_relaxed(&st->collecting) != me) /* a finalizer may have forked: then we are still inside the collector */
        store_relaxed(&st->collecting, 0ul);
    st->main_thread = me;
    tether_host_t host;
    host_fill(&host);
    host.max_threads = load_relaxed(&old->max_threads);
    tether_runtime_t *fresh = tether_runtime_new(&host, st);
    if (fresh == NULL)
        return PyErr_NoMemory();
    atomic_store(&st->draining, load_relaxed(&old->closing));
    if (load_relaxed(&old->closing)) /* the fork was made while the interpreter goes down: here it does, too */
        tether_runtime_close(fresh);
    st->rt = fresh; /* the old one stays, for those who still point at it */
    kill_after_fork(st);
    if (st->started)
        tell_threading();
    Py_RETURN_NONE;
}

static PyMethodDef before_def = {"_before_fork", before, METH_NOARGS, NULL};
static PyMethodDef after_in_parent_def = {"_after_fork_in_parent", after_in_parent, METH_NOARGS, NULL};
static PyMethodDef after_in_child_def = {"_after_fork_in_child", after_in_child, METH_NOARGS, NULL};

/* When the module is made, and not at the first spawn: others' hooks, which are registered after ours, run before it, so the
 * tasks that they use for a last time leave no threads, either. */
int fork_prepare(state_t *st)
{
    forkgate_prepare();
    if (st->sub)
        return 0; /* fork is refused there */
    PyObject *os = PyImport_ImportModule("os");
    PyObject *reg = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *first = reg ? PyCFunction_New(&before_def, st->module) : NULL;
    PyObject *child = first ? PyCFunction_New(&after_in_child_def, st->module) : NULL;
    PyObject *parent = child ? PyCFunction_New(&after_in_parent_def, st->module) : NULL;
    PyObject *none = parent ? PyTuple_New(0) : NULL;
    PyObject *hooks =
        none ? Py_BuildValue("{s:O,s:O,s:O}", "before", first, "after_in_child", child, "after_in_parent", parent) : NULL;
    PyObject *r = hooks ? PyObject_Call(reg, none, hooks) : NULL;
    int result = r == NULL ? -1 : 0;
    Py_XDECREF(r);
    Py_XDECREF(hooks);
    Py_XDECREF(none);
    Py_XDECREF(parent);
    Py_XDECREF(child);
    Py_XDECREF(first);
    Py_XDECREF(reg);
    Py_XDECREF(os);
    return result;
}
