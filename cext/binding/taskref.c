/* TaskRef: names a task without owning anything. Copy, compare, share it freely. */
#include "binding.h"

typedef struct {
    PyObject_HEAD
    job_t *job;  /* a reference; NULL: the root */
    state_t *st;
} ref_t;

PyObject *ref_new(state_t *st, job_t *job)
{
    ref_t *ref = PyObject_New(ref_t, st->ref_type);
    if (ref == NULL)
        return NULL;
    ref->st = st;
    ref->job = job;
    if (job != NULL)
        job_ref(job);
    return (PyObject *)ref;
}

PyObject *refs_list(state_t *st, guards_t *tasks)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < tasks->n && list != NULL; i++) {
        PyObject *ref = ref_new(st, job_of(tasks->tasks[i]));
        if (ref == NULL || PyList_Append(list, ref) < 0)
            Py_CLEAR(list);
        Py_XDECREF(ref);
    }
    guards_clear(tasks);
    return list;
}

job_t *ref_job(state_t *st, PyObject *obj, bool *is_ref)
{
    *is_ref = Py_TYPE(obj) == st->ref_type;
    return *is_ref ? ((ref_t *)obj)->job : NULL;
}

static void ref_dealloc(PyObject *self)
{
    ref_t *ref = (ref_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (ref->job != NULL)
        job_unref(ref->job);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int state_number(const job_t *job)
{
    if (job == NULL)
        return TETHER_RUNNING;
    uint32_t word = tether_task_word(&job->task);
    return (int)tether_state(word);
}

static PyObject *ref_state(PyObject *self, void *unused)
{
    (void)unused;
    ref_t *ref = (ref_t *)self;
    if (need_exit_names(ref->st) < 0) /* the root can be asked before anything was spawned */
        return NULL;
    int n = state_number(ref->job);
    /* NEW, QUEUED, RUNNING, EXITED, REAPED; BLOCKED is RUNNING with a flag */
    if (n == TETHER_RUNNING && ref->job != NULL && (tether_task_word(&ref->job->task) & TETHER_F_BLOCKED))
        return Py_NewRef(ref->st->state_blocked);
    return Py_NewRef(ref->st->states[n]);
}

static PyObject *ref_id(PyObject *self, void *unused)
{
    (void)unused;
    ref_t *ref = (ref_t *)self;
    return PyLong_FromUnsignedLongLong(ref->job ? ref->job->task.id : 0);
}

static PyObject *ref_name(PyObject *self, void *unused)
{
    (void)unused;
    ref_t *ref = (ref_t *)self;
    return ref->job ? job_name(ref->job) : PyUnicode_FromString("root");
}

static PyObject *ref_parent(PyObject *self, void *unused)
{
    (void)unused;
    ref_t *ref = (ref_t *)self;
    tether_task_t *parent = ref->job && !job_is_foreign(ref->job) ? tether_owner_parent(&ref->job->task) : NULL;
    if (parent == NULL)
        Py_RETURN_NONE;
    PyObject *r = ref_new(ref->st, job_of(parent));
    job_unref(job_of(parent));
    return r;
}

static PyObject *ref_spawned_at(PyObject *self, void *unused)
{
    (void)unused;
    ref_t *ref = (ref_t *)self;
    return ref->job ? job_site(ref->job) : PyUnicode_FromString("<root>:0");
}

static PyObject *ref_native_id(PyObject *self, void *unused)
{
    (void)unused;
    ref_t *ref = (ref_t *)self;
    if (ref->job == NULL) {
        tether_thread_t *thread = need_thread(ref->st);
        return thread ? PyLong_FromUnsignedLong(load_relaxed(&thread->native_id)) : NULL;
    }
    tether_thread_t *thread = load_acquire(&ref->job->task.thread);
    if (thread == NULL)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(load_relaxed(&thread->native_id));
}

static PyObject *ref_is_alive(PyObject *self, PyObject *unused)
{
    (void)unused;
    ref_t *ref = (ref_t *)self;
    return PyBool_FromLong(ref->job == NULL || !tether_task_ended(&ref->job->task));
}

PyObject *reason_text(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool *ok)
{
    Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    *ok = nargs + nkw <= 1 &&
          (nkw == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "reason") == 0);
    if (!*ok) {
        PyErr_SetString(PyExc_TypeError, "cancel() takes at most one argument, reason");
        return NULL;
    }
    if (nargs + nkw == 0 || args[0] == Py_None)
        return NULL;
    if (!PyUnicode_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "reason must be a str or None, not %.100s", Py_TYPE(args[0])->tp_name);
        *ok = false;
        return NULL;
    }
    return args[0];
}

