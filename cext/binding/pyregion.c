/* Region: mapped memory (runtime/region.h) as Python sees it. What is lent of it: pyborrow.c. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

static region_t *region_alloc(state_t *st, PyObject *name, const char *mode)
{
    region_t *r = PyObject_New(region_t, st->region_type);
    if (r == NULL)
        return NULL;
    r->core = (tether_region_t){0};
    r->st = st;
    r->name = Py_XNewRef(name);
    r->mode = mode;
    r->moved = r->closed = false;
    r->weakrefs = NULL;
    return r;
}

static PyObject *region_text(region_t *r)
{
    return r->name ? PyUnicode_FromFormat("region %R", r->name) : PyUnicode_FromString("a region");
}

PyObject *source_text(state_t *st, PyObject *source)
{
    if (Py_TYPE(source) == st->region_type)
        return region_text((region_t *)source);
    return owned_text((owned_t *)source);
}

bool source_is_foreign(state_t *st, PyObject *source)
{
    return tether_runtime_foreign(Py_TYPE(source) == st->region_type ? ((region_t *)source)->core.rt : ((owned_t *)source)->rt);
}

static PyObject *raise_os(int error, PyObject *path)
{
    if (error == ENOMEM)
        return PyErr_NoMemory();
    errno = error;
    return path ? PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path) : PyErr_SetFromErrno(PyExc_OSError);
}

/* A size in bytes: 1 to what an address can say. */
static int size_from(PyObject *object, size_t *size, const char *what)
{
    Py_ssize_t n = PyNumber_AsSsize_t(object, NULL); /* clipped */
    if (n == -1 && PyErr_Occurred())
        return -1;
    if (n == PY_SSIZE_T_MAX) {
        PyErr_Format(PyExc_ValueError, "%s is more than an address can say: %R", what, object);
        return -1;
    }
    if (n <= 0) {
        PyErr_Format(PyExc_ValueError, "%s must be at least 1 byte, not %R", what, object);
        return -1;
    }
    *size = (size_t)n;
    return 0;
}

static int name_from(PyObject *name)
{
    if (name == Py_None || PyUnicode_Check(name))
        return 0;
    PyErr_Format(PyExc_TypeError, "name must be a str or None, not %.100s", Py_TYPE(name)->tp_name);
    return -1;
}

static PyObject *region_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"nbytes", "name", "huge_pages", "protect", NULL};
    PyObject *nbytes, *name = Py_None;
    int huge = 0, protect = 0;
    state_t *st = PyType_GetModuleState(type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|$Opp:Region", names, &nbytes, &name, &huge, &protect))
        return NULL;
    size_t size;
    if (size_from(nbytes, &size, "the size of a region") < 0 || name_from(name) < 0)
        return NULL;
    region_t *r = region_alloc(st, name == Py_None ? NULL : name, "rw");
    if (r == NULL)
        return NULL;
    int error = tether_region_map(&r->core, st->rt, size, huge);
    if (error == 0 && protect)
        error = tether_region_shield(&r->core);
    if (error != 0) {
        Py_DECREF(r);
        return raise_os(error, NULL);
    }
    return (PyObject *)r;
}

static PyObject *region_shared(PyObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"nbytes", "name", "protect", NULL};
    PyObject *nbytes, *name = Py_None;
    int protect = 0;
    state_t *st = PyType_GetModuleState((PyTypeObject *)type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|$Op:shared", names, &nbytes, &name, &protect))
        return NULL;
    size_t size;
    if (size_from(nbytes, &size, "the size of a region") < 0 || name_from(name) < 0)
        return NULL;
    const char *label = name == Py_None ? "tether" : PyUnicode_AsUTF8(name);
    region_t *r = label ? region_alloc(st, name == Py_None ? NULL : name, "rw") : NULL;
    if (r == NULL)
        return NULL;
    char shown[64];
    PyOS_snprintf(shown, sizeof shown, "%s", label);
    int error = tether_region_map_shared(&r->core, st->rt, size, shown);
    if (error == 0 && protect)
        error = tether_region_shield(&r->core);
    if (error != 0) {
        Py_DECREF(r);
        return raise_os(error, NULL);
    }
    return (PyObject *)r;
}

