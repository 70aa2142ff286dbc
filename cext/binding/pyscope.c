/* Scope: `with tether.scope() as s:`. What leaving does when all is well is here; the choice among failures is Python
 * (tether/_settle.py). */
#include "binding.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    state_t *st;
    tether_scope_t *core;  /* from __enter__ on; a reference of ours */
    PyObject *name;        /* str or NULL */
    PyObject *policy;      /* a supervisor's (tether/_supervisor.py), or NULL; fixed before it is entered */
    PyObject *weakrefs;
    PyObject *bound;       /* guards to release at the end, a list, or NULL */
    double timeout;        /* seconds; negative: none */
    bool wait_all;
    _Atomic bool entered, left;
} scope_t;

PyObject *scope_new(state_t *st, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "on_error", "timeout", "check", NULL};
    PyObject *name = Py_None, *on_error = NULL, *timeout = Py_None, *check = Py_None;
    /* scope() without arguments is the common call, and it is on the path of every node of a recursion. */
    if ((PyTuple_GET_SIZE(args) != 0 || kwargs != NULL) &&
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|O$OOO:scope", names, &name, &on_error, &timeout, &check))
        return NULL;
    if (name != Py_None && !PyUnicode_Check(name))
        return PyErr_Format(PyExc_TypeError, "name must be a str or None, not %.100s", Py_TYPE(name)->tp_name);
    bool wait_all = false;
    if (on_error != NULL) {
        wait_all = PyUnicode_Check(on_error) && PyUnicode_CompareWithASCIIString(on_error, "wait") == 0;
        if (!wait_all && !(PyUnicode_Check(on_error) && PyUnicode_CompareWithASCIIString(on_error, "cancel") == 0))
            return PyErr_Format(PyExc_ValueError, "on_error must be 'cancel' or 'wait', not %R", on_error);
    }
    if (!check_is_valid(check))
        return NULL;
    uint64_t deadline;
    double seconds = -1.0;
    if (timeout != Py_None) {
        seconds = PyFloat_AsDouble(timeout); /* once: __float__ may answer otherwise next time */
        PyObject *number = seconds == -1.0 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(seconds);
        int r = number == NULL ? -1 : deadline_from(number, &deadline, "timeout");
        Py_XDECREF(number);
        if (r < 0)
            return NULL;
        if (deadline == TETHER_FOREVER)
            seconds = -1.0;
    }
    scope_t *s = PyObject_New(scope_t, st->scope_type);
    if (s == NULL)
        return NULL;
    s->st = st;
    s->core = NULL;
    s->weakrefs = NULL;
    s->policy = NULL;
    s->bound = NULL;
    s->name = name != Py_None ? Py_NewRef(name) : NULL;
    s->timeout = seconds;
    s->wait_all = wait_all;
    store_relaxed(&s->entered, false);
    store_relaxed(&s->left, false);
    return (PyObject *)s;
}

tether_scope_t *scope_core(state_t *st, PyObject *obj, bool *is_scope)
{
    *is_scope = Py_TYPE(obj) == st->scope_type;
    if (!*is_scope)
        return NULL;
    scope_t *s = (scope_t *)obj;
    if (s->core == NULL)
        PyErr_SetString(PyExc_RuntimeError, "the scope is not open: use it as `with tether.scope() as s:`");
    else if (need_own(st, s->core->node.rt) < 0)
        return NULL;
    return s->core;
}

PyObject *scope_policy(PyObject *scope) { return ((scope_t *)scope)->policy; }

int scope_supervise(state_t *st, PyObject *scope, PyObject *policy)
{
    scope_t *s = (scope_t *)scope;
    if (Py_TYPE(scope) != st->scope_type || s->policy != NULL || load_relaxed(&s->entered)) {
        PyErr_SetString(PyExc_TypeError, "a new scope is wanted");
        return -1;
    }
    s->policy = Py_NewRef(policy);
    return 0;
}

