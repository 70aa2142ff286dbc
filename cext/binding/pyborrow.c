/* Shared and Exclusive: handles of what is lent of a region or an owned value (runtime/borrow.h). One struct serves both.
 *
 * A handle refers to its source, so pages outlive every loan and view. A raw view refers to the handle. Handles of a region
 * refer to nothing that could refer back, so only those of values are tracked by the collector.
 *
 * The handle of a part keeps its lender's memory (`kept`), and not the lender: whoever drops that ends its borrow, and when the
 * parts are gone the range is free, though somebody may still have their handles (G14). */
#include "binding.h"

#include <stddef.h>

/* ---- what is in the way ------------------------------------------------------------------------------------------ */

void blame_note(tether_loan_t *loan, void *arg)
{
    blame_t *blame = arg;
    bool ended = loan->state == TETHER_LOAN_ENDED;
    *blame = (blame_t){.found = true, .exclusive = loan->exclusive, .viewed = ended && load_relaxed(&loan->views) != 0,
                       .waiting = loan->state == TETHER_LOAN_NEW, .runtime = loan->host == NULL && !loan->bare,
                       .start = loan->start, .stop = loan->stop, .holder = load_relaxed(&loan->holder)};
    if (blame->holder != NULL)
        tether_task_ref(blame->holder);
    if (loan->host != NULL) {
        borrow_t *borrow = loan->host;
        blame->code = Py_XNewRef(borrow->code);
        blame->lasti = borrow->lasti;
    }
}

static void blame_clear(blame_t *blame)
{
    if (blame->holder != NULL)
        job_unref(job_of(blame->holder));
    Py_XDECREF(blame->code);
    *blame = (blame_t){0};
}

bool blame_collected(state_t *st, tether_thread_t *thread, blame_t *blame)
{
    if (!blame->viewed || !host_collect(st) || tether_thread(st->rt) != thread) /* a destructor has forked: we are the child */
        return false;
    blame_clear(blame);
    return true;
}

tether_status_t borrow_now(state_t *st, tether_thread_t *thread, tether_book_t *book, tether_loan_t **loans, size_t n,
                           blame_t *blame)
{
    tether_status_t status = tether_borrow(thread, book, loans, n, blame_note, blame);
    if (status != TETHER_OK && blame_collected(st, thread, blame))
        status = tether_borrow(thread, book, loans, n, blame_note, blame);
    return status;
}

static PyObject *range_of(PyObject *source, state_t *st, size_t start, size_t stop)
{
    if (Py_TYPE(source) != st->region_type)
        return Py_NewRef(Py_None);
    return Py_BuildValue("(nn)", (Py_ssize_t)start, (Py_ssize_t)stop);
}

static PyObject *lending_module(void) { return PyImport_ImportModule("tether._lending"); }

static void raise_object(PyObject *exc)
{
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
}

void blame_raise(state_t *st, blame_t *blame, PyObject *source, const char *verb, const size_t *wanted)
{
    if (!blame->found) { /* the memory unit's protection could not be changed */
        PyErr_NoMemory();
        return;
    }
    PyObject *what = source_text(st, source), *module = lending_module();
    PyObject *range = range_of(source, st, blame->start, blame->stop);
    PyObject *want = wanted ? range_of(source, st, wanted[0], wanted[1]) : Py_NewRef(Py_None);
    PyObject *task = blame->holder ? ref_new(st, job_of(blame->holder)) : Py_NewRef(Py_None);
    PyObject *site = blame->code ? site_text(blame->code, blame->lasti) : Py_NewRef(Py_None);
    if (what && module && range && want && task && site)
        raise_object(PyObject_CallMethod(module, "blocked", "OsOOOOOOO", what, verb, want, range,
                                         blame->exclusive ? Py_True : Py_False, blame->viewed ? Py_True : Py_False,
                                         blame->waiting ? Py_True : Py_False, task, site));
    Py_XDECREF(what);
    Py_XDECREF(module);
    Py_XDECREF(range);
    Py_XDECREF(want);
    Py_XDECREF(task);
    Py_XDECREF(site);
    blame_clear(blame);
}

/* ---- making handles ---------------------------------------------------------------------------------------------- */

static tether_lane_t *lane_of(state_t *st)
{
    tether_thread_t *thread = tether_thread(st->rt);
    return &st->rt->lanes[thread ? thread->lane : 0];
}

