/* fill, copy, sum, min, max: numbers in memory (runtime/kernel.h). Small ones are done at once, with the GIL; large ones are
 * loops. */
#include "native.h"
#include "kernel.h"

#include <string.h>

enum { SMALL = 2 * TETHER_KERNEL_GRAIN }; /* bytes; less than it takes to have somebody help */

/* ---- formats ------------------------------------------------------------------------------------------------------------- */

/* The kind that a format of struct means on this machine. false: none of ours. */
static bool kind_of(const char *format, tether_kind_t *kind)
{
    static const tether_kind_t by_size[2][4] = {{TETHER_U8, TETHER_U16, TETHER_U32, TETHER_U64},
                                                {TETHER_I8, TETHER_I16, TETHER_I32, TETHER_I64}};
    format += *format == '@';
    if (format[0] == 0 || format[1] != 0)
        return false;
    size_t size;
    bool is_signed = *format >= 'a';
    switch (*format) {
    case 'b': case 'B': size = 1; break;
    case 'h': case 'H': size = sizeof(short); break;
    case 'i': case 'I': size = sizeof(int); break;
    case 'l': case 'L': size = sizeof(long); break;
    case 'q': case 'Q': size = sizeof(long long); break;
    case 'f': *kind = TETHER_F32; return true;
    case 'd': *kind = TETHER_F64; return true;
    default: return false;
    }
    *kind = by_size[is_signed][size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3];
    return true;
}

/* The format asked for, or else the buffer's own; and how many numbers there are. */
static int numbers_of(const bytes_t *memory, PyObject *format, tether_kind_t *kind, size_t *count)
{
    const char *text = memory->view.format ? memory->view.format : "B";
    if (format != Py_None) {
        text = PyUnicode_Check(format) ? PyUnicode_AsUTF8(format) : NULL;
        if (text == NULL) {
            if (!PyErr_Occurred())
                PyErr_Format(PyExc_TypeError, "format must be a str or None, not %.100s", Py_TYPE(format)->tp_name);
            return -1;
        }
    }
    if (!kind_of(text, kind)) {
        PyErr_Format(PyExc_ValueError,
                     "format must be one of b B h H i I l L q Q f d (as in struct, of this machine), not '%.100s'", text);
        return -1;
    }
    size_t size = tether_kind_size(*kind);
    *count = memory->size / size;
    if (memory->size % size == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "%zu bytes are no whole number of '%s', which has %zu bytes", memory->size, text, size);
    return -1;
}

/* ---- running ------------------------------------------------------------------------------------------------------------- */

static int run(state_t *st, size_t bytes, size_t n, size_t grain, tether_loop_body_t *body, void *arg)
{
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL || checkpoint(st, thread) < 0)
        return -1;
    if (bytes <= SMALL) {
        if (n > 0)
            body(arg, 0, n);
        return 0;
    }
    if (loop_prepare(st) < 0)
        return -1;
    tether_loop_t loop = {.n = n, .grain = grain, .guided = true, .body = body, .arg = arg};
    return loop_run(st, thread, &loop) == TETHER_OK ? 0 : -1;
}

/* Gives it back, and the exception stays what it is. */
static PyObject *finish(bytes_t *memory, PyObject *result)
{
    PyObject *exc = result == NULL ? take_exception() : NULL;
    bytes_give_back(memory);
    if (exc != NULL)
        give_exception(exc);
    return result;
}

/* ---- fill and copy ------------------------------------------------------------------------------------------------------- */

static int raise_unfit(PyObject *value, tether_kind_t kind)
{
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%R does not fit into %zu bytes%s", value, tether_kind_size(kind),
                 tether_kind_is_real(kind) ? "" : tether_kind_is_signed(kind) ? ", signed" : ", unsigned");
    return -1;
}

/* The bytes of a number, as it lies in memory. */
static int pack_whole(PyObject *value, tether_kind_t kind, char *bytes)
{
    PyObject *number = PyNumber_Index(value);
    if (number == NULL)
        return -1;
    size_t size = tether_kind_size(kind);
    unsigned bits = 8 * (unsigned)size;
    int r = 0, overflow;
    uint64_t packed;
    if (kind == TETHER_U64) {
        packed = PyLong_AsUnsignedLongLong(number);
        r = PyErr_Occurred() ? -1 : 0;
    } else {
        long long small = PyLong_AsLongLongAndOverflow(number, &overflow);
        packed = (uint64_t)small;
        long long most = (long long)(UINT64_MAX >> (64 - bits + (tether_kind_is_signed(kind) ? 1 : 0)));
        r = overflow || small > most || small < (tether_kind_is_signed(kind) ? -most - 1 : 0) ? -1 : 0;
    }
    Py_DECREF(number);
    if (r < 0)
        return raise_unfit(value, kind);
    const uint8_t one = (uint8_t)packed;
    const uint16_t two = (uint16_t)packed;
    const uint32_t four = (uint32_t)packed;
    const void *const stored[] = {&one, &two, &four, &packed};
    memcpy(bytes, stored[size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3], size);
    return 0;
}