static PyObject *scope_spawn(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    scope_t *s = (scope_t *)self;
    bool is_scope;
    tether_scope_t *core = scope_core(s->st, self, &is_scope);
    if (core == NULL)
        return NULL;
    if (s->policy == NULL)
        return spawn_call(s->st, NULL, core, args, nargs, kwnames);
    const spawn_options_t supervised = {.restart = s->policy, .apart = true};
    return spawn_call(s->st, &supervised, core, args, nargs, kwnames);
}

static PyObject *scope_options(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return options_new(((scope_t *)self)->st, self, args, kwargs);
}

static PyObject *scope_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    scope_t *s = (scope_t *)self;
    if (atomic_exchange(&s->entered, true))
        return PyErr_Format(PyExc_RuntimeError, "a scope can be entered once: make a new one");
    tether_thread_t *thread = need_thread(s->st);
    if (thread != NULL)
        s->core = tether_scope_open(thread, s->timeout < 0 ? TETHER_FOREVER : tether_now() + (uint64_t)(s->timeout * 1e9));
    if (s->core == NULL) {
        store_relaxed(&s->entered, false);
        return PyErr_NoMemory();
    }
    add_relaxed(&s->core->node.refs, 1); /* this object's; the opener's goes when the block is over */
    if (s->wait_all)
        or_acq_rel(&s->core->flags, TETHER_SCOPE_WAIT_ALL);
    return Py_NewRef(self);
}

static void note_living(tether_task_t *task, void *arg)
{
    guards_t *list = arg;
    if (list->n < list->room && !tether_task_ended(task)) {
        tether_task_ref(task);
        list->tasks[list->n++] = task;
    }
}

/* The children that have not ended, as TaskRefs. */
static PyObject *living(scope_t *s)
{
    bool ours = s->core != NULL && !tether_runtime_foreign(s->core->node.rt);
    guards_t found = {.room = ours ? (size_t)load_relaxed(&s->core->alive) + 16 : 0};
    found.tasks = found.room ? PyMem_Malloc(found.room * sizeof *found.tasks) : NULL;
    if (found.room && found.tasks == NULL)
        return PyErr_NoMemory();
    if (found.room)
        tether_scope_each(s->core, note_living, &found);
    return refs_list(s->st, &found);
}

/* Of these tasks, those that were not ended by a cancellation. */
static PyObject *unmoved(state_t *st, PyObject *refs)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(refs); i++) {
        PyObject *ref = PyList_GET_ITEM(refs, i);
        bool is_ref;
        if (ref_job(st, ref, &is_ref)->outcome != OUTCOME_KILLED && PyList_Append(list, ref) < 0)
            Py_CLEAR(list);
    }
    return list;
}

/* Runs and waits until no child is alive. Signals: the first cancels the children and is raised when all have ended; the
 * second stops the waiting. *stopped: it did. *cancelled: the caller was cancelled meanwhile.
 * *late: who was alive when the time was over, or NULL. */
static PyObject *join_children(scope_t *s, tether_thread_t *thread, bool *stopped, bool *cancelled, PyObject **late)
{
    state_t *st = s->st;
    tether_scope_t *core = s->core;
    PyObject *raised = NULL;
    bool cancellable = true;
    while (!tether_scope_close(core)) {
        if (may_run_here(st, thread)) {
            tether_task_t *task = tether_scope_claim(thread, core);
            if (task != NULL) {
                job_run_here(st, thread, job_of(task));
                /* What ran in place may have been interrupted: look at signals between tasks, as a loop would. */
                if (fork_passed(st, thread, job_of(task)) < 0 || look_at_signals() < 0 ||
                    need_own(st, core->node.rt) < 0)
                    goto interrupted;
                continue;
            }
        }
        tether_status_t status = wait_scope(st, thread, core, cancellable);
        if (status == TETHER_OK)
            continue;
        if (!tether_runtime_foreign(core->node.rt) &&
            (status == TETHER_CANCELLED || PyErr_ExceptionMatches(st->Cancelled) ||
             PyErr_ExceptionMatches(st->KilledTask))) {
            PyErr_Clear();
            cancellable = false;
            *cancelled = true;
            if ((load_relaxed(&core->flags) & TETHER_SCOPE_TIMED_OUT) && *late == NULL && (*late = living(s)) == NULL)
                PyErr_Clear();
            tether_scope_cancel(core);
            continue;
        }
    interrupted:
        if (tether_runtime_foreign(core->node.rt))
            return take_exception(); /* the child of a fork: the parent waits for them */
        if (raised == NULL) {
            raised = take_exception();
            tether_scope_cancel(core);
        } else {
            Py_SETREF(raised, take_exception());
            *stopped = true;
            tether_scope_abandon(core);
            break;
        }
    }
    anchor_settle(st, thread);
    return raised;
}