static borrow_t *handle_new(state_t *st, PyObject *source, borrow_t *lender, bool exclusive, size_t start, size_t stop)
{
    borrow_t *b = PyObject_GC_New(borrow_t, exclusive ? st->exclusive_type : st->shared_type);
    if (b == NULL)
        return NULL;
    memset((char *)b + offsetof(borrow_t, loan), 0, sizeof *b - offsetof(borrow_t, loan));
    b->st = st;
    b->source = Py_NewRef(source);
    b->lender = lender;
    store_relaxed(&b->kept, 1u);
    if (lender != NULL)
        add_relaxed(&lender->kept, 1u);
    b->loan.start = start;
    b->loan.stop = stop;
    b->loan.exclusive = exclusive;
    b->loan.host = b;
    b->code = site_here(PyThreadState_Get(), &b->lasti);
    count_for_all((PyObject *)b); /* whoever drops it last ends the borrow, there and then (G14) */
    tether_lane_movable(lane_of(st), 1);
    return b;
}

static PyObject *publish(borrow_t *b)
{
    if (Py_TYPE(b->source) == b->st->owned_type)
        PyObject_GC_Track(b);
    return (PyObject *)b;
}

/* Whoever lends knows more (still_lendable). */
static int raise_shut(state_t *st)
{
    PyErr_SetString(st->BorrowError, "what was to be borrowed has been closed meanwhile");
    return -1;
}

/* A claim that was not granted, and why. */
static int raise_unborrowed(const lending_t *from, tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how,
                            tether_status_t status, bool raised)
{
    if (source_is_foreign(from->st, from->source))
        return -1; /* a signal handler forked, and we are the child: the book is the parent's */
    blame_t blame = {0};
    PyObject *pending = raised ? take_exception() : NULL;
    tether_status_t answer = tether_borrow_leave(claim, blame_note, &blame);
    if (status == TETHER_TIMEOUT && !raised && answer == TETHER_CONFLICT && blame_collected(from->st, thread, &blame)) {
        tether_loan_t *loan = claim->loan;
        answer = tether_borrow(thread, from->book, &loan, 1, blame_note, &blame);
    }
    if (answer != TETHER_CONFLICT && !raised && (status == TETHER_TIMEOUT || status == TETHER_DEADLOCK)) {
        if (status == TETHER_DEADLOCK)
            wait_forget(how);
        status = answer; /* in the last instant */
        if (status == TETHER_OK)
            return 0;
    } else if (answer == TETHER_OK) {
        tether_loan_end(claim->loan, true);
    }
    if (raised) {
        give_exception(pending);
    } else if (status == TETHER_TIMEOUT && blame.found) {
        const size_t wanted[2] = {claim->loan->start, claim->loan->stop};
        blame_raise(from->st, &blame, from->source, from->verb, wanted);
        PyObject *cause = take_exception(), *text = PyObject_Str(cause);
        if (text != NULL) {
            PyErr_Format(PyExc_TimeoutError, "the time is over: %U", text);
            PyObject *exc = take_exception();
            PyException_SetCause(exc, cause);
            give_exception(exc);
            Py_DECREF(text);
        } else {
            Py_DECREF(cause);
        }
    } else if (status == TETHER_CLOSED) {
        raise_shut(from->st);
    } else {
        wait_raise(from->st, thread, status, how);
    }
    blame_clear(&blame);
    return -1;
}

/* 0, or -1 with an exception. */
static int lend(const lending_t *from, tether_thread_t *thread, borrow_t *b, PyObject *timeout)
{
    tether_loan_t *loan = &b->loan;
    bool at_once = timeout == NULL;
    uint64_t deadline = TETHER_FOREVER;
    if (!at_once) {
        if (deadline_from(timeout, &deadline, "timeout") < 0)
            return -1;
        at_once = (PyLong_CheckExact(timeout) && PyObject_Not(timeout)) ||
                  (PyFloat_CheckExact(timeout) && PyFloat_AS_DOUBLE(timeout) == 0.0);
    }
    if (at_once) {
        blame_t blame = {0};
        if (borrow_now(from->st, thread, from->book, &loan, 1, &blame) == TETHER_OK)
            return 0;
        const size_t wanted[2] = {loan->start, loan->stop};
        blame_raise(from->st, &blame, from->source, from->verb, wanted);
        return -1;
    }
    if (checkpoint(from->st, thread) < 0)
        return -1;
    tether_claim_t claim;
    tether_status_t status = tether_borrow_queue(thread, from->book, &claim, loan);
    if (status != TETHER_CONFLICT)
        return status == TETHER_OK ? 0 : status == TETHER_CLOSED ? raise_shut(from->st) : (PyErr_NoMemory(), -1);
    tether_wait_t how = {.deadline = deadline, .cancellable = true};
    bool raised;
    status = wait_claim(from->st, thread, &claim, &how, &raised);
    return status == TETHER_OK && !raised ? 0 : raise_unborrowed(from, thread, &claim, &how, status, raised);
}

