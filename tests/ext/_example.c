/* An extension that uses tether's C API (tether.h), for tests/test_c_api.py, and to copy from. State is the module's own, so it
 * loads in every interpreter that tether loads in. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <tether.h>

typedef struct {
    const TetherAPI *tether;
} state_t;

static const TetherAPI *api_of(PyObject *module) { return ((state_t *)PyModule_GetState(module))->tether; }

static void nap(void)
{
    struct timespec t = {0, 100000};
    nanosleep(&t, NULL);
}

/* ---- recursion: a scope and a task at every node ------------------------------------------------------------------------- */

typedef struct {
    const TetherAPI *tether;
    int n;
    long value;
} fib_t;

static int fib(void *arg)
{
    fib_t *f = arg;
    if (f->n < 2) {
        f->value = f->n;
        return 0;
    }
    fib_t one = {f->tether, f->n - 1, 0}, two = {f->tether, f->n - 2, 0};
    TetherScope *scope;
    if (Tether_Open(f->tether, 0, &scope) != Tether_OK)
        return 1;
    TetherTask *task;
    if (Tether_Spawn(f->tether, scope, fib, &one, "fib", &task) != Tether_OK) {
        task = NULL;
        fib(&one); /* the interpreter is about to end, or there is no memory: it is but a call */
    }
    fib(&two);
    TetherStatus joined = task != NULL ? Tether_Join(f->tether, task, NULL) : Tether_OK;
    if (joined == Tether_CANCELLED || joined == Tether_DEADLOCK)
        Tether_Drop(f->tether, task);
    f->value = one.value + two.value;
    return Tether_Close(f->tether, scope, NULL) != Tether_OK || joined != Tether_OK;
}

static PyObject *example_fib(PyObject *module, PyObject *arg)
{
    long n = PyLong_AsLong(arg);
    if (n == -1 && PyErr_Occurred())
        return NULL;
    fib_t f = {api_of(module), (int)n, 0};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = fib(&f);
    Py_END_ALLOW_THREADS
    return failed ? PyErr_Format(PyExc_RuntimeError, "fib failed") : PyLong_FromLong(f.value);
}

/* ---- n tasks ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const TetherAPI *tether;
    TetherScope *scope;
    _Atomic long ran, inside;
    long wanted;        /* tasks that wait for one another */
    long fails_with;    /* the first to run answers it */
    int endless;        /* until they are cancelled */
} crew_t;

static int work(void *arg)
{
    crew_t *crew = arg;
    long number = atomic_fetch_add(&crew->ran, 1);
    atomic_fetch_add(&crew->inside, 1);
    for (long i = 0; i < 600000 && atomic_load(&crew->inside) < crew->wanted; i++)
        nap();
    while (crew->endless && !Tether_Cancelled(crew->tether))
        nap();
    return number == 0 ? (int)crew->fails_with : 0;
}

static TetherStatus run_crew(crew_t *crew, long n, unsigned flags, int *code)
{
    TetherStatus status = Tether_Open(crew->tether, flags, &crew->scope);
    if (status != Tether_OK)
        return status;
    for (long i = 0; i < n && status == Tether_OK; i++)
        status = Tether_Spawn(crew->tether, crew->scope, work, crew, i % 2 ? "odd" : NULL, NULL);
    TetherStatus closed = Tether_Close(crew->tether, crew->scope, code);
    return status != Tether_OK ? status : closed;
}

/* crew(n, wanted=0, fails_with=0, flags=0, endless=0) -> (status, code, how many ran) */
static PyObject *example_crew(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n", "wanted", "fails_with", "flags", "endless", NULL};
    crew_t crew = {.tether = api_of(module)};
    long n;
    unsigned flags = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "l|llIi", names, &n, &crew.wanted, &crew.fails_with, &flags, &crew.endless))
        return NULL;
    TetherStatus status;
    int code = 0;
    Py_BEGIN_ALLOW_THREADS
    status = run_crew(&crew, n, flags, &code);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(iil)", (int)status, code, atomic_load(&crew.ran));
}

