/* C functions that Python hands over: what they are described by, and the check that they may be called as they will be.
 *
 * A description ends in an address and a signature, the text that C would declare it with: that of a PyCapsule is its name, as
 * scipy.LowLevelCallable has it. Nothing is called whose signature is not known to fit. */
#include "native.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

/* ---- signatures ---------------------------------------------------------------------------------------------------------- */

static const char *const whole_words[] = {"intptr_t",      "uintptr_t",    "ssize_t",   "size_t",   "Py_ssize_t", "ptrdiff_t",
                                          "int64_t",       "uint64_t",     "long",      "npy_intp", "npy_int64",  "__int64",
                                          "__pyx_t_5_Py_ssize_t", NULL};
static const char *const int_words[] = {"int", "int32_t", "npy_int32", "npy_int", NULL};

/* Text between two marks. */
typedef struct {
    const char *at, *end;
} span_t;

static span_t trimmed(const char *at, const char *end)
{
    while (at < end && isspace((unsigned char)*at))
        at++;
    while (end > at && isspace((unsigned char)end[-1]))
        end--;
    return (span_t){at, end};
}

static bool in_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Is one of the words of the span in the list? */
static bool has_word(span_t span, const char *const *words)
{
    for (const char *at = span.at; at < span.end;) {
        const char *from = at;
        while (at < span.end && in_word(*at))
            at++;
        for (const char *const *w = words; at > from && *w; w++)
            if (strlen(*w) == (size_t)(at - from) && memcmp(*w, from, (size_t)(at - from)) == 0)
                return true;
        at += at == from;
    }
    return false;
}

static bool is_pointer(span_t span) { return memchr(span.at, '*', (size_t)(span.end - span.at)) != NULL; }

/* "long double" and "short int" have a word that fits, and do not. */
static bool is_other(span_t span)
{
    static const char *const words[] = {"double", "float", "short", "char", "struct", "union", NULL};
    return has_word(span, words);
}

static bool is_whole(span_t span) { return !is_pointer(span) && !is_other(span) && has_word(span, whole_words); }

static bool is_const(span_t span)
{
    static const char *const words[] = {"const", NULL};
    const char *star = memchr(span.at, '*', (size_t)(span.end - span.at));
    return has_word((span_t){span.at, star}, words); /* of what is pointed to */
}

/* Cuts the parameters: their number, at most `most`, or -1. */
static int cut(span_t list, span_t *params, int most)
{
    int n = 0;
    for (const char *from = list.at, *at = from;; at++) {
        if (at < list.end && *at != ',')
            continue;
        if (n == most)
            return -1;
        params[n++] = trimmed(from, at);
        if (at == list.end)
            return n;
        from = at + 1;
    }
}

static bool answer_of(span_t span, callee_answer_t *answer)
{
    static const char *const nothing[] = {"void", NULL};
    *answer = has_word(span, nothing) ? ANSWERS_NOTHING : has_word(span, whole_words) ? ANSWERS_LONG : ANSWERS_INT;
    return !is_pointer(span) && !is_other(span) && (*answer != ANSWERS_INT || has_word(span, int_words));
}

/* "int (intptr_t, intptr_t, void *)"; the names of parameters and cffi's "int(*)(...)" are allowed. */
static bool parse(const char *text, callee_t *callee)
{
    const char *end = text + strlen(text), *open = strchr(text, '(');
    if (open == NULL || !answer_of(trimmed(text, open), &callee->answer))
        return false;
    const char *inside = open + 1 + strspn(open + 1, " ");
    if (*inside == '*') { /* what follows is a pointer to such a function */
        const char *closed = strchr(inside, ')');
        open = closed ? closed + 1 + strspn(closed + 1, " ") : NULL;
        if (open == NULL || *open != '(')
            return false;
    }
    const char *close = strchr(open, ')');
    if (close == NULL || trimmed(close + 1, end).at != trimmed(close + 1, end).end)
        return false;
    span_t params[4];
    int n = cut((span_t){open + 1, close}, params, 4);
    if (n == 3 && is_whole(params[0]) && is_whole(params[1]) && is_pointer(params[2])) {
        callee->kind = CALLEE_RANGE;
        return true;
    }
    if (n == 4 && is_pointer(params[0]) && is_whole(params[1]) && is_whole(params[2]) && is_pointer(params[3])) {
        callee->kind = CALLEE_BYTES;
        callee->only_reads = is_const(params[0]);
        return true;
    }
    return false;
}

static int check(const char *signature, callee_t *callee)
{
    if (signature != NULL && parse(signature, callee))
        return 0;
    if (signature == NULL)
        PyErr_SetString(PyExc_ValueError, "this capsule has no name, which is where the signature of its function stands: pass "
                                          "signature=\"int (intptr_t, intptr_t, void *)\" if it has that");
    else
        PyErr_Format(PyExc_ValueError,
                     "a C function with the signature '%.200s' cannot be called by parallel_for: it must be "
                     "'int (intptr_t begin, intptr_t end, void *user_data)' over a range of numbers, or "
                     "'int (void *data, size_t bytes, size_t offset, void *user_data)' over memory, const void * if it "
                     "only reads; void instead of int if it cannot fail",
                     signature);
    return -1;
}

/* ---- descriptions -------------------------------------------------------------------------------------------------------- */