PyObject *borrow_one(const lending_t *from, size_t start, size_t stop, PyObject *timeout)
{
    tether_thread_t *thread = need_thread(from->st);
    borrow_t *b = thread ? handle_new(from->st, from->source, NULL, from->exclusive, start, stop) : NULL;
    if (b == NULL)
        return NULL;
    if (lend(from, thread, b, timeout) < 0) {
        Py_DECREF(b);
        return NULL;
    }
    return publish(b);
}

/* Handles for n ranges that touch: of a lender's, or to be lent. NULL with an exception. */
static PyObject *handles_new(state_t *st, PyObject *source, borrow_t *lender, bool exclusive, const size_t *bounds, size_t n,
                             tether_loan_t ***loans)
{
    /* Not a list of n: for want of memory for its items free-threaded 3.13 lets go of those that a former list had. */
    PyObject *list = PyList_New(0);
    *loans = PyMem_Malloc((n ? n : 1) * sizeof **loans);
    if (list == NULL || *loans == NULL)
        goto failed;
    for (size_t i = 0; i < n; i++) {
        borrow_t *b = handle_new(st, source, lender, exclusive, bounds[i], bounds[i + 1]);
        int r = b ? PyList_Append(list, (PyObject *)b) : -1;
        Py_XDECREF(b);
        if (r < 0)
            goto failed;
        (*loans)[i] = &b->loan;
    }
    return list;
failed:
    if (!PyErr_Occurred())
        PyErr_NoMemory();
    Py_XDECREF(list);
    PyMem_Free(*loans);
    return NULL;
}

static PyObject *publish_all(PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
        publish((borrow_t *)PyList_GET_ITEM(list, i));
    return list;
}

PyObject *borrow_many(const lending_t *from, const size_t *bounds, size_t n)
{
    tether_loan_t **loans;
    tether_thread_t *thread = need_thread(from->st);
    PyObject *list = thread ? handles_new(from->st, from->source, NULL, from->exclusive, bounds, n, &loans) : NULL;
    if (list == NULL)
        return NULL;
    blame_t blame = {0};
    tether_status_t status = borrow_now(from->st, thread, from->book, loans, n, &blame);
    PyMem_Free(loans);
    if (status == TETHER_OK)
        return publish_all(list);
    const size_t wanted[2] = {bounds[0], bounds[n]};
    blame_raise(from->st, &blame, from->source, from->verb, wanted);
    Py_DECREF(list);
    return NULL;
}

/* ---- using them -------------------------------------------------------------------------------------------------- */

static bool is_ours(borrow_t *b, tether_thread_t *thread)
{
    return load_relaxed(&b->loan.holder) == load_relaxed(&thread->top);
}

static void raise_moved(borrow_t *b)
{
    state_t *st = b->st;
    tether_lock(&b->loan.book->lock); /* the holder is another task: it may pass the borrow on, and be gone, meanwhile */
    tether_task_t *holder = load_relaxed(&b->loan.holder);
    if (holder != NULL)
        tether_task_ref(holder);
    tether_unlock(&b->loan.book->lock);
    PyObject *what = source_text(st, b->source);
    PyObject *name = holder ? job_name(job_of(holder)) : PyUnicode_FromString("the program itself");
    if (what && name)
        PyErr_Format(b->moved ? st->MovedError : st->BorrowError,
                     b->moved ? "this borrow of %U was moved to %U; borrow again, or give the task a part of it "
                                "(lend, split_at, chunks)"
                              : "this borrow of %U belongs to %U: give it to this task as an argument",
                     what, name);
    Py_XDECREF(what);
    Py_XDECREF(name);
    if (holder != NULL)
        job_unref(job_of(holder));
}