static void report(PyObject *exc)
{
    give_exception(Py_NewRef(exc));
    PyErr_WriteUnraisable(NULL);
}

/* *lost: there was no memory to keep a failure; it has been reported. */
static PyObject *collect_failures(scope_t *s, bool *lost)
{
    PyObject *failures = NULL;
    for (tether_task_t *task; (task = tether_scope_collect(s->core)) != NULL;) {
        job_t *job = job_of(task);
        if (tether_task_reap(task) && job->outcome == OUTCOME_FAILED) {
            PyObject *exc = job->value;
            job->value = NULL;
            if (failures == NULL)
                failures = PyList_New(0);
            if (failures == NULL || PyList_Append(failures, exc) < 0) {
                PyErr_Clear();
                report(exc);
                *lost = true;
            }
            Py_DECREF(exc);
        }
        job_unref(job);
    }
    return failures;
}

/* settle() did not come to an answer, for want of memory, or because a signal's handler or a kill raised in it: the failures are
 * reported instead (G6). Of two interrupts the second goes on; a want of memory does not take the place of one. (SystemError:
 * so ends Python code that finds no memory for a traceback.) */
static void unsettled(PyObject *failures, PyObject *raised)
{
    PyObject *exc = take_exception();
    for (Py_ssize_t i = 0; failures != NULL && i < PyList_GET_SIZE(failures); i++)
        report(PyList_GET_ITEM(failures, i));
    if (raised != NULL && (PyErr_GivenExceptionMatches(exc, PyExc_MemoryError) ||
                           PyErr_GivenExceptionMatches(exc, PyExc_SystemError)))
        Py_SETREF(exc, Py_NewRef(raised));
    give_exception(exc);
}

static void report_lost(PyObject *exc)
{
    PyObject *where = PyUnicode_FromString("<failure in a scope that was left by another exception>");
    PyErr_Clear();
    give_exception(Py_NewRef(exc));
    PyErr_WriteUnraisable(where);
    Py_XDECREF(where);
}

/* An exit, an interrupt or the closing of a generator goes on bare from the body, and leaves no room for failures: they are
 * reported (G6). Unless one of them is an exit itself: settle() chooses. Not in Python: generators that hold an open scope may
 * be closed when the interpreter has taken apart what is Python of us. */
static bool body_goes_on(state_t *st, PyObject *body, PyObject *failures)
{
    if (PyErr_GivenExceptionMatches(body, PyExc_Exception) || PyErr_GivenExceptionMatches(body, st->Cancelled) ||
        PyErr_GivenExceptionMatches(body, st->KilledTask))
        return false;
    Py_ssize_t n = failures ? PyList_GET_SIZE(failures) : 0;
    for (Py_ssize_t i = 0; i < n; i++)
        if (PyErr_GivenExceptionMatches(PyList_GET_ITEM(failures, i), PyExc_SystemExit) ||
            PyErr_GivenExceptionMatches(PyList_GET_ITEM(failures, i), PyExc_KeyboardInterrupt))
            return false;
    for (Py_ssize_t i = 0; i < n; i++)
        report_lost(PyList_GET_ITEM(failures, i));
    return true;
}

/* ---- views that outlive the borrow of a child (G14) ---- */

bool scope_note_escape(tether_scope_t *scope, PyObject *borrow)
{
    borrow_t *b = (borrow_t *)borrow;
    tether_lock(&scope->lock);
    bool open = !scope->host_closed;
    if (open) {
        b->next_escaped = scope->host;
        scope->host = borrow;
    }
    tether_unlock(&scope->lock);
    return open;
}

