/* The capture walk: finds what a task is given that has an owner. So far these are armed guards, in positional and keyword
 * arguments, closure cells, defaults, the `self` of a bound method, functools.partial, callable instances, and the exact
 * builtin containers inside these. No Python code runs during the walk. When no guard is armed anywhere, it is not made.
 * Without a GIL it also sees to it that what holds guards lets go of them where it dies (count_for_all_from_now).
 *
 * An explicit stack and a set of the visited containers: graphs may be deep and cyclic. */
#include "binding.h"

typedef struct {
    state_t *st;
    guards_t *found;
    PyObject **stack;   /* see hold() */
    size_t depth, room;
    PyObject **seen;    /* open addressing; power of two */
    size_t nseen, slots;
    bool borrows;       /* look for borrows and Owneds, too */
} walk_t;

static int grow_seen(walk_t *w)
{
    size_t slots = w->slots ? w->slots * 2 : 64;
    PyObject **seen = PyMem_Calloc(slots, sizeof *seen);
    if (seen == NULL)
        return -1;
    for (size_t i = 0; i < w->slots; i++) {
        if (w->seen[i] == NULL)
            continue;
        size_t h = ((uintptr_t)w->seen[i] >> 4) & (slots - 1);
        while (seen[h] != NULL)
            h = (h + 1) & (slots - 1);
        seen[h] = w->seen[i];
    }
    PyMem_Free(w->seen);
    w->seen = seen;
    w->slots = slots;
    return 0;
}

/* 1: new, 0: seen before, -1: out of memory. */
static int visit_once(walk_t *w, PyObject *obj)
{
    if (w->nseen * 2 >= w->slots && grow_seen(w) < 0)
        return -1;
    size_t h = ((uintptr_t)obj >> 4) & (w->slots - 1);
    while (w->seen[h] != NULL) {
        if (w->seen[h] == obj)
            return 0;
        h = (h + 1) & (w->slots - 1);
    }
    w->seen[h] = obj;
    w->nseen++;
    return 1;
}

static bool is_leaf(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    return obj == Py_None || type == &PyLong_Type || type == &PyUnicode_Type || type == &PyFloat_Type ||
           type == &PyBool_Type || type == &PyBytes_Type || type == &PyModule_Type || type == &PyType_Type;
}

/* Everything on the stack is reachable from the caller's arguments. Without a GIL another thread may change that: then
 * the stack holds references. */
#ifdef Py_GIL_DISABLED
static void hold(PyObject *obj) { Py_INCREF(obj); }
static void unhold(PyObject *obj) { Py_DECREF(obj); }
#else
static void hold(PyObject *obj) { (void)obj; }
static void unhold(PyObject *obj) { (void)obj; }
#endif

static int push(walk_t *w, PyObject *obj)
{
    if (obj == NULL || is_leaf(obj))
        return 0;
    if (w->depth == w->room) {
        size_t room = w->room ? w->room * 2 : 64;
        PyObject **stack = PyMem_Realloc(w->stack, room * sizeof *stack);
        if (stack == NULL)
            return -1;
        w->stack = stack;
        w->room = room;
    }
    hold(obj);
    w->stack[w->depth++] = obj;
    return 0;
}

static int found_guard(walk_t *w, job_t *job)
{
    guards_t *found = w->found;
    if (!guard_armed(job) || job_is_foreign(job))
        return 0; /* the handle of a scope's task, or one that was reaped: owns nothing */
    for (size_t i = 0; i < found->n; i++)
        if (found->tasks[i] == &job->task)
            return 0;
    if (found->n == found->room) {
        size_t room = found->room ? found->room * 2 : 8;
        tether_task_t **tasks = PyMem_Realloc(found->tasks, room * sizeof *tasks);
        if (tasks == NULL)
            return -1;
        found->tasks = tasks;
        found->room = room;
    }
    job_ref(job);
    found->tasks[found->n++] = &job->task;
    return 0;
}

