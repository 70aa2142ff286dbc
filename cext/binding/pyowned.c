/* Owned: a Python value that is borrowed by the rules of a region's byte. It has one owner, as guards have: given to a task it
 * moves there, and what a task that has ended owned is its owner's (runtime/owner.c, effective). */
#include "binding.h"

#include <stddef.h>

PyObject *owned_text(owned_t *o)
{
    PyObject *value, *text = NULL;
    BEGIN_ALONE(o);
    value = Py_XNewRef(o->value);
    END_ALONE();
    if (value == NULL)
        return PyUnicode_FromString("an owned value that was taken");
    PyObject *name = PyType_GetName(Py_TYPE(value));
    if (name != NULL)
        text = PyUnicode_FromFormat("an owned %U", name);
    Py_XDECREF(name);
    Py_DECREF(value);
    return text;
}

PyObject *owned_exchange(owned_t *o, PyObject *value)
{
    PyObject *before;
    BEGIN_ALONE(o);
    before = o->value;
    o->value = value;
    END_ALONE();
    return before;
}

static PyObject *raise_taken(owned_t *o)
{
    PyErr_SetString(o->st->MovedError, "the value was taken out of this Owned; put one in with replace()");
    return NULL;
}

PyObject *owned_value(owned_t *o)
{
    PyObject *value;
    BEGIN_ALONE(o);
    value = Py_XNewRef(o->value);
    END_ALONE();
    return value ? value : raise_taken(o);
}

static PyObject *owned_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", NULL};
    PyObject *value;
    state_t *st = PyType_GetModuleState(type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O:Owned", names, &value))
        return NULL;
    tether_thread_t *thread = need_thread(st);
    owned_t *o = thread ? PyObject_GC_New(owned_t, type) : NULL;
    if (o == NULL)
        return NULL;
    o->st = st;
    o->rt = st->rt;
    o->book = (tether_book_t){0};
    o->weakrefs = NULL;
    o->value = Py_NewRef(value);
    tether_node_t *owner = tether_owner_current(thread);
    if (owner != NULL)
        add_relaxed(&owner->refs, 1);
    store_relaxed(&o->owner, owner);
    tether_lane_movable(&st->rt->lanes[thread->lane], 1);
    PyObject_GC_Track(o);
    return (PyObject *)o;
}

/* ---- the owner --------------------------------------------------------------------------------------------------- */

/* The calling thread's record, if what runs there is the owner. */
static tether_thread_t *user(owned_t *o)
{
    if (need_own_source(o->st, o->rt) < 0)
        return NULL;
    tether_thread_t *thread = need_thread(o->st);
    tether_node_t *owner;
    if (thread == NULL || tether_owner_holds(thread, &o->owner, &owner))
        return thread;
    PyObject *what = owned_text(o), *name = owner ? job_name(job_of((tether_task_t *)owner)) : PyUnicode_FromString("the program itself");
    if (what && name)
        PyErr_Format(o->st->MovedError, "%U was moved to %U: only its owner may lend it, take it or give it away", what, name);
    Py_XDECREF(what);
    Py_XDECREF(name);
    tether_node_unref(thread, owner);
    return NULL;
}

int owned_give(tether_thread_t *thread, owned_t *o, tether_node_t *to)
{
    if (user(o) == NULL)
        return -1;
    tether_loan_t all = {.stop = 1, .exclusive = true}, *one = &all;
    blame_t blame = {0};
    if (borrow_now(o->st, thread, &o->book, &one, 1, &blame) != TETHER_OK) {
        blame_raise(o->st, &blame, (PyObject *)o, "give away", NULL);
        return -1;
    }
    bool given = tether_owner_give(thread, &o->owner, to);
    tether_loan_forget(thread, &all);
    if (!given)
        user(o); /* another thread of the root was faster */
    return given ? 0 : -1;
}

void owned_take_back(tether_thread_t *thread, owned_t *o)
{
    tether_owner_assign(thread, &o->owner, tether_owner_current(thread));
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

/* Is there something that the caller may lend? */
static bool has_value(owned_t *o)
{
    PyObject *value = user(o) != NULL ? owned_value(o) : NULL;
    Py_XDECREF(value);
    return value != NULL;
}

/* Others may have given it away or taken the value before it was lent, and so may code that the timeout runs: a second look. */
static PyObject *lend(owned_t *o, bool exclusive, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    const char *format = exclusive ? "|$O:borrow_mut" : "|$O:share";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &timeout) || !has_value(o))
        return NULL;
    const lending_t from = {.st = o->st, .source = (PyObject *)o, .book = &o->book, .verb = exclusive ? "borrow" : "share",
                            .exclusive = exclusive};
    PyObject *lent = borrow_one(&from, 0, 1, timeout);
    if (lent != NULL && !has_value(o))
        Py_CLEAR(lent);
    return lent;
}

static PyObject *owned_share(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return lend((owned_t *)self, false, args, kwargs);
}

static PyObject *owned_borrow_mut(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return lend((owned_t *)self, true, args, kwargs);
}

/* Puts `value` (taken over) in while nothing is lent; the former one. NULL with an exception, and nothing has changed. */
static PyObject *swap(owned_t *o, PyObject *value, const char *verb, bool *ok)
{
    *ok = false;
    tether_thread_t *thread = user(o);
    tether_loan_t all = {.stop = 1, .exclusive = true}, *one = &all;
    blame_t blame = {0};
    if (thread == NULL) {
        Py_XDECREF(value);
        return NULL;
    }
    if (borrow_now(o->st, thread, &o->book, &one, 1, &blame) != TETHER_OK) {
        Py_XDECREF(value);
        blame_raise(o->st, &blame, (PyObject *)o, verb, NULL);
        return NULL;
    }
    *ok = user(o) != NULL; /* else another thread of the root has given it away, a moment before */
    PyObject *before = *ok ? owned_exchange(o, value) : value;
    tether_loan_forget(thread, &all);
    if (!*ok)
        Py_CLEAR(before);
    return before;
}

