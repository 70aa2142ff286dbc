/* The module tether._core. Multi-phase, all state in the module, nothing static that holds Python objects: it loads in
 * sub-interpreters with a GIL of their own, and leaves the GIL of free-threaded builds off. */
#include "native.h"

#include <stdlib.h>

tether_thread_t *need_thread(state_t *st)
{
    tether_thread_t *thread = tether_thread(st->rt);
    if (thread == NULL)
        PyErr_NoMemory();
    return thread;
}

tether_thread_t *have_thread(state_t *st)
{
    tether_thread_t *thread;
    while ((thread = tether_thread(st->rt)) == NULL)
        nap();
    return thread;
}

void nap(void)
{
    _Atomic uint32_t never = 0;
    PyThreadState *ts = PyEval_SaveThread();
    tether_futex_wait(&never, 0, tether_now() + 1000000);
    PyEval_RestoreThread(ts);
}

PyObject *dict_get(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *item;
    (void)PyDict_GetItemRef(dict, key, &item);
    return item;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

PyObject *dict_item(PyObject *dict, const char *name)
{
    PyObject *key = PyUnicode_FromString(name);
    PyObject *item = key ? dict_get(dict, key) : NULL;
    Py_XDECREF(key);
    return item;
}

static state_t *st_of(PyObject *module) { return PyModule_GetState(module); }

static PyObject *core_spawn(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return spawn_call(st_of(module), NULL, NULL, args, nargs, kwnames);
}

static PyObject *core_options(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return options_new(st_of(module), NULL, args, kwargs);
}

static PyObject *core_scope(PyObject *module, PyObject *args, PyObject *kwargs)
{
    return scope_new(st_of(module), args, kwargs);
}

static PyObject *core_current(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = st_of(module);
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL)
        return NULL;
    tether_task_t *top = load_relaxed(&thread->top);
    return ref_new(st, top ? job_of(top) : NULL);
}

