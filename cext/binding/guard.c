/* JoinGuard: the right to a task's exit value and the duty to wait for it. See the destructor at the end. */
#include "binding.h"

#include <stddef.h>

#define STATE(self) job_state((self)->job)

guard_t *guard_alloc(state_t *st)
{
    guard_t *g = PyObject_GC_New(guard_t, st->guard_type);
    if (g != NULL) {
        count_for_all((PyObject *)g);
        g->job = NULL;
        g->weakrefs = NULL;
    }
    return g;
}

bool guard_armed(const job_t *job)
{
    uint32_t word = tether_task_word(&job->task);
    return !(word & (TETHER_F_SCOPED | TETHER_F_LOOSE)) && tether_state(word) != TETHER_REAPED;
}

static PyObject *raise_reaped(state_t *st, job_t *job)
{
    PyObject *name, *site;
    if (job_describe(job, &name, &site)) {
        if (tether_task_word(&job->task) & TETHER_F_LOOSE)
            PyErr_Format(st->ReapedError, "the guard of task '%U' (spawned at %U) was let go: it cannot be joined any more",
                         name, site);
        else
            PyErr_Format(st->ReapedError,
                         "task '%U' (spawned at %U) was reaped already: its exit value was taken by an earlier join or "
                         "exit_value, or raised by its scope. Keep the first join's result",
                         name, site);
    }
    Py_XDECREF(name);
    Py_XDECREF(site);
    return NULL;
}

static PyObject *raise_not_owner(state_t *st, job_t *job, const char *verb)
{
    tether_task_t *owner = tether_owner_parent(&job->task);
    PyObject *name, *site, *holder = NULL;
    if (job_describe(job, &name, &site))
        holder = owner ? job_name(job_of(owner)) : PyUnicode_FromString("the root (the program's own threads)");
    if (holder != NULL)
        PyErr_Format(st->OwnershipError,
                     "only the owner may %s the guard of task '%U' (spawned at %U), and that is %U. Return the guard to it, "
                     "or let it pass the guard on as an argument or with guard.send",
                     verb, name, site, holder);
    Py_XDECREF(name);
    Py_XDECREF(site);
    Py_XDECREF(holder);
    if (owner != NULL)
        job_unref(job_of(owner));
    return NULL;
}

/* May the calling thread join? Anyone may join the handle of a scope's task: the scope owns that one. */
static bool may_join(state_t *st, tether_thread_t *thread, job_t *job)
{
    if (need_own(st, job->task.node.rt) < 0)
        return false;
    uint32_t word = tether_task_word(&job->task);
    if (tether_state(word) == TETHER_REAPED || (word & TETHER_F_LOOSE)) {
        raise_reaped(st, job);
        return false;
    }
    if (!(word & TETHER_F_SCOPED) && !tether_owner_is(&job->task, tether_owner_current(thread))) {
        raise_not_owner(st, job, "join");
        return false;
    }
    return true;
}

/* Ends with the job EXITED (0) or an exception (-1). */
static int wait_or_run(state_t *st, tether_thread_t *thread, job_t *job, uint64_t deadline)
{
    uint32_t word = tether_task_word(&job->task);
    if (tether_state(word) >= TETHER_EXITED)
        return 0;
    if ((word & (TETHER_STATE | TETHER_F_DEDICATED)) == TETHER_QUEUED && deadline == TETHER_FOREVER &&
        may_run_job_here(st, thread, job)) {
        if (checkpoint(st, thread) < 0)
            return -1;
        if (tether_task_claim(thread, &job->task)) {
            job_run_here(st, thread, job);
            return fork_passed(st, thread, job);
        }
    }
    return wait_job(st, thread, job, deadline);
}

