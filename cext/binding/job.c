/* A task's Python part, and running it. */
#include "binding.h"

#include <frameobject.h>
#include <string.h>

job_t *job_new(state_t *st, tether_thread_t *thread, tether_node_t *owner)
{
    if (load_relaxed(&st->graves) != NULL)
        job_clear_graves(st);
    tether_task_t *task = tether_task_new(thread, owner);
    if (task == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    job_t *job = job_of(task);
    memset((char *)job + sizeof(tether_task_t), 0, offsetof(job_t, inline_args) - sizeof(tether_task_t));
    return job;
}

/* The function's name, as a new reference, or NULL without an exception. */
static PyObject *name_of_callable(state_t *st, PyObject *fn)
{
    if (PyFunction_Check(fn))
        return Py_NewRef(((PyFunctionObject *)fn)->func_name);
    if (PyMethod_Check(fn))
        return name_of_callable(st, PyMethod_GET_FUNCTION(fn));
    PyObject *name = PyObject_GetAttr(fn, st->name_name);
    if (name != NULL && !PyUnicode_Check(name))
        Py_CLEAR(name);
    if (name == NULL) {
        PyErr_Clear();
        name = PyType_GetName(Py_TYPE(fn));
        if (name == NULL)
            PyErr_Clear();
    }
    return name;
}

bool job_set_call(job_t *job, PyObject *fn, PyObject *const *args, size_t nargs, PyObject *kwnames)
{
    size_t nvalues = nargs + (kwnames ? (size_t)PyTuple_GET_SIZE(kwnames) : 0);
    PyObject **values = job->inline_args + 1;
    if (nvalues > JOB_INLINE_ARGS) {
        job->args = PyMem_Malloc((nvalues + 1) * sizeof(PyObject *));
        if (job->args == NULL) {
            PyErr_NoMemory();
            return false;
        }
        values = job->args + 1;
    }
    for (size_t i = 0; i < nvalues; i++)
        values[i] = Py_NewRef(args[i]);
    job->nargs = (uint32_t)nargs;
    job->nvalues = (uint32_t)nvalues;
    job->fn = Py_NewRef(fn);
    job->kwnames = Py_XNewRef(kwnames);
#ifdef Py_GIL_DISABLED
    /* Others may ask for the name while the function is let go; with a GIL it is looked up when it is wanted. */
    if (job->label == NULL)
        job->label = name_of_callable(job_state(job), fn);
#endif
    return true;
}

static PyObject **job_args(job_t *job) { return (job->nvalues > JOB_INLINE_ARGS ? job->args : job->inline_args) + 1; }

/* The function's name outlives the function. */
static void keep_label(state_t *st, job_t *job)
{
    if (job->label == NULL && job->fn != NULL)
        job->label = name_of_callable(st, job->fn);
}

/* Function, arguments and context go at exit, on the thread that ran the task, while it is still the current one: what
 * their destructors do is the task's doing. */
static void drop_call(state_t *st, job_t *job)
{
    keep_label(st, job);
    PyObject **args = job_args(job);
    uint32_t n = job->nvalues;
    job->nvalues = 0;
    for (uint32_t i = 0; i < n; i++)
        Py_DECREF(args[i]);
    if (n > JOB_INLINE_ARGS)
        PyMem_Free(args - 1);
    Py_CLEAR(job->kwnames);
    PyObject *fn = job->fn;
    if (job->restarts)
        tether_lock(&st->kill_lock); /* against restart_run_of */
    job->fn = NULL;
    if (job->restarts)
        tether_unlock(&st->kill_lock);
    Py_XDECREF(fn);
}

void job_unref(job_t *job)
{
    if (!job_is_foreign(job))
        tether_task_unref(tether_thread(job->task.node.rt), &job->task);
}

static void clear(job_t *job)
{
    Py_CLEAR(job->label);
    Py_CLEAR(job->code);
    Py_CLEAR(job->detail);
    Py_CLEAR(job->notes);
    Py_CLEAR(job->value);
}

/* The last reference may go on a thread that does not hold the GIL (it has just announced an end, or helps while it
 * waits). Such blocks wait for the next one who does. */
bool job_dispose(tether_thread_t *thread, tether_task_t *task)
{
    job_t *job = job_of(task);
    if (task->native && job->detail == NULL)
        return true;
    if (thread != NULL && !thread->away) {
        clear(job);
        return true;
    }
    state_t *st = job_state(job);
    tether_lock(&st->graves_lock);
    task->next = load_relaxed(&st->graves);
    store_relaxed(&st->graves, task);
    tether_unlock(&st->graves_lock);
    return false;
}

void job_clear_graves(state_t *st)
{
    tether_lock(&st->graves_lock);
    tether_task_t *task = load_relaxed(&st->graves);
    store_relaxed(&st->graves, NULL);
    tether_unlock(&st->graves_lock);
    while (task != NULL) {
        tether_task_t *next = task->next;
        clear(job_of(task));
        tether__task_recycle(tether_thread(st->rt), task);
        task = next;
    }
}

void job_discard(tether_thread_t *thread, job_t *job)
{
    drop_call(job_state(job), job);
    Py_CLEAR(job->context); /* name and site stay till the block goes: a TaskRef may have been made meanwhile */
    /* Guards that were moved to it go back to its own owner: what an ended task owns does (owner.c, effective). */
    or_acq_rel(&job->task.word, TETHER_REAPED);
    tether_task_discard(thread, &job->task);
}

PyObject *job_site(job_t *job)
{
    return job->task.native ? PyUnicode_FromString("<C>:0") : site_text(job->code, job->lasti);
}

PyObject *job_name(job_t *job)
{
    if (job->named)
        return Py_NewRef(job->label);
    if (job->task.native)
        return PyUnicode_FromFormat("%s-%llu", job->native.name ? job->native.name : "native",
                                    (unsigned long long)job->task.id);
    PyObject *label = Py_XNewRef(job->label);
#ifndef Py_GIL_DISABLED
    if (label == NULL && job->fn != NULL) {
        PyObject *fn = Py_NewRef(job->fn); /* asking for __name__ may run Python code, and the task may end meanwhile */
        label = name_of_callable(job_state(job), fn);
        Py_DECREF(fn);
    }
#endif
    if (label == NULL)
        label = PyUnicode_FromString("task");
    if (label == NULL)
        return NULL;
    PyObject *name = PyUnicode_FromFormat("%U-%llu", label, (unsigned long long)job->task.id);
    Py_DECREF(label);
    return name;
}

bool job_describe(job_t *job, PyObject **name, PyObject **site)
{
    *name = job_name(job); /* one after the other: job_name may clear what the other has raised */
    *site = *name ? job_site(job) : NULL;
    if (*site == NULL)
        Py_CLEAR(*name);
    return *site != NULL;
}

/* Says in a note of the exception which task it ended, and where that was spawned. */
static void add_site_note(state_t *st, job_t *job, PyObject *exc)
{
    PyObject *name, *site;
    PyObject *note =
        job_describe(job, &name, &site) ? PyUnicode_FromFormat("in task '%U', spawned at %U", name, site) : NULL;
    PyObject *r = note ? PyObject_CallMethodOneArg(exc, st->name_add_note, note) : NULL;
    if (r == NULL)
        PyErr_Clear(); /* an exception class may refuse notes; the exception itself matters more */
    Py_XDECREF(r);
    Py_XDECREF(note);
    Py_XDECREF(name);
    Py_XDECREF(site);
}

bool may_run_here(state_t *st, tether_thread_t *thread)
{
    switch (st->place) {
    case PLACE_THREAD:
        return false;
    case PLACE_RANDOM:
        /* A Weyl sequence, mixed: threads may draw together, and none needs to know of the others. */
        if (((add_relaxed(&st->dice, 0x9E3779B9u) * 0x85EBCA6Bu) >> 31) != 0)
            return false;
        break;
    default:
        break;
    }
    /* A deep stack: another thread takes the task, so that nesting of any depth completes. */
    if (tether_thread_room(thread) < thread->stack_size - thread->stack_size / 4)
        return false;
    if (load_relaxed(&st->collecting) == thread->ident)
        return false;
    return !loop_runs(st);
}

bool loop_runs(state_t *st)
{
    PyObject *get = load_acquire(&st->running_loop);
    if (get == NULL) {
        PyObject *asyncio = dict_get(st->modules, st->name_asyncio);
        if (asyncio == NULL) {
            PyErr_Clear();
            return false;
        }
        get = PyObject_GetAttrString(asyncio, "_get_running_loop");
        Py_DECREF(asyncio);
        if (get == NULL) {
            PyErr_Clear(); /* still being imported */
            return false;
        }
        PyObject *none = NULL;
        if (!cas_acq_rel(&st->running_loop, &none, get)) {
            Py_DECREF(get); /* another thread was faster */
            get = none;
        }
    }
    PyObject *loop = PyObject_CallNoArgs(get);
    bool runs = loop != NULL && loop != Py_None;
    if (loop == NULL)
        PyErr_Clear();
    Py_XDECREF(loop);
    return runs;
}

/* threading.settrace and setprofile are for threads that begin: every task is one, also in place. pystate_leave puts back
 * what was there. */
static void set_hook(state_t *st, PyObject *name, const char *set_name)
{
    PyObject *hook = dict_get(st->threading, name);
    if (hook != NULL && hook != Py_None) {
        PyObject *set = Py_XNewRef(PySys_GetObject(set_name));
        PyObject *r = set ? PyObject_CallOneArg(set, hook) : NULL;
        if (r == NULL)
            PyErr_WriteUnraisable(hook);
        Py_XDECREF(r);
        Py_XDECREF(set);
    }
    Py_XDECREF(hook);
}

static void report_to_excepthook(state_t *st, job_t *job);

static PyObject *call(job_t *job)
{
    return PyObject_Vectorcall(job->fn, job_args(job), job->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, job->kwnames);
}

/* A kept traceback keeps frames, and frames keep guards. A task's own frames are over: what they own is let go now, while
 * the task can still wait for it, not whenever somebody forgets the exception (G1). */
static void clear_frames_of_one(state_t *st, PyObject *exc)
{
    PyObject *tb = PyException_GetTraceback(exc);
    PyTracebackObject *at = (PyTracebackObject *)Py_XNewRef(tb);
    while (at != NULL) { /* destructors may cut the chain: it is held link by link */
        /* not over: somebody else drives it, and clear would close it */
        PyObject *generator = PyFrame_GetGenerator(at->tb_frame);
        if (generator == Py_None) /* so 3.14 says that there is none; before, NULL */
            Py_CLEAR(generator);
        PyObject *r = generator ? generator : PyObject_CallMethodNoArgs((PyObject *)at->tb_frame, st->name_clear);
        if (r == NULL)
            PyErr_Clear(); /* still running */
        Py_XDECREF(r);
        PyTracebackObject *next = (PyTracebackObject *)Py_XNewRef((PyObject *)at->tb_next);
        Py_DECREF(at);
        at = next;
    }
    Py_XDECREF(tb);
}

/* Appends to `list` what it does not have. */
static void add_once(PyObject *list, PyObject *exc)
{
    for (Py_ssize_t i = 0; exc != NULL && i < PyList_GET_SIZE(list); i++)
        if (PyList_GET_ITEM(list, i) == exc)
            return;
    if (exc != NULL && PyList_Append(list, exc) < 0)
        PyErr_Clear();
}

/* The same for what it was raised from, and for the members of a group: their frames are the task's as well. */
static void clear_frames(state_t *st, PyObject *exc)
{
    enum { MOST = 100 }; /* chains are short; a loop that makes a long one keeps its locals elsewhere, too */
    PyObject *cause = PyException_GetCause(exc), *context = PyException_GetContext(exc);
    bool group = PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_BaseExceptionGroup);
    Py_XDECREF(cause);
    Py_XDECREF(context);
    PyObject *all = cause || context || group ? PyList_New(0) : NULL;
    if (all == NULL) {
        PyErr_Clear();
        clear_frames_of_one(st, exc);
        return;
    }
    add_once(all, exc);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(all) && i < MOST; i++) {
        PyObject *one = PyList_GET_ITEM(all, i);
        cause = PyException_GetCause(one);
        context = PyException_GetContext(one);
        add_once(all, cause);
        add_once(all, context);
        Py_XDECREF(cause);
        Py_XDECREF(context);
        if (PyObject_TypeCheck(one, (PyTypeObject *)PyExc_BaseExceptionGroup)) {
            PyObject *members = ((PyBaseExceptionGroupObject *)one)->excs;
            for (Py_ssize_t j = 0; members != NULL && j < PyTuple_GET_SIZE(members); j++)
                add_once(all, PyTuple_GET_ITEM(members, j));
        }
        clear_frames_of_one(st, one);
    }
    Py_DECREF(all);
}