static const char *text_of(PyObject *signature)
{
    if (PyUnicode_Check(signature))
        return PyUnicode_AsUTF8(signature);
    PyErr_Format(PyExc_TypeError, "signature must be a str or None, not %.100s", Py_TYPE(signature)->tp_name);
    return NULL;
}

static int from_capsule(PyObject *capsule, PyObject *signature, PyObject *keeps, callee_t *callee)
{
    const char *name = PyCapsule_GetName(capsule);
    const char *text = signature ? text_of(signature) : name;
    if (text == NULL && PyErr_Occurred())
        return -1;
    if (check(text, callee) < 0)
        return -1;
    callee->address = PyCapsule_GetPointer(capsule, name);
    callee->user_data = PyCapsule_GetContext(capsule); /* scipy's place for it */
    if (callee->address == NULL || PyErr_Occurred())
        return -1;
    callee->keeps = Py_NewRef(keeps);
    return 0;
}

typedef struct {
    PyObject_HEAD
    callee_t callee;
    PyObject *signature;
} function_t;

/* Whatever else there is: tether._callee knows how to ask it. */
static int from_python(PyObject *func, PyObject *signature, callee_t *callee)
{
    PyObject *module = PyImport_ImportModule("tether._callee");
    PyObject *found = module ? PyObject_CallMethod(module, "resolve", "OO", func, signature ? signature : Py_None) : NULL;
    Py_XDECREF(module);
    PyObject *number, *text;
    int r = -1;
    if (found != NULL && PyArg_ParseTuple(found, "OU", &number, &text)) {
        callee->address = PyLong_AsVoidPtr(number);
        const char *chars = PyUnicode_AsUTF8(text);
        if (chars != NULL && !PyErr_Occurred())
            r = check(chars, callee);
        if (r == 0 && callee->address == NULL) {
            PyErr_SetString(PyExc_ValueError, "this function has the address 0: there is nothing to call");
            r = -1;
        }
    }
    Py_XDECREF(found);
    if (r == 0)
        callee->keeps = Py_NewRef(func);
    return r;
}

int callee_from(state_t *st, PyObject *func, PyObject *signature, callee_t *callee)
{
    *callee = (callee_t){0};
    if (signature == Py_None)
        signature = NULL;
    if (Py_TYPE(func) == st->function_type && signature == NULL) {
        *callee = ((function_t *)func)->callee;
        callee->keeps = Py_NewRef(func);
        return 0;
    }
    if (PyCapsule_CheckExact(func))
        return from_capsule(func, signature, func, callee);
    /* scipy.LowLevelCallable is a tuple that begins with such a capsule. */
    if (PyTuple_Check(func) && PyTuple_GET_SIZE(func) > 0 && PyCapsule_CheckExact(PyTuple_GET_ITEM(func, 0)))
        return from_capsule(PyTuple_GET_ITEM(func, 0), signature, func, callee);
    return from_python(func, signature, callee);
}

void callee_clear(callee_t *callee) { Py_CLEAR(callee->keeps); }

/* ---- NativeFunction ------------------------------------------------------------------------------------------------------ */

static PyObject *function_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"func", "signature", NULL};
    PyObject *func, *signature = Py_None;
    state_t *st = PyType_GetModuleState(type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:NativeFunction", names, &func, &signature))
        return NULL;
    callee_t callee;
    if (callee_from(st, func, signature, &callee) < 0)
        return NULL;
    function_t *f = PyObject_GC_New(function_t, type);
    if (f == NULL) {
        callee_clear(&callee);
        return NULL;
    }
    f->callee = callee;
    PyObject_GC_Track(f);
    return (PyObject *)f;
}

static PyObject *function_repr(PyObject *self)
{
    callee_t *c = &((function_t *)self)->callee;
    return PyUnicode_FromFormat("<tether.native.NativeFunction over %s, of %R>",
                                c->kind == CALLEE_RANGE ? "numbers" : c->only_reads ? "memory, which it only reads" : "memory",
                                c->keeps);
}

static PyObject *function_address(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(((function_t *)self)->callee.address);
}

static PyObject *function_source(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((function_t *)self)->callee.keeps);
}

static int function_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((function_t *)self)->callee.keeps);
    return 0;
}

static void function_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    callee_clear(&((function_t *)self)->callee);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyGetSetDef function_getset[] = {
    {"address", function_address, NULL, "Where the function is, as an int.", NULL},
    {"source", function_source, NULL, "What it was made of, which lives as long as this does (G11).", NULL},
    {0},
};

static PyType_Slot function_slots[] = {
    {Py_tp_doc, "NativeFunction(func, signature=None)\n--\n\n"
                "A C function whose signature has been looked at: for functions that are called often.\n\n"
                "Keeps `func`, and what that refers to, alive (G11).\n\n"
                "Parameters:\n"
                "  func: as for parallel_for.\n"
                "  signature: its declaration in C, where `func` does not tell.\n\n"
                "Raises: ValueError, TypeError if the function does not fit or is not known to."},
    {Py_tp_new, function_new},
    {Py_tp_dealloc, function_dealloc},
    {Py_tp_traverse, function_traverse},
    {Py_tp_repr, function_repr},
    {Py_tp_getset, function_getset},
    {0, NULL},
};

PyType_Spec function_spec = {
    .name = "tether.native.NativeFunction",
    .basicsize = sizeof(function_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = function_slots,
};