/* The exit value is ours alone from here on. 0, or -1 with ReapedError: another thread of the same owner was faster. */
static int reap(state_t *st, tether_thread_t *thread, job_t *job)
{
    /* Somebody else of the same owner may let it go or send it into a scope at this moment: one exchange decides. */
    uint32_t word;
    anchor_settle(st, thread);
    if (!tether_task_take(&job->task, TETHER_F_LOOSE, &word)) {
        raise_reaped(st, job);
        return -1;
    }
    if (word & TETHER_F_SCOPED) {
        if ((word & TETHER_F_FAILED) && tether_scope_forget(tether_task_scope(&job->task), &job->task))
            job_unref(job);
    } else {
        tether_lane_arm(tether_task_lane(&job->task), -1);
    }
    return 0;
}

/* Guards inside a result come to the joiner. What the task itself owned comes anyway (owner.c, effective); this is for a
 * joiner that is not the owner: a sibling that joins a scope's handle. */
static int receive(state_t *st, tether_thread_t *thread, job_t *job)
{
    if (job->outcome != OUTCOME_VALUE || !(tether_task_word(&job->task) & TETHER_F_SCOPED))
        return 0;
    guards_t found = {0};
    if (walk_value(st, job->value, &found) < 0)
        return -1;
    tether_owner_claim(thread, found.tasks, found.n, &job->task);
    guards_clear(&found);
    return 0;
}

/* No memory to hand the exit value over: it stays where it is, for another try. A failed child's is no longer where its scope
 * would find it: it is reported. */
static void put_back(job_t *job)
{
    uint32_t word = tether_task_word(&job->task);
    if ((word & TETHER_F_SCOPED) && job->outcome == OUTCOME_FAILED) {
        job_report(job);
        Py_CLEAR(job->value);
        return;
    }
    tether_task_put_back(&job->task);
    if (!(word & TETHER_F_SCOPED))
        tether_lane_arm(tether_task_lane(&job->task), 1);
}

static PyObject *finish(guard_t *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, const char *what,
                        job_take_fn *take)
{
    job_t *job = self->job;
    state_t *st = STATE(self);
    uint64_t deadline = TETHER_FOREVER;
    if (nargs != 0 || kwnames != NULL) {
        PyObject *timeout = NULL;
        if (nargs == 1 && kwnames == NULL)
            timeout = args[0];
        else if (nargs == 0 && PyTuple_GET_SIZE(kwnames) == 1 &&
                 PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "timeout") == 0)
            timeout = args[0];
        else
            return PyErr_Format(PyExc_TypeError, "%s() takes at most one argument, timeout", what);
        if (deadline_from(timeout, &deadline, "timeout") < 0)
            return NULL;
    }
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL || !may_join(st, thread, job) || wait_or_run(st, thread, job, deadline) < 0 ||
        reap(st, thread, job) < 0)
        return NULL;
    bool taken = false;
    PyObject *result = receive(st, thread, job) < 0 ? NULL : take(job, &taken);
    if (!taken)
        put_back(job);
    return result;
}

static PyObject *guard_join(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return finish((guard_t *)self, args, nargs, kwnames, "join", job_take);
}

static PyObject *guard_exit_value(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return finish((guard_t *)self, args, nargs, kwnames, "exit_value", job_exit_value);
}

static PyObject *guard_done(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(tether_task_ended(&((guard_t *)self)->job->task));
}

static PyObject *guard_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    state_t *st = STATE((guard_t *)self);
    tether_thread_t *thread = need_thread(st);
    bool ok;
    PyObject *reason = reason_text(args, nargs, kwnames, &ok);
    if (!ok || thread == NULL)
        return NULL;
    return PyBool_FromLong(job_cancel(st, thread, ((guard_t *)self)->job, reason, 0));
}

static PyObject *guard_kill(PyObject *self, PyObject *unused)
{
    (void)unused;
    state_t *st = STATE((guard_t *)self);
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL)
        return NULL;
    return PyBool_FromLong(job_cancel(st, thread, ((guard_t *)self)->job, NULL, TETHER_F_KILL));
}

