/* From a call to a queued task, and `options`. */
#include "binding.h"

#include <stddef.h>

enum { STACK_LEAST = 256 * 1024, STACK_OWN = 1024 * 1024 };

static PyObject *raise_status(state_t *st, tether_status_t status)
{
    switch (status) {
    case TETHER_NO_MEMORY:
        return PyErr_NoMemory();
    case TETHER_NO_THREAD:
        return PyErr_Format(PyExc_RuntimeError, "can't start new thread: %s. Nothing was spawned", tether_status_text(status));
    case TETHER_SHUTDOWN:
        return PyErr_Format(st->ShutdownError, "tether spawns no more tasks: %s", tether_status_text(status));
    case TETHER_CLOSED:
        return PyErr_Format(st->ScopeClosedError, "the scope's block was left and its last task has ended: it takes no more. "
                                                  "Spawn inside the block, or from one of its tasks");
    default:
        return PyErr_Format(PyExc_RuntimeError, "%s", tether_status_text(status));
    }
}

/* The context that the task will run in: a copy of the spawner's as it is now; NULL while that is empty. */
static bool copy_context(PyThreadState *ts, job_t *job, const spawn_options_t *options)
{
    if (options != NULL && options->context != NULL) {
        job->context = Py_NewRef(options->context);
        job->enter_context = true;
        return true;
    }
    if (ts->context == NULL)
        return true;
    job->context = PyContext_Copy(ts->context);
    if (job->context == NULL)
        return false;
    count_for_all(job->context);
    return true;
}

/* At exit tasks may spawn to the last, and so may threads that the interpreter waits for. Daemon threads would go on for ever,
 * and with them the exit. */
static bool too_late(state_t *st, tether_thread_t *thread)
{
    if (load_relaxed(&st->rt->closing))
        return true;
    if (!load_relaxed(&st->draining) || load_relaxed(&thread->top) != NULL)
        return false;
    PyObject *current = dict_item(st->threading, "current_thread");
    PyObject *object = current ? PyObject_CallNoArgs(current) : NULL;
    PyObject *daemon = object ? PyObject_GetAttrString(object, "daemon") : NULL;
    bool late = daemon != NULL && PyObject_IsTrue(daemon) == 1;
    PyErr_Clear();
    Py_XDECREF(daemon);
    Py_XDECREF(object);
    Py_XDECREF(current);
    return late;
}