static PyObject *core_checkpoint(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = st_of(module);
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL || checkpoint(st, thread) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *core_sleep(PyObject *module, PyObject *seconds)
{
    state_t *st = st_of(module);
    uint64_t deadline;
    if (seconds == Py_None)
        return PyErr_Format(PyExc_TypeError, "sleep() needs a number of seconds, not None");
    if (deadline_from(seconds, &deadline, "sleep length") < 0)
        return NULL;
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL || wait_sleep(st, thread, deadline) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- looking around ---------------------------------------------------------------------------------------------- */

static void note_task(tether_task_t *task, void *arg)
{
    guards_t *list = arg;
    if (list->n < list->room) {
        tether_task_ref(task);
        list->tasks[list->n] = task;
    }
    list->n++; /* beyond `room` they are only counted */
}

static PyObject *core_tasks(PyObject *module, PyObject *unused)
{
    (void)unused;
    state_t *st = st_of(module);
    guards_t found = {0};
    for (size_t room = (size_t)tether_runtime_live(st->rt) + 64;; room = found.n + 64) {
        found = (guards_t){.room = room, .tasks = PyMem_Malloc(room * sizeof(tether_task_t *))};
        if (found.tasks == NULL)
            return PyErr_NoMemory();
        tether_lane_each(st->rt, note_task, &found);
        if (found.n <= room)
            break;
        size_t n = found.n;
        found.n = room;
        guards_clear(&found);
        found.n = n; /* more have come meanwhile: again with more room */
    }
    return refs_list(st, &found);
}

static PyObject *core_counters(PyObject *module, PyObject *unused)
{
    (void)unused;
    tether_runtime_t *rt = st_of(module)->rt;
    tether_lane_queued(rt, true);
    return Py_BuildValue("KKKIKIIKK", (unsigned long long)tether_runtime_live(rt),
                         (unsigned long long)(tether_lane_queued(rt, false) + tether_lane_waiting(rt)),
                         (unsigned long long)tether_lane_running(rt), (unsigned)tether_crew_busy(rt),
                         (unsigned long long)(tether_lane_armed(rt) < 0 ? 0 : tether_lane_armed(rt)),
                         (unsigned)load_relaxed(&rt->scopes_open), (unsigned)load_relaxed(&rt->regions),
                         (unsigned long long)(tether_lane_lent(rt) < 0 ? 0 : tether_lane_lent(rt)),
                         (unsigned long long)load_relaxed(&rt->bytes_mapped));
}

static PyObject *core_facts(PyObject *module, PyObject *unused)
{
    (void)unused;
    static const char *const places[] = {"auto", "inline", "thread", "random"};
    state_t *st = st_of(module);
    return Py_BuildValue("{s:O,s:I,s:I,s:s,s:I,s:n,s:I}", "gil", st->rt->host.serial ? Py_True : Py_False, "cores",
                         st->rt->cores, "lanes", st->rt->lanes_used, "place", places[st->place], "max_threads",
                         (unsigned)load_relaxed(&st->rt->max_threads), "task_bytes", (Py_ssize_t)sizeof(job_t), "crew",
                         (unsigned)load_relaxed(&st->rt->crew.alive));
}

static PyObject *core_configure(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"check", "max_threads", NULL};
    PyObject *check = Py_None, *most = Py_None;
    state_t *st = st_of(module);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OO:configure", names, &check, &most) || !check_is_valid(check))
        return NULL;
    if (most != Py_None) {
        long n = PyLong_AsLong(most);
        if (n == -1 && PyErr_Occurred())
            return NULL;
        if (n < 1 || n > 1000000)
            return PyErr_Format(PyExc_ValueError, "max_threads must be from 1 to 1000000, not %ld", n);
        store_relaxed(&st->rt->max_threads, (uint32_t)n);
    }
    Py_RETURN_NONE;
}

static PyObject *core_report_unraisable(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *exc, *where;
    if (!PyArg_ParseTuple(args, "OU:_report_unraisable", &exc, &where))
        return NULL;
    if (!PyExceptionInstance_Check(exc))
        return PyErr_Format(PyExc_TypeError, "not an exception");
    give_exception(Py_NewRef(exc));
    PyErr_WriteUnraisable(where);
    Py_RETURN_NONE;
}

/* ---- for _restart.py and _supervisor.py -------------------------------------------------------------------------- */

static PyObject *core_supervise(PyObject *module, PyObject *args)
{
    PyObject *scope, *policy;
    if (!PyArg_ParseTuple(args, "OO:_supervise", &scope, &policy) || scope_supervise(st_of(module), scope, policy) < 0)
        return NULL;
    return Py_NewRef(scope);
}

static PyObject *core_renew(PyObject *module, PyObject *ref)
{
    bool is_ref;
    job_t *job = ref_job(st_of(module), ref, &is_ref);
    if (!is_ref)
        return PyErr_Format(PyExc_TypeError, "not a TaskRef");
    return PyBool_FromLong(job != NULL && !job_is_foreign(job) && tether_task_renew(&job->task));
}

static PyObject *core_spare(PyObject *module, PyObject *unused)
{
    (void)unused;
    tether_thread_t *thread = need_thread(st_of(module));
    if (thread == NULL)
        return NULL;
    tether_task_t *top = load_relaxed(&thread->top);
    return PyBool_FromLong(top != NULL && tether_task_spare(top));
}

/* For destructors written in Python: are we called by the cyclic collector, where nothing may wait (G5)? */
static PyObject *core_collecting(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(load_relaxed(&st_of(module)->collecting) == (unsigned long)PyThread_get_thread_ident());
}

/* No exception may come between taking the lock and whoever lets it go; in Python code, not even in a `with` statement of 3.14,
 * there is no such place. */
static PyObject *core_locked(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    (void)module;
    if (nargs < 2)
        return PyErr_Format(PyExc_TypeError, "_locked(lock, fn, *args)");
    PyObject *r = PyObject_CallMethod(args[0], "acquire", NULL);
    if (r == NULL)
        return NULL;
    Py_DECREF(r);
    r = PyObject_Vectorcall(args[1], args + 2, (size_t)(nargs - 2), NULL);
    PyObject *exc = r == NULL ? take_exception() : NULL;
    PyObject *released = PyObject_CallMethod(args[0], "release", NULL);
    if (released == NULL)
        PyErr_WriteUnraisable(args[0]);
    Py_XDECREF(released);
    if (exc != NULL)
        give_exception(exc);
    return r;
}

static PyObject *core_run_of(PyObject *module, PyObject *ref)
{
    bool is_ref;
    state_t *st = st_of(module);
    job_t *job = ref_job(st, ref, &is_ref);
    if (!is_ref)
        return PyErr_Format(PyExc_TypeError, "not a TaskRef");
    PyObject *run = job != NULL && !job_is_foreign(job) ? restart_run_of(st, job) : NULL;
    return run ? run : Py_NewRef(Py_None);
}

/* ---- for native.py ------------------------------------------------------------------------------------------------------ */

static PyObject *core_parallel_for(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return loop_parallel_for(st_of(module), args, nargs, kwnames);
}

static PyObject *core_fill(PyObject *module, PyObject *args) { return kernel_fill(st_of(module), args); }
static PyObject *core_copy(PyObject *module, PyObject *args) { return kernel_copy(st_of(module), args); }
static PyObject *core_reduce(PyObject *module, PyObject *args) { return kernel_reduce(st_of(module), args); }

static PyObject *core_fail_nth(PyObject *module, PyObject *args)
{
    (void)module;
    const char *kind;
    long nth;
    if (!PyArg_ParseTuple(args, "sl:_fail_nth", &kind, &nth))
        return NULL;
    tether_fail_t what = strcmp(kind, "thread") == 0  ? TETHER_FAIL_THREAD
                         : strcmp(kind, "pages") == 0 ? TETHER_FAIL_PAGES
                                                      : TETHER_FAIL_ALLOC;
    return PyLong_FromLong(tether_fail_nth(what, nth));
}

static PyMethodDef methods[] = {
    {"spawn", (PyCFunction)(void (*)(void))core_spawn, METH_FASTCALL | METH_KEYWORDS,
     "spawn($module, fn, /, *args, **kwargs)\n--\n\n"
     "Spawns fn(*args, **kwargs) as a task and returns the guard that must wait for it.\n\n"
     "The task becomes a thread when it needs to be one: joined before anyone has started it, it runs in place; while others\n"
     "block, it is started elsewhere within a bounded time (G8). It has its own copy of the context and its own thread-locals\n"
     "(G18). Guards among the arguments, or in what fn closes over, move to the task (G3).\n\n"
     "Returns: JoinGuard. Raises: TypeError; OwnershipError, and nothing has moved; RuntimeError if the system gives no\n"
     "thread; ShutdownError at the interpreter's end.\n\n"
     "Lazy task creation: Mohr, Kranz and Halstead, 1991; the work-first join is Cilk's and Rayon's.\n\n"
     ">>> import tether\n>>> guard = tether.spawn(sum, [1, 2, 3])\n>>> guard.join()\n6\n"},
    {"options", (PyCFunction)(void (*)(void))core_options, METH_VARARGS | METH_KEYWORDS,
     "options($module, /, *, name=None, dedicated=False, stack_size=None, context=None, must_join=False, check=None, "
     "at_exit='join', restart=None)\n--\n\n"
     "Options for spawning: tether.options(...).spawn(fn, *args).\n\n"
     "Parameters:\n"
     "  name: shown by dump, errors and TaskRef.name.\n"
     "  dedicated: a native thread of its own from the start (for code that cares which thread it is on).\n"
     "  stack_size: bytes of that thread's stack, at least 256 KiB; implies dedicated.\n"
     "  context: the contextvars.Context to run in, instead of a copy of the spawner's.\n"
     "  must_join: dropping the guard without a join is always reported with a ResourceWarning.\n"
     "  check: 'warn', 'strict' or 'off', for captures.\n"
     "  at_exit: 'join', or 'cancel' to ask the task to end when the interpreter exits.\n"
     "  restart: a tether.Restart, by which the task is run again when it fails.\n\n"
     ">>> import tether\n>>> guard = tether.options(name='loader', dedicated=True).spawn(len, 'abc')\n>>> guard.task.name\n"
     "'loader'\n>>> guard.join()\n3\n"},
    {"scope", (PyCFunction)(void (*)(void))core_scope, METH_VARARGS | METH_KEYWORDS,
     "scope($module, /, name=None, *, on_error='cancel', timeout=None, check=None)\n--\n\n"
     "A block that joins every task spawned in it (G2): with tether.scope() as s: s.spawn(...).\n\n"
     "Failures that nobody collected are raised together as one ExceptionGroup, the body's among them.\n\n"
     "Parameters:\n"
     "  name: for dump and errors.\n"
     "  on_error: 'cancel' (the first failure cancels the siblings and the body's blocking calls) or 'wait'.\n"
     "  timeout: seconds after which the scope is cancelled; TimeoutError is raised when all have ended.\n"
     "  check: the default for its tasks.\n\n"
     ">>> import tether\n>>> with tether.scope() as s:\n...     squares = [s.spawn(pow, n, 2) for n in range(4)]\n"
     ">>> [square.join() for square in squares]\n[0, 1, 4, 9]\n"},
    {"current", core_current, METH_NOARGS,
     "current($module, /)\n--\n\nThe TaskRef of the task that runs here; outside any task the root (id 0)."},
    {"tasks", core_tasks, METH_NOARGS, "tasks($module, /)\n--\n\nTaskRefs of all tasks that have not ended."},
    {"checkpoint", core_checkpoint, METH_NOARGS,
     "checkpoint($module, /)\n--\n\nRaises Cancelled if this task, or a scope whose body this is, was cancelled (G12).\n"
     "Cheap: put it into long loops."},
    {"sleep", core_sleep, METH_O,
     "sleep($module, seconds, /)\n--\n\nSleeps, letting others run; a cancellation point (G12). seconds: not negative."},
    {"configure", (PyCFunction)(void (*)(void))core_configure, METH_VARARGS | METH_KEYWORDS,
     "configure($module, /, *, check=None, max_threads=None)\n--\n\n"
     "Settings of this interpreter.\n\n"
     "Parameters:\n"
     "  check: the default of spawn and scopes: 'warn', 'strict' or 'off'.\n"
     "  max_threads: most native threads for tasks that are not dedicated; it bounds the progress guarantee (G8)."},
    {"_counters", core_counters, METH_NOARGS,
     "(live, queued, running, busy threads, guards, open scopes, regions, borrows, bytes mapped)"},
    {"_facts", core_facts, METH_NOARGS, "What this build and machine are, as a dict."},
    {"_report_unraisable", core_report_unraisable, METH_VARARGS, "Hands an exception to sys.unraisablehook."},
    {"_supervise", core_supervise, METH_VARARGS, "Gives a new scope a supervisor's policy; returns the scope."},
    {"_renew", core_renew, METH_O,
     "Asks a running task to end what it does and begin again. Was it running, and not cancelled?"},
    {"_spare", core_spare, METH_NOARGS, "Takes back such a request to the calling task. Was there one?"},
    {"_collecting", core_collecting, METH_NOARGS, "Is the calling thread inside the cyclic collector?"},
    {"_locked", (PyCFunction)(void (*)(void))core_locked, METH_FASTCALL, "fn(*args), under the lock."},
    {"_run_of", core_run_of, METH_O, "The run of a restartable task that has not ended, or None."},
    {"parallel_for", (PyCFunction)(void (*)(void))core_parallel_for, METH_FASTCALL | METH_KEYWORDS,
     "parallel_for($module, func, region_or_n, user_data=None, grain=None, *, schedule='guided', threads=None, signature=None)"
     "\n--\n\n"
     "Calls a C function for every part of a range or of memory, on all cores, with the GIL let go.\n\n"
     "The function is, over the numbers from 0 to n, or of a range with step 1,\n\n"
     "    int f(intptr_t begin, intptr_t end, void *user_data)\n\n"
     "and over the bytes of a region, or of a borrow of one,\n\n"
     "    int f(void *data, size_t bytes, size_t offset, void *user_data)\n\n"
     "where offset counts from the region's start. It may be declared void, or with const void *data if it only reads. Each\n"
     "part is given to one call; the calls run on this thread and on helpers, at the same time. Any answer but 0 is a\n"
     "failure: no further part is begun, and when all calls have returned it is raised.\n\n"
     "A Region is borrowed for the call, exclusively unless the function only reads (G13); an Exclusive is lent further. The\n"
     "function, what it came from, user_data and memory live until all calls have returned (G11). Ctrl-C and cancellation are\n"
     "noticed between parts (G12), and raised when all calls have returned.\n\n"
     "Parameters:\n"
     "  func: a PyCapsule named by its function's signature (Cython's __pyx_capi__ has them), a scipy.LowLevelCallable, a\n"
     "    function pointer of ctypes (with argtypes) or cffi, a numba @cfunc, a NativeFunction, an address with signature=.\n"
     "  region_or_n: an int, a range, a Region, a Shared (for functions that only read), an Exclusive, a contiguous buffer.\n"
     "  user_data: what the function gets as such: None, an address, a capsule, a pointer, or an object with a buffer.\n"
     "  grain: least numbers, or bytes, in a part; parts begin at multiples of it. None: 1, or 4096 bytes.\n"
     "  schedule: 'guided': parts become smaller towards the end (Polychronopoulos and Kuck, 1987), and take about 20 ms at\n"
     "    most; 'static': parts of one grain, which is an equal share for each thread unless given.\n"
     "  threads: most threads, this one among them. None: as many as there are cores.\n"
     "  signature: the function's declaration in C, where `func` does not tell.\n\n"
     "Raises: NativeError for a failure; ValueError for a signature that does not fit; TypeError; BorrowError.\n\n"
     ">>> import ctypes, tether\n"
     ">>> c = ctypes.CDLL(None)\n"
     ">>> sums = (ctypes.c_long * 1000)()\n"
     ">>> @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_ssize_t, ctypes.c_ssize_t, ctypes.c_void_p)\n"
     "... def count(begin, end, user_data):  # in earnest this would be C: Python has to take the GIL for it\n"
     "...     for i in range(begin, end):\n"
     "...         sums[i] = i\n"
     "...     return 0\n"
     ">>> tether.native.parallel_for(count, 1000)\n"
     ">>> sum(sums)\n499500\n"},
    {"_fill", core_fill, METH_VARARGS, "fill(memory, value, format)"},
    {"_copy", core_copy, METH_VARARGS, "copy(to, from)"},
    {"_reduce", core_reduce, METH_VARARGS, "(0 sum, 1 min, 2 max; memory, format)"},
    {"_fail_nth", core_fail_nth, METH_VARARGS, "For tests: see tether_fail_nth."},
    {0},
};

/* Loads attributes of a module of tether into the state; an attribute that is there already stays. */
typedef struct {
    const char *name;
    PyObject **slot;
} slot_t;

static int load(const char *module, const slot_t *slots)
{
    PyObject *mod = PyImport_ImportModule(module);
    int r = mod == NULL ? -1 : 0;
    for (const slot_t *s = slots; r == 0 && s->name; s++) {
        if (*s->slot == NULL && (*s->slot = PyObject_GetAttrString(mod, s->name)) == NULL)
            r = -1;
    }
    Py_XDECREF(mod);
    return r;
}

int need_exit_names(state_t *st)
{
    if (atomic_load(&st->exit_names))
        return 0;
    state_t found = {0};
#define X(name) {#name, &found.name},
    const slot_t slots[] = {EXIT_OBJECTS(X){NULL, NULL}};
#undef X
    static const char *const states[] = {"NEW", "QUEUED", "RUNNING", "EXITED", "REAPED"};
    int r = load("tether._exit", slots);
    for (int i = 0; r == 0 && i < 5; i++)
        r = (found.states[i] = PyObject_GetAttrString(found.TaskState, states[i])) == NULL ? -1 : 0;
    if (r == 0 && ((found.state_blocked = PyObject_GetAttrString(found.TaskState, "BLOCKED")) == NULL ||
                   (found.reasons[0] = PyObject_GetAttrString(found.KillReason, "REQUESTED")) == NULL ||
                   (found.reasons[1] = PyObject_GetAttrString(found.KillReason, "EXCEPTION")) == NULL))
        r = -1;
    /* Threads may come here together; all find the same objects, and the first one's references stay. */
    tether_lock(&st->graves_lock);
    bool ours = r == 0 && !atomic_load(&st->exit_names);
    if (ours) {
#define X(name) st->name = found.name;
        EXIT_OBJECTS(X)
#undef X
        memcpy(st->states, found.states, sizeof st->states);
        memcpy(st->reasons, found.reasons, sizeof st->reasons);
        st->state_blocked = found.state_blocked;
        atomic_store(&st->exit_names, true);
    }
    tether_unlock(&st->graves_lock);
    if (!ours) {
#define X(name) Py_XDECREF(found.name);
        EXIT_OBJECTS(X)
#undef X
        for (int i = 0; i < 5; i++)
            Py_XDECREF(found.states[i]);
        Py_XDECREF(found.reasons[0]);
        Py_XDECREF(found.reasons[1]);
        Py_XDECREF(found.state_blocked);
    }
    return r;
}

static int import_objects(state_t *st)
{
#define X(name) {#name, &st->name},
    const slot_t errors[] = {ERROR_OBJECTS(X){NULL, NULL}}, settle[] = {SETTLE_OBJECTS(X){NULL, NULL}};
#undef X
    if (load("tether._errors", errors) < 0 || load("tether._settle", settle) < 0)
        return -1;
    PyObject *chooser = PyImport_ImportModule("tether._settle");
    PyObject *report = chooser ? PyObject_GetAttrString(st->module, "_report_unraisable") : NULL;
    int given = report ? PyObject_SetAttrString(chooser, "_report_unraisable", report) : -1;
    Py_XDECREF(report);
    Py_XDECREF(chooser);
    PyObject *threading = given == 0 ? PyImport_ImportModule("threading") : NULL;
    if (threading == NULL)
        return -1;
    st->threading = Py_NewRef(PyModule_GetDict(threading));
    PyObject *main = PyObject_CallMethod(threading, "main_thread", NULL);
    Py_DECREF(threading);
    PyObject *ident = main ? PyObject_GetAttrString(main, "ident") : NULL;
    Py_XDECREF(main);
    if (ident == NULL)
        return -1;
    st->main_thread = ident == Py_None ? 0 : PyLong_AsUnsignedLong(ident);
    Py_DECREF(ident);
    st->modules = Py_XNewRef(PySys_GetObject("modules"));
    if (st->modules == NULL && !PyErr_Occurred())
        PyErr_NoMemory(); /* it is there; PySys_GetObject says nothing */
    return PyErr_Occurred() ? -1 : 0;
}

static place_t place_from_environment(void)
{
    const char *place = getenv("TETHER_PLACE");
    if (place == NULL)
        return PLACE_AUTO;
    return strcmp(place, "inline") == 0   ? PLACE_INLINE
           : strcmp(place, "thread") == 0 ? PLACE_THREAD
           : strcmp(place, "random") == 0 ? PLACE_RANDOM
                                          : PLACE_AUTO;
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*type == NULL && !PyErr_Occurred())
        PyErr_NoMemory(); /* CPython may forget to say so */
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int module_exec(PyObject *module)
{
    state_t *st = PyModule_GetState(module);
    st->module = module;
    st->interp = PyInterpreterState_Get();
    st->sub = st->interp != PyInterpreterState_Main();
    st->place = place_from_environment();
    st->dice = (uint32_t)tether_now() | 1;
    tether_host_t host;
    host_fill(&host);
    st->rt = tether_runtime_new(&host, st);
    if (st->rt == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    st->name_asyncio = PyUnicode_InternFromString("_asyncio");
    st->name_trace = PyUnicode_InternFromString("_trace_hook");
    st->name_profile = PyUnicode_InternFromString("_profile_hook");
    st->name_name = PyUnicode_InternFromString("__name__");
    st->name_own_name = PyUnicode_InternFromString("_name");
    st->name_add_note = PyUnicode_InternFromString("add_note");
    st->name_clear = PyUnicode_InternFromString("clear");
    if (!st->name_asyncio || !st->name_trace || !st->name_profile || !st->name_name || !st->name_own_name ||
        !st->name_add_note || !st->name_clear)
        return -1;
    if (import_objects(st) < 0 || add_type(module, &guard_spec, &st->guard_type) < 0 ||
        add_type(module, &ref_spec, &st->ref_type) < 0 || add_type(module, &scope_spec, &st->scope_type) < 0 ||
        add_type(module, &options_spec, &st->options_type) < 0 || add_type(module, &region_spec, &st->region_type) < 0 ||
        add_type(module, &owned_spec, &st->owned_type) < 0 || add_type(module, &shared_spec, &st->shared_type) < 0 ||
        add_type(module, &exclusive_spec, &st->exclusive_type) < 0 || add_type(module, &held_spec, &st->held_type) < 0 ||
        add_type(module, &function_spec, &st->function_type) < 0 ||
        add_type(module, &turnstile_spec, &st->turnstile_type) < 0)
        return -1;
    return capi_make(st) < 0 ? -1 : fork_prepare(st);
}

/* Everything in the state that refers to a Python object. */
#define STATE_REFS(X)                                                                                               \
    X(state_blocked) X(reasons[0]) X(reasons[1]) X(states[0]) X(states[1]) X(states[2]) X(states[3]) X(states[4])    \
    X(threading) X(modules) X(crew_enter) X(crew_leave) X(tell_abandoned) X(give_back) X(renamed)         \
    X(name_asyncio) X(name_trace) X(name_profile) X(name_name) X(name_own_name) X(name_add_note) X(name_clear)

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    state_t *st = PyModule_GetState(module);
#define X(name) Py_VISIT(st->name);
    STATE_OBJECTS(X)
    STATE_REFS(X)
#undef X
    Py_VISIT(load_relaxed(&st->running_loop));
    Py_VISIT(st->guard_type);
    Py_VISIT(st->ref_type);
    Py_VISIT(st->scope_type);
    Py_VISIT(st->options_type);
    Py_VISIT(st->region_type);
    Py_VISIT(st->owned_type);
    Py_VISIT(st->shared_type);
    Py_VISIT(st->exclusive_type);
    Py_VISIT(st->held_type);
    Py_VISIT(st->function_type);
    Py_VISIT(st->turnstile_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    state_t *st = PyModule_GetState(module);
#define X(name) Py_CLEAR(st->name);
    STATE_OBJECTS(X)
    STATE_REFS(X)
#undef X
    Py_XDECREF(atomic_exchange(&st->running_loop, NULL));
    Py_CLEAR(st->guard_type);
    Py_CLEAR(st->ref_type);
    Py_CLEAR(st->scope_type);
    Py_CLEAR(st->options_type);
    Py_CLEAR(st->region_type);
    Py_CLEAR(st->owned_type);
    Py_CLEAR(st->shared_type);
    Py_CLEAR(st->exclusive_type);
    Py_CLEAR(st->held_type);
    Py_CLEAR(st->function_type);
    Py_CLEAR(st->turnstile_type);
    return 0;
}

static void module_free(void *module)
{
    state_t *st = PyModule_GetState(module);
    if (st == NULL || st->rt == NULL)
        return;
    module_clear(module);
    PyMem_Free(st->api);
    st->api = NULL;
    /* If nothing was ever spawned there is nothing to stop; if the exit hook was interrupted, threads may still look. */
    if (!st->started || st->stopped)
        tether_runtime_free(st->rt);
    st->rt = NULL;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef tether_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tether._core",
    .m_doc = "The native part of tether. Import tether instead.",
    .m_size = sizeof(state_t),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&tether_module); }
