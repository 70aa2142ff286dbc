/* Waiting from Python: let the GIL go, wait in the runtime, take it back, look at signals, and again. */
#include "binding.h"

#include <math.h>

int deadline_from(PyObject *timeout, uint64_t *deadline, const char *what)
{
    if (timeout == NULL || timeout == Py_None) {
        *deadline = TETHER_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(seconds) || seconds < 0) {
        PyErr_Format(PyExc_ValueError, "%s must be a non-negative number of seconds", what);
        return -1;
    }
    /* Beyond a century a number of seconds means for ever. */
    *deadline = seconds > 3.0e9 ? TETHER_FOREVER : tether_now() + (uint64_t)(seconds * 1e9);
    return 0;
}

/* The text that somebody gave to cancel, from the innermost task that was cancelled; or NULL (borrowed). */
static PyObject *cancel_detail(tether_thread_t *thread, bool *kill)
{
    *kill = false;
    for (tether_task_t *t = load_relaxed(&thread->top); t; t = t->below) {
        uint32_t word = tether_task_word(t);
        if (word & TETHER_F_KILL)
            *kill = true;
        if (word & TETHER_F_CANCEL)
            return job_of(t)->detail;
    }
    return NULL;
}

void raise_cancelled(state_t *st, tether_thread_t *thread)
{
    bool kill;
    PyObject *detail = Py_XNewRef(cancel_detail(thread, &kill));
    if (kill)
        kill_raised_here(st, thread);
    PyObject *type = kill ? st->KilledTask : st->Cancelled;
    if (detail != NULL)
        PyErr_SetObject(type, detail);
    else
        PyErr_SetNone(type);
    Py_XDECREF(detail);
}

int checkpoint(state_t *st, tether_thread_t *thread)
{
    if (!tether_thread_cancelled(thread))
        return 0;
    raise_cancelled(st, thread);
    return -1;
}

void wait_forget(tether_wait_t *how)
{
    for (size_t i = 0; i < how->cycle_len; i++)
        job_unref(job_of(how->cycle[i]));
}

static void raise_deadlock(state_t *st, tether_wait_t *how)
{
    guards_t tasks = {.n = how->cycle_len, .tasks = PyMem_Malloc(sizeof how->cycle)};
    if (tasks.tasks == NULL) {
        wait_forget(how);
        PyErr_NoMemory();
        return;
    }
    memcpy(tasks.tasks, how->cycle, sizeof how->cycle);
    PyObject *cycle = refs_list(st, &tasks);
    if (cycle == NULL)
        return;
    PyObject *exc = PyObject_CallOneArg(st->DeadlockError, cycle);
    if (exc != NULL)
        PyErr_SetObject(st->DeadlockError, exc);
    Py_XDECREF(exc);
    Py_DECREF(cycle);
}

/* Has the program threads that the runtime may not have met? Any of them could give back what the root has borrowed. */
static bool has_strangers(state_t *st)
{
    PyObject *active = st->threading ? dict_item(st->threading, "_active") : NULL, *thread;
    if (active == NULL || !PyDict_Check(active)) {
        PyErr_Clear(); /* no memory to look it up */
        Py_XDECREF(active);
        return true;
    }
    Py_ssize_t others = 0, pos = 0;
    BEGIN_ALONE(active); /* no list is made: there may be no memory for it */
    while (PyDict_Next(active, &pos, NULL, &thread))
        others += strcmp(Py_TYPE(thread)->tp_name, "CrewThread") != 0;
    END_ALONE();
    Py_DECREF(active);
    return others > 1;
}

tether_status_t wait_on_task(tether_thread_t *t, void *task, tether_wait_t *how) { return tether_wait_task(t, task, how); }
tether_status_t wait_on_scope(tether_thread_t *t, void *scope, tether_wait_t *how) { return tether_wait_scope(t, scope, how); }
tether_status_t wait_on_claim(tether_thread_t *t, void *claim, tether_wait_t *how) { return tether_borrow_wait(t, claim, how); }
static tether_status_t on_clock(tether_thread_t *t, void *what, tether_wait_t *how)
{
    (void)what;
    return tether_wait_until(t, how);
}