static void raise_unusable(borrow_t *b)
{
    PyObject *what = source_text(b->st, b->source);
    if (what != NULL)
        PyErr_Format(b->st->BorrowError,
                     b->loan.state == TETHER_LOAN_LIVE
                         ? "this borrow of %U is lent further: it can be used again when those borrows have ended"
                         : "this borrow of %U has ended: borrow again",
                     what);
    Py_XDECREF(what);
}

/* It cannot end or be lent further. (What hinders it may go at this moment, on another thread.) */
static void raise_in_use(borrow_t *b)
{
    if (b->loan.state != TETHER_LOAN_LIVE || b->loan.parts != 0) {
        raise_unusable(b);
        return;
    }
    PyObject *what = source_text(b->st, b->source);
    if (what != NULL)
        PyErr_Format(b->st->BorrowError,
                     "a raw view (a memoryview or an array) of this borrow of %U exists; let go of it first", what);
    Py_XDECREF(what);
}

/* The calling thread's record, if what runs there may use the handle. */
static tether_thread_t *user(borrow_t *b)
{
    if (source_is_foreign(b->st, b->source)) {
        PyErr_SetString(b->st->ForkedError, "this borrow belongs to the parent process; borrow anew here");
        return NULL;
    }
    tether_thread_t *thread = need_thread(b->st);
    if (thread == NULL || is_ours(b, thread))
        return thread;
    if (b->moved || b->loan.state == TETHER_LOAN_LIVE)
        raise_moved(b);
    else
        raise_unusable(b);
    return NULL;
}

/* Whatever looks at the bytes or the value does so inside a view: nobody can end the loan under it. */
static bool begin_view(borrow_t *b)
{
    if (user(b) == NULL)
        return false;
    if (tether_loan_view(&b->loan) == TETHER_OK)
        return true;
    raise_unusable(b);
    return false;
}

static void end_view(borrow_t *b) { tether_loan_unview(&b->loan); }

static region_t *region_of(borrow_t *b)
{
    if (Py_TYPE(b->source) == b->st->region_type)
        return (region_t *)b->source;
    PyErr_Format(PyExc_TypeError, "this borrow is of a value, not of memory: use .value");
    return NULL;
}

static int borrow_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    borrow_t *b = (borrow_t *)self;
    view->obj = NULL;
    region_t *region = region_of(b);
    if (region == NULL || !begin_view(b))
        return -1;
    static char nothing; /* an empty range may outlive the pages */
    Py_ssize_t n = (Py_ssize_t)(b->loan.stop - b->loan.start);
    if (PyBuffer_FillInfo(view, self, n ? region->core.data + b->loan.start : &nothing, n, !b->loan.exclusive, flags) < 0) {
        end_view(b);
        return -1;
    }
    return 0;
}

static void borrow_releasebuffer(PyObject *self, Py_buffer *view)
{
    (void)view;
    borrow_t *b = (borrow_t *)self;
    if (!source_is_foreign(b->st, b->source))
        end_view(b);
}

static Py_ssize_t borrow_length(PyObject *self)
{
    borrow_t *b = (borrow_t *)self;
    return region_of(b) == NULL ? -1 : (Py_ssize_t)(b->loan.stop - b->loan.start);
}

/* One byte, or a slice as bytes: what a memoryview would give. */
static PyObject *borrow_subscript(PyObject *self, PyObject *key)
{
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *part = view ? PyObject_GetItem(view, key) : NULL;
    if (part != NULL && PyMemoryView_Check(part)) {
        PyObject *bytes = PyBytes_FromObject(part);
        Py_SETREF(part, bytes);
    }
    Py_XDECREF(view);
    return part;
}

static PyObject *borrow_iter(PyObject *self)
{
    PyObject *view = PyMemoryView_FromObject(self); /* the iterator has it: the range stays lent meanwhile */
    PyObject *iter = view ? PyObject_GetIter(view) : NULL;
    Py_XDECREF(view);
    return iter;
}

static int exclusive_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "bytes of a region cannot be deleted");
        return -1;
    }
    PyObject *view = PyMemoryView_FromObject(self);
    int r = view ? PyObject_SetItem(view, key, value) : -1;
    Py_XDECREF(view);
    return r;
}