static int found_lent(walk_t *w, PyObject *obj)
{
    guards_t *found = w->found;
    if (is_borrow(w->st, obj) && ((borrow_t *)obj)->loan.state != TETHER_LOAN_LIVE && !((borrow_t *)obj)->moved)
        return 0; /* it has ended: nothing to move; who uses it is told */
    if (found->nlent == found->lent_room) {
        size_t room = found->lent_room ? found->lent_room * 2 : 8;
        PyObject **lent = PyMem_Realloc(found->lent, room * sizeof *lent);
        if (lent == NULL)
            return -1;
        found->lent = lent;
        found->lent_room = room;
    }
    found->lent[found->nlent++] = Py_NewRef(obj);
    return 0;
}

static int push_all(walk_t *w, PyObject *const *items, Py_ssize_t n)
{
    for (Py_ssize_t i = 0; i < n; i++)
        if (push(w, items[i]) < 0)
            return -1;
    return 0;
}

static int push_dict(walk_t *w, PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    int r = 0;
    BEGIN_ALONE(dict);
    while (r == 0 && PyDict_Next(dict, &pos, &key, &value))
        r = push(w, key) < 0 || push(w, value) < 0 ? -1 : 0;
    END_ALONE();
    return r;
}

static int push_function(walk_t *w, PyObject *fn)
{
    PyObject *closure = PyFunction_GET_CLOSURE(fn);
    if (closure != NULL) {
        count_for_all_from_now(closure);
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(closure); i++) {
            PyObject *cell = PyTuple_GET_ITEM(closure, i), *content = PyCell_Get(cell); /* a reference: others may set it */
            count_for_all_from_now(cell);
            int r = push(w, content);
            Py_XDECREF(content);
            if (r < 0)
                return -1;
        }
    }
    if (push(w, PyFunction_GET_DEFAULTS(fn)) < 0)
        return -1;
    return push(w, PyFunction_GET_KW_DEFAULTS(fn));
}

static bool is_partial(PyObject *obj)
{
    const char *name = Py_TYPE(obj)->tp_name;
    return strcmp(name, "functools.partial") == 0 || strcmp(name, "partial") == 0;
}

static int push_visited(PyObject *obj, void *arg) { return push(arg, obj); }

/* What an object refers to, as the collector sees it (elements, the parts of a partial, attributes and slots of an
 * instance): runs no Python code. */
static int push_contents(walk_t *w, PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    int r = 0;
    if (type->tp_traverse == NULL || !PyObject_IS_GC(obj))
        return 0;
    BEGIN_ALONE(obj);
    r = type->tp_traverse(obj, push_visited, w);
    END_ALONE();
    return r;
}

static int step(walk_t *w, PyObject *obj, bool callable)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == w->st->guard_type)
        return found_guard(w, ((guard_t *)obj)->job);
    bool held = (type->tp_flags & Py_TPFLAGS_HEAPTYPE) && PyType_IsSubtype(type, w->st->held_type);
    if (type == w->st->shared_type || type == w->st->exclusive_type || type == w->st->owned_type || held) {
        int once = w->borrows ? visit_once(w, obj) : 0;
        if (once <= 0)
            return once;
        return found_lent(w, obj) < 0 ? -1 : held ? push_contents(w, obj) : 0; /* what a guard holds goes with it */
    }
    bool container = type == &PyTuple_Type || type == &PyList_Type || type == &PyDict_Type || type == &PySet_Type ||
                     type == &PyFrozenSet_Type;
    bool function = PyFunction_Check(obj), method = PyMethod_Check(obj), partial = !container && is_partial(obj);
    if (!container && !function && !method && !partial && !callable)
        return 0;
    int once = visit_once(w, obj);
    if (once <= 0)
        return once;
    count_for_all_from_now(obj); /* its guards go with it, on whatever thread */
    if (type == &PyTuple_Type)
        return push_all(w, ((PyTupleObject *)obj)->ob_item, PyTuple_GET_SIZE(obj));
    if (type == &PyDict_Type)
        return push_dict(w, obj);
    if (function)
        return push_function(w, obj);
    if (method) {
        PyObject *self = PyMethod_GET_SELF(obj);
        if (push(w, PyMethod_GET_FUNCTION(obj)) < 0 || push(w, self) < 0)
            return -1;
        return (Py_TYPE(self)->tp_flags & Py_TPFLAGS_HEAPTYPE) ? push_contents(w, self) : 0;
    }
    return push_contents(w, obj); /* list, set, frozenset, partial, a callable instance */
}