static void note_outcome(state_t *st, job_t *job, PyObject *value)
{
    if (value != NULL) {
        job->value = value;
        job->outcome = OUTCOME_VALUE;
        return;
    }
    PyObject *exc = take_exception();
    if (PyErr_GivenExceptionMatches(exc, st->Cancelled) || PyErr_GivenExceptionMatches(exc, st->KilledTask)) {
        job->outcome = OUTCOME_KILLED;
        clear_frames(st, exc);
    } else {
        job->outcome = OUTCOME_FAILED;
        add_site_note(st, job, exc);
        /* Locals help in a post-mortem: they go only if there may be a guard among them. Each guard that the task owns
         * refers to it, beside its own guard and its being alive. So does each borrow. */
        if (load_relaxed(&job->task.node.refs) > 2 || borrows_are_viewed(job))
            clear_frames(st, exc);
    }
    job->value = exc;
}

void job_forget_outcome(job_t *job)
{
    if (job->outcome != OUTCOME_VALUE)
        clear_frames(job_state(job), job->value);
    Py_CLEAR(job->value);
    job->outcome = OUTCOME_NONE;
}

void job_replace_outcome(state_t *st, job_t *job)
{
    Py_CLEAR(job->value);
    note_outcome(st, job, NULL);
}

#ifdef Py_GIL_DISABLED
/* Who drops the exit value drops the guards in it, there and then, although the containers were made here (G1): the walk sees to
 * that. */