static PyObject *borrow_view(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"format", "shape", NULL};
    PyObject *format, *shape = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|O:view", names, &format, &shape))
        return NULL;
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *cast = view == NULL      ? NULL
                     : shape == Py_None ? PyObject_CallMethod(view, "cast", "O", format)
                                        : PyObject_CallMethod(view, "cast", "OO", format, shape);
    Py_XDECREF(view);
    return cast;
}

static PyObject *borrow_get_value(PyObject *self, void *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    if (Py_TYPE(b->source) != b->st->owned_type)
        return PyErr_Format(PyExc_AttributeError,
                            "a borrow of a region has no value: it is the memory (buffer protocol, [], view)");
    if (!begin_view(b))
        return NULL;
    PyObject *value = owned_value((owned_t *)b->source);
    end_view(b);
    return value;
}

static int exclusive_set_value(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    if (value == NULL || Py_TYPE(b->source) != b->st->owned_type) {
        PyErr_SetString(PyExc_AttributeError, value ? "a borrow of a region has no value" : "the value cannot be deleted");
        return -1;
    }
    if (!begin_view(b))
        return -1;
    PyObject *before = owned_exchange((owned_t *)b->source, Py_NewRef(value));
    end_view(b);
    Py_XDECREF(before); /* its destructor may use the handle again */
    return 0;
}

static PyObject *borrow_get_range(PyObject *self, void *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    return range_of(b->source, b->st, b->loan.start, b->loan.stop);
}

static PyObject *borrow_get_expired(PyObject *self, void *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    return PyBool_FromLong(b->loan.state != TETHER_LOAN_LIVE || source_is_foreign(b->st, b->source));
}

static PyObject *borrow_get_source(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((borrow_t *)self)->source);
}

static PyObject *borrow_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    if (b->loan.state != TETHER_LOAN_LIVE)
        Py_RETURN_NONE; /* as closing twice */
    if (user(b) == NULL)
        return NULL;
    if (tether_loan_end(&b->loan, false) == TETHER_OK || b->loan.state != TETHER_LOAN_LIVE)
        Py_RETURN_NONE;
    raise_in_use(b);
    return NULL;
}

static PyObject *borrow_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    if (user(b) == NULL)
        return NULL;
    if (b->loan.state == TETHER_LOAN_LIVE)
        return Py_NewRef(self);
    raise_unusable(b);
    return NULL;
}

static PyObject *borrow_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    borrow_t *b = (borrow_t *)self;
    tether_thread_t *thread = source_is_foreign(b->st, b->source) ? NULL : tether_thread(b->st->rt);
    if (thread != NULL && is_ours(b, thread)) /* otherwise it was given away in the block: it ends with its task */
        tether_loan_end(&b->loan, true);
    Py_RETURN_FALSE;
}

/* ---- lending further --------------------------------------------------------------------------------------------- */

static PyObject *lend_parts(borrow_t *b, bool exclusive, const size_t *bounds, size_t n)
{
    tether_thread_t *thread = user(b);
    tether_loan_t **loans;
    PyObject *list = thread ? handles_new(b->st, b->source, b, exclusive, bounds, n, &loans) : NULL;
    if (list == NULL)
        return NULL;
    tether_status_t status = tether_loan_lend(thread, &b->loan, loans, n);
    PyMem_Free(loans);
    if (status == TETHER_OK)
        return publish_all(list);
    raise_in_use(b);
    Py_DECREF(list);
    return NULL;
}

static PyObject *exclusive_lend(PyObject *self, PyObject *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    const size_t bounds[2] = {b->loan.start, b->loan.stop};
    PyObject *list = lend_parts(b, true, bounds, 1);
    PyObject *part = list ? Py_NewRef(PyList_GET_ITEM(list, 0)) : NULL;
    Py_XDECREF(list);
    return part;
}

static PyObject *exclusive_split_at(PyObject *self, PyObject *offset)
{
    borrow_t *b = (borrow_t *)self;
    if (region_of(b) == NULL)
        return NULL;
    size_t size = b->loan.stop - b->loan.start;
    Py_ssize_t at = PyNumber_AsSsize_t(offset, PyExc_ValueError);
    if (at == -1 && PyErr_Occurred())
        return NULL;
    if (at < 0 || (size_t)at > size)
        return PyErr_Format(PyExc_ValueError, "split_at(%zd) is outside of the %zu bytes borrowed", at, size);
    const size_t bounds[3] = {b->loan.start, b->loan.start + (size_t)at, b->loan.stop};
    PyObject *list = lend_parts(b, true, bounds, 2);
    PyObject *pair = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return pair;
}