/* Empties the stack; r is what the first steps answered. */
static int run(walk_t *w, int r)
{
    while (r == 0 && w->depth > 0) {
        PyObject *obj = w->stack[--w->depth];
        r = step(w, obj, false);
        unhold(obj);
    }
    while (w->depth > 0)
        unhold(w->stack[--w->depth]);
    PyMem_Free(w->stack);
    PyMem_Free(w->seen);
    if (r < 0) {
        guards_clear(w->found);
        PyErr_NoMemory();
    }
    return r;
}

int walk_call(state_t *st, PyObject *fn, PyObject *const *args, size_t nargs, guards_t *found)
{
    if (tether_lane_armed(st->rt) <= 0 && tether_lane_movables(st->rt) <= 0)
        return 0;
    walk_t w = {.st = st, .found = found, .borrows = true};
    int r = push_all(&w, args, (Py_ssize_t)nargs);
    if (r == 0)
        r = step(&w, fn, true);
    return run(&w, r);
}

int walk_value(state_t *st, PyObject *value, guards_t *found)
{
    if (value == NULL || is_leaf(value) || tether_lane_armed(st->rt) <= 0)
        return 0;
    walk_t w = {.st = st, .found = found};
    return run(&w, push(&w, value));
}

void guards_clear(guards_t *found)
{
    for (size_t i = 0; i < found->n; i++)
        job_unref(job_of(found->tasks[i]));
    PyMem_Free(found->tasks);
    for (size_t i = 0; i < found->nlent; i++)
        Py_DECREF(found->lent[i]);
    PyMem_Free(found->lent);
    *found = (guards_t){0};
}

static int give_lent(state_t *st, tether_thread_t *thread, PyObject *obj, tether_task_t *to)
{
    if (is_borrow(st, obj))
        return borrow_give(thread, (borrow_t *)obj, to);
    if (Py_TYPE(obj) == st->owned_type)
        return owned_give(thread, (owned_t *)obj, &to->node);
    return held_give(thread, obj, &to->node);
}

static void take_lent_back(state_t *st, tether_thread_t *thread, PyObject *obj)
{
    if (is_borrow(st, obj))
        borrow_take_back(thread, (borrow_t *)obj);
    else if (Py_TYPE(obj) == st->owned_type)
        owned_take_back(thread, (owned_t *)obj);
    else
        held_take_back(thread, obj);
}

int lent_move(state_t *st, tether_thread_t *thread, guards_t *found, job_t *to)
{
    for (; found->given < found->nlent; found->given++)
        if (give_lent(st, thread, found->lent[found->given], &to->task) < 0)
            return -1;
    return 0;
}

void lent_move_back(state_t *st, tether_thread_t *thread, guards_t *found)
{
    while (found->given > 0)
        take_lent_back(st, thread, found->lent[--found->given]);
}

int guards_move(state_t *st, tether_thread_t *thread, guards_t *found, tether_node_t *to, const char *where)
{
    if (found->n == 0)
        return 0;
    tether_node_t **scratch = PyMem_Malloc(found->n * sizeof *scratch);
    if (scratch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    size_t culprit = 0;
    tether_status_t status = tether_owner_move(thread, found->tasks, scratch, found->n, to, &culprit);
    PyMem_Free(scratch);
    if (status == TETHER_OK)
        return 0;
    job_t *job = job_of(found->tasks[culprit]);
    tether_task_t *owner = tether_owner_parent(&job->task);
    PyObject *name, *site, *holder = NULL;
    if (job_describe(job, &name, &site))
        holder = owner ? job_name(job_of(owner)) : PyUnicode_FromString("the root");
    if (holder != NULL) {
        if (status == TETHER_CYCLE)
            PyErr_Format(st->OwnershipError,
                         "the guard of task '%U' (spawned at %U) cannot go to %s: that task, or one above it, is the one it "
                         "guards, and would wait for itself. Join it here, or let its owner keep it",
                         name, site, where);
        else
            PyErr_Format(st->OwnershipError,
                         "the guard of task '%U' (spawned at %U) belongs to %U, so this task cannot give it to %s. Let the "
                         "owner pass it on (as an argument, a result, or with guard.send)",
                         name, site, holder, where);
    }
    Py_XDECREF(name);
    Py_XDECREF(site);
    Py_XDECREF(holder);
    if (owner != NULL)
        job_unref(job_of(owner));
    return -1;
}