static void release_value(state_t *st, job_t *job)
{
    guards_t found = {0};
    if (walk_value(st, job->value, &found) < 0)
        PyErr_Clear(); /* no memory: then this thread drops them when it comes by */
    guards_clear(&found);
}
#endif

/* outermost: a crew thread's own loop called, and nothing of Python is below us on this stack. `top` does not tell: hooks and
 * destructors that run between the pop and the end may run tasks in place, too. */
static void end(state_t *st, tether_thread_t *thread, job_t *job, bool outermost)
{
    bool failed = job->outcome == OUTCOME_FAILED;
    tether_task_t *task = &job->task;
    if (tether_task_borrows(task))
        borrows_end(st, job);
#ifdef Py_GIL_DISABLED
    if (job->outcome == OUTCOME_VALUE && load_relaxed(&task->node.refs) > 2)
        release_value(st, job);
#endif
    /* Letting a value go may run Python code: while we are still attached, if nobody wants it. */
    if (tether_task_is_loose(task) && !failed)
        Py_CLEAR(job->value);
    if (job_is_foreign(job))
        return; /* its destructor forked */
    /* On a crew thread the GIL goes before the end is announced: whoever wakes up finds it free. */
    if (outermost && load_relaxed(&task->node.rt->waiters) != 0)
        tether_crew_detach(thread);
    if (tether_task_end(thread, task, failed)) {
        if (outermost)
            tether_crew_attach(thread);
        if (outermost && failed)
            names_enter(st, thread, job); /* threading.excepthook is told the thread, and tells its name */
        job_release(job);
        if (outermost && failed)
            names_leave(st, thread);
        job_unref(job);
    }
}