static PyObject *exclusive_chunks(PyObject *self, PyObject *args, PyObject *kwargs)
{
    borrow_t *b = (borrow_t *)self;
    region_t *region = region_of(b);
    size_t n, *bounds = region ? region_bounds(region, b->loan.start, b->loan.stop, args, kwargs, &n) : NULL;
    PyObject *list = bounds ? lend_parts(b, true, bounds, n) : NULL;
    PyMem_Free(bounds);
    return list;
}

static PyObject *exclusive_downgrade(PyObject *self, PyObject *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    tether_thread_t *thread = user(b);
    borrow_t *shared = thread ? handle_new(b->st, b->source, b->lender, false, b->loan.start, b->loan.stop) : NULL;
    if (shared == NULL)
        return NULL;
    if (tether_loan_downgrade(thread, &b->loan, &shared->loan) == TETHER_OK) {
        b->moved = true;
        return publish(shared);
    }
    Py_DECREF(shared);
    raise_in_use(b);
    return NULL;
}

static PyObject *shared_clone(PyObject *self, PyObject *unused)
{
    (void)unused;
    borrow_t *b = (borrow_t *)self;
    tether_thread_t *thread = user(b);
    borrow_t *copy = thread ? handle_new(b->st, b->source, b->lender, false, b->loan.start, b->loan.stop) : NULL;
    if (copy == NULL)
        return NULL;
    tether_status_t status = tether_loan_clone(thread, &b->loan, &copy->loan);
    if (status == TETHER_OK)
        return publish(copy);
    Py_DECREF(copy);
    return status == TETHER_NO_MEMORY ? PyErr_NoMemory() : (raise_unusable(b), NULL);
}

PyObject *borrow_lend(borrow_t *b) { return exclusive_lend((PyObject *)b, NULL); }

void borrow_end(borrow_t *b)
{
    if (!source_is_foreign(b->st, b->source))
        tether_loan_end(&b->loan, true);
}

/* ---- borrows and tasks ------------------------------------------------------------------------------------------- */

int borrow_give(tether_thread_t *thread, borrow_t *b, tether_task_t *to)
{
    if (user(b) == NULL)
        return -1;
    if (tether_loan_give(thread, &b->loan, to) == TETHER_OK) {
        b->moved = true;
        return 0;
    }
    if (user(b) != NULL) /* else: another thread of the root was faster */
        raise_in_use(b);
    return -1;
}

void borrow_take_back(tether_thread_t *thread, borrow_t *b)
{
    tether_loan_move(thread, &b->loan, load_relaxed(&thread->top));
    b->moved = false;
}

static void note_escape(tether_loan_t *loan, void *arg)
{
    PyObject **list = arg;
    borrow_t *b = loan->host;
    if (b == NULL || b->next_escaped != NULL)
        return;
    b->next_escaped = *list;
    *list = Py_NewRef((PyObject *)b);
}

/* A scope's list of escapes is its own while it is open; whoever comes later finds it closed and only lets go. */
void borrows_end(state_t *st, job_t *job)
{
    (void)st;
    PyObject *list = NULL;
    tether_scope_t *scope = tether_task_scope(&job->task);
    tether_loans_end(&job->task, scope ? note_escape : NULL, &list);
    while (list != NULL) {
        borrow_t *b = (borrow_t *)list;
        list = b->next_escaped;
        b->next_escaped = NULL;
        if (!scope_note_escape(scope, (PyObject *)b))
            Py_DECREF(b);
    }
}

PyObject *borrow_escaped_error(state_t *st, borrow_t *b)
{
    if (load_relaxed(&b->loan.views) == 0)
        return NULL;
    blame_t blame;
    blame_note(&b->loan, &blame); /* we have the handle, so its holder and line stay */
    PyObject *module = lending_module(), *what = source_text(st, b->source);
    PyObject *range = range_of(b->source, st, blame.start, blame.stop);
    PyObject *task = blame.holder ? ref_new(st, job_of(blame.holder)) : Py_NewRef(Py_None);
    PyObject *site = blame.code ? site_text(blame.code, blame.lasti) : Py_NewRef(Py_None);
    PyObject *exc = module && what && range && task && site
                        ? PyObject_CallMethod(module, "escaped", "OOOO", what, range, task, site)
                        : NULL;
    if (exc == NULL)
        PyErr_WriteUnraisable(NULL);
    Py_XDECREF(module);
    Py_XDECREF(what);
    Py_XDECREF(range);
    Py_XDECREF(task);
    Py_XDECREF(site);
    blame_clear(&blame);
    return exc;
}