static int pack_real(PyObject *value, tether_kind_t kind, char *bytes)
{
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred())
        return PyErr_ExceptionMatches(PyExc_OverflowError) ? raise_unfit(value, kind) : -1;
    if (kind == TETHER_F64) {
        memcpy(bytes, &number, sizeof number);
        return 0;
    }
    float small = (float)number;
    if (__builtin_isinf(small) && !__builtin_isinf(number))
        return raise_unfit(value, kind);
    memcpy(bytes, &small, sizeof small);
    return 0;
}

static int pattern_from(PyObject *value, tether_kind_t kind, uint64_t *pattern)
{
    char bytes[8];
    size_t size = tether_kind_size(kind);
    if ((tether_kind_is_real(kind) ? pack_real(value, kind, bytes) : pack_whole(value, kind, bytes)) < 0)
        return -1;
    for (size_t i = size; i < sizeof bytes; i++)
        bytes[i] = bytes[i - size];
    memcpy(pattern, bytes, sizeof bytes);
    return 0;
}

PyObject *kernel_fill(state_t *st, PyObject *args)
{
    PyObject *object, *value, *format;
    bytes_t memory;
    if (!PyArg_ParseTuple(args, "OOO:fill", &object, &value, &format) || bytes_take(st, object, true, false, &memory) < 0)
        return NULL;
    tether_kind_t kind;
    size_t count;
    tether_fill_t fill = {.data = memory.data};
    bool ok = numbers_of(&memory, format, &kind, &count) == 0 && pattern_from(value, kind, &fill.pattern) == 0 &&
              run(st, memory.size, memory.size, TETHER_KERNEL_GRAIN, tether_fill_body, &fill) == 0;
    return finish(&memory, ok ? Py_NewRef(Py_None) : NULL);
}

/* All at once: in parts they would overtake one another. */
typedef struct {
    void *to;
    const void *from;
    size_t size;
} move_t;

static int move_body(void *arg, size_t begin, size_t end)
{
    const move_t *move = arg;
    if (begin < end)
        memmove(move->to, move->from, move->size);
    return 0;
}

static int copy(state_t *st, const bytes_t *to, const bytes_t *from)
{
    if (to->size != from->size) {
        PyErr_Format(PyExc_ValueError, "copy needs as many bytes on both sides: %zu into %zu", from->size, to->size);
        return -1;
    }
    if (to->data < from->data + from->size && from->data < to->data + to->size) {
        move_t move = {.to = to->data, .from = from->data, .size = to->size}; /* views of one borrow, or of other memory */
        return run(st, to->size, 1, 1, move_body, &move);
    }
    tether_copy_t job = {.to = to->data, .from = from->data};
    return run(st, to->size, to->size, TETHER_KERNEL_GRAIN, tether_copy_body, &job);
}

PyObject *kernel_copy(state_t *st, PyObject *args)
{
    PyObject *target, *source;
    bytes_t to, from;
    if (!PyArg_ParseTuple(args, "OO:copy", &target, &source) || bytes_take(st, source, false, false, &from) < 0)
        return NULL;
    if (bytes_take(st, target, true, false, &to) < 0)
        return finish(&from, NULL);
    PyObject *result = copy(st, &to, &from) == 0 ? Py_NewRef(Py_None) : NULL;
    return finish(&from, finish(&to, result));
}

/* ---- reductions ---------------------------------------------------------------------------------------------------------- */

static PyObject *large_int(__int128 number)
{
    if (number >= LLONG_MIN && number <= LLONG_MAX)
        return PyLong_FromLongLong((long long)number);
    PyObject *high = PyLong_FromLongLong((long long)(number >> 64));
    PyObject *low = PyLong_FromUnsignedLongLong((unsigned long long)number);
    PyObject *bits = PyLong_FromLong(64), *shifted = high && bits ? PyNumber_Lshift(high, bits) : NULL;
    PyObject *result = shifted && low ? PyNumber_Or(shifted, low) : NULL;
    Py_XDECREF(high);
    Py_XDECREF(low);
    Py_XDECREF(bits);
    Py_XDECREF(shifted);
    return result;
}

static PyObject *reduce(state_t *st, const bytes_t *memory, tether_reduction_t *r)
{
    tether_reduction_plan(r);
    r->parts = PyMem_Malloc((r->blocks ? r->blocks : 1) * sizeof *r->parts);
    if (r->parts == NULL)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    if (run(st, memory->size, r->blocks, 0, tether_reduction_body, r) == 0) {
        tether_part_t total = tether_reduction_result(r);
        result = tether_kind_is_real(r->kind) ? PyFloat_FromDouble(total.real) : large_int(total.whole);
    }
    PyMem_Free(r->parts);
    return result;
}

PyObject *kernel_reduce(state_t *st, PyObject *args)
{
    int fold;
    PyObject *object, *format;
    bytes_t memory;
    if (!PyArg_ParseTuple(args, "iOO:reduce", &fold, &object, &format) || bytes_take(st, object, false, false, &memory) < 0)
        return NULL;
    tether_reduction_t r = {.fold = (tether_fold_t)fold, .data = memory.data};
    PyObject *result = NULL;
    if (numbers_of(&memory, format, &r.kind, &r.count) == 0) {
        if (r.count == 0 && r.fold != TETHER_SUM)
            PyErr_Format(PyExc_ValueError, "%s of no numbers: there is none to give", r.fold == TETHER_LEAST ? "min" : "max");
        else
            result = reduce(st, &memory, &r);
    }
    return finish(&memory, result);
}