typedef struct {
    tether_claim_t *claim;
    tether_status_t status;
} answer_t;

static void abandon(void *arg)
{
    answer_t *answer = arg;
    if (answer->status == TETHER_OK || tether_borrow_leave(answer->claim, NULL, NULL) == TETHER_OK)
        tether_loan_end(answer->claim->loan, true);
}

/* A daemon thread that comes back when the interpreter has gone ends in here, up to 3.13 (pthread_exit): its stack goes, and
 * with it the claim, which must not stay in the queue. */
static void attach_for_claim(PyThreadState *ts, answer_t *answer)
{
    pthread_cleanup_push(abandon, answer);
    PyEval_RestoreThread(ts);
    pthread_cleanup_pop(0);
}

static tether_status_t detached(tether_thread_t *thread, wait_fn *wait, void *what, tether_wait_t *how)
{
    PyThreadState *ts = PyEval_SaveThread();
    uint32_t closed = forkgate_pause(); /* a hook before a fork that waits for a task */
    tether_wait_enter(thread);
    tether_status_t status = wait(thread, what, how);
    tether_wait_leave(thread);
    if (closed != 0)
        forkgate_resume(thread, closed);
    if (wait == wait_on_claim)
        attach_for_claim(ts, &(answer_t){what, status});
    else
        PyEval_RestoreThread(ts);
    return status;
}

/* Whose raw view is in the way may sleep in this very wait (host_collect). Rarely, since a view may be in use for long. */
#ifdef Py_GIL_DISABLED
static const uint64_t FIRST_COLLECTION = 20000000; /* after 20 ms, and then after twice that, and so on */

static void collect_views(state_t *st, tether_claim_t *claim, tether_wait_t *how, uint64_t *pause)
{
    if (tether_now() < how->look)
        return;
    if (tether_claim_is_viewed(claim))
        host_collect(st);
    *pause *= 2;
    how->look = tether_now() + *pause;
}
#endif

/* Handlers of signals, and what the main thread was asked to do meanwhile (kill.c asks, too). */
int look_at_signals(void) { return PyErr_CheckSignals() < 0 ? -1 : Py_MakePendingCalls(); }

/* Until the status is other than HELP (done here) or INTERRUPTED (signals looked at); -1 with *raised if a handler raised. */
static tether_status_t keep_waiting(state_t *st, tether_thread_t *thread, wait_fn *wait, void *what, tether_wait_t *how,
                                    bool *raised)
{
    *raised = false;
    how->slices = thread->ident == st->main_thread;
    /* Only who waits for ever can be deadlocked, and only borrows can be given back by whom the runtime has not met. */
    how->strangers = how->deadline == TETHER_FOREVER && tether_lane_movables(st->rt) > 0 && has_strangers(st);
#ifdef Py_GIL_DISABLED
    uint64_t pause = FIRST_COLLECTION;
    how->look = wait == wait_on_claim ? tether_now() + pause : 0;
#endif
    for (;;) {
        tether_status_t status = detached(thread, wait, what, how);
        if (status == TETHER_HELP) {
            job_run_here(st, thread, job_of(how->helped));
            *raised = fork_passed(st, thread, job_of(how->helped)) < 0;
        } else if (status == TETHER_INTERRUPTED) {
            *raised = look_at_signals() < 0;
            /* A handler that forked returns here in the child, too: what we wait for is not there. The clock is. */
            if (!*raised && tether_runtime_foreign(load_relaxed(&thread->rt)))
                *raised = wait == on_clock ? (thread = need_thread(st)) == NULL : need_own(st, load_relaxed(&thread->rt)) < 0;
#ifdef Py_GIL_DISABLED
            if (!*raised && wait == wait_on_claim)
                collect_views(st, what, how, &pause);
#endif
        } else {
            return status;
        }
        if (*raised)
            return TETHER_INTERRUPTED;
    }
}

static int raise_for(state_t *st, tether_thread_t *thread, tether_status_t status, tether_wait_t *how, bool raised)
{
    if (raised)
        return -1;
    switch (status) {
    case TETHER_OK:
        return 0;
    case TETHER_CANCELLED:
        raise_cancelled(st, thread);
        return -1;
    case TETHER_DEADLOCK:
        raise_deadlock(st, how);
        return -1;
    case TETHER_NO_MEMORY:
        PyErr_NoMemory();
        return -1;
    default:
        PyErr_SetString(PyExc_RuntimeError, tether_status_text(status));
        return -1;
    }
}