static PyObject *take_escapes(tether_scope_t *scope)
{
    tether_lock(&scope->lock);
    PyObject *list = scope->host;
    scope->host = NULL;
    scope->host_closed = true;
    tether_unlock(&scope->lock);
    return list;
}

void escapes_collect(state_t *st, tether_scope_t *scope, PyObject **failures)
{
    PyObject *all = take_escapes(scope);
    for (PyObject *at = all; at != NULL; at = ((borrow_t *)at)->next_escaped) {
        if (load_relaxed(&((borrow_t *)at)->loan.views) != 0) {
            host_collect(st); /* perhaps they were let go of */
            break;
        }
    }
    for (PyObject *list = all; list != NULL;) {
        borrow_t *b = (borrow_t *)list;
        list = b->next_escaped;
        b->next_escaped = NULL;
        PyObject *exc = borrow_escaped_error(st, b);
        if (exc != NULL && *failures == NULL)
            *failures = PyList_New(0);
        if (exc != NULL && (*failures == NULL || PyList_Append(*failures, exc) < 0))
            PyErr_WriteUnraisable(exc);
        Py_XDECREF(exc);
        Py_DECREF(b);
    }
}

/* ---- guards bound to it ---- */

static PyObject *scope_bind(PyObject *self, PyObject *guard)
{
    scope_t *s = (scope_t *)self;
    bool is_scope;
    tether_scope_t *core = scope_core(s->st, self, &is_scope);
    if (core == NULL)
        return NULL;
    if (!PyObject_TypeCheck(guard, s->st->held_type))
        return PyErr_Format(PyExc_TypeError, "not a tether.Guard");
    if (s->left)
        return PyErr_Format(s->st->ScopeClosedError, "the scope's block was left: it takes no more guards");
    if (held_need_owner(guard, "bind") < 0)
        return NULL;
    if (s->bound == NULL) { /* the first: another thread may be as fast */
        PyObject *list = PyList_New(0);
        if (list == NULL)
            return NULL;
        tether_lock(&core->lock);
        PyObject *before = s->bound;
        if (before == NULL)
            s->bound = list;
        tether_unlock(&core->lock);
        if (before != NULL)
            Py_DECREF(list);
    }
    return PyList_Append(s->bound, guard) < 0 ? NULL : Py_NewRef(Py_None);
}

/* The last one bound first; what they raise joins the failures. */
static void release_bound(scope_t *s, PyObject **failures)
{
    for (Py_ssize_t i; s->bound != NULL && (i = PyList_GET_SIZE(s->bound)) > 0;) {
        PyObject *guard = Py_NewRef(PyList_GET_ITEM(s->bound, i - 1));
        PyObject *r = PyList_SetSlice(s->bound, i - 1, i, NULL) == 0 ? PyObject_CallMethod(guard, "release", NULL) : NULL;
        if (r == NULL) {
            PyObject *exc = take_exception();
            if (*failures == NULL)
                *failures = PyList_New(0);
            if (*failures == NULL || PyList_Append(*failures, exc) < 0)
                PyErr_WriteUnraisable(guard);
            Py_XDECREF(exc);
        }
        Py_XDECREF(r);
        Py_DECREF(guard);
    }
}

