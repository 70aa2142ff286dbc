/* Loops from Python: the GIL is let go, the C function runs on this thread and on those that help, signals are looked at. */
#include "native.h"

#include <string.h>

/* ---- running a loop ------------------------------------------------------------------------------------------------------ */

int loop_prepare(state_t *st)
{
    if (st->started || host_prepare(st) == 0)
        return 0;
    if (!PyErr_ExceptionMatches(st->ShutdownError))
        return -1;
    PyErr_Clear(); /* an exit function, or a destructor at the very end: no thread is started for it */
    return 0;
}

typedef struct {
    state_t *st;
    tether_runtime_t *rt;
    PyThreadState *ts;
} watch_t;

static bool look(void *arg)
{
    watch_t *watch = arg;
    PyEval_RestoreThread(watch->ts);
    bool raised = look_at_signals() < 0 || need_own(watch->st, watch->rt) < 0; /* a handler may have forked */
    watch->ts = PyEval_SaveThread();
    return !raised;
}

tether_status_t loop_run(state_t *st, tether_thread_t *thread, tether_loop_t *loop)
{
    watch_t watch = {.st = st, .rt = load_relaxed(&thread->rt)};
    if (thread->ident == st->main_thread) { /* signals are its own */
        loop->look = look;
        loop->look_arg = &watch;
    }
    watch.ts = PyEval_SaveThread();
    tether_wait_enter(thread);
    tether_status_t status = tether_loop_run(thread, loop);
    tether_wait_leave(thread);
    PyEval_RestoreThread(watch.ts);
    if (status != TETHER_CANCELLED)
        return status;
    raise_cancelled(st, thread);
    return TETHER_INTERRUPTED;
}

/* ---- the function -------------------------------------------------------------------------------------------------------- */

typedef struct {
    callee_t callee;
    void *user_data;
    char *data;      /* CALLEE_BYTES */
    size_t first;    /* CALLEE_RANGE: number of the first index; else offset of the first byte in the region */
} call_t;

typedef int range_int_t(intptr_t begin, intptr_t end, void *user_data);
typedef intptr_t range_long_t(intptr_t begin, intptr_t end, void *user_data);
typedef void range_nothing_t(intptr_t begin, intptr_t end, void *user_data);
typedef int bytes_int_t(void *data, size_t bytes, size_t offset, void *user_data);
typedef intptr_t bytes_long_t(void *data, size_t bytes, size_t offset, void *user_data);
typedef void bytes_nothing_t(void *data, size_t bytes, size_t offset, void *user_data);

static int narrowed(intptr_t answer) { return answer == (int)answer ? (int)answer : answer < 0 ? -1 : 1; }

static int call_range(void *arg, size_t begin, size_t end)
{
    const call_t *c = arg;
    intptr_t from = (intptr_t)(c->first + begin), to = (intptr_t)(c->first + end);
    if (c->callee.answer == ANSWERS_INT)
        return ((range_int_t *)c->callee.address)(from, to, c->user_data);
    if (c->callee.answer == ANSWERS_LONG)
        return narrowed(((range_long_t *)c->callee.address)(from, to, c->user_data));
    ((range_nothing_t *)c->callee.address)(from, to, c->user_data);
    return 0;
}

static int call_bytes(void *arg, size_t begin, size_t end)
{
    const call_t *c = arg;
    char *data = c->data + begin;
    if (c->callee.answer == ANSWERS_INT)
        return ((bytes_int_t *)c->callee.address)(data, end - begin, c->first + begin, c->user_data);
    if (c->callee.answer == ANSWERS_LONG)
        return narrowed(((bytes_long_t *)c->callee.address)(data, end - begin, c->first + begin, c->user_data));
    ((bytes_nothing_t *)c->callee.address)(data, end - begin, c->first + begin, c->user_data);
    return 0;
}

/* ---- what it is given ---------------------------------------------------------------------------------------------------- */

