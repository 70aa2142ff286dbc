/* What a task sees is the same wherever it runs: an own context, own thread-locals, no exception being handled, a full
 * recursion budget. In place this means to swap fields of the thread state; greenlet does the same for its stacks.
 *
 * threading.local values hang on the thread state's `dict` up to 3.12, and on two fields of their own from 3.13. */
#include "binding.h"

/* Bytes of stack that one counted call may take. Up to 3.11 Python and C calls count together, and recursion through a C
 * function such as sorted(key=...) takes about 5 KB a level; later only C calls count here, two or three a level. */
#if PY_VERSION_HEX < 0x030C0000
enum { STACK_PER_CALL = 6 * 1024, STACK_SMALL = 6 << 20 };
#else
enum { STACK_PER_CALL = 2560 };
#endif

PyObject *take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
        Py_DECREF(tb);
    }
    Py_DECREF(type);
    return value;
#endif
}

void give_exception(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exc);
#else
    if (exc == NULL) {
        PyErr_Clear();
        return;
    }
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

/* Recursion: the full budget where the stack has room for it; less on a small stack, so that the end of the budget comes
 * before the end of the stack. From 3.14 CPython watches the stack itself. */
#if PY_VERSION_HEX < 0x030E0000
/* What CPython bounds by numbers of its own, whatever the stack: its parser takes up to 600 KiB for deeply nested source. */
enum { STACK_UNCOUNTED = 640 * 1024 };

static int fitting(int limit, size_t room)
{
    room -= room / 2 < STACK_UNCOUNTED ? room / 2 : STACK_UNCOUNTED;
    return room / STACK_PER_CALL < (size_t)limit ? (int)(room / STACK_PER_CALL) : limit;
}
#endif

static void swap_recursion(pystate_t *saved, PyThreadState *ts, tether_thread_t *thread)
{
#if PY_VERSION_HEX < 0x030C0000
    saved->recursion = ts->recursion_limit - ts->recursion_remaining; /* the depth: the limit may change meanwhile */
    ts->recursion_remaining = thread->stack_size < STACK_SMALL ? fitting(ts->recursion_limit, tether_thread_room(thread))
                                                               : ts->recursion_limit;
#else
    saved->recursion = ts->py_recursion_limit - ts->py_recursion_remaining; /* the depth: the limit may change */
    ts->py_recursion_remaining = ts->py_recursion_limit;
#if PY_VERSION_HEX < 0x030E0000
    saved->c_recursion = ts->c_recursion_remaining;
#ifdef Py_C_RECURSION_LIMIT
    int limit = Py_C_RECURSION_LIMIT;
#else
    int limit = C_RECURSION_LIMIT;
#endif
    ts->c_recursion_remaining = fitting(limit, tether_thread_room(thread));
#endif
#endif
}

void pystate_fit(PyThreadState *ts, tether_thread_t *thread)
{
    pystate_t unused;
    swap_recursion(&unused, ts, thread);
}

void pystate_enter(pystate_t *saved, PyThreadState *ts, PyObject *context, tether_thread_t *thread)
{
    saved->ts = ts;

    saved->exc.exc_value = NULL;
    saved->exc.previous_item = NULL;
    saved->exc_before = ts->exc_info;
    ts->exc_info = &saved->exc;

    saved->context = ts->context;
    ts->context = context;
    ts->context_ver++;

    saved->dict = ts->dict;
    ts->dict = NULL;
#if PY_VERSION_HEX >= 0x030D0000
    saved->local_key = ts->threading_local_key;
    saved->local_sentinel = ts->threading_local_sentinel;
    ts->threading_local_key = NULL;
    ts->threading_local_sentinel = NULL;
#endif

    saved->firstiter = ts->async_gen_firstiter;
    saved->finalizer = ts->async_gen_finalizer;
    ts->async_gen_firstiter = NULL;
    ts->async_gen_finalizer = NULL;
    saved->origin_depth = ts->coroutine_origin_tracking_depth;
    ts->coroutine_origin_tracking_depth = 0;

    saved->traceobj = Py_XNewRef(ts->c_traceobj);
    saved->profileobj = Py_XNewRef(ts->c_profileobj);
    saved->tracefunc = ts->c_tracefunc;
    saved->profilefunc = ts->c_profilefunc;
    if (saved->tracefunc != NULL)
        PyEval_SetTrace(NULL, NULL); /* the joiner's; job.c sets the one for new threads */
    if (saved->profilefunc != NULL)
        PyEval_SetProfile(NULL, NULL);

    swap_recursion(saved, ts, thread);
}