PyObject *spawn_call(state_t *st, const spawn_options_t *options, tether_scope_t *scope, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs < 1)
        return PyErr_Format(PyExc_TypeError, "spawn() needs a callable as its first argument");
    PyObject *fn = args[0];
    if (!PyCallable_Check(fn))
        return PyErr_Format(PyExc_TypeError, "spawn() needs a callable, not %.100s", Py_TYPE(fn)->tp_name);
    if (!st->started && host_prepare(st) < 0)
        return NULL;
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL)
        return NULL;
    if (too_late(st, thread))
        return raise_status(st, TETHER_SHUTDOWN);

    size_t nvalues = (size_t)(nargs - 1) + (kwnames ? (size_t)PyTuple_GET_SIZE(kwnames) : 0);
    guards_t guards = {0};
    if (walk_call(st, fn, args + 1, nvalues, &guards) < 0)
        return NULL;

    guard_t *guard = NULL;
    job_t *job = job_new(st, thread, scope ? &scope->node : tether_owner_current(thread));
    if (job == NULL)
        goto failed;
    PyThreadState *ts = PyThreadState_Get();
    if (options != NULL) {
        if (options->name != NULL) {
            job->label = Py_NewRef(options->name);
            job->named = true;
        }
        job->must_join = options->must_join;
        job->cancel_at_exit = options->cancel_at_exit;
    }
    if (!copy_context(ts, job, options))
        goto failed;
    if (options != NULL && options->restart != NULL) {
        PyObject *run = restart_prepare(options->restart, fn, args + 1, nvalues, kwnames, guards.n + guards.nlent != 0);
        bool set = run != NULL && job_set_call(job, run, NULL, 0, NULL);
        Py_XDECREF(run);
        if (!set)
            goto failed;
        job->restarts = true;
        job->task.apart = options->apart;
    } else if (!job_set_call(job, fn, args + 1, (size_t)(nargs - 1), kwnames)) {
        goto failed;
    }
    job->code = site_here(ts, &job->lasti);
    guard = guard_alloc(st);
    if (guard == NULL || guards_move(st, thread, &guards, &job->task.node, "a new task") < 0)
        goto failed;
    if (lent_move(st, thread, &guards, job) < 0)
        goto failed;

    if (need_own(st, job->task.node.rt) < 0) /* Python code has run since we took the thread's record, and it forked */
        goto failed;
    if (anchor_drop(st) < 0)
        goto failed;
    tether_status_t status = scope ? tether_scope_admit(scope, &job->task) : TETHER_OK;
    if (status == TETHER_OK) {
        if (options != NULL && options->dedicated)
            status = tether_task_dedicate(&job->task, options->stack_size);
        else
            status = tether_task_queue(&job->task);
        if (status != TETHER_OK && scope)
            tether_scope_dismiss(scope, &job->task);
    }
    anchor_spawned(st);
    if (status != TETHER_OK) {
        raise_status(st, status);
        goto failed;
    }
    /* In the lane first, under its lock, then this look: drain does it the other way round, so one of us sees the other. */
    if (job->cancel_at_exit && load_acquire(&st->draining))
        tether_task_cancel(&job->task, 0);
    guard->job = job;
    if (scope == NULL)
        tether_lane_arm(tether_task_lane(&job->task), 1);
    PyObject_GC_Track(guard);
    guards_clear(&guards);
    return (PyObject *)guard;

failed:
    if (job != NULL) /* back to whom they came from; by the job's owner they would go to a scope's opener */
        tether_owner_claim(thread, guards.tasks, guards.n, &job->task);
    lent_move_back(st, thread, &guards);
    guards_clear(&guards);
    if (guard != NULL) {
        PyObject_GC_Del(guard);
        Py_DECREF(st->guard_type);
    }
    if (job != NULL) {
        PyObject *exc = take_exception();
        job_discard(thread, job);
        give_exception(exc);
    }
    return NULL;
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    state_t *st;
    PyObject *scope; /* a Scope, or NULL */
    PyObject *name, *context, *restart;
    spawn_options_t given;
} options_t;

static bool one_of(PyObject *value, const char *what, const char *const *choices)
{
    if (value == NULL || value == Py_None)
        return true;
    for (const char *const *c = choices; *c; c++)
        if (PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, *c) == 0)
            return true;
    PyObject *list = PyUnicode_FromString("");
    for (const char *const *c = choices; *c && list; c++)
        Py_SETREF(list, PyUnicode_FromFormat("%U%s'%s'", list, c == choices ? "" : ", ", *c));
    if (list != NULL)
        PyErr_Format(PyExc_ValueError, "%s must be one of %U, not %R", what, list, value);
    Py_XDECREF(list);
    return false;
}

bool check_is_valid(PyObject *check)
{
    static const char *const choices[] = {"warn", "strict", "off", NULL};
    return one_of(check, "check", choices);
}