/* How much of the file: `offset` on, `length` or what there is. */
static int extent(int fd, PyObject *path, PyObject *offset, PyObject *length, uint64_t *from, size_t *size)
{
    struct stat about;
    if (fstat(fd, &about) != 0) {
        raise_os(errno, path);
        return -1;
    }
    if (S_ISDIR(about.st_mode)) {
        raise_os(EISDIR, path);
        return -1;
    }
    if (!S_ISREG(about.st_mode)) {
        PyErr_Format(PyExc_ValueError, "%R is not a regular file: it cannot be mapped", path);
        return -1;
    }
    Py_ssize_t at = PyNumber_AsSsize_t(offset, PyExc_ValueError);
    if (at == -1 && PyErr_Occurred())
        return -1;
    if (at < 0 || at > about.st_size) {
        PyErr_Format(PyExc_ValueError, "offset %zd is outside of %R, which has %lld bytes", at, path, (long long)about.st_size);
        return -1;
    }
    *from = (uint64_t)at;
    *size = (size_t)(about.st_size - at);
    if (length != Py_None) {
        Py_ssize_t n = PyNumber_AsSsize_t(length, PyExc_ValueError);
        if (n == -1 && PyErr_Occurred())
            return -1;
        if (n < 0 || (size_t)n > *size) {
            PyErr_Format(PyExc_ValueError, "length %zd is more than the %zu bytes of %R behind offset %zd", n, *size, path, at);
            return -1;
        }
        *size = (size_t)n;
    }
    if (*size == 0) {
        PyErr_Format(PyExc_ValueError, "nothing to map: %R has no bytes there", path);
        return -1;
    }
    return 0;
}