static PyObject *owned_take(PyObject *self, PyObject *unused)
{
    (void)unused;
    bool ok;
    PyObject *value = swap((owned_t *)self, NULL, "take", &ok);
    return ok && value == NULL ? raise_taken((owned_t *)self) : value;
}

static PyObject *owned_replace(PyObject *self, PyObject *value)
{
    bool ok;
    PyObject *before = swap((owned_t *)self, Py_NewRef(value), "replace", &ok);
    return ok && before == NULL ? Py_NewRef(Py_None) : before;
}

static PyObject *owned_drain(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"start", "stop", NULL};
    PyObject *start = NULL, *stop = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:drain", names, &start, &stop))
        return NULL;
    PyObject *module = PyImport_ImportModule("tether._guard"), *zero = PyLong_FromLong(0);
    PyObject *drain = module && zero ? PyObject_CallMethod(module, "Drain", "OOO", self, start ? start : zero, stop) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(zero);
    return drain;
}

static PyObject *no_copy(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyErr_Format(PyExc_TypeError, "an Owned cannot be copied or pickled: it has exactly one owner. Share it");
}

static PyObject *owned_repr(PyObject *self)
{
    PyObject *what = owned_text((owned_t *)self);
    PyObject *r = what ? PyUnicode_FromFormat("<tether.Owned: %U>", what) : NULL;
    Py_XDECREF(what);
    return r;
}

static int owned_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((owned_t *)self)->value);
    return 0;
}

static int owned_clear(PyObject *self)
{
    Py_CLEAR(((owned_t *)self)->value);
    return 0;
}

static void owned_dealloc(PyObject *self)
{
    owned_t *o = (owned_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, owned_dealloc) /* values nest: an Owned in an Owned, or a borrow of one */
    if (o->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    Py_CLEAR(o->value);
    if (!tether_runtime_foreign(o->rt)) {
        tether_thread_t *thread = tether_thread(o->rt);
        tether_lane_movable(&o->rt->lanes[thread ? thread->lane : 0], -1);
        tether_node_unref(thread, load_relaxed(&o->owner));
    }
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyMethodDef owned_methods[] = {
    {"share", (PyCFunction)(void (*)(void))owned_share, METH_VARARGS | METH_KEYWORDS,
     "share($self, /, *, timeout=0)\n--\n\n"
     "Borrows the value for reading, beside other readers (G13). Returns: Shared, with .value.\n\n"
     "Parameters: timeout, in seconds, to wait for a writer; 0 raises at once, None waits for ever.\n"
     "Raises: BorrowError naming the holder; TimeoutError; DeadlockError; MovedError for anyone but the owner.\n\n"
     ">>> import tether\n>>> names = tether.Owned(['a', 'b'])\n>>> with names.share() as s:\n...     len(s.value)\n2\n"},
    {"borrow_mut", (PyCFunction)(void (*)(void))owned_borrow_mut, METH_VARARGS | METH_KEYWORDS,
     "borrow_mut($self, /, *, timeout=0)\n--\n\n"
     "Borrows the value for changing, alone (G13). Returns: Exclusive, whose .value may be set. Otherwise like share.\n\n"
     ">>> import tether\n>>> names = tether.Owned(['a'])\n>>> with names.borrow_mut() as m:\n...     m.value.append('b')\n"
     ">>> names.take()\n['a', 'b']\n"},
    {"drain", (PyCFunction)(void (*)(void))owned_drain, METH_VARARGS | METH_KEYWORDS,
     "drain($self, /, start=0, stop=None)\n--\n\n"
     "Removes items start to stop of an owned list or bytearray: a guard that iterates them. However it goes, it removes them\n"
     "all, the not iterated ones too, and closes the gap; until then the value is borrowed (see tether.Guard).\n\n"
     ">>> import tether\n>>> queue = tether.Owned([1, 2, 3, 4])\n>>> with queue.drain(0, 3) as items:\n...     next(items)\n1\n"
     ">>> queue.take()\n[4]\n"},
    {"take", owned_take, METH_NOARGS,
     "take($self, /)\n--\n\nTakes the value out; nothing is left (MovedError).\n\nRaises: BorrowError while it is lent."},
    {"replace", owned_replace, METH_O,
     "replace($self, value, /)\n--\n\nPuts a value in and returns the former one, or None.\n\nRaises: BorrowError while it is lent."},
    NO_COPY_METHODS(no_copy),
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {0},
};

static PyMemberDef owned_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(owned_t, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot owned_slots[] = {
    {Py_tp_doc, "Owned(value, /)\n--\n\n"
                "A value with one owner, lent to any number of readers or to one writer (G13). Given to a task it moves there.\n\n"
                "The guards' .value is the value itself: a plain reference that is taken out of it escapes the rule.\n\n"
                ">>> import tether\n>>> total = tether.Owned([])\n>>> def add(m, n):\n...     m.value.append(n)\n"
                ">>> tether.spawn(add, total.borrow_mut(), 7).join()\n>>> total.take()\n[7]\n"},
    {Py_tp_new, owned_new},
    {Py_tp_dealloc, owned_dealloc},
    {Py_tp_traverse, owned_traverse},
    {Py_tp_clear, owned_clear},
    {Py_tp_methods, owned_methods},
    {Py_tp_members, owned_members},
    {Py_tp_repr, owned_repr},
    {0, NULL},
};

PyType_Spec owned_spec = {
    .name = "tether.Owned",
    .basicsize = sizeof(owned_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = owned_slots,
};