/* The address that user_data means. A buffer is held until the call is over. */
static int data_from(PyObject *object, void **address, bytes_t *held, state_t *st)
{
    if (object == NULL || object == Py_None)
        return 0;
    if (PyLong_Check(object)) {
        *address = PyLong_AsVoidPtr(object);
        return *address == NULL && PyErr_Occurred() ? -1 : 0;
    }
    if (PyCapsule_CheckExact(object)) {
        *address = PyCapsule_GetPointer(object, PyCapsule_GetName(object));
        return *address == NULL ? -1 : 0;
    }
    /* Pointers of ctypes are buffers, too, of the pointer itself; all of its classes have a metaclass of their own. */
    PyObject *meant = NULL;
    if (!PyObject_CheckBuffer(object) || Py_TYPE(Py_TYPE(object)) != &PyType_Type) {
        PyObject *module = PyImport_ImportModule("tether._callee");
        meant = module ? PyObject_CallMethod(module, "data", "O", object) : NULL;
        Py_XDECREF(module);
        if (meant == NULL)
            return -1;
        object = meant;
    }
    int r;
    if (PyLong_Check(object)) {
        *address = PyLong_AsVoidPtr(object);
        r = *address == NULL && PyErr_Occurred() ? -1 : 0;
    } else {
        r = bytes_take(st, object, false, false, held);
        *address = held->data;
    }
    Py_XDECREF(meant);
    return r;
}

static int index_from(PyObject *number, intptr_t *n)
{
    *n = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    return *n == -1 && PyErr_Occurred() ? -1 : 0;
}

/* A number n, or a range. */
static int range_from(PyObject *object, call_t *call, size_t *n)
{
    intptr_t start = 0, stop = 0, step = 1;
    if (PyRange_Check(object)) {
        static const char *const names[] = {"start", "stop", "step"};
        intptr_t *const numbers[] = {&start, &stop, &step};
        for (int i = 0; i < 3; i++) {
            PyObject *number = PyObject_GetAttrString(object, names[i]);
            int r = number ? index_from(number, numbers[i]) : -1;
            Py_XDECREF(number);
            if (r < 0)
                return -1;
        }
        if (step != 1) {
            PyErr_Format(PyExc_ValueError, "a range of parallel_for has step 1, not %zd: let the function step", step);
            return -1;
        }
        if (stop < start)
            stop = start;
        if (start < 0 && stop > INTPTR_MAX + start) {
            PyErr_Format(PyExc_ValueError, "a range of parallel_for has at most 2**63 - 1 numbers, not those of %R", object);
            return -1;
        }
    } else if (index_from(object, &stop) < 0) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            PyErr_Format(PyExc_TypeError, "this function takes a range of numbers: give an int or a range, not %.100s",
                         Py_TYPE(object)->tp_name);
        }
        return -1;
    } else if (stop < 0) {
        PyErr_Format(PyExc_ValueError, "parallel_for needs a number that is not negative, not %R", object);
        return -1;
    }
    call->first = (size_t)start;
    *n = (size_t)(stop - start);
    return 0;
}

static int memory_from(state_t *st, PyObject *object, call_t *call, bytes_t *memory, size_t *n)
{
    if (PyLong_Check(object) || PyRange_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "this function takes memory (void *data, size_t bytes, size_t offset, void "
                                         "*user_data): give a Region or a borrow of one, not a range of numbers");
        return -1;
    }
    if (bytes_take(st, object, !call->callee.only_reads, true, memory) < 0)
        return -1;
    call->data = memory->data;
    *n = memory->size;
    PyObject *source = memory->lent ? memory->lent : object;
    call->first = is_borrow(st, source) ? ((borrow_t *)source)->loan.start : 0;
    return 0;
}

static int positive(PyObject *object, const char *what, size_t most, size_t *n)
{
    if (object == NULL || object == Py_None)
        return 0;
    Py_ssize_t given = PyNumber_AsSsize_t(object, NULL);
    if (given == -1 && PyErr_Occurred())
        return -1;
    if (given < 1) {
        PyErr_Format(PyExc_ValueError, "%s must be at least 1, not %R", what, object);
        return -1;
    }
    *n = (size_t)given < most ? (size_t)given : most;
    return 0;
}

static int schedule_from(PyObject *object, bool *guided)
{
    *guided = object == NULL || (PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, "guided") == 0);
    if (*guided || (PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, "static") == 0))
        return 0;
    PyErr_Format(PyExc_ValueError, "schedule must be 'guided' or 'static', not %R", object);
    return -1;
}

