/* What tether.Guard (tether/_guard.py) needs from here: a guard written in Python has an owner, as a task's guard has (G3). The
 * capture walk finds and moves it; `release` begins once. */
#include "binding.h"

#include <stddef.h>

enum { HELD, RELEASING, RELEASED };

typedef struct {
    PyObject_HEAD
    state_t *st;
    tether_runtime_t *rt;
    tether_slot_t owner;
    _Atomic unsigned state;
    _Atomic unsigned long releaser; /* ident of the thread that is RELEASING */
    unsigned long long number;      /* in the order in which they were made */
} held_t;

static PyObject *held_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs; /* a subclass's __init__ has them */
    PyObject *module = PyType_GetModuleByDef(type, &tether_module);
    state_t *st = module ? PyModule_GetState(module) : NULL;
    tether_thread_t *thread = st ? need_thread(st) : NULL;
    held_t *h = thread && host_watch_collector(st) == 0 ? (held_t *)type->tp_alloc(type, 0) : NULL;
    if (h == NULL)
        return NULL;
    h->st = st;
    h->rt = st->rt;
    h->number = add_relaxed(&st->helds, 1);
    tether_node_t *owner = tether_owner_current(thread);
    if (owner != NULL)
        add_relaxed(&owner->refs, 1);
    store_relaxed(&h->owner, owner);
    tether_lane_movable(&st->rt->lanes[thread->lane], 1);
    return (PyObject *)h;
}

static tether_thread_t *need_owner(held_t *h, const char *verb)
{
    tether_thread_t *thread = need_own(h->st, h->rt) == 0 ? need_thread(h->st) : NULL;
    tether_node_t *owner;
    if (thread == NULL || tether_owner_holds(thread, &h->owner, &owner))
        return thread;
    PyObject *name = owner ? job_name(job_of((tether_task_t *)owner)) : PyUnicode_FromString("the root (the program's own threads)");
    if (name != NULL)
        PyErr_Format(h->st->OwnershipError,
                     "only the owner may %s this %.100s, and that is %U", verb, Py_TYPE(h)->tp_name, name);
    Py_XDECREF(name);
    tether_node_unref(thread, owner);
    return NULL;
}

/* True: call the function that releases; False: that has happened. A release that calls its base class's goes on
 * (_guard.py sees to it that no function of them runs twice). */
static PyObject *held_begin(PyObject *self, PyObject *unused)
{
    (void)unused;
    held_t *h = (held_t *)self;
    unsigned long me = (unsigned long)PyThread_get_thread_ident();
    if (load_acquire(&h->state) == RELEASING && load_relaxed(&h->releaser) == me)
        Py_RETURN_TRUE;
    if (load_acquire(&h->state) != HELD)
        Py_RETURN_FALSE;
    if (need_owner(h, "release") == NULL)
        return NULL;
    unsigned held = HELD;
    if (!cas_acq_rel(&h->state, &held, RELEASING))
        Py_RETURN_FALSE;
    store_relaxed(&h->releaser, me); /* only this thread looks for itself here, later */
    Py_RETURN_TRUE;
}

static PyObject *held_end(PyObject *self, PyObject *unused)
{
    (void)unused;
    store_release(&((held_t *)self)->state, RELEASED);
    Py_RETURN_NONE;
}

/* For the destructor: may it be released by who calls, here and now (G5)? */
static PyObject *held_here(PyObject *self, PyObject *unused)
{
    (void)unused;
    held_t *h = (held_t *)self;
    tether_thread_t *thread = !tether_runtime_foreign(h->rt) ? tether_thread(h->rt) : NULL;
    if (thread == NULL || load_relaxed(&h->st->collecting) == thread->ident)
        Py_RETURN_FALSE;
    tether_node_t *other;
    if (tether_owner_holds(thread, &h->owner, &other))
        Py_RETURN_TRUE;
    tether_node_unref(thread, other);
    Py_RETURN_FALSE;
}

/* For the runtime, which releases what was adopted: it acts for the owner. */
static PyObject *held_adopt(PyObject *self, PyObject *unused)
{
    (void)unused;
    held_t *h = (held_t *)self;
    tether_thread_t *thread = need_own(h->st, h->rt) == 0 ? need_thread(h->st) : NULL;
    if (thread == NULL)
        return NULL;
    tether_owner_assign(thread, &h->owner, tether_owner_current(thread));
    Py_RETURN_NONE;
}

int held_need_owner(PyObject *self, const char *verb)
{
    held_t *h = (held_t *)self;
    return load_acquire(&h->state) != HELD || need_owner(h, verb) != NULL ? 0 : -1;
}

int held_give(tether_thread_t *thread, PyObject *self, tether_node_t *to)
{
    held_t *h = (held_t *)self;
    if (load_acquire(&h->state) != HELD || (need_owner(h, "give away") != NULL && tether_owner_give(thread, &h->owner, to)))
        return 0;
    if (!PyErr_Occurred()) /* another thread of the root was faster */
        need_owner(h, "give away");
    return -1;
}

void held_take_back(tether_thread_t *thread, PyObject *self)
{
    tether_owner_assign(thread, &((held_t *)self)->owner, tether_owner_current(thread));
}

static PyObject *held_get_released(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(load_acquire(&((held_t *)self)->state) != HELD);
}

static PyObject *held_get_number(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((held_t *)self)->number);
}

static PyObject *held_get_foreign(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(tether_runtime_foreign(((held_t *)self)->rt));
}

static PyObject *held_no_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyErr_Format(PyExc_TypeError,
                        "a %.100s cannot be copied or pickled: it has exactly one owner", Py_TYPE(self)->tp_name);
}

static int held_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    (void)arg;
    return 0;
}

static void held_dealloc(PyObject *self)
{
    held_t *h = (held_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (h->rt != NULL && !tether_runtime_foreign(h->rt)) {
        tether_thread_t *thread = tether_thread(h->rt);
        tether_lane_movable(&h->rt->lanes[thread ? thread->lane : 0], -1);
        tether_node_unref(thread, load_relaxed(&h->owner));
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef held_methods[] = {
    {"_begin", held_begin, METH_NOARGS, "Is it for the caller to release it now? OwnershipError."},
    {"_end", held_end, METH_NOARGS, "It was released."},
    {"_here", held_here, METH_NOARGS, "May its destructor release it here and now (G5)?"},
    {"_adopt", held_adopt, METH_NOARGS, "The calling task becomes its owner."},
    NO_COPY_METHODS(held_no_copy),
    {0},
};

static PyGetSetDef held_getset[] = {
    {"released", held_get_released, NULL, "Has its release begun?", NULL},
    {"_number", held_get_number, NULL, "Later ones have greater numbers.", NULL},
    {"_foreign", held_get_foreign, NULL, "Does it belong to the process that forked this one?", NULL},
    {0},
};

static PyType_Slot held_slots[] = {
    {Py_tp_doc, "The native part of tether.Guard."},
    {Py_tp_new, held_new},
    {Py_tp_dealloc, held_dealloc},
    {Py_tp_traverse, held_traverse},
    {Py_tp_methods, held_methods},
    {Py_tp_getset, held_getset},
    {0, NULL},
};

PyType_Spec held_spec = {
    .name = "tether._core.Held",
    .basicsize = sizeof(held_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = held_slots,
};