static PyObject *call_in(job_t *job, PyObject *context)
{
    if (PyContext_Enter(context) < 0)
        return NULL;
    PyObject *value = call(job);
    PyObject *exc = value == NULL ? take_exception() : NULL;
    PyContext_Exit(context);
    if (exc != NULL)
        give_exception(exc);
    return value;
}

/* Once, with the face of a fresh thread; takes over `context`. Only a user's own context (enter_context) is entered. Nobody
 * kills any more when it returns. again: not the first; a cancellation that came before it has a history to tell (restart.c). */
static void attempt(state_t *st, tether_thread_t *thread, job_t *job, PyObject *context, pystate_t *saved, bool outermost,
                    bool again)
{
    bool enter = job->enter_context;
    pystate_enter(saved, PyThreadState_Get(), enter ? NULL : context, thread);
    if (outermost) {
        keep_label(st, job);
        names_enter(st, thread, job);
    }
    set_hook(st, st->name_trace, "settrace");
    set_hook(st, st->name_profile, "setprofile");
    if (!again && tether_task_cancelled(&job->task))
        job->outcome = OUTCOME_KILLED;
    else if (job->restarts && !restart_begins(st, thread, job))
        note_outcome(st, job, NULL);
    else
        note_outcome(st, job, enter ? call_in(job, context) : call(job));
    if (enter)
        Py_DECREF(context);
    kill_before_end(st, thread, job);
}