/* From a native thread that Python has never seen. */
static void *from_outside(void *arg)
{
    crew_t *crew = arg;
    int code = 0;
    crew->wanted = run_crew(crew, 20, 0, &code);
    return NULL;
}

static PyObject *example_outside(PyObject *module, PyObject *unused)
{
    (void)unused;
    crew_t crew = {.tether = api_of(module)};
    pthread_t thread;
    if (pthread_create(&thread, NULL, from_outside, &crew) != 0)
        return PyErr_Format(PyExc_RuntimeError, "no thread");
    Py_BEGIN_ALLOW_THREADS
    pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(ll)", crew.wanted, atomic_load(&crew.ran));
}

/* Attached all the time, until the last: tasks need no GIL. (Waiting with it is the one thing not to do, tether.h.) */
static PyObject *example_attached(PyObject *module, PyObject *unused)
{
    (void)unused;
    crew_t crew = {.tether = api_of(module)};
    TetherStatus status = Tether_Open(crew.tether, 0, &crew.scope);
    for (int i = 0; i < 10 && status == Tether_OK; i++)
        status = Tether_Spawn(crew.tether, crew.scope, work, &crew, "attached", NULL);
    for (long i = 0; i < 600000 && atomic_load(&crew.ran) < 10; i++)
        nap();
    Py_BEGIN_ALLOW_THREADS
    Tether_Close(crew.tether, crew.scope, NULL);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(il)", (int)status, atomic_load(&crew.ran));
}

/* A task that takes the GIL and calls a Python function. */
static int call_python(void *arg)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *result = PyObject_CallNoArgs(arg);
    if (result == NULL)
        PyErr_WriteUnraisable(arg);
    Py_XDECREF(result);
    PyGILState_Release(gil);
    return result == NULL;
}