tether_status_t wait_claim(state_t *st, tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how, bool *raised)
{
    return keep_waiting(st, thread, wait_on_claim, claim, how, raised);
}

void wait_raise(state_t *st, tether_thread_t *thread, tether_status_t status, tether_wait_t *how)
{
    raise_for(st, thread, status, how, false);
}

int wait_job(state_t *st, tether_thread_t *thread, job_t *job, uint64_t deadline)
{
    tether_wait_t how = {.deadline = deadline, .cancellable = true,
                         .help = deadline == TETHER_FOREVER && may_run_here(st, thread)};
    bool raised;
    tether_status_t status = keep_waiting(st, thread, wait_on_task, &job->task, &how, &raised);
    if (status == TETHER_TIMEOUT && !raised) {
        PyObject *name, *site;
        if (job_describe(job, &name, &site))
            PyErr_Format(PyExc_TimeoutError, "task '%U', spawned at %U, is still running; its guard stays armed", name, site);
        Py_XDECREF(name);
        Py_XDECREF(site);
        return -1;
    }
    return raise_for(st, thread, status, &how, raised);
}

int wait_job_shielded(state_t *st, tether_thread_t *thread, job_t *job)
{
    tether_wait_t how = {.deadline = TETHER_FOREVER, .help = may_run_here(st, thread)};
    bool raised;
    tether_status_t status = keep_waiting(st, thread, wait_on_task, &job->task, &how, &raised);
    return raise_for(st, thread, status, &how, raised);
}

static int raise_again(void *exc)
{
    give_exception(exc);
    return -1;
}

/* Nothing may be raised out of a destructor: what a signal handler raised meanwhile is raised when it is over. Not by
 * sending the signal again, which would call the handler twice. */
static void raise_afterwards(PyObject *exc)
{
    if (exc == NULL || Py_AddPendingCall(raise_again, exc) == 0)
        return;
    give_exception(exc);
    PyErr_WriteUnraisable(NULL);
}

void wait_job_quietly(state_t *st, tether_thread_t *thread, job_t *job)
{
    PyObject *first = NULL;
    bool raised;
    for (;;) {
        tether_wait_t how = {.deadline = TETHER_FOREVER};
        tether_status_t status = keep_waiting(st, thread, wait_on_task, &job->task, &how, &raised);
        if (!raised) {
            if (status == TETHER_DEADLOCK)
                wait_forget(&how);
            break;
        }
        if (tether_runtime_foreign(load_relaxed(&thread->rt))) {
            fork_silence(st);
            break;
        }
        tether_task_cancel(&job->task, 0); /* the program wants to go on, or to end: the task is asked to, too */
        if (first == NULL)
            first = take_exception();
        else if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
            PyErr_Clear(); /* an impatient user: one is enough */
        else
            PyErr_WriteUnraisable(NULL);
    }
    raise_afterwards(first);
}

tether_status_t wait_scope(state_t *st, tether_thread_t *thread, tether_scope_t *scope, bool cancellable)
{
    tether_wait_t how = {.deadline = TETHER_FOREVER, .cancellable = cancellable, .help = may_run_here(st, thread)};
    bool raised;
    tether_status_t status = keep_waiting(st, thread, wait_on_scope, scope, &how, &raised);
    if (raised)
        return TETHER_INTERRUPTED;
    if (status == TETHER_CANCELLED) { /* not by way of an exception: there may be no memory for one */
        bool kill;
        cancel_detail(thread, &kill);
        if (kill)
            kill_raised_here(st, thread);
        return status;
    }
    raise_for(st, thread, status, &how, false);
    return status;
}

int wait_sleep(state_t *st, tether_thread_t *thread, uint64_t deadline)
{
    tether_wait_t how = {.deadline = deadline, .cancellable = true};
    bool raised;
    tether_status_t status = keep_waiting(st, thread, on_clock, NULL, &how, &raised);
    return raise_for(st, thread, status, &how, raised);
}