/* Each attempt begins with the context that the task was given, not with what the last one made of it. */
static void attempts(state_t *st, tether_thread_t *thread, job_t *job, PyObject *context, pystate_t *saved, bool outermost)
{
    for (bool again = false;; again = true) {
        PyObject *own = Py_XNewRef(context);
        if (context != NULL && !job->enter_context) {
            Py_SETREF(own, PyContext_Copy(context));
            if (own == NULL)
                PyErr_WriteUnraisable(context); /* no memory: it gets an empty one */
        }
        attempt(st, thread, job, own, saved, outermost, again);
        if (!restart_wanted(st, thread, job))
            break;
        pystate_leave(saved);
    }
    Py_XDECREF(context);
}

static void run_job(state_t *st, tether_thread_t *thread, job_t *job, bool outermost)
{
    pystate_t saved;
    PyObject *context = job->context, *notes = NULL;
    job->context = NULL;
    if (job->restarts)
        or_acq_rel(&job->task.word, TETHER_F_ENDING); /* until the first attempt (restart.c) */
    tether_task_push(thread, &job->task);
    kill_after_push(st, thread, job);
    if (!job->restarts) {
        attempt(st, thread, job, context, &saved, outermost, false);
    } else {
        attempts(st, thread, job, context, &saved, outermost);
        notes = restart_notes(job);
    }
    drop_call(st, job);
    job->notes = notes;
    pystate_leave(&saved);
    if (outermost)
        names_leave(st, thread);
    tether_task_pop(thread, &job->task);
    if (job_is_foreign(job)) {
        /* We are the child of a fork that the task made: its end is the parent's business. In place, the exception goes on
         * (fork_passed); on a thread of the crew there is nobody but the hook, as for a Thread. */
        if (outermost && job->outcome == OUTCOME_FAILED)
            report_to_excepthook(st, job);
        return;
    }
    kill_after_pop(st, thread);
    end(st, thread, job, outermost);
    if (!outermost)
        anchor_weigh(st);
}

void job_run_here(state_t *st, tether_thread_t *thread, job_t *job) { run_job(st, thread, job, false); }
void job_run_on_crew(state_t *st, tether_thread_t *thread, job_t *job) { run_job(st, thread, job, true); }

void job_end_unrun(state_t *st, tether_thread_t *thread, job_t *job)
{
    Py_CLEAR(job->context);
    job->outcome = OUTCOME_KILLED;
    drop_call(st, job);
    end(st, thread, job, false);
}