static PyObject *guard_send(PyObject *self, PyObject *to)
{
    job_t *job = ((guard_t *)self)->job;
    state_t *st = job_state(job);
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL || need_own(st, job->task.node.rt) < 0)
        return NULL;
    if (!guard_armed(job)) {
        if (tether_task_word(&job->task) & TETHER_F_SCOPED)
            return PyErr_Format(st->OwnershipError,
                                "this guard belongs to a scope, which waits for its task: it cannot be sent");
        return raise_reaped(st, job);
    }
    bool is_scope, is_ref;
    tether_scope_t *scope = scope_core(st, to, &is_scope);
    if (PyErr_Occurred())
        return NULL;
    if (is_scope) {
        switch (tether_owner_send(thread, &job->task, scope)) {
        case TETHER_OK:
            tether_lane_arm(tether_task_lane(&job->task), -1);
            Py_RETURN_NONE;
        case TETHER_NOT_OWNER:
            return guard_armed(job) ? raise_not_owner(st, job, "send") : raise_reaped(st, job);
        case TETHER_CYCLE:
            return PyErr_Format(st->OwnershipError,
                                "the guard cannot go to a scope inside the task that it guards: that would wait for itself");
        default:
            return PyErr_Format(st->ScopeClosedError, "the scope is closed: it takes no more tasks");
        }
    }
    job_t *target = ref_job(st, to, &is_ref);
    if (!is_ref)
        return PyErr_Format(PyExc_TypeError, "send() takes a TaskRef or a Scope, not %.100s", Py_TYPE(to)->tp_name);
    if (target != NULL && need_own(st, target->task.node.rt) < 0)
        return NULL;
    if (target != NULL && tether_task_ended(&target->task)) {
        PyObject *name = job_name(target);
        if (name != NULL)
            PyErr_Format(st->OwnershipError, "task '%U' has ended: it cannot own a guard any more", name);
        Py_XDECREF(name);
        return NULL;
    }
    tether_task_t *one[1] = {&job->task};
    guards_t guards = {.tasks = one, .n = 1};
    if (guards_move(st, thread, &guards, target ? &target->task.node : NULL, "that task") < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* May it go on alone (G4)? */
static bool is_static(job_t *job)
{
    return !(tether_task_word(&job->task) & TETHER_F_SCOPED) && (job_is_foreign(job) || !tether_task_borrows(&job->task));
}

static PyObject *guard_detach(PyObject *self, PyObject *unused)
{
    (void)unused;
    job_t *job = ((guard_t *)self)->job;
    state_t *st = job_state(job);
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL || need_own(st, job->task.node.rt) < 0)
        return NULL;
    if (tether_task_word(&job->task) & TETHER_F_SCOPED)
        return PyErr_Format(st->OwnershipError, "a task of a scope cannot be detached: the scope promises to wait for it. "
                                                "Use tether.spawn for a task that may go on alone");
    if (!guard_armed(job))
        return raise_reaped(st, job);
    if (!tether_owner_is(&job->task, tether_owner_current(thread)))
        return raise_not_owner(st, job, "detach");
    if (!is_static(job)) {
        PyObject *name = job_name(job);
        if (name != NULL)
            PyErr_Format(st->OwnershipError,
                         "task '%U' borrows: it cannot be detached, or it might outlive what it borrows. Join it, or give it a "
                         "region of its own",
                         name);
        Py_XDECREF(name);
        return NULL;
    }
    PyObject *ref = ref_new(st, job);
    if (ref == NULL)
        return NULL;
    bool ended;
    if (!tether_task_disarm(&job->task, TETHER_F_DETACHED, &ended)) {
        Py_DECREF(ref);
        return raise_reaped(st, job);
    }
    tether_lane_arm(tether_task_lane(&job->task), -1);
    if (ended)
        job_release(job);
    return ref;
}