static void look_for_view(tether_loan_t *loan, void *arg)
{
    if (loan->views != 0)
        *(bool *)arg = true;
}

bool borrows_are_viewed(job_t *job)
{
    bool viewed = false;
    if (job->task.loans != NULL)
        tether_loans_each(&job->task, look_for_view, &viewed);
    return viewed;
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

static int borrow_traverse(PyObject *self, visitproc visit, void *arg)
{
    borrow_t *b = (borrow_t *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(b->source);
    return 0;
}

/* The memory of a handle that nobody has any more, and of its lenders, if it was the last that kept them: ways may be long. */
static void let_go(borrow_t *b, bool foreign)
{
    tether_thread_t *thread = foreign ? NULL : tether_thread(b->st->rt);
    while (b != NULL && sub_acq_rel(&b->kept, 1u) == 1) {
        borrow_t *lender = b->lender;
        PyTypeObject *type = Py_TYPE(b);
        if (b->loan.book != NULL && !foreign)
            tether_loan_forget(thread, &b->loan);
        Py_XDECREF(b->code);
        PyObject_GC_Del(b);
        Py_DECREF(type);
        b = lender;
    }
}

static void borrow_dealloc(PyObject *self)
{
    borrow_t *b = (borrow_t *)self;
    PyObject *source = b->source; /* of its lenders, too: the book stays until they have been let go */
    bool foreign = source_is_foreign(b->st, source);
    if (PyObject_GC_IsTracked(self))
        PyObject_GC_UnTrack(self);
    if (b->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (!foreign)
        tether_lane_movable(lane_of(b->st), -1);
    if (load_acquire(&b->kept) != 1 && b->loan.book != NULL && !foreign)
        tether_loan_end(&b->loan, true); /* it stays in the book as long as its parts do */
    let_go(b, foreign);
    Py_DECREF(source);
}

static PyObject *borrow_repr(PyObject *self)
{
    borrow_t *b = (borrow_t *)self;
    const char *type = b->loan.exclusive ? "Exclusive" : "Shared";
    const char *state = b->loan.state != TETHER_LOAN_LIVE ? "ended" : b->loan.parts ? "lent further" : "live";
    PyObject *what = source_text(b->st, b->source), *r = NULL;
    if (what != NULL && Py_TYPE(b->source) == b->st->region_type)
        r = PyUnicode_FromFormat("<tether.%s of %U, bytes %zu to %zu, %s>", type, what, b->loan.start, b->loan.stop, state);
    else if (what != NULL)
        r = PyUnicode_FromFormat("<tether.%s of %U, %s>", type, what, state);
    Py_XDECREF(what);
    return r;
}

static PyObject *no_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyErr_Format(PyExc_TypeError, "a borrow cannot be copied or pickled%s",
                        ((borrow_t *)self)->loan.exclusive ? "" : ": use clone()");
}

#define BORROW_METHODS                                                                                                       \
    {"release", borrow_release, METH_NOARGS,                                                                                 \
     "release($self, /)\n--\n\n"                                                                                             \
     "Ends the borrow. Again: does nothing.\n\nRaises: BorrowError, and nothing changes, while a raw view of it exists."},   \
    {"view", (PyCFunction)(void (*)(void))borrow_view, METH_VARARGS | METH_KEYWORDS,                                         \
     "view($self, /, format, shape=None)\n--\n\n"                                                                           \
     "A memoryview of the bytes as elements of a struct format ('d', 'i', ...), with a shape if given.\n\n"                  \
     "It keeps the range lent as long as it exists (G14)."},                                                                  \
    {"__enter__", borrow_enter, METH_NOARGS, "The borrow itself."},                                                           \
    {"__exit__", (PyCFunction)(void (*)(void))borrow_exit, METH_FASTCALL,                                                     \
     "Ends the borrow; a raw view that still exists keeps its range lent (G14)."},                                           \
    NO_COPY_METHODS(no_copy),                                                                                                  \
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL}

static PyMethodDef shared_methods[] = {
    BORROW_METHODS,
    {"clone", shared_clone, METH_NOARGS, "clone($self, /)\n--\n\nOne more shared borrow of the same range."},
    {0},
};

static PyMethodDef exclusive_methods[] = {
    BORROW_METHODS,
    {"lend", exclusive_lend, METH_NOARGS,
     "lend($self, /)\n--\n\n"
     "An exclusive borrow of the same range, to give away. This one is suspended until that one has ended."},
    {"split_at", exclusive_split_at, METH_O,
     "split_at($self, offset, /)\n--\n\n"
     "Two exclusive borrows, of the bytes before and from `offset`. This one is suspended until both have ended."},
    {"chunks", (PyCFunction)(void (*)(void))exclusive_chunks, METH_VARARGS | METH_KEYWORDS,
     "chunks($self, n=None, /, *, size=None)\n--\n\n"
     "n disjoint exclusive borrows, or as many of `size` bytes as it takes (see Region.chunks_mut). This one is suspended until\n"
     "all have ended."},
    {"downgrade", exclusive_downgrade, METH_NOARGS,
     "downgrade($self, /)\n--\n\nEnds this borrow for a shared one of the same range; nobody writes in between."},
    {0},
};

static PyGetSetDef shared_getset[] = {
    {"value", borrow_get_value, NULL, "The value lent, of an Owned.", NULL},
    {"range", borrow_get_range, NULL, "(start, stop) in bytes of the region; None for a value.", NULL},
    {"expired", borrow_get_expired, NULL, "Has the borrow ended?", NULL},
    {"source", borrow_get_source, NULL, "The Region or Owned that it is of.", NULL},
    {0},
};

static PyGetSetDef exclusive_getset[] = {
    {"value", borrow_get_value, exclusive_set_value, "The value lent, of an Owned; may be set.", NULL},
    {"range", borrow_get_range, NULL, "(start, stop) in bytes of the region; None for a value.", NULL},
    {"expired", borrow_get_expired, NULL, "Has the borrow ended?", NULL},
    {"source", borrow_get_source, NULL, "The Region or Owned that it is of.", NULL},
    {0},
};

static PyMemberDef borrow_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(borrow_t, weakrefs), READONLY, NULL},
    {0},
};

