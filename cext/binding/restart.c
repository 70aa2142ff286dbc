/* Running a task again: the function of a restartable task is a run (tether/_restart.py), which holds what the user gave, and
 * which is asked after each attempt whether there shall be another.
 *
 * The task stays one task: RUNNING, one guard, one owner, on its thread. An attempt has what a task has: its own copy of the
 * context, its own thread-locals, a full budget.
 *
 * Only attempts may be killed: `begins` and `ended` keep the books, and `ended` waits. So ENDING stands whenever no attempt
 * is made (kill.c), and CANCEL is looked at after it was taken away: a killer who came before is seen there. */
#include "binding.h"

int restart_check(PyObject *policy)
{
    PyObject *module = PyImport_ImportModule("tether._restart");
    PyObject *type = module ? PyObject_GetAttrString(module, "Restart") : NULL;
    int is = type ? PyObject_IsInstance(policy, type) : -1;
    Py_XDECREF(module);
    Py_XDECREF(type);
    if (is == 0)
        PyErr_Format(PyExc_TypeError, "restart must be a tether.Restart or None, not %.100s", Py_TYPE(policy)->tp_name);
    return is == 1 ? 0 : -1;
}

PyObject *restart_prepare(PyObject *policy, PyObject *fn, PyObject *const *args, size_t nargs, PyObject *kwnames, bool guards)
{
    PyObject *values = PyTuple_New((Py_ssize_t)nargs);
    for (size_t i = 0; values != NULL && i < nargs; i++)
        PyTuple_SET_ITEM(values, (Py_ssize_t)i, Py_NewRef(args[i]));
    PyObject *none = PyTuple_New(0);
    PyObject *run = values && none ? PyObject_CallMethod(policy, "prepare", "OOOO", fn, values, kwnames ? kwnames : none,
                                                         guards ? Py_True : Py_False)
                                   : NULL;
    Py_XDECREF(none);
    Py_XDECREF(values);
    return run;
}

bool restart_begins(state_t *st, tether_thread_t *thread, job_t *job)
{
    PyObject *r = PyObject_CallMethod(job->fn, "begins", NULL);
    if (r == NULL)
        return false;
    Py_DECREF(r);
    and_acq_rel(&job->task.word, ~(uint32_t)TETHER_F_ENDING);
    if (!tether_task_cancelled(&job->task))
        return true;
    raise_cancelled(st, thread); /* so that `ended` hears of it */
    return false;
}

/* The exception that is set ends the task between two attempts; it tells of the earlier ones, too. */
static void end_between(state_t *st, job_t *job)
{
    job_replace_outcome(st, job);
    PyObject *r = PyObject_CallMethod(job->fn, "give_up", "O", job->value);
    if (r == NULL)
        PyErr_Clear();
    Py_XDECREF(r);
}

bool restart_wanted(state_t *st, tether_thread_t *thread, job_t *job)
{
    if (job_is_foreign(job) || (job->outcome == OUTCOME_KILLED && job->value == NULL))
        return false; /* the attempt forked, and we are the child; or it never began */
    if (job->task.scopes != NULL)
        tether_scope_drop_all(thread, &job->task); /* left open by a generator; cancelled, they would cancel what follows */
    PyObject *r = PyObject_CallMethod(job->fn, "ended", "O", job->outcome == OUTCOME_VALUE ? Py_None : job->value);
    bool again = r == Py_True;
    Py_XDECREF(r);
    /* No memory to decide: what the attempt came to stands. A supervised task has to fail, though: that cancels the scope, and
     * with it the siblings' waits for what this one did not write into the books. */
    if (r == NULL && PyErr_ExceptionMatches(PyExc_MemoryError) && (job->outcome == OUTCOME_FAILED || !job->task.apart)) {
        PyErr_WriteUnraisable(NULL);
        return false;
    }
    if (r == NULL) {
        /* Something ended its wait: a sibling, whose doing this is, or a cancellation, an interrupt: the task's end. */
        again = PyErr_ExceptionMatches(st->Cancelled) && tether_task_spare(&job->task);
        if (again)
            PyErr_Clear();
        else
            end_between(st, job);
    }
    if (!again)
        return false;
    job_forget_outcome(job);
    return true;
}

PyObject *restart_notes(job_t *job)
{
    if (job_is_foreign(job) || job->outcome != OUTCOME_VALUE)
        return NULL; /* those of a failure are in the exception */
    PyObject *notes = PyObject_GetAttrString(job->fn, "notes");
    if (notes == NULL)
        PyErr_Clear();
    return notes;
}

PyObject *restart_run_of(state_t *st, job_t *job)
{
    /* The function goes at the task's end, under the same lock (job.c, drop_call). */
    tether_lock(&st->kill_lock);
    PyObject *run = job->restarts ? Py_XNewRef(job->fn) : NULL;
    tether_unlock(&st->kill_lock);
    return run;
}