PyObject *options_new(state_t *st, PyObject *scope, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "dedicated", "stack_size", "context", "must_join", "check", "at_exit", "restart", NULL};
    static const char *const exits[] = {"join", "cancel", NULL};
    PyObject *name = Py_None, *stack = Py_None, *context = Py_None, *check = Py_None, *at_exit = Py_None;
    PyObject *restart = Py_None;
    int dedicated = 0, must_join = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OpOOpOOO:options", names, &name, &dedicated, &stack, &context,
                                     &must_join, &check, &at_exit, &restart))
        return NULL;
    if (name != Py_None && !PyUnicode_Check(name))
        return PyErr_Format(PyExc_TypeError, "name must be a str or None, not %.100s", Py_TYPE(name)->tp_name);
    if (context != Py_None && !PyContext_CheckExact(context))
        return PyErr_Format(PyExc_TypeError, "context must be a contextvars.Context or None, not %.100s",
                            Py_TYPE(context)->tp_name);
    if (!check_is_valid(check) || !one_of(at_exit, "at_exit", exits))
        return NULL;
    PyObject *policy = scope ? scope_policy(scope) : NULL;
    if (restart != Py_None) {
        if (policy != NULL)
            return PyErr_Format(PyExc_ValueError, "the tasks of a supervisor are restarted by it: restart= has no place here");
        if (restart_check(restart) < 0)
            return NULL;
        policy = restart;
    }
    size_t stack_size = 0;
    if (stack != Py_None) {
        if (!PyLong_Check(stack))
            return PyErr_Format(PyExc_TypeError, "stack_size must be an int or None, not %.100s", Py_TYPE(stack)->tp_name);
        int overflow;
        long long given = PyLong_AsLongLongAndOverflow(stack, &overflow);
        if (overflow || given < STACK_LEAST || given > (1ll << 40))
            return PyErr_Format(PyExc_ValueError, "stack_size must be from %d bytes (256 KiB) to 1 TiB, not %R", STACK_LEAST,
                                stack);
        stack_size = (size_t)given;
        /* Whole pages, whatever their size; and what CPython's own calls take (pystate.c) is not the caller's business. It is
         * address space: memory only where it is used. */
        stack_size = ((stack_size + 65535) & ~(size_t)65535) + STACK_OWN;
    }
    options_t *o = PyObject_GC_New(options_t, st->options_type);
    if (o == NULL)
        return NULL;
    o->st = st;
    o->scope = Py_XNewRef(scope);
    o->name = name != Py_None ? Py_NewRef(name) : NULL;
    o->context = context != Py_None ? Py_NewRef(context) : NULL;
    o->restart = Py_XNewRef(policy);
    o->given = (spawn_options_t){
        .name = o->name,
        .restart = o->restart,
        .apart = policy != NULL && policy != restart,
        .context = o->context,
        .stack_size = stack_size,
        .dedicated = dedicated || stack_size != 0,
        .must_join = must_join != 0,
        .cancel_at_exit = at_exit != Py_None && PyUnicode_CompareWithASCIIString(at_exit, "cancel") == 0,
    };
    PyObject_GC_Track(o);
    return (PyObject *)o;
}

static PyObject *options_spawn(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    options_t *o = (options_t *)self;
    tether_scope_t *scope = NULL;
    if (o->scope != NULL) {
        bool is_scope;
        scope = scope_core(o->st, o->scope, &is_scope);
        if (scope == NULL)
            return NULL;
    }
    return spawn_call(o->st, &o->given, scope, args, nargs, kwnames);
}

static int options_traverse(PyObject *self, visitproc visit, void *arg)
{
    options_t *o = (options_t *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(o->scope);
    Py_VISIT(o->context);
    Py_VISIT(o->restart);
    return 0;
}

static void options_dealloc(PyObject *self)
{
    options_t *o = (options_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(o->scope);
    Py_XDECREF(o->name);
    Py_XDECREF(o->context);
    Py_XDECREF(o->restart);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef options_methods[] = {
    {"spawn", (PyCFunction)(void (*)(void))options_spawn, METH_FASTCALL | METH_KEYWORDS,
     "spawn($self, fn, /, *args, **kwargs)\n--\n\nSpawns a task with these options (see tether.spawn)."},
    {0},
};

static PyType_Slot options_slots[] = {
    {Py_tp_doc, "Options for spawning; made by tether.options and Scope.options. May be kept and used many times."},
    {Py_tp_dealloc, options_dealloc},
    {Py_tp_traverse, options_traverse},
    {Py_tp_methods, options_methods},
    {0, NULL},
};

PyType_Spec options_spec = {
    .name = "tether.Options",
    .basicsize = sizeof(options_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = options_slots,
};