static PyObject *example_calls(PyObject *module, PyObject *args)
{
    const TetherAPI *tether = api_of(module);
    PyObject *fn;
    long n;
    TetherScope *scope;
    TetherStatus status;
    int code = 0;
    if (!PyArg_ParseTuple(args, "Ol", &fn, &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = Tether_Open(tether, Tether_WAIT_ALL, &scope);
    for (long i = 0; i < n && status == Tether_OK; i++)
        status = Tether_Spawn(tether, scope, call_python, fn, "calls", NULL);
    TetherStatus closed = Tether_Close(tether, scope, &code);
    status = status == Tether_OK ? closed : status;
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(ii)", (int)status, code);
}

/* ---- joins --------------------------------------------------------------------------------------------------------------- */

static int answer(void *arg) { return *(int *)arg; }

/* joins(answers) -> [(status, code)], joined in order; the scope's own (status, code) last. */
static PyObject *example_joins(PyObject *module, PyObject *args)
{
    enum { MOST = 100 };
    const TetherAPI *tether = api_of(module);
    int answers[MOST], codes[MOST + 1] = {0};
    TetherStatus statuses[MOST + 1];
    TetherTask *tasks[MOST];
    PyObject *list;
    int late;
    if (!PyArg_ParseTuple(args, "O!p", &PyList_Type, &list, &late))
        return NULL;
    int n = (int)PyList_GET_SIZE(list);
    for (int i = 0; i < n; i++)
        answers[i] = (int)PyLong_AsLong(PyList_GET_ITEM(list, i));
    Py_BEGIN_ALLOW_THREADS
    TetherScope *scope;
    Tether_Open(tether, Tether_WAIT_ALL, &scope);
    for (int i = 0; i < n; i++)
        Tether_Spawn(tether, scope, answer, &answers[i], "answer", &tasks[i]);
    if (late) /* handles may be joined when the scope has gone */
        statuses[n] = Tether_Close(tether, scope, &codes[n]);
    for (int i = 0; i < n; i++)
        statuses[i] = Tether_Join(tether, tasks[i], &codes[i]);
    if (!late)
        statuses[n] = Tether_Close(tether, scope, &codes[n]);
    Py_END_ALLOW_THREADS
    PyObject *result = PyList_New(0);
    for (int i = 0; i <= n && result != NULL; i++) {
        PyObject *pair = Py_BuildValue("(ii)", (int)statuses[i], codes[i]);
        if (pair == NULL || PyList_Append(result, pair) < 0)
            Py_CLEAR(result);
        Py_XDECREF(pair);
    }
    return result;
}

/* ---- a loop -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    _Atomic long sum;
    intptr_t bad;
} sum_t;

static int add_up(intptr_t begin, intptr_t end, void *user_data)
{
    sum_t *sum = user_data;
    long part = 0;
    for (intptr_t i = begin; i < end; i++)
        part += i;
    atomic_fetch_add(&sum->sum, part);
    return begin <= sum->bad && sum->bad < end ? 5 : 0;
}

/* loop(n, bad, grain, threads, is_static) -> (status, sum, code, begin, end) */
static PyObject *example_loop(PyObject *module, PyObject *args)
{
    const TetherAPI *tether = api_of(module);
    sum_t sum = {0};
    Py_ssize_t n, bad, grain;
    TetherSchedule schedule = {0, 0, 0};
    TetherFailure failure = {0, -1, -1};
    if (!PyArg_ParseTuple(args, "nnnII", &n, &bad, &grain, &schedule.threads, &schedule.is_static))
        return NULL;
    sum.bad = bad;
    schedule.grain = grain;
    TetherStatus status;
    Py_BEGIN_ALLOW_THREADS
    status = Tether_ParallelFor(tether, add_up, n, &sum, &schedule, &failure);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(ilinn)", (int)status, atomic_load(&sum.sum), failure.code, (Py_ssize_t)failure.begin,
                         (Py_ssize_t)failure.end);
}

/* ---- borrows ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const TetherAPI *tether;
    TetherRegion *region;
    TetherBorrow *borrow;
    unsigned char *data;
    size_t size;
} held_t;

static void held_free(PyObject *capsule)
{
    held_t *held = PyCapsule_GetPointer(capsule, "held");
    if (held->borrow != NULL)
        Tether_Release(held->tether, held->borrow);
    Tether_Unpin(held->tether, held->region);
    free(held);
}

/* borrow(region, start, stop, exclusive, timeout in seconds) -> (status, a capsule that holds it or None) */
static PyObject *example_borrow(PyObject *module, PyObject *args)
{
    PyObject *region;
    Py_ssize_t start, stop;
    int exclusive;
    double timeout;
    if (!PyArg_ParseTuple(args, "Onnpd", &region, &start, &stop, &exclusive, &timeout))
        return NULL;
    held_t *held = calloc(1, sizeof *held);
    if (held == NULL)
        return PyErr_NoMemory();
    held->tether = api_of(module);
    held->region = Tether_Pin(held->tether, region);
    if (held->region == NULL) {
        free(held);
        return NULL;
    }
    TetherStatus status;
    void *data = NULL;
    size_t end = stop < 0 ? SIZE_MAX : (size_t)stop;
    int64_t wait = timeout < 0 ? -1 : (int64_t)(timeout * 1e9);
    Py_BEGIN_ALLOW_THREADS
    if (exclusive)
        status = Tether_BorrowMut(held->tether, held->region, (size_t)start, end, wait, &held->borrow, &data);
    else
        status = Tether_Share(held->tether, held->region, (size_t)start, end, wait, &held->borrow, &data);
    Py_END_ALLOW_THREADS
    held->data = data;
    held->size = stop < 0 ? 0 : (size_t)(stop - start);
    PyObject *capsule = PyCapsule_New(held, "held", held_free);
    if (capsule == NULL)
        return NULL;
    if (status == Tether_OK)
        return Py_BuildValue("(iN)", 0, capsule);
    Py_DECREF(capsule);
    return Py_BuildValue("(iO)", (int)status, Py_None);
}

static PyObject *example_write(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *capsule;
    unsigned char value;
    if (!PyArg_ParseTuple(args, "Ob", &capsule, &value))
        return NULL;
    held_t *held = PyCapsule_GetPointer(capsule, "held");
    if (held == NULL)
        return NULL;
    memset(held->data, value, held->size);
    Py_RETURN_NONE;
}

/* A task that borrows and does not give back: its borrow ends with it. The handle is freed afterwards. */
typedef struct {
    const TetherAPI *tether;
    TetherRegion *region;
    TetherBorrow *borrow;
    TetherStatus status;
} keeper_t;

static int keep(void *arg)
{
    keeper_t *keeper = arg;
    void *data;
    keeper->status = Tether_BorrowMut(keeper->tether, keeper->region, 0, SIZE_MAX, -1, &keeper->borrow, &data);
    return 0;
}

static PyObject *example_keepers(PyObject *module, PyObject *args)
{
    enum { MOST = 64 };
    const TetherAPI *tether = api_of(module);
    PyObject *region;
    int n, granted = 0;
    if (!PyArg_ParseTuple(args, "Oi", &region, &n) || n > MOST)
        return NULL;
    TetherRegion *pinned = Tether_Pin(tether, region);
    if (pinned == NULL)
        return NULL;
    keeper_t keepers[MOST];
    TetherScope *scope;
    Py_BEGIN_ALLOW_THREADS
    Tether_Open(tether, 0, &scope);
    for (int i = 0; i < n; i++) {
        keepers[i] = (keeper_t){tether, pinned, NULL, Tether_INVALID};
        Tether_Spawn(tether, scope, keep, &keepers[i], "keeper", NULL);
    }
    Tether_Close(tether, scope, NULL);
    Py_END_ALLOW_THREADS
    for (int i = 0; i < n; i++) {
        granted += keepers[i].status == Tether_OK;
        if (keepers[i].borrow != NULL)
            Tether_Release(tether, keepers[i].borrow);
    }
    Tether_Unpin(tether, pinned);
    return PyLong_FromLong(granted);
}

/* ---- fork ---------------------------------------------------------------------------------------------------------------- */

/* open() -> a scope, as an address; the others take it. */
static PyObject *example_open(PyObject *module, PyObject *unused)
{
    (void)unused;
    TetherScope *scope;
    TetherStatus status = Tether_Open(api_of(module), 0, &scope);
    return status == Tether_OK ? PyLong_FromVoidPtr(scope) : PyErr_Format(PyExc_RuntimeError, "status %d", (int)status);
}

static int zero = 0;

static PyObject *example_use(PyObject *module, PyObject *address)
{
    const TetherAPI *tether = api_of(module);
    TetherScope *scope = PyLong_AsVoidPtr(address);
    TetherStatus spawned = Tether_Spawn(tether, scope, answer, &zero, "late", NULL), closed;
    Py_BEGIN_ALLOW_THREADS
    closed = Tether_Close(tether, scope, NULL);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(ii)", (int)spawned, (int)closed);
}

static PyMethodDef methods[] = {
    {"fib", example_fib, METH_O, NULL},
    {"crew", (PyCFunction)(void (*)(void))example_crew, METH_VARARGS | METH_KEYWORDS, NULL},
    {"outside", example_outside, METH_NOARGS, NULL},
    {"attached", example_attached, METH_NOARGS, NULL},
    {"calls", example_calls, METH_VARARGS, NULL},
    {"joins", example_joins, METH_VARARGS, NULL},
    {"loop", example_loop, METH_VARARGS, NULL},
    {"borrow", example_borrow, METH_VARARGS, NULL},
    {"write", example_write, METH_VARARGS, NULL},
    {"keepers", example_keepers, METH_VARARGS, NULL},
    {"open", example_open, METH_NOARGS, NULL},
    {"use", example_use, METH_O, NULL},
    {0},
};

static int example_exec(PyObject *module)
{
    state_t *state = PyModule_GetState(module);
    state->tether = Tether_Import();
    return state->tether == NULL ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, example_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_example", .m_size = sizeof(state_t), .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__example(void);
PyMODINIT_FUNC PyInit__example(void) { return PyModuleDef_Init(&definition); }