static PyObject *scope_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    scope_t *s = (scope_t *)self;
    state_t *st = s->st;
    tether_scope_t *core = s->core;
    if (core != NULL && tether_runtime_foreign(core->node.rt))
        Py_RETURN_FALSE; /* the parent process opened it, and waits there */
    tether_thread_t *thread = have_thread(st);
    if (core == NULL || nargs != 3 || atomic_exchange(&s->left, true))
        return PyErr_Format(PyExc_RuntimeError, "the scope is not open");
    PyObject *body = args[1] == Py_None ? NULL : args[1];
    /* Not with on_error="wait", unless the body was asked to end. */
    if (body != NULL && (!s->wait_all || !PyErr_GivenExceptionMatches(body, PyExc_Exception)))
        tether_scope_cancel(core);
    tether_scope_leave(core);
    bool stopped = false, cancelled = false, lost = false;
    PyObject *late = NULL;
    PyObject *raised = join_children(s, thread, &stopped, &cancelled, &late);
    if (tether_runtime_foreign(core->node.rt)) {
        Py_XDECREF(late);
        give_exception(raised);
        return NULL;
    }
    PyObject *failures = collect_failures(s, &lost);
    if (lost && raised == NULL) { /* not silently: something has failed */
        PyErr_NoMemory();
        raised = take_exception();
    }
    release_bound(s, &failures);
    escapes_collect(st, core, &failures);
    tether_thread_limit(thread); /* a last look at the clock: what ran in place may have taken its time */
    bool timed_out = (load_relaxed(&core->flags) & TETHER_SCOPE_TIMED_OUT) != 0;
    PyObject *abandoned = stopped ? living(s) : NULL;
    PyErr_Clear(); /* the names are a help, no more */
    tether_scope_done(thread, core);

    if (body == NULL && raised == NULL && failures == NULL && !timed_out) {
        /* Leaving is a blocking call, too: a cancellation from further out that came meanwhile is raised here. */
        Py_XDECREF(late);
        if (cancelled && checkpoint(st, thread) < 0)
            return NULL;
        Py_RETURN_FALSE;
    }
    if (body != NULL && raised == NULL && body_goes_on(st, body, failures)) {
        Py_XDECREF(late);
        Py_XDECREF(failures);
        Py_RETURN_FALSE;
    }
    /* Is the caller cancelled from further out? Then a Cancelled in the body is not this scope's to swallow. */
    PyObject *outer = tether_thread_cancelled(thread) ? Py_True : Py_False;
    if (late != NULL)
        Py_SETREF(late, unmoved(st, late));
    PyErr_Clear();
    PyObject *r = PyObject_CallFunctionObjArgs(
        st->settle, self, body ? body : Py_None, failures ? failures : Py_None, raised ? raised : Py_None,
        timed_out ? Py_True : Py_False, outer, abandoned ? abandoned : Py_None, late ? late : Py_None, NULL);
    if (r == NULL) {
        unsettled(failures, raised);
    } else if (PyExceptionInstance_Check(r)) { /* raised here, where nothing comes in between */
        PyErr_SetObject((PyObject *)Py_TYPE(r), r);
        Py_CLEAR(r);
    }
    Py_XDECREF(late);
    Py_XDECREF(failures);
    Py_XDECREF(raised);
    Py_XDECREF(abandoned);
    return r;
}

static PyObject *scope_cancel(PyObject *self, PyObject *unused)
{
    (void)unused;
    scope_t *s = (scope_t *)self;
    bool is_scope;
    tether_scope_t *core = scope_core(s->st, self, &is_scope);
    if (core == NULL)
        return NULL;
    tether_scope_cancel(core);
    Py_RETURN_NONE;
}

static PyObject *scope_tasks(PyObject *self, PyObject *unused)
{
    (void)unused;
    return living((scope_t *)self);
}

static PyObject *scope_get_name(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *name = ((scope_t *)self)->name;
    return Py_NewRef(name ? name : Py_None);
}

static PyObject *scope_get_timeout(PyObject *self, void *unused)
{
    (void)unused;
    scope_t *s = (scope_t *)self;
    if (s->timeout < 0)
        Py_RETURN_NONE;
    return PyFloat_FromDouble(s->timeout);
}

static PyObject *scope_get_cancelled(PyObject *self, void *unused)
{
    (void)unused;
    scope_t *s = (scope_t *)self;
    return PyBool_FromLong(s->core != NULL && (load_relaxed(&s->core->flags) & TETHER_SCOPE_CANCELLED));
}