#define BORROW_SLOTS                                                                                                         \
    {Py_tp_dealloc, borrow_dealloc}, {Py_tp_traverse, borrow_traverse}, {Py_tp_repr, borrow_repr},                           \
    {Py_tp_members, borrow_members}, {Py_bf_getbuffer, borrow_getbuffer}, {Py_bf_releasebuffer, borrow_releasebuffer},        \
    {Py_mp_length, borrow_length}, {Py_mp_subscript, borrow_subscript}, {Py_tp_iter, borrow_iter}

static PyType_Slot shared_slots[] = {
    {Py_tp_doc, "A shared borrow: nobody writes while it lives (G13). Made by share, chunks, clone, downgrade.\n\n"
                "Of a region: memory (buffer protocol, len, [], view), read-only. Of an Owned: .value."},
    BORROW_SLOTS,
    {Py_tp_methods, shared_methods},
    {Py_tp_getset, shared_getset},
    {0, NULL},
};

static PyType_Slot exclusive_slots[] = {
    {Py_tp_doc, "An exclusive borrow: nobody else reads or writes while it lives (G13). Made by borrow_mut, chunks_mut, lend.\n\n"
                "Of a region: memory (buffer protocol, len, [], view), writable. Of an Owned: .value, which may be set."},
    BORROW_SLOTS,
    {Py_mp_ass_subscript, exclusive_ass_subscript},
    {Py_tp_methods, exclusive_methods},
    {Py_tp_getset, exclusive_getset},
    {0, NULL},
};

enum { BORROW_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE };

PyType_Spec shared_spec = {
    .name = "tether.Shared", .basicsize = sizeof(borrow_t), .flags = BORROW_FLAGS, .slots = shared_slots};
PyType_Spec exclusive_spec = {
    .name = "tether.Exclusive", .basicsize = sizeof(borrow_t), .flags = BORROW_FLAGS, .slots = exclusive_slots};