static void drop_locals(PyThreadState *ts)
{
    /* The destructor of a local may make another: a few rounds, then it is the joiner's business no more than a leak. */
    for (int round = 0; round < 8; round++) {
        bool any = ts->dict != NULL;
#if PY_VERSION_HEX >= 0x030D0000
        any = any || ts->threading_local_key != NULL || ts->threading_local_sentinel != NULL;
#endif
        if (!any)
            return;
        Py_CLEAR(ts->dict);
#if PY_VERSION_HEX >= 0x030D0000
        Py_CLEAR(ts->threading_local_key);
        Py_CLEAR(ts->threading_local_sentinel);
#endif
    }
}

#if PY_VERSION_HEX < 0x030D0000
/* A threading.local that dies takes its entry out of every thread state's dict, but not out of one that we have put aside;
 * what stays there points to freed memory, under a key that the next local at the same address would use. The entries of
 * dead ones are known by this: nobody has a weak reference to them any more. */
static void bury_dead_locals(PyObject *dict)
{
    PyObject *key, *value;
    for (bool again = dict != NULL; again;) {
        again = false;
        for (Py_ssize_t pos = 0; PyDict_Next(dict, &pos, &key, &value);) {
            if (strcmp(Py_TYPE(value)->tp_name, "_thread._localdummy") == 0 && *PyObject_GET_WEAKREFS_LISTPTR(value) == NULL) {
                Py_INCREF(key);
                again = PyDict_DelItem(dict, key) == 0;
                Py_DECREF(key);
                break;
            }
        }
    }
    PyErr_Clear();
}
#endif

void pystate_leave(pystate_t *saved)
{
    PyThreadState *ts = saved->ts;
    drop_locals(ts);
#if PY_VERSION_HEX < 0x030D0000
    bury_dead_locals(saved->dict);
#endif
    ts->dict = saved->dict;
#if PY_VERSION_HEX >= 0x030D0000
    ts->threading_local_key = saved->local_key;
    ts->threading_local_sentinel = saved->local_sentinel;
#endif

    PyObject *context = ts->context;
    ts->context = saved->context;
    ts->context_ver++;

    PyObject *firstiter = ts->async_gen_firstiter, *finalizer = ts->async_gen_finalizer;
    ts->async_gen_firstiter = saved->firstiter;
    ts->async_gen_finalizer = saved->finalizer;
    ts->coroutine_origin_tracking_depth = saved->origin_depth;

    ts->exc_info = saved->exc_before;

#if PY_VERSION_HEX < 0x030C0000
    ts->recursion_remaining = ts->recursion_limit - saved->recursion;
#else
    ts->py_recursion_remaining = ts->py_recursion_limit - saved->recursion;
#if PY_VERSION_HEX < 0x030E0000
    ts->c_recursion_remaining = saved->c_recursion;
#endif
#endif

    if (ts->c_traceobj != saved->traceobj || ts->c_tracefunc != saved->tracefunc)
        PyEval_SetTrace(saved->tracefunc, saved->traceobj);
    if (ts->c_profileobj != saved->profileobj || ts->c_profilefunc != saved->profilefunc)
        PyEval_SetProfile(saved->profilefunc, saved->profileobj);
    Py_XDECREF(saved->traceobj);
    Py_XDECREF(saved->profileobj);
    Py_XDECREF(firstiter);
    Py_XDECREF(finalizer);
    Py_XDECREF(context);
    Py_XDECREF(saved->exc.exc_value);
}
