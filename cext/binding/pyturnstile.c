/* Turnstile: lets one thread at a time into an iterator. Without a GIL generators, and iterators made in C, are not safe when
 * threads meet in them; a lock would let them wait for one another, perhaps for ever: who comes second is told. In C, since a
 * loop comes through here for each item. */
#include "binding.h"

typedef struct {
    PyObject_HEAD
    PyObject *inside;  /* the iterator */
    PyObject *refuse;  /* called for who comes second: raises */
    _Atomic bool busy;
} turnstile_t;

static PyObject *turnstile_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *inside, *refuse;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)
        return PyErr_Format(PyExc_TypeError, "_Turnstile() takes no keyword arguments");
    if (!PyArg_ParseTuple(args, "OO:_Turnstile", &inside, &refuse))
        return NULL;
    if (!PyIter_Check(inside))
        return PyErr_Format(PyExc_TypeError, "_Turnstile() takes an iterator, not %.100s", Py_TYPE(inside)->tp_name);
    turnstile_t *t = PyObject_GC_New(turnstile_t, type);
    if (t == NULL)
        return NULL;
    t->inside = Py_NewRef(inside);
    t->refuse = Py_NewRef(refuse);
    store_relaxed(&t->busy, false);
    PyObject_GC_Track(t);
    return (PyObject *)t;
}

static PyObject *turnstile_next(PyObject *self)
{
    turnstile_t *t = (turnstile_t *)self;
    if (atomic_exchange_explicit(&t->busy, true, memory_order_acquire))
        return t->refuse ? PyObject_CallNoArgs(t->refuse) : NULL; /* NULL: the collector has been here */
    PyObject *item = Py_TYPE(t->inside)->tp_iternext(t->inside);
    store_release(&t->busy, false);
    return item;
}

static int turnstile_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((turnstile_t *)self)->inside);
    Py_VISIT(((turnstile_t *)self)->refuse);
    return 0;
}

/* What is inside may hold a generator whose frame leads back to us. */
static int turnstile_clear(PyObject *self)
{
    Py_CLEAR(((turnstile_t *)self)->refuse);
    return 0;
}

static void turnstile_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_DECREF(((turnstile_t *)self)->inside);
    Py_XDECREF(((turnstile_t *)self)->refuse);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot turnstile_slots[] = {
    {Py_tp_doc, "_Turnstile(iterator, refuse)\n--\n\nThe iterator, for one thread at a time; for a second one refuse() raises."},
    {Py_tp_new, turnstile_new},
    {Py_tp_dealloc, turnstile_dealloc},
    {Py_tp_traverse, turnstile_traverse},
    {Py_tp_clear, turnstile_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, turnstile_next},
    {0, NULL},
};

PyType_Spec turnstile_spec = {
    .name = "tether._core._Turnstile",
    .basicsize = sizeof(turnstile_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = turnstile_slots,
};