static PyObject *region_open(PyObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "mode", "offset", "length", "name", "protect", NULL};
    PyObject *path, *offset = NULL, *length = Py_None, *name = Py_None, *bytes = NULL, *result = NULL;
    const char *mode = "r";
    int protect = 0, fd = -1, error;
    state_t *st = PyType_GetModuleState((PyTypeObject *)type);
    if (st == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|sOO$Op:open", names, &path, &mode, &offset, &length, &name,
                                                   &protect))
        return NULL;
    bool changes = strcmp(mode, "r+") == 0, copy = strcmp(mode, "c") == 0;
    if (!changes && !copy && strcmp(mode, "r") != 0)
        return PyErr_Format(PyExc_ValueError,
                            "mode must be 'r' (read), 'r+' (read and write) or 'c' (private copy), not '%s'", mode);
    if (name_from(name) < 0 || !PyUnicode_FSConverter(path, &bytes))
        return NULL;
    PyObject *zero = PyLong_FromLong(0), *label = NULL;
    region_t *r = NULL;
    uint64_t from;
    size_t size;
    if (zero == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    fd = open(PyBytes_AS_STRING(bytes), (changes ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    error = errno;
    Py_END_ALLOW_THREADS
    if (fd < 0) {
        raise_os(error, path);
        goto done;
    }
    if (extent(fd, path, offset ? offset : zero, length, &from, &size) < 0)
        goto done;
    label = name != Py_None ? Py_NewRef(name) : PyUnicode_DecodeFSDefaultAndSize(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
    r = label ? region_alloc(st, label, changes ? "r+" : copy ? "c" : "r") : NULL;
    if (r == NULL)
        goto done;
    error = tether_region_map_file(&r->core, st->rt, fd, from, size, copy ? TETHER_PAGES_COPY : TETHER_PAGES_SHARED,
                                   changes || copy);
    if (error == 0 && protect)
        error = tether_region_shield(&r->core);
    if (error != 0)
        raise_os(error, path);
    else
        result = Py_NewRef((PyObject *)r);
done:
    if (fd >= 0)
        close(fd);
    Py_XDECREF(r);
    Py_XDECREF(label);
    Py_XDECREF(zero);
    Py_DECREF(bytes);
    return result;
}

/* ---- lending ----------------------------------------------------------------------------------------------------- */

static int raise_gone(region_t *r)
{
    PyObject *what = region_text(r);
    if (what != NULL)
        PyErr_Format(r->moved ? r->st->MovedError : PyExc_ValueError,
                     r->moved ? "%U was consumed by split_at or merge: use what they returned" : "%U is closed", what);
    Py_XDECREF(what);
    return -1;
}

static int need_alive(region_t *r)
{
    if (need_own_source(r->st, r->core.rt) < 0)
        return -1;
    return r->moved || r->closed ? raise_gone(r) : 0;
}

static int bound(PyObject *object, size_t missing, size_t most, size_t *at)
{
    if (object == NULL || object == Py_None) {
        *at = missing;
        return 0;
    }
    Py_ssize_t n = PyNumber_AsSsize_t(object, PyExc_ValueError);
    if (n == -1 && PyErr_Occurred())
        return -1;
    if (n < 0 || (size_t)n > most) {
        PyErr_Format(PyExc_ValueError, "a range of this region is from 0 to %zu, in bytes; %R is outside", most, object);
        return -1;
    }
    *at = (size_t)n;
    return 0;
}

/* start, stop, timeout: positional or by name but for timeout. Slots of what was not given are NULL. */
static int range_args(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const char *what, PyObject *slots[3])
{
    static const char *const names[] = {"start", "stop", "timeout"};
    slots[0] = slots[1] = slots[2] = NULL;
    if (nargs > 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most 2 positional arguments, start and stop (%zd given)", what, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++)
        slots[i] = args[i];
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int slot = 0;
        while (slot < 3 && PyUnicode_CompareWithASCIIString(name, names[slot]) != 0)
            slot++;
        if (slot == 3 || slots[slot] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected or repeated argument %R", what, name);
            return -1;
        }
        slots[slot] = args[nargs + i];
    }
    return 0;
}

static int check_writable(region_t *r)
{
    if (r->core.access == TETHER_ACCESS_WRITE)
        return 0;
    PyObject *what = region_text(r);
    if (what != NULL)
        PyErr_Format(r->st->BorrowError, "%U is %s: it can only be shared", what,
                     r->core.may_write ? "protected (\"r\")" : "mapped read-only (mode \"r\")");
    Py_XDECREF(what);
    return -1;
}

/* What was lent, or failed to be (NULL): looked at again, for others may have closed or protected the region meanwhile. */
static PyObject *still_lendable(region_t *r, bool exclusive, PyObject *lent)
{
    if (lent == NULL && (r->moved || r->closed) && PyErr_ExceptionMatches(r->st->BorrowError)) {
        PyErr_Clear();
        raise_gone(r);
    }
    if (lent != NULL && exclusive && check_writable(r) < 0)
        Py_CLEAR(lent);
    return lent;
}

static PyObject *borrow_range(region_t *r, bool exclusive, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *slots[3];
    size_t start = 0, stop = r->core.nbytes;
    if (nargs != 0 || kwnames != NULL) {
        if (range_args(args, nargs, kwnames, exclusive ? "borrow_mut" : "share", slots) < 0 ||
            bound(slots[0], 0, r->core.nbytes, &start) < 0 || bound(slots[1], r->core.nbytes, r->core.nbytes, &stop) < 0)
            return NULL;
        if (start > stop)
            return PyErr_Format(PyExc_ValueError, "start %zu lies behind stop %zu", start, stop);
    } else {
        slots[2] = NULL;
    }
    if (need_alive(r) < 0 || (exclusive && check_writable(r) < 0))
        return NULL;
    const lending_t from = {.st = r->st, .source = (PyObject *)r, .book = &r->core.book,
                            .verb = exclusive ? "borrow" : "share", .exclusive = exclusive};
    return still_lendable(r, exclusive, borrow_one(&from, start, stop, slots[2]));
}

static PyObject *region_share(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return borrow_range((region_t *)self, false, args, nargs, kwnames);
}

static PyObject *region_borrow_mut(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return borrow_range((region_t *)self, true, args, nargs, kwnames);
}

PyObject *region_borrow(region_t *r, bool exclusive) { return borrow_range(r, exclusive, NULL, 0, NULL); }

/* The n + 1 bounds of the parts of start..stop; to be freed with PyMem_Free. NULL with an exception. */
size_t *region_bounds(region_t *r, size_t start, size_t stop, PyObject *args, PyObject *kwargs, size_t *count)
{
    static char *names[] = {"n", "size", NULL};
    PyObject *n = Py_None, *size = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$O:chunks", names, &n, &size))
        return NULL;
    if ((n == Py_None) == (size == Py_None)) {
        PyErr_SetString(PyExc_TypeError, "chunks takes either n, the number of parts, or size=, their length in bytes");
        return NULL;
    }
    Py_ssize_t given = PyNumber_AsSsize_t(n == Py_None ? size : n, PyExc_ValueError);
    if (given == -1 && PyErr_Occurred())
        return NULL;
    if (given < 1) {
        PyErr_Format(PyExc_ValueError, "%s must be at least 1, not %zd", n == Py_None ? "size" : "n", given);
        return NULL;
    }
    size_t bytes = stop - start, each = (size_t)given;
    *count = n != Py_None ? each : bytes / each + (bytes % each != 0);
    size_t *bounds = *count < PY_SSIZE_T_MAX / sizeof *bounds ? PyMem_Malloc((*count + 1) * sizeof *bounds) : NULL;
    if (bounds == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i <= *count; i++) {
        if (n != Py_None)
            bounds[i] = tether_region_part(&r->core, start, stop, i, *count);
        else
            bounds[i] = i == *count ? stop : start + i * each;
    }
    return bounds;
}

static PyObject *chunks(region_t *r, bool exclusive, PyObject *args, PyObject *kwargs)
{
    size_t n, *bounds = region_bounds(r, 0, r->core.nbytes, args, kwargs, &n);
    if (bounds == NULL || need_alive(r) < 0 || (exclusive && check_writable(r) < 0)) {
        PyMem_Free(bounds);
        return NULL;
    }
    const lending_t from = {.st = r->st, .source = (PyObject *)r, .book = &r->core.book,
                            .verb = exclusive ? "borrow" : "share", .exclusive = exclusive};
    PyObject *list = borrow_many(&from, bounds, n);
    PyMem_Free(bounds);
    return still_lendable(r, exclusive, list);
}

static PyObject *region_chunks(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return chunks((region_t *)self, false, args, kwargs);
}

static PyObject *region_chunks_mut(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return chunks((region_t *)self, true, args, kwargs);
}

/* ---- as a whole -------------------------------------------------------------------------------------------------- */

/* Nothing is lent from here on. The calling thread's record, or NULL with an exception. */
static tether_thread_t *seize(region_t *r, const char *verb)
{
    tether_thread_t *thread = need_alive(r) == 0 ? need_thread(r->st) : NULL;
    blame_t blame = {0};
    if (thread == NULL || tether_region_seize(thread, &r->core, blame_note, &blame) == TETHER_OK)
        return thread;
    if (blame_collected(r->st, thread, &blame) && tether_region_seize(thread, &r->core, blame_note, &blame) == TETHER_OK)
        return thread;
    if (blame.runtime && (r->moved || r->closed))
        raise_gone(r); /* another thread was faster */
    else
        blame_raise(r->st, &blame, (PyObject *)r, verb, NULL);
    return NULL;
}

static PyObject *region_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    region_t *r = (region_t *)self;
    if (r->closed || r->moved)
        Py_RETURN_NONE;
    tether_thread_t *thread = seize(r, "close");
    if (thread == NULL) {
        if (!r->closed)
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    int error = tether_region_unmap(&r->core);
    if (error != 0) {
        tether_region_let_go(thread, &r->core);
        return raise_os(error, NULL);
    }
    r->closed = true; /* and it stays seized */
    tether_book_shut(&r->core.book);
    Py_RETURN_NONE;
}

static PyObject *region_split_at(PyObject *self, PyObject *offset)
{
    region_t *r = (region_t *)self;
    Py_ssize_t at = PyNumber_AsSsize_t(offset, PyExc_ValueError);
    if (at == -1 && PyErr_Occurred())
        return NULL;
    tether_thread_t *thread = seize(r, "split");
    if (thread == NULL)
        return NULL;
    PyObject *pair = NULL;
    region_t *left = NULL, *right = NULL;
    if (at < 0 || !tether_region_may_cut(&r->core, (size_t)at)) {
        PyErr_Format(PyExc_ValueError, "a region can be split inside of it, on a boundary of its pages (%zu bytes); not at %zd",
                     r->core.granule, at);
    } else if ((left = region_alloc(r->st, r->name, r->mode)) != NULL && (right = region_alloc(r->st, r->name, r->mode)) != NULL &&
               (pair = PyTuple_Pack(2, left, right)) != NULL) {
        int error = tether_region_cut(&r->core, (size_t)at, &left->core, &right->core);
        if (error != 0) {
            raise_os(error, NULL);
            Py_CLEAR(pair);
        }
        r->moved = error == 0;
    }
    if (pair == NULL)
        tether_region_let_go(thread, &r->core);
    else
        tether_book_shut(&r->core.book);
    Py_XDECREF(left);
    Py_XDECREF(right);
    return pair;
}

static PyObject *region_merge(PyObject *self, PyObject *other)
{
    region_t *r = (region_t *)self, *o = (region_t *)other;
    if (Py_TYPE(other) != r->st->region_type)
        return PyErr_Format(PyExc_TypeError, "merge() takes a Region, not %.100s", Py_TYPE(other)->tp_name);
    if (r == o)
        return PyErr_Format(PyExc_ValueError, "a region cannot be merged with itself");
    tether_thread_t *thread = seize(r, "merge");
    if (thread == NULL)
        return NULL;
    region_t *whole = NULL;
    if (seize(o, "merge") != NULL) {
        if (!tether_region_may_merge(&r->core, &o->core)) {
            PyErr_SetString(PyExc_ValueError,
                            "merge takes the right-hand neighbour that was cut from the same region, with the same "
                            "protection");
        } else if ((whole = region_alloc(r->st, r->name, r->mode)) != NULL) {
            int error = tether_region_merge(&r->core, &o->core, &whole->core);
            if (error != 0) {
                raise_os(error, NULL);
                Py_CLEAR(whole);
            }
            r->moved = o->moved = error == 0;
        }
        if (whole == NULL)
            tether_region_let_go(thread, &o->core);
    }
    if (whole == NULL) {
        tether_region_let_go(thread, &r->core);
    } else {
        tether_book_shut(&r->core.book);
        tether_book_shut(&o->core.book);
    }
    return (PyObject *)whole;
}

static PyObject *region_protect(PyObject *self, PyObject *arg)
{
    region_t *r = (region_t *)self;
    bool read = PyUnicode_Check(arg) && PyUnicode_CompareWithASCIIString(arg, "r") == 0;
    if (!read && !(PyUnicode_Check(arg) && PyUnicode_CompareWithASCIIString(arg, "rw") == 0))
        return PyErr_Format(PyExc_ValueError, "protect() takes 'r' or 'rw', not %R", arg);
    tether_thread_t *thread = seize(r, "protect");
    if (thread == NULL)
        return NULL;
    int error = 0;
    if (!read && !r->core.may_write)
        PyErr_SetString(PyExc_ValueError, "the file was opened read-only (mode 'r'): open it with 'r+' or 'c' to write");
    else if ((error = tether_region_protect(&r->core, read ? TETHER_ACCESS_READ : TETHER_ACCESS_WRITE)) != 0)
        raise_os(error, NULL);
    tether_region_let_go(thread, &r->core);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* A shared loan of our own: the pages stay while the system works on them, without the GIL. */
static int on_pages(region_t *r, const char *verb, int (*work)(region_t *r, int arg), int arg)
{
    tether_thread_t *thread = need_alive(r) == 0 ? need_thread(r->st) : NULL;
    if (thread == NULL)
        return -1;
    tether_loan_t loan = {.stop = r->core.nbytes}, *one = &loan;
    blame_t blame = {0};
    if (borrow_now(r->st, thread, &r->core.book, &one, 1, &blame) != TETHER_OK) {
        if (blame.runtime && (r->moved || r->closed))
            raise_gone(r); /* by what the collection ran */
        else
            blame_raise(r->st, &blame, (PyObject *)r, verb, NULL);
        return -1;
    }
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = work(r, arg);
    Py_END_ALLOW_THREADS
    tether_loan_forget(thread, &loan);
    if (error != 0)
        raise_os(error, NULL);
    return error != 0 ? -1 : 0;
}

static int flush_pages(region_t *r, int unused)
{
    (void)unused;
    return tether_pages_flush(r->core.base, r->core.mapped);
}

static PyObject *region_flush(PyObject *self, PyObject *unused)
{
    (void)unused;
    return on_pages((region_t *)self, "flush", flush_pages, 0) < 0 ? NULL : Py_NewRef(Py_None);
}

static int advise_pages(region_t *r, int advice)
{
    return tether_pages_advise(r->core.base, r->core.mapped, (tether_advice_t)advice);
}

static PyObject *region_advise(PyObject *self, PyObject *arg)
{
    static const char *const names[] = {"normal", "sequential", "random", "willneed", "hugepage", NULL};
    static const int advices[] = {TETHER_ADVICE_NORMAL, TETHER_ADVICE_SEQUENTIAL, TETHER_ADVICE_RANDOM, TETHER_ADVICE_WILLNEED,
                                  TETHER_ADVICE_HUGE};
    for (int i = 0; names[i] != NULL; i++)
        if (PyUnicode_Check(arg) && PyUnicode_CompareWithASCIIString(arg, names[i]) == 0)
            return on_pages((region_t *)self, "advise on", advise_pages, advices[i]) < 0 ? NULL : Py_NewRef(Py_None);
    return PyErr_Format(PyExc_ValueError,
                        "advise() takes 'normal', 'sequential', 'random', 'willneed' or 'hugepage', not %R", arg);
}

static PyObject *region_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return need_alive((region_t *)self) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *region_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *r = region_close(self, NULL);
    if (r == NULL && nargs > 0 && args[0] != Py_None) {
        /* The block's own exception matters more; what is lent keeps the pages, and the last of it gives them back. */
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    Py_XDECREF(r);
    return r == NULL ? NULL : Py_NewRef(Py_False);
}

/* ---- type -------------------------------------------------------------------------------------------------------- */

static void region_dealloc(PyObject *self)
{
    region_t *r = (region_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (r->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    /* No loan is left, each had a reference to us. In a child of a fork these are pages of our own. A part of a mapping that
     * the system cannot take back, for want of a mapping more, is lost. */
    if (r->core.base != NULL)
        tether_region_unmap(&r->core);
    Py_XDECREF(r->name);
    PyObject_Free(self);
    Py_DECREF(type);
}

static Py_ssize_t region_length(PyObject *self) { return (Py_ssize_t)((region_t *)self)->core.nbytes; }

static PyObject *region_get_nbytes(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((region_t *)self)->core.nbytes);
}

static PyObject *region_get_name(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *name = ((region_t *)self)->name;
    return Py_NewRef(name ? name : Py_None);
}

static const char *mode_now(region_t *r)
{
    return r->core.may_write && r->core.access == TETHER_ACCESS_READ ? "r" : r->mode;
}

static PyObject *region_get_mode(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(mode_now((region_t *)self));
}

static PyObject *region_get_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((region_t *)self)->closed || ((region_t *)self)->moved);
}

static PyObject *region_repr(PyObject *self)
{
    region_t *r = (region_t *)self;
    const char *state = r->closed ? ", closed" : r->moved ? ", consumed" : "";
    if (r->name != NULL)
        return PyUnicode_FromFormat("<tether.Region %R, %zu bytes, mode '%s'%s>", r->name, r->core.nbytes, mode_now(r), state);
    return PyUnicode_FromFormat("<tether.Region of %zu bytes, mode '%s'%s>", r->core.nbytes, mode_now(r), state);
}

static PyObject *no_copy(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyErr_Format(PyExc_TypeError, "a Region cannot be copied or pickled: it owns its pages. Borrow from it");
}

static PyMethodDef region_methods[] = {
    {"shared", (PyCFunction)(void (*)(void))region_shared, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "shared($type, nbytes, /, *, name=None, protect=False)\n--\n\n"
     "A region of zeroed memory that can cross to other processes (a sealed memfd: it neither grows nor shrinks)."},
    {"open", (PyCFunction)(void (*)(void))region_open, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "open($type, path, mode='r', offset=0, length=None, *, name=None, protect=False)\n--\n\n"
     "A region over the bytes of a file.\n\n"
     "Parameters:\n"
     "  mode: 'r' (shared only), 'r+' (changes go to the file) or 'c' (changes stay here).\n"
     "  offset, length: in bytes, any; None: to the end of the file.\n\n"
     "Raises: OSError; ValueError for a range outside of the file or without bytes. If the file is truncated meanwhile, touching\n"
     "what is no longer there ends the process with SIGBUS: a limit of mapped files."},
    {"share", (PyCFunction)(void (*)(void))region_share, METH_FASTCALL | METH_KEYWORDS,
     "share($self, /, start=0, stop=None, *, timeout=0)\n--\n\n"
     "Borrows bytes start to stop for reading, beside other readers (G13). Returns: Shared.\n\n"
     "Parameters: timeout, in seconds, to wait for a writer; 0 raises at once, None waits for ever.\n"
     "Raises: BorrowError naming holder, range and line; TimeoutError; DeadlockError; ValueError.\n\n"
     ">>> import tether\n>>> r = tether.Region(4096)\n>>> with r.share(0, 8) as s:\n...     bytes(s)\n"
     "b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\n"},
    {"borrow_mut", (PyCFunction)(void (*)(void))region_borrow_mut, METH_FASTCALL | METH_KEYWORDS,
     "borrow_mut($self, /, start=0, stop=None, *, timeout=0)\n--\n\n"
     "Borrows bytes start to stop for writing, alone (G13). Returns: Exclusive.\n\n"
     "Parameters: timeout, in seconds, to wait for others; 0 raises at once, None waits for ever. Who waits is served in turn.\n"
     "Raises: BorrowError naming holder, range and line; TimeoutError; DeadlockError; ValueError.\n\n"
     ">>> import tether\n>>> r = tether.Region(4096)\n>>> with r.borrow_mut() as m:\n...     m[:5] = b'hello'\n...     m[:5]\n"
     "b'hello'\n"},
    {"chunks", (PyCFunction)(void (*)(void))region_chunks, METH_VARARGS | METH_KEYWORDS,
     "chunks($self, n=None, /, *, size=None)\n--\n\nLike chunks_mut, shared."},
    {"chunks_mut", (PyCFunction)(void (*)(void))region_chunks_mut, METH_VARARGS | METH_KEYWORDS,
     "chunks_mut($self, n=None, /, *, size=None)\n--\n\n"
     "The whole region as a list of disjoint Exclusive borrows, all or none.\n\n"
     "Parameters:\n"
     "  n: exactly so many parts; sizes differ by at most a page (a byte, if a part has less than 64 pages).\n"
     "  size: parts of so many bytes, the last may be shorter.\n\n"
     ">>> import tether\n>>> r = tether.Region(1000)\n>>> [len(part) for part in r.chunks_mut(3)]\n[334, 333, 333]\n"},
    {"split_at", region_split_at, METH_O,
     "split_at($self, offset, /)\n--\n\n"
     "Two regions, of the bytes before and from `offset`, which is on a page boundary. This one is consumed (MovedError).\n\n"
     "Raises: BorrowError while something is lent; ValueError."},
    {"merge", region_merge, METH_O,
     "merge($self, other, /)\n--\n\n"
     "One region of this one and its right-hand neighbour, cut from the same one. Both are consumed (MovedError).\n\n"
     "Raises: BorrowError while something is lent; ValueError."},
    {"protect", region_protect, METH_O,
     "protect($self, access, /)\n--\n\n'r': nobody can write any more, not even native code; 'rw': again.\n\n"
     "Raises: BorrowError while something is lent; ValueError; OSError."},
    {"flush", region_flush, METH_NOARGS, "flush($self, /)\n--\n\nWrites changed pages back to the file, and waits for it."},
    {"advise", region_advise, METH_O,
     "advise($self, advice, /)\n--\n\n"
     "Tells the system what will be done: 'normal', 'sequential', 'random', 'willneed' or 'hugepage' (madvise)."},
    {"close", region_close, METH_NOARGS,
     "close($self, /)\n--\n\nGives the pages back. Again: does nothing.\n\nRaises: BorrowError while something is lent (G15)."},
    {"__enter__", region_enter, METH_NOARGS, "The region itself."},
    {"__exit__", (PyCFunction)(void (*)(void))region_exit, METH_FASTCALL, "Closes it."},
    NO_COPY_METHODS(no_copy),
    {0},
};

static PyGetSetDef region_getset[] = {
    {"nbytes", region_get_nbytes, NULL, "Its size in bytes.", NULL},
    {"name", region_get_name, NULL, "The name given, the path of the file, or None.", NULL},
    {"mode", region_get_mode, NULL, "'rw', or 'r', 'r+', 'c' of a file; 'r' while protected.", NULL},
    {"closed", region_get_closed, NULL, "Was it closed, or consumed by split_at or merge?", NULL},
    {0},
};

static PyMemberDef region_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(region_t, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot region_slots[] = {
    {Py_tp_doc, "Region(nbytes, *, name=None, huge_pages=False, protect=False)\n--\n\n"
                "Mapped memory that tasks share without copying: any number of readers or one writer per byte (G13-G15).\n\n"
                "Zeroed pages of this process; Region.shared and Region.open map others.\n\n"
                "Parameters:\n"
                "  nbytes: at least 1.\n"
                "  name: for errors.\n"
                "  huge_pages: at an address for huge pages, and asks for them.\n"
                "  protect: the memory unit guards what is lent: shared pages cannot be written, pages lent to nobody not be\n"
                "    touched; a stray write of native code crashes at the spot. A debugging aid.\n\n"
                "Raises: ValueError; MemoryError; OSError.\n\n"
                ">>> import tether\n>>> r = tether.Region(1 << 20)\n>>> def fill(part, value):\n"
                "...     part[:] = bytes([value]) * len(part)\n>>> with tether.scope() as s:\n"
                "...     for i, part in enumerate(r.chunks_mut(4)):\n...         handle = s.spawn(fill, part, i)\n"
                ">>> with r.share() as s:\n...     s[0], s[-1]\n(0, 3)\n"},
    {Py_tp_new, region_new},
    {Py_tp_dealloc, region_dealloc},
    {Py_tp_methods, region_methods},
    {Py_tp_getset, region_getset},
    {Py_tp_members, region_members},
    {Py_tp_repr, region_repr},
    {Py_mp_length, region_length},
    {0, NULL},
};

PyType_Spec region_spec = {
    .name = "tether.Region",
    .basicsize = sizeof(region_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = region_slots,
};
