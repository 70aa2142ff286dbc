/* kill(): an exception raised asynchronously in the code of one task, and in no other.
 *
 * The exception can only be aimed at a thread; the task is what runs innermost there. So delivery and the task's end are
 * serialised: `kill_lock` is held while "it is on top of its thread" is checked and the exception is set. The ender takes
 * it when it sees KILL, and takes back what was not raised yet. With a GIL, code between two bytecodes is serialised
 * anyway; the lock is what free-threaded builds need.
 *
 *   killer                                           ender
 *   set KILL in the word (exchange)                  set ENDING in the word (exchange)
 *   lock; not ENDING, on top? -> raise, note RAISED  saw KILL? -> lock; withdraw; unlock
 *   unlock
 *
 * The word's changes have one order: either the killer sees ENDING, or the ender sees KILL and waits for the lock.
 *
 * A task that is not on top (something runs in place above it) gets the exception when it comes back to the top. */
#include "binding.h"

static void set_async(tether_thread_t *thread, PyObject *exc) { PyThreadState_SetAsyncExc(thread->ident, exc); }

static int raise_now(void *exc)
{
    give_exception(exc);
    return -1;
}

/* What a signal's handler raised in Python code of ours comes out of the next code of the program's, or of its wait. */
static void raise_later(state_t *st, PyObject *ours)
{
    bool handlers = !st->sub && (unsigned long)PyThread_get_thread_ident() == st->main_thread &&
                    !PyErr_ExceptionMatches(PyExc_MemoryError);
    PyObject *exc = take_exception();
    if (handlers && Py_AddPendingCall(raise_now, exc) == 0)
        return;
    give_exception(exc);
    PyErr_WriteUnraisable(ours);
}

/* Runs Python code of ours, where nothing may be raised. */
static void call_ours(state_t *st, PyObject *ours)
{
    PyObject *r = PyObject_CallNoArgs(ours);
    if (r == NULL && PyErr_ExceptionMatches(st->KilledTask))
        PyErr_Clear();
    else if (r == NULL)
        raise_later(st, ours);
    Py_XDECREF(r);
}

/* Takes back what was set for the calling thread and has not been raised; nobody sets it again meanwhile. Not under the lock:
 * up to 3.12 the interpreter's request to look up stays on for ever if the exception just vanishes, so there it is raised, in
 * a function that does nothing. */
static void withdraw(state_t *st, tether_thread_t *thread)
{
#if PY_VERSION_HEX < 0x030D0000
    if (PyThreadState_Get()->async_exc != NULL)
        call_ours(st, st->nothing);
#else
    (void)st;
#endif
    if (PyThreadState_Get()->async_exc != NULL)
        set_async(thread, NULL);
}

/* In the child of a fork: an exception that was set for a thread of the parent's left its request to look up behind, up to 3.12
 * one for the whole interpreter, which nobody here would answer: a traced function then looks for ever. One that is set for
 * this thread, and raised in a function that does nothing, answers it. */
void kill_after_fork(state_t *st)
{
#if PY_VERSION_HEX < 0x030D0000
    if (PyThreadState_Get()->async_exc != NULL)
        return; /* it is going to */
    PyThreadState_SetAsyncExc((unsigned long)PyThread_get_thread_ident(), st->KilledTask);
    call_ours(st, st->nothing);
#else
    (void)st;
#endif
}

void kill_deliver(state_t *st, job_t *job)
{
    tether_thread_t *thread = load_acquire(&job->task.thread);
    if (thread == NULL)
        return; /* claimed this instant: its thread looks at CANCEL before it runs anything */
    tether_lock(&st->kill_lock);
    uint32_t word = atomic_load(&job->task.word);
    if (atomic_load(&thread->top) == &job->task && tether_state(word) == TETHER_RUNNING &&
        !(word & (TETHER_F_RAISED | TETHER_F_ENDING))) {
        or_acq_rel(&job->task.word, TETHER_F_RAISED);
        set_async(thread, st->KilledTask);
    }
    tether_unlock(&st->kill_lock);
}

void kill_before_end(state_t *st, tether_thread_t *thread, job_t *job)
{
    /* From here on nobody delivers: the destructors that run next are still the task's, what comes after is not. */
    if (!(atomic_fetch_or(&job->task.word, TETHER_F_ENDING) & TETHER_F_KILL))
        return;
    tether_lock(&st->kill_lock); /* a delivery under way ends first */
    tether_unlock(&st->kill_lock);
    withdraw(st, thread);
    /* It may have been raised a step before a `try` of importlib's: nobody could ever import again. */
    if (atomic_load(&job->task.word) & TETHER_F_RAISED)
        call_ours(st, st->give_back);
}

void kill_after_pop(state_t *st, tether_thread_t *thread)
{
#ifdef Py_GIL_DISABLED
    tether_task_t *top = load_relaxed(&thread->top);
    atomic_exchange(&thread->top, top); /* the pop, in the total order of the exchanges (see above) */
#else
    tether_task_t *top = load_relaxed(&thread->top);
#endif
    if (top != NULL && (atomic_load(&top->word) & (TETHER_F_KILL | TETHER_F_RAISED)) == TETHER_F_KILL)
        kill_deliver(st, job_of(top));
}

/* Called with the task just pushed: an exception that was set for the one below, and has not been raised yet, waits. */
void kill_after_push(state_t *st, tether_thread_t *thread, job_t *job)
{
    tether_task_t *below = job->task.below;
#ifdef Py_GIL_DISABLED
    /* The push, in the total order of the exchanges: a killer that does not find the task on top has set KILL before our
     * caller looks whether to run it at all. */
    atomic_exchange(&thread->top, &job->task);
#endif
    if (below == NULL || !(atomic_load(&below->word) & TETHER_F_KILL))
        return;
    tether_lock(&st->kill_lock); /* a delivery under way ends first; it is not on top any more for a later one */
    tether_unlock(&st->kill_lock);
    if (PyThreadState_Get()->async_exc != NULL) {
        withdraw(st, thread);
        and_acq_rel(&below->word, ~(uint32_t)TETHER_F_RAISED); /* again when it is on top (kill_after_pop) */
    }
}

/* A checkpoint raises in place of the asynchronous exception: once is enough. */
void kill_raised_here(state_t *st, tether_thread_t *thread)
{
    tether_lock(&st->kill_lock);
    for (tether_task_t *t = load_relaxed(&thread->top); t; t = t->below)
        if (tether_task_word(t) & TETHER_F_KILL)
            or_acq_rel(&t->word, TETHER_F_RAISED);
    tether_unlock(&st->kill_lock);
    withdraw(st, thread);
}
