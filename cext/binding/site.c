/* Where a task was spawned: code object and instruction of the caller, resolved to "file:line" only when somebody looks. */
#include "binding.h"

#if PY_VERSION_HEX < 0x030C0000
/* 3.11 has no function for this; its frames never change any more. */
#define Py_BUILD_CORE 1
#include "internal/pycore_frame.h"
#undef Py_BUILD_CORE

PyObject *site_here(PyThreadState *ts, int *lasti)
{
    _PyInterpreterFrame *frame = ts->cframe->current_frame;
    if (frame == NULL)
        return NULL;
    *lasti = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
    return Py_NewRef((PyObject *)frame->f_code);
}

#else

PyObject *site_here(PyThreadState *ts, int *lasti)
{
#if PY_VERSION_HEX < 0x030D0000
    struct _PyInterpreterFrame *frame = ts->cframe->current_frame;
#else
    struct _PyInterpreterFrame *frame = ts->current_frame;
#endif
    if (frame == NULL)
        return NULL;
    PyObject *code = PyUnstable_InterpreterFrame_GetCode(frame);
    if (code == NULL || !PyCode_Check(code)) { /* a frame of the interpreter's own */
        Py_XDECREF(code);
        return NULL;
    }
    *lasti = PyUnstable_InterpreterFrame_GetLasti(frame);
    return code;
}

#endif

PyObject *site_text(PyObject *code, int lasti)
{
    if (code == NULL)
        return PyUnicode_FromString("<unknown>:0");
    PyCodeObject *co = (PyCodeObject *)code;
    return PyUnicode_FromFormat("%U:%d", co->co_filename, PyCode_Addr2Line(co, lasti));
}