void job_report(job_t *job)
{
    PyObject *pending = take_exception();
    PyObject *name, *site;
    PyObject *where =
        job_describe(job, &name, &site) ? PyUnicode_FromFormat("<tether task '%U', spawned at %U>", name, site) : NULL;
    PyErr_Clear();
    give_exception(Py_NewRef(job->value));
    PyErr_WriteUnraisable(where);
    Py_XDECREF(where);
    Py_XDECREF(name);
    Py_XDECREF(site);
    give_exception(pending);
}

/* threading.excepthook((type, value, traceback, thread)), as a failing Thread would. */
static void report_to_excepthook(state_t *st, job_t *job)
{
    PyObject *pending = take_exception();
    if (st->threading == NULL) { /* the module is being taken apart */
        give_exception(pending);
        job_report(job);
        return;
    }
    PyObject *hook = dict_item(st->threading, "excepthook");
    PyObject *make = hook ? dict_item(st->threading, "ExceptHookArgs") : NULL;
    PyObject *current = make ? dict_item(st->threading, "current_thread") : NULL;
    PyObject *thread = current ? PyObject_CallNoArgs(current) : NULL;
    PyObject *tb = PyException_GetTraceback(job->value);
    PyObject *args = NULL, *r = NULL;
    if (thread != NULL) {
        PyObject *four = PyTuple_Pack(4, (PyObject *)Py_TYPE(job->value), job->value, tb ? tb : Py_None, thread);
        args = four ? PyObject_CallOneArg(make, four) : NULL;
        Py_XDECREF(four);
        r = args ? PyObject_CallOneArg(hook, args) : NULL;
    }
    if (args == NULL) { /* no memory to tell the hook: what failed matters more */
        PyErr_Clear();
        job_report(job);
    } else if (r == NULL) {
        PyErr_WriteUnraisable(hook);
    }
    Py_XDECREF(r);
    Py_XDECREF(args);
    Py_XDECREF(tb);
    Py_XDECREF(thread);
    Py_XDECREF(current);
    Py_XDECREF(make);
    Py_XDECREF(hook);
    give_exception(pending);
}

void job_release(job_t *job)
{
    if (!tether_task_reap(&job->task))
        return;
    if (job->outcome == OUTCOME_FAILED) {
        if (tether_task_word(&job->task) & TETHER_F_DETACHED)
            report_to_excepthook(job_state(job), job);
        else
            job_report(job);
    }
    Py_CLEAR(job->value);
}

static PyObject *killed_error(state_t *st, job_t *job)
{
    PyObject *name, *site, *exc = NULL;
    PyObject *detail = job->detail ? job->detail : Py_None;
    if (job_describe(job, &name, &site))
        exc = PyObject_CallFunctionObjArgs(st->TaskKilled, name, site, st->reasons[0], detail, NULL);
    Py_XDECREF(name);
    Py_XDECREF(site);
    return exc;
}

PyObject *job_take(job_t *job, bool *taken)
{
    PyObject *killed = NULL;
    if (job->outcome == OUTCOME_KILLED && (killed = killed_error(job_state(job), job)) == NULL)
        return NULL;
    *taken = true;
    PyObject *value = job->value;
    job->value = NULL;
    if (job->outcome == OUTCOME_VALUE)
        return value;
    if (killed != NULL) {
        PyException_SetCause(killed, value);
        PyErr_SetObject((PyObject *)Py_TYPE(killed), killed);
        Py_DECREF(killed);
    } else {
        give_exception(value);
    }
    return NULL;
}

PyObject *job_exit_value(job_t *job, bool *taken)
{
    state_t *st = job_state(job);
    PyObject *value = job->value, *result;
    if (job->outcome == OUTCOME_VALUE)
        result = PyObject_CallFunctionObjArgs(st->Completed, value, job->notes, NULL);
    else
        result = PyObject_CallFunctionObjArgs(st->Killed, st->reasons[job->outcome == OUTCOME_FAILED],
                                              value ? value : Py_None, NULL);
    if (result != NULL) {
        *taken = true;
        Py_CLEAR(job->value);
    }
    return result;
}
