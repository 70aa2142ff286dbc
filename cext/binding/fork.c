/* os.fork: the child has one thread and none of ours. It starts afresh with a new runtime; the forking task's stack is its
 * root. Guards, scopes and references made by the parent belong to the old runtime, whose locks may be held for ever by
 * threads that do not exist here: they are foreign, and nothing touches them. */
#include "binding.h"

bool job_is_foreign(job_t *job) { return job->task.node.rt != job_state(job)->rt; }

int need_own(state_t *st, tether_runtime_t *rt)
{
    if (rt == st->rt)
        return 0;
    PyErr_SetString(st->ForkedError, "this belongs to the parent process, which forked this one: its task does not exist "
                                     "here. Join it there, or spawn anew here");
    return -1;
}

static PyObject *after_in_child(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = PyModule_GetState(module);
    tether_after_fork();
    st->kill_lock = (tether_lock_t){0};
    st->graves_lock = (tether_lock_t){0};
    store_relaxed(&st->graves, NULL);
    store_relaxed(&st->collecting, 0ul);
    st->main_thread = (unsigned long)PyThread_get_thread_ident(); /* this thread is the main thread now */
    tether_host_t host;
    host_fill(&host);
    host.max_threads = load_relaxed(&st->rt->max_threads);
    tether_runtime_t *fresh = tether_runtime_new(&host, st);
    if (fresh == NULL)
        return PyErr_NoMemory();
    st->rt = fresh; /* the old one stays, for those who still point at it */
    Py_RETURN_NONE;
}

static PyMethodDef after_in_child_def = {"_after_in_child", after_in_child, METH_NOARGS, NULL};

int fork_prepare(state_t *st)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *reg = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
    PyObject *hook = reg ? PyCFunction_New(&after_in_child_def, st->module) : NULL;
    PyObject *none = hook ? PyTuple_New(0) : NULL;
    PyObject *how = none ? PyDict_New() : NULL;
    PyObject *r = NULL;
    if (how != NULL && PyDict_SetItemString(how, "after_in_child", hook) == 0)
        r = PyObject_Call(reg, none, how);
    int result = r == NULL ? -1 : 0;
    Py_XDECREF(r);
    Py_XDECREF(how);
    Py_XDECREF(none);
    Py_XDECREF(hook);
    Py_XDECREF(reg);
    Py_XDECREF(os);
    return result;
}