/* 1: the task had not ended. */
int job_cancel(state_t *st, tether_thread_t *thread, job_t *job, PyObject *reason, uint32_t also)
{
    if (job_is_foreign(job) || tether_task_ended(&job->task))
        return 0;
    job_ref(job);
    if (reason != NULL) {
        tether_lock(&st->kill_lock);
        PyObject *mine = job->detail == NULL ? Py_NewRef(reason) : NULL; /* the first reason stays */
        if (mine != NULL)
            job->detail = mine;
        tether_unlock(&st->kill_lock);
    }
    bool asked = tether_task_cancel(&job->task, also);
    /* Not started: it never will be (G7). */
    if (asked && tether_task_claim(thread, &job->task))
        job_end_unrun(st, thread, job);
    else if (asked && (also & TETHER_F_KILL))
        kill_deliver(st, job);
    job_unref(job);
    return asked;
}

static PyObject *ref_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    ref_t *ref = (ref_t *)self;
    bool ok;
    PyObject *reason = reason_text(args, nargs, kwnames, &ok);
    if (!ok)
        return NULL;
    if (ref->job == NULL)
        return PyErr_Format(PyExc_ValueError, "the root cannot be cancelled: it is the program itself");
    tether_thread_t *thread = need_thread(ref->st);
    return thread ? PyBool_FromLong(job_cancel(ref->st, thread, ref->job, reason, 0)) : NULL;
}

static PyObject *ref_same(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *ref_no_pickle(PyObject *self, PyObject *unused)
{
    (void)unused;
    (void)self;
    return PyErr_Format(PyExc_TypeError, "a TaskRef cannot be pickled: it names a task of this process");
}

static PyObject *ref_compare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(other) != Py_TYPE(self) || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    bool same = ((ref_t *)self)->job == ((ref_t *)other)->job;
    return PyBool_FromLong(same == (op == Py_EQ));
}

static Py_hash_t ref_hash(PyObject *self)
{
    job_t *job = ((ref_t *)self)->job;
    return job ? (Py_hash_t)(job->task.id & PY_SSIZE_T_MAX) : 0;
}

static PyObject *ref_repr(PyObject *self)
{
    PyObject *r = NULL; /* one after the other: some of these run Python code, which must not meet an exception */
    PyObject *name = ref_name(self, NULL), *site = name ? ref_spawned_at(self, NULL) : NULL;
    PyObject *state = site ? ref_state(self, NULL) : NULL, *word = state ? PyObject_GetAttrString(state, "name") : NULL;
    if (word != NULL)
        r = PyUnicode_FromFormat("<tether.TaskRef '%U' %U, spawned at %U>", name, word, site);
    Py_XDECREF(name);
    Py_XDECREF(site);
    Py_XDECREF(state);
    Py_XDECREF(word);
    return r;
}

static PyMethodDef ref_methods[] = {
    {"is_alive", ref_is_alive, METH_NOARGS, "is_alive($self, /)\n--\n\nHas the task not ended yet?"},
    {"cancel", (PyCFunction)(void (*)(void))ref_cancel, METH_FASTCALL | METH_KEYWORDS,
     "cancel($self, /, reason=None)\n--\n\nAsks the task to end (see JoinGuard.cancel)."},
    {"__copy__", ref_same, METH_NOARGS, NULL},
    {"__deepcopy__", ref_same, METH_O, NULL},
    {"__reduce__", ref_no_pickle, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef ref_getset[] = {
    {"id", ref_id, NULL, "A number that no other task of this interpreter ever has; 0 is the root.", NULL},
    {"name", ref_name, NULL, "The name given with options, or the function's name and the id.", NULL},
    {"state", ref_state, NULL, "The TaskState now.", NULL},
    {"parent", ref_parent, NULL, "The TaskRef of the task that owns it, directly or through its scope; None: the root.", NULL},
    {"spawned_at", ref_spawned_at, NULL, "Where it was spawned, as \"file:line\".", NULL},
    {"native_id", ref_native_id, NULL, "The kernel's number of the thread that runs or ran it; None before its start.", NULL},
    {0},
};

static PyType_Slot ref_slots[] = {
    {Py_tp_doc, "Names a task; owns nothing. Copy, hash, compare and share it freely."},
    {Py_tp_dealloc, ref_dealloc},
    {Py_tp_methods, ref_methods},
    {Py_tp_getset, ref_getset},
    {Py_tp_richcompare, ref_compare},
    {Py_tp_hash, ref_hash},
    {Py_tp_repr, ref_repr},
    {0, NULL},
};

PyType_Spec ref_spec = {
    .name = "tether.TaskRef",
    .basicsize = sizeof(ref_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ref_slots,
};