static PyObject *guard_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *guard_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    guard_t *g = (guard_t *)self;
    job_t *job = g->job;
    state_t *st = STATE(g);
    tether_thread_t *thread = need_thread(st);
    if (thread == NULL)
        return NULL;
    uint32_t word = tether_task_word(&job->task);
    if (job_is_foreign(job) || tether_state(word) == TETHER_REAPED || (word & TETHER_F_LOOSE))
        Py_RETURN_FALSE; /* joined, detached or forked away in the body */
    bool failed = nargs > 0 && args[0] != Py_None;
    if (failed)
        job_cancel(st, thread, job, NULL, 0);
    if (!may_join(st, thread, job))
        return NULL;
    /* The end of the block joins, cancelled or not: only Ctrl-C ends the wait, and leaves the guard armed. */
    if (!(word & TETHER_F_DEDICATED) && may_run_job_here(st, thread, job) && tether_task_claim(thread, &job->task))
        job_run_here(st, thread, job);
    else if (wait_job_shielded(st, thread, job) < 0)
        return NULL;
    if (fork_passed(st, thread, job) < 0 || reap(st, thread, job) < 0)
        return NULL;
    if (failed) {
        /* The body's exception goes on; a failure of the task's own must not be lost behind it. */
        if (job->outcome == OUTCOME_FAILED)
            job_report(job);
        Py_CLEAR(job->value);
        Py_RETURN_FALSE;
    }
    bool taken = false;
    PyObject *value = receive(st, thread, job) < 0 ? NULL : job_take(job, &taken);
    if (!taken)
        put_back(job);
    if (value == NULL)
        return NULL;
    Py_DECREF(value);
    Py_RETURN_FALSE;
}

static PyObject *no_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyErr_Format(PyExc_TypeError, "a JoinGuard cannot be copied or pickled: it has exactly one owner. Pass it on as "
                                         "an argument or with send(); share guard.task instead");
}

static PyObject *guard_get_task(PyObject *self, void *unused)
{
    (void)unused;
    return ref_new(STATE((guard_t *)self), ((guard_t *)self)->job);
}

static PyObject *guard_get_static(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(is_static(((guard_t *)self)->job));
}

static PyObject *guard_repr(PyObject *self)
{
    job_t *job = ((guard_t *)self)->job;
    uint32_t word = tether_task_word(&job->task);
    const char *mode = tether_state(word) == TETHER_REAPED ? "reaped"
                       : word & TETHER_F_SCOPED            ? "held by its scope"
                       : word & TETHER_F_LOOSE             ? "let go"
                                                           : "armed";
    PyObject *name, *site, *r = NULL;
    if (job_describe(job, &name, &site))
        r = PyUnicode_FromFormat("<tether.JoinGuard of '%U', %s, spawned at %U>", name, mode, site);
    Py_XDECREF(name);
    Py_XDECREF(site);
    return r;
}

/* ---- the destructor (G1, G5, G6) --------------------------------------------------------------------------------- */

