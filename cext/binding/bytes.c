/* Memory for the time of a call. A Region is borrowed for it, as long as it takes; borrows and other objects give it out as a
 * buffer, which keeps what it is of lent, mapped and alive (G14, G15). */
#include "native.h"

#include <string.h>

/* The borrow that the memory is taken from: a new reference. *own: it was made for this call. */
static PyObject *borrow_for(state_t *st, PyObject *object, bool write, bool alone, bool *own)
{
    *own = true;
    if (Py_TYPE(object) == st->region_type)
        return region_borrow((region_t *)object, write);
    if (alone && Py_TYPE(object) == st->exclusive_type)
        return borrow_lend((borrow_t *)object);
    *own = false;
    return Py_NewRef(object);
}

static void explain(PyObject *object, bool write)
{
    if (write && (PyErr_ExceptionMatches(PyExc_BufferError) || PyErr_ExceptionMatches(PyExc_ValueError))) {
        PyObject *cause = take_exception(), *exc; /* what it says may be something else: that it was released, or closed */
        PyErr_Format(PyExc_TypeError, "%.100s is not writable, contiguous memory: give a Region, an Exclusive, or declare the "
                                      "function's data const to have it read a Shared", Py_TYPE(object)->tp_name);
        exc = take_exception();
        PyException_SetCause(exc, cause);
        give_exception(exc);
    } else if (PyErr_ExceptionMatches(PyExc_TypeError) && !PyObject_CheckBuffer(object)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "expected a Region, a borrow of one, or another contiguous buffer, not %.100s",
                     Py_TYPE(object)->tp_name);
    }
}

int bytes_take(state_t *st, PyObject *object, bool write, bool alone, bytes_t *bytes)
{
    bool own;
    PyObject *from = borrow_for(st, object, write, alone, &own);
    if (from == NULL)
        return -1;
    int r = PyObject_GetBuffer(from, &bytes->view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (write ? PyBUF_WRITABLE : 0));
    bytes->lent = own ? from : NULL;
    if (r < 0) {
        explain(object, write);
        PyObject *exc = take_exception();
        bytes->view.obj = NULL;
        bytes_give_back(bytes);
        give_exception(exc);
    }
    if (!own)
        Py_DECREF(from); /* the view holds it */
    bytes->data = bytes->view.buf;
    bytes->size = r < 0 ? 0 : (size_t)bytes->view.len;
    return r;
}

void bytes_give_back(bytes_t *bytes)
{
    if (bytes->view.obj != NULL)
        PyBuffer_Release(&bytes->view);
    if (bytes->lent != NULL)
        borrow_end((borrow_t *)bytes->lent);
    Py_CLEAR(bytes->lent);
}
