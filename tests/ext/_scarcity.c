/* For tests only: Python's allocators, of all domains, with failures injected. Built by tests/scarcity.py into a temporary
 * folder; never part of a wheel.
 *
 * _testcapi.set_nomemory counts the calls of the whole process, and is not everywhere. Here the calls of the thread under
 * test are counted (a thread-local count), or those of all others: what tether's own threads do, while the one that looks on
 * is spared. Requests are handed to the original allocators, as free-threaded builds demand. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>

static PyMemAllocatorEx original[3];
static const PyMemAllocatorDomain domains[3] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
static bool installed;

static _Thread_local long countdown; /* 0: nothing fails; n: the nth call from now does */
static _Thread_local bool lasting;   /* so do all that follow */
static _Thread_local long failures;
static _Thread_local bool spared;
static atomic_long others_countdown, others_failures;
static atomic_bool others_lasting;

static bool fails(void)
{
    if (countdown > 0) {
        if (--countdown > 0)
            return false;
        if (lasting)
            countdown = 1;
        failures++;
        return true;
    }
    if (spared)
        return false;
    long left = atomic_load(&others_countdown);
    do {
        if (left <= 0)
            return false;
        if (left == 1 && atomic_load(&others_lasting))
            break;
    } while (!atomic_compare_exchange_weak(&others_countdown, &left, left - 1));
    if (left != 1)
        return false;
    atomic_fetch_add(&others_failures, 1);
    return true;
}

static void *failing_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *to = ctx;
    return fails() ? NULL : to->malloc(to->ctx, size);
}

static void *failing_calloc(void *ctx, size_t n, size_t size)
{
    PyMemAllocatorEx *to = ctx;
    return fails() ? NULL : to->calloc(to->ctx, n, size);
}

static void *failing_realloc(void *ctx, void *block, size_t size)
{
    PyMemAllocatorEx *to = ctx;
    return fails() ? NULL : to->realloc(to->ctx, block, size);
}

static void forwarded_free(void *ctx, void *block)
{
    PyMemAllocatorEx *to = ctx;
    to->free(to->ctx, block);
}

static PyObject *install(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    for (int i = 0; i < 3 && !installed; i++) {
        PyMem_GetAllocator(domains[i], &original[i]);
        PyMemAllocatorEx mine = {&original[i], failing_malloc, failing_calloc, failing_realloc, forwarded_free};
        PyMem_SetAllocator(domains[i], &mine);
    }
    installed = true;
    Py_RETURN_NONE;
}

static PyObject *outcome(PyObject *result)
{
    PyObject *type = NULL, *exc = NULL, *tb = NULL;
    if (result == NULL) {
        PyErr_Fetch(&type, &exc, &tb);
        if (type == NULL) {
            exc = Py_NewRef(Py_Ellipsis); /* failed, and did not say why */
        } else {
            PyErr_NormalizeException(&type, &exc, &tb);
            if (tb != NULL)
                PyException_SetTraceback(exc, tb);
        }
    }
    PyObject *r = Py_BuildValue("OOl", result ? result : Py_None, exc ? exc : Py_None, failures);
    Py_XDECREF(result);
    Py_XDECREF(type);
    Py_XDECREF(exc);
    Py_XDECREF(tb);
    return r;
}

/* call(fn, nth, lasting) -> (result, exception, failures). */
static PyObject *call(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *fn;
    long nth;
    int last;
    if (!PyArg_ParseTuple(args, "Olp", &fn, &nth, &last))
        return NULL;
    failures = 0;
    lasting = last != 0;
    countdown = nth;
    PyObject *result = PyObject_CallNoArgs(fn);
    countdown = 0;
    return outcome(result);
}

/* others(nth, lasting) -> failures since the last call. nth 0: no more. The calling thread is spared. */
static PyObject *others(PyObject *module, PyObject *args)
{
    (void)module;
    long nth;
    int last;
    if (!PyArg_ParseTuple(args, "lp", &nth, &last))
        return NULL;
    spared = nth != 0;
    atomic_store(&others_countdown, 0);
    long seen = atomic_exchange(&others_failures, 0);
    atomic_store(&others_lasting, last != 0);
    atomic_store(&others_countdown, nth);
    return PyLong_FromLong(seen);
}

static PyMethodDef methods[] = {
    {"install", install, METH_NOARGS, NULL},
    {"call", call, METH_VARARGS, NULL},
    {"others", others, METH_VARARGS, NULL},
    {0},
};

static PyModuleDef_Slot slots[] = {
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_scarcity", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__scarcity(void);
PyMODINIT_FUNC PyInit__scarcity(void) { return PyModuleDef_Init(&definition); }