static void warn(job_t *job, const char *what)
{
    PyObject *name, *site;
    if (job_describe(job, &name, &site) &&
        PyErr_WarnFormat(PyExc_ResourceWarning, 1, "task '%U', spawned at %U, %s", name, site, what) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_Clear();
    Py_XDECREF(name);
    Py_XDECREF(site);
}

/* Lets the runtime have the task: nothing waits. */
static void adopt(job_t *job)
{
    bool ended;
    if (!tether_task_disarm(&job->task, TETHER_F_ADOPTED, &ended))
        return;
    tether_lane_arm(tether_task_lane(&job->task), -1);
    if (ended)
        job_release(job);
}

/* Called where the last reference goes, or by the collector. Whoever may wait, waits; anyone else adopts. */
static void let_go(job_t *job, bool by_collector)
{
    if (job_is_foreign(job))
        return;
    state_t *st = job_state(job);
    tether_thread_t *thread = tether_thread(st->rt);
    uint32_t word = tether_task_word(&job->task);
    if (word & TETHER_F_SCOPED) {
        /* An unarmed handle: the value is of no use to anyone now; a failure stays with the scope, if that still collects. */
        if (!(word & TETHER_F_LOOSE) && tether_state(word) != TETHER_REAPED &&
            tether_task_loosen(&job->task, TETHER_F_LOOSE) &&
            (job->outcome != OUTCOME_FAILED || !tether_scope_collects(tether_task_scope(&job->task), &job->task)))
            job_release(job);
        return;
    }
    if (!guard_armed(job))
        return;
    PyObject *pending = take_exception();
    if (job->must_join)
        warn(job, "was not joined, as must_join=True asks; its guard was dropped");
    bool collector = by_collector || load_relaxed(&st->collecting) == (unsigned long)PyThread_get_thread_ident();
    if (!collector && thread == NULL)
        thread = have_thread(st);
    if (collector || !tether_owner_is(&job->task, tether_owner_current(thread)) ||
        tether_owner_above(&job->task, tether_owner_current(thread))) {
        if (!job->must_join && tether_state(word) == TETHER_QUEUED)
            warn(job, "was neither started nor joined when its guard was dropped");
        adopt(job);
        give_exception(pending);
        return;
    }
    bool unstarted = (word & (TETHER_STATE | TETHER_F_DEDICATED)) == TETHER_QUEUED;
    if (unstarted && !job->must_join)
        warn(job, "was neither started nor joined when its guard was dropped: it runs now, while the drop waits, so nothing "
                  "runs in parallel. Keep the guard and join it, or spawn it in a scope");
    bool here = unstarted && st->place != PLACE_THREAD && !loop_runs(st) &&
                tether_thread_room(thread) >= thread->stack_size / 4;
    if (here && tether_task_claim(thread, &job->task)) {
        job_run_here(st, thread, job);
        if (fork_passed(st, thread, job) < 0)
            fork_silence(st);
    } else {
        wait_job_quietly(st, thread, job);
    }
    anchor_settle(st, thread);
    bool ours = !job_is_foreign(job); /* else: in the child of a fork that was made meanwhile */
    if (ours && tether_task_ended(&job->task) && tether_task_take(&job->task, TETHER_F_LOOSE | TETHER_F_SCOPED, &word)) {
        tether_lane_arm(tether_task_lane(&job->task), -1);
        if (job->outcome == OUTCOME_FAILED)
            job_report(job);
        Py_CLEAR(job->value);
    } else if (ours && guard_armed(job)) {
        adopt(job); /* the wait could never have ended */
    }
    give_exception(pending);
}

static void guard_finalize(PyObject *self)
{
    if (((guard_t *)self)->job != NULL)
        let_go(((guard_t *)self)->job, true);
}

static void dealloc_now(PyObject *self)
{
    guard_t *g = (guard_t *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (g->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    if (g->job != NULL) {
        if (tether_state(tether_task_word(&g->job->task)) != TETHER_REAPED)
            let_go(g->job, false);
        job_unref(g->job);
    }
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static void guard_dealloc(PyObject *self)
{
    guard_t *g = (guard_t *)self;
    PyObject_GC_UnTrack(self);
    /* An exit value may be a guard whose exit value is a guard ...: the trashcan makes such a chain a loop. It may put us off
     * till later, so only where nothing is to be waited for. */
    if (g->job == NULL || !tether_task_ended(&g->job->task)) {
        dealloc_now(self);
        return;
    }
    Py_TRASHCAN_BEGIN(self, guard_dealloc)
    dealloc_now(self);
    Py_TRASHCAN_END
}

/* Once the task has ended its exit value waits for this guard alone (a failed child's also for its scope). Before that the
 * runtime holds everything. */
static int guard_traverse(PyObject *self, visitproc visit, void *arg)
{
    job_t *job = ((guard_t *)self)->job;
    Py_VISIT(Py_TYPE(self));
    if (job == NULL)
        return 0;
    uint32_t word = tether_task_word(&job->task);
    if (tether_state(word) == TETHER_EXITED && !(word & TETHER_F_LOOSE) &&
        (!(word & TETHER_F_SCOPED) || !(word & TETHER_F_FAILED)))
        Py_VISIT(job->value);
    return 0;
}

static PyMethodDef guard_methods[] = {
    {"join", (PyCFunction)(void (*)(void))guard_join, METH_FASTCALL | METH_KEYWORDS,
     "join($self, /, timeout=None)\n--\n\n"
     "Waits for the task and returns its result, or raises its exception.\n\n"
     "A task that nobody has started is run here, in place. Reaps: a second call raises ReapedError (G9).\n\n"
     "Parameters: timeout, in seconds; None waits for ever.\n"
     "Raises: the task's own exception, with a note of the spawn site; TaskKilled if it was cancelled or killed;\n"
     "TimeoutError (the guard stays armed); OwnershipError for anyone but the owner (G3); DeadlockError; Cancelled.\n\n"
     ">>> import tether\n>>> guard = tether.spawn(pow, 2, 10)\n>>> guard.join()\n1024\n"},
    {"exit_value", (PyCFunction)(void (*)(void))guard_exit_value, METH_FASTCALL | METH_KEYWORDS,
     "exit_value($self, /, timeout=None)\n--\n\n"
     "Like join, but answers Completed(value) or Killed(reason, exception), for match; never raises the task's exception.\n\n"
     ">>> import tether\n>>> tether.spawn(int, 'x').exit_value()\n"
     "Killed(reason=<KillReason.EXCEPTION: 'exception'>, exception=ValueError(\"invalid literal for int() with base 10: "
     "'x'\"))\n"},
    {"done", guard_done, METH_NOARGS, "done($self, /)\n--\n\nHas the task ended? Open to anyone."},
    {"cancel", (PyCFunction)(void (*)(void))guard_cancel, METH_FASTCALL | METH_KEYWORDS,
     "cancel($self, /, reason=None)\n--\n\n"
     "Asks the task to end: True if it had not (G12). Before its start it never runs (G7); later the request is seen at its\n"
     "next checkpoint or blocking call of tether, which raises Cancelled there. Open to anyone.\n\n"
     "Parameters: reason, a text for the people who read the error."},
    {"kill", guard_kill, METH_NOARGS,
     "kill($self, /)\n--\n\n"
     "cancel(), and KilledTask raised asynchronously in the task's running Python code. A blocking C call is not interrupted.\n"
     "Open to anyone."},
    {"send", guard_send, METH_O,
     "send($self, to, /)\n--\n\n"
     "Moves the guard to another owner, a TaskRef or a scope (G3). A scope then waits for the task.\n\n"
     "Raises: OwnershipError, and nothing changes, if the caller is not the owner or the guard would come to own itself."},
    {"detach", guard_detach, METH_NOARGS,
     "detach($self, /)\n--\n\n"
     "Lets the task go on alone and returns its TaskRef (G4). Its failure goes to threading.excepthook; it is waited for at\n"
     "interpreter exit.\n\nRaises: OwnershipError if it borrows something or belongs to a scope."},
    {"__enter__", guard_enter, METH_NOARGS, "The guard itself."},
    {"__exit__", (PyCFunction)(void (*)(void))guard_exit, METH_FASTCALL, "Joins; cancels first if the body failed."},
    NO_COPY_METHODS(no_copy),
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {0},
};

static PyGetSetDef guard_getset[] = {
    {"task", guard_get_task, NULL, "The TaskRef of the task. Open to anyone.", NULL},
    {"is_static", guard_get_static, NULL, "May the task be detached: it borrows nothing and belongs to no scope (G4)?", NULL},
    {0},
};

static PyMemberDef guard_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(guard_t, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot guard_slots[] = {
    {Py_tp_doc, "The right to a task's exit value, and the duty to wait for it. Made by spawn; has one owner (G3).\n\n"
                "However the owner lets it go, the task ends before the guard is gone (G1)."},
    {Py_tp_dealloc, guard_dealloc},
    {Py_tp_finalize, guard_finalize},
    {Py_tp_traverse, guard_traverse},
    {Py_tp_methods, guard_methods},
    {Py_tp_getset, guard_getset},
    {Py_tp_members, guard_members},
    {Py_tp_repr, guard_repr},
    {0, NULL},
};

PyType_Spec guard_spec = {
    .name = "tether.JoinGuard",
    .basicsize = sizeof(guard_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = guard_slots,
};