static PyObject *scope_repr(PyObject *self)
{
    scope_t *s = (scope_t *)self;
    const char *where = s->core == NULL ? "new" : load_relaxed(&s->core->flags) & TETHER_SCOPE_CLOSED ? "closed" : "open";
    unsigned alive = s->core ? (unsigned)load_relaxed(&s->core->alive) : 0;
    if (s->name != NULL)
        return PyUnicode_FromFormat("<tether.Scope %R %s, %u tasks alive>", s->name, where, alive);
    return PyUnicode_FromFormat("<tether.Scope %s, %u tasks alive>", where, alive);
}

static void scope_dealloc(PyObject *self)
{
    scope_t *s = (scope_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (s->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (s->core != NULL && !tether_runtime_foreign(s->core->node.rt)) {
        tether_thread_t *thread = tether_thread(s->st->rt);
        if (!s->left) {
            /* Entered by hand and never left: nobody can wait any more. The children go on and are released as they end. */
            tether_scope_cancel(s->core);
            tether_scope_abandon(s->core);
            PyObject *pending = take_exception();
            bool lost = false;
            PyObject *failures = collect_failures(s, &lost);
            escapes_collect(s->st, s->core, &failures);
            for (Py_ssize_t i = 0; failures != NULL && i < PyList_GET_SIZE(failures); i++)
                report(PyList_GET_ITEM(failures, i)); /* nobody is left who could raise them (G6) */
            Py_XDECREF(failures);
            give_exception(pending);
            tether_scope_done(thread, s->core);
        }
        tether_node_unref(thread, &s->core->node);
    }
    Py_XDECREF(s->name);
    Py_XDECREF(s->policy);
    Py_XDECREF(s->bound);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef scope_methods[] = {
    {"spawn", (PyCFunction)(void (*)(void))scope_spawn, METH_FASTCALL | METH_KEYWORDS,
     "spawn($self, fn, /, *args, **kwargs)\n--\n\n"
     "Spawns a task that the scope owns, and returns its handle. Dropping the handle neither joins nor reports.\n\n"
     "Any task that holds the scope may call this until the block was left and the last child has ended.\n\n"
     "Raises: ScopeClosedError; OwnershipError; ShutdownError.\n\n"
     ">>> import tether\n>>> with tether.scope() as s:\n...     a = s.spawn(pow, 2, 3)\n...     b = s.spawn(pow, 3, 2)\n"
     "...     print(a.join() + b.join())\n17\n"},
    {"options", (PyCFunction)(void (*)(void))scope_options, METH_VARARGS | METH_KEYWORDS,
     "options($self, /, *, name=None, dedicated=False, stack_size=None, context=None, must_join=False, check=None, "
     "at_exit='join', restart=None)\n--\n\nOptions for tasks of this scope (see tether.options)."},
    {"cancel", scope_cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\nAsks body and tasks to end; the block then ends silently. Open to anyone; idempotent."},
    {"tasks", scope_tasks, METH_NOARGS, "tasks($self, /)\n--\n\nThe tasks that have not ended, in spawn order."},
    {"_bind", scope_bind, METH_O, "Releases a tether.Guard when the scope ends (Guard.bind)."},
    {"__enter__", scope_enter, METH_NOARGS, "Opens the scope, once."},
    {"__exit__", (PyCFunction)(void (*)(void))scope_exit, METH_FASTCALL, "Joins every task (G2)."},
    {0},
};

static PyGetSetDef scope_getset[] = {
    {"name", scope_get_name, NULL, "The name given, or None.", NULL},
    {"timeout", scope_get_timeout, NULL, "Seconds after which the scope is cancelled, or None.", NULL},
    {"cancelled", scope_get_cancelled, NULL, "Was it cancelled, by cancel(), a failure or the timeout?", NULL},
    {0},
};

static PyMemberDef scope_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(scope_t, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_doc, "A block that does not end before the tasks spawned in it have (G2). Made by tether.scope."},
    {Py_tp_dealloc, scope_dealloc},
    {Py_tp_methods, scope_methods},
    {Py_tp_getset, scope_getset},
    {Py_tp_members, scope_members},
    {Py_tp_repr, scope_repr},
    {0, NULL},
};

PyType_Spec scope_spec = {
    .name = "tether.Scope",
    .basicsize = sizeof(scope_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scope_slots,
};