static void raise_failed(PyObject *func, const call_t *call, const tether_loop_t *loop)
{
    PyObject *cause = take_exception(); /* a body that runs here may have set one, and answered so */
    PyObject *module = PyImport_ImportModule("tether._callee");
    PyObject *exc = module ? PyObject_CallMethod(module, "failed", "OinnO", func, loop->code,
                                                 (Py_ssize_t)(call->first + loop->begin), (Py_ssize_t)(call->first + loop->end),
                                                 call->callee.kind == CALLEE_BYTES ? Py_True : Py_False)
                           : NULL;
    Py_XDECREF(module);
    if (exc == NULL) {
        Py_XDECREF(cause);
        return;
    }
    PyException_SetCause(exc, cause);
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
}

enum { FUNC, WHAT, USER_DATA, GRAIN, SCHEDULE, THREADS, SIGNATURE, SLOTS };

/* Four positional ones, the others by name. */
static int arguments(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject *slots[SLOTS])
{
    static const char *const names[SLOTS] = {"func", "region_or_n", "user_data", "grain", "schedule", "threads", "signature"};
    memset(slots, 0, SLOTS * sizeof *slots);
    if (nargs > SCHEDULE) {
        PyErr_Format(PyExc_TypeError, "parallel_for() takes at most 4 positional arguments (%zd given)", nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++)
        slots[i] = args[i];
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int slot = 0;
        while (slot < SLOTS && PyUnicode_CompareWithASCIIString(name, names[slot]) != 0)
            slot++;
        if (slot == SLOTS || slots[slot] != NULL) {
            PyErr_Format(PyExc_TypeError, "parallel_for() got an unexpected or repeated argument %R", name);
            return -1;
        }
        slots[slot] = args[nargs + i];
    }
    if (slots[FUNC] == NULL || slots[WHAT] == NULL) {
        PyErr_SetString(PyExc_TypeError, "parallel_for() needs a function, and a number or a region");
        return -1;
    }
    return 0;
}

enum { PAGE = 4096 };

static int run(state_t *st, tether_thread_t *thread, PyObject **slots, call_t *call, size_t n)
{
    bool bytes = call->callee.kind == CALLEE_BYTES;
    size_t threads = 0;
    tether_loop_t loop = {.n = n, .body = bytes ? call_bytes : call_range, .arg = call};
    if (positive(slots[GRAIN], "grain", PY_SSIZE_T_MAX, &loop.grain) < 0 ||
        positive(slots[THREADS], "threads", 1024, &threads) < 0 || schedule_from(slots[SCHEDULE], &loop.guided) < 0)
        return -1;
    if (bytes && loop.guided && loop.grain == 0)
        loop.grain = PAGE;
    if (bytes && !loop.guided && loop.grain == 0) { /* whole pages, too */
        size_t share = n / (threads != 0 ? threads : st->rt->cores) + 1;
        loop.grain = (share + PAGE - 1) / PAGE * PAGE;
    }
    loop.threads = (unsigned)threads;
    tether_status_t status = loop_run(st, thread, &loop);
    if (status == TETHER_FAILED)
        raise_failed(slots[FUNC], call, &loop);
    return status == TETHER_OK ? 0 : -1;
}

PyObject *loop_parallel_for(state_t *st, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *slots[SLOTS];
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL || arguments(args, nargs, kwnames, slots) < 0 || loop_prepare(st) < 0)
        return NULL;
    call_t call = {.first = 0};
    bytes_t memory = {0}, user = {0};
    size_t n;
    int r = callee_from(st, slots[FUNC], slots[SIGNATURE], &call.callee);
    call.user_data = call.callee.user_data;
    if (r == 0)
        r = data_from(slots[USER_DATA], &call.user_data, &user, st);
    if (r == 0)
        r = call.callee.kind == CALLEE_RANGE ? range_from(slots[WHAT], &call, &n)
                                             : memory_from(st, slots[WHAT], &call, &memory, &n);
    if (r == 0)
        r = run(st, thread, slots, &call, n);
    PyObject *exc = r < 0 ? take_exception() : NULL;
    bytes_give_back(&memory);
    bytes_give_back(&user);
    callee_clear(&call.callee);
    if (exc != NULL)
        give_exception(exc);
    return r < 0 ? NULL : Py_NewRef(Py_None);
}
