/* The C API (tether.h): the runtime's calls for other extensions, which make them without a thread state.
 *
 * The calling thread may be attached or not, and nobody knows: so for the time of a call it counts as away, which is safe in
 * both cases (what only an attached thread may free waits for one: job_dispose). */
#include "native.h"
#include "tether.h"

#include <string.h>

/* ---- threads ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    state_t *st;
    tether_thread_t *thread; /* NULL: no memory for its record */
    bool was_away;
} caller_t;

static caller_t come(const TetherAPI *api)
{
    state_t *st = api->state;
    caller_t c = {.st = st, .thread = tether_thread(st->rt)};
    if (c.thread != NULL) {
        c.was_away = c.thread->away;
        c.thread->away = true;
    }
    return c;
}

static void go(const caller_t *c)
{
    if (c->thread != NULL)
        c->thread->away = c->was_away;
}

static bool deep(const caller_t *c) { return tether_thread_room(c->thread) < c->thread->stack_size / 2; }

/* May it run tasks of others here? A deep stack: other threads take them, so that nesting of any depth completes. */
static bool may_run(const caller_t *c) { return c->st->place != PLACE_THREAD && !deep(c); }

static TetherStatus told(tether_status_t status)
{
    switch (status) {
    case TETHER_OK: return Tether_OK;
    case TETHER_FAILED: return Tether_FAILED;
    case TETHER_CANCELLED: return Tether_CANCELLED;
    case TETHER_CONFLICT: return Tether_CONFLICT;
    case TETHER_TIMEOUT: return Tether_TIMEOUT;
    case TETHER_DEADLOCK: return Tether_DEADLOCK;
    case TETHER_CLOSED: return Tether_CLOSED;
    case TETHER_NO_THREAD: return Tether_NO_THREAD;
    case TETHER_SHUTDOWN: return Tether_SHUTDOWN;
    default: return Tether_NO_MEMORY;
    }
}

/* A wait, until it says something else than that a signal came. */
static tether_status_t await(const caller_t *c, wait_fn *wait, void *what, tether_wait_t *how)
{
    how->native = true;
    how->strangers = true;
    tether_status_t status;
    tether_wait_enter(c->thread);
    do
        status = wait(c->thread, what, how);
    while (status == TETHER_INTERRUPTED);
    tether_wait_leave(c->thread);
    c->thread->away = true;
    while (how->cycle_len > 0)
        tether_task_unref(c->thread, how->cycle[--how->cycle_len]);
    return status;
}

/* ---- tasks --------------------------------------------------------------------------------------------------------------- */

static void release_loose(tether_thread_t *thread, tether_task_t *task)
{
    if (tether_task_reap(task))
        tether_task_unref(thread, task);
}

void job_run_native(tether_thread_t *thread, tether_task_t *task)
{
    job_t *job = job_of(task);
    if (tether_task_cancelled(task)) {
        job->outcome = OUTCOME_KILLED;
    } else {
        tether_task_push(thread, task);
        job->answer = job->native.fn(job->native.arg);
        thread->away = true; /* it may have been attached, and have waited */
        tether_task_pop(thread, task);
        job->outcome = job->answer != 0 ? OUTCOME_FAILED : OUTCOME_VALUE;
    }
    if (tether_runtime_foreign(task->node.rt))
        return; /* it forked */
    if (tether_task_end(thread, task, job->outcome == OUTCOME_FAILED))
        release_loose(thread, task);
}

static tether_scope_t *core_of(TetherScope *scope) { return (tether_scope_t *)scope; }
static job_t *native_of(TetherTask *task) { return (job_t *)task; }

static TetherStatus api_spawn(const TetherAPI *api, TetherScope *given, TetherFunction *fn, void *arg, const char *name,
                              TetherTask **task)
{
    tether_scope_t *scope = core_of(given);
    if (tether_runtime_foreign(scope->node.rt))
        return Tether_FORKED;
    caller_t c = come(api);
    job_t *job = c.thread ? job_of(tether_task_new(c.thread, &scope->node)) : NULL;
    tether_status_t status = TETHER_NO_MEMORY;
    if (job == NULL)
        goto done;
    memset((char *)job + sizeof(tether_task_t), 0, sizeof *job - sizeof(tether_task_t));
    job->task.native = true;
    job->native.fn = fn;
    job->native.arg = arg;
    job->native.name = name;
    status = tether_scope_admit(scope, &job->task);
    if (status == TETHER_OK && (status = tether_task_queue(&job->task)) != TETHER_OK)
        tether_scope_dismiss(scope, &job->task);
    if (status != TETHER_OK)
        tether_task_discard(c.thread, &job->task);
    else if (task != NULL)
        *task = (TetherTask *)job;
    else
        api->drop(api, (TetherTask *)job);
done:
    go(&c);
    return told(status);
}

static void api_drop(const TetherAPI *api, TetherTask *task)
{
    job_t *job = native_of(task);
    if (job_is_foreign(job))
        return;
    caller_t c = come(api);
    /* Before its end: that sees to the rest. A failure is the scope's to collect. */
    if (tether_task_loosen(&job->task, 0) && job->outcome != OUTCOME_FAILED)
        tether_task_reap(&job->task);
    tether_task_unref(c.thread, &job->task);
    go(&c);
}

static TetherStatus taken(const caller_t *c, job_t *job, int *code)
{
    tether_task_t *task = &job->task;
    tether_scope_t *scope = tether_task_scope(task);
    outcome_t outcome = job->outcome;
    if (code != NULL)
        *code = job->answer;
    /* Whoever collects the scope's failures may have been faster: then this is for the second time, and no harm. */
    if (tether_task_reap(task) && outcome == OUTCOME_FAILED && tether_scope_forget(scope, task))
        tether_task_unref(c->thread, task);
    tether_task_unref(c->thread, task);
    return outcome == OUTCOME_FAILED ? Tether_FAILED : outcome == OUTCOME_KILLED ? Tether_KILLED : Tether_OK;
}

static TetherStatus api_join(const TetherAPI *api, TetherTask *task, int *code)
{
    job_t *job = native_of(task);
    if (job_is_foreign(job))
        return Tether_FORKED;
    caller_t c = come(api);
    if (c.thread == NULL)
        return Tether_NO_MEMORY;
    tether_status_t status = TETHER_OK;
    while (status == TETHER_OK && !tether_task_ended(&job->task)) {
        bool here = may_run(&c);
        if (here && tether_task_claim(c.thread, &job->task)) {
            job_run_native(c.thread, &job->task);
            continue;
        }
        tether_wait_t how = {.deadline = TETHER_FOREVER, .cancellable = true, .help = here};
        status = await(&c, wait_on_task, &job->task, &how);
        if (status == TETHER_HELP) {
            job_run_native(c.thread, how.helped);
            status = TETHER_OK;
        }
    }
    TetherStatus answer = job_is_foreign(job) ? Tether_FORKED : status == TETHER_OK ? taken(&c, job, code) : told(status);
    go(&c);
    return answer;
}

/* ---- scopes -------------------------------------------------------------------------------------------------------------- */

static TetherStatus api_scope_open(const TetherAPI *api, unsigned flags, TetherScope **scope)
{
    caller_t c = come(api);
    tether_scope_t *core = c.thread ? tether_scope_open(c.thread, TETHER_FOREVER) : NULL;
    if (core != NULL && (flags & Tether_WAIT_ALL))
        or_acq_rel(&core->flags, TETHER_SCOPE_WAIT_ALL);
    go(&c);
    *scope = (TetherScope *)core;
    return core != NULL ? Tether_OK : Tether_NO_MEMORY;
}

static void api_scope_cancel(const TetherAPI *api, TetherScope *scope)
{
    (void)api;
    if (!tether_runtime_foreign(core_of(scope)->node.rt))
        tether_scope_cancel(core_of(scope));
}

static const uint64_t DEADLOCKED = 10000000; /* ns between looks at tasks that wait for what cannot come before they end */

/* Until nobody is alive in it. CANCELLED if the caller was. */
static tether_status_t finish(const caller_t *c, tether_scope_t *scope)
{
    tether_status_t result = TETHER_OK;
    uint64_t deadline = TETHER_FOREVER;
    bool cancellable = true;
    while (!tether_runtime_foreign(scope->node.rt) && !tether_scope_close(scope)) {
        bool here = may_run(c);
        tether_task_t *task = here ? tether_scope_claim(c->thread, scope) : NULL;
        if (task == NULL) {
            tether_wait_t how = {.deadline = deadline, .cancellable = cancellable, .help = here};
            tether_status_t status = await(c, wait_on_scope, scope, &how);
            if (status == TETHER_HELP)
                task = how.helped;
            if (status == TETHER_CANCELLED && !(load_relaxed(&scope->flags) & TETHER_SCOPE_CANCELLED))
                result = status;
            if (status == TETHER_CANCELLED || status == TETHER_DEADLOCK) {
                tether_scope_cancel(scope);
                cancellable = false;
            }
            if (status == TETHER_DEADLOCK || status == TETHER_TIMEOUT) /* its tasks were asked to end: no more can be done */
                deadline = tether_now() + DEADLOCKED;
        }
        if (task != NULL)
            job_run_native(c->thread, task);
    }
    return result;
}

static bool collect(const caller_t *c, tether_scope_t *scope, int *code)
{
    bool any = false;
    for (tether_task_t *task; (task = tether_scope_collect(scope)) != NULL;) {
        int answer = job_of(task)->answer;
        if (tether_task_reap(task)) { /* else somebody joins it at this moment */
            if (!any && code != NULL)
                *code = answer;
            any = true;
        }
        tether_task_unref(c->thread, task);
    }
    return any;
}

static TetherStatus api_scope_close(const TetherAPI *api, TetherScope *given, int *code)
{
    tether_scope_t *scope = core_of(given);
    if (tether_runtime_foreign(scope->node.rt))
        return Tether_FORKED;
    caller_t c = come(api); /* there is a record: it was opened here */
    tether_scope_leave(scope);
    tether_status_t status = finish(&c, scope);
    if (tether_runtime_foreign(scope->node.rt))
        return Tether_FORKED; /* a task that ran here forked */
    bool failed = collect(&c, scope, code);
    tether_scope_done(c.thread, scope);
    go(&c);
    return failed ? Tether_FAILED : told(status);
}

static int api_cancelled(const TetherAPI *api)
{
    caller_t c = come(api);
    int cancelled = c.thread != NULL && tether_thread_cancelled(c.thread);
    go(&c);
    return cancelled;
}

/* ---- loops --------------------------------------------------------------------------------------------------------------- */

typedef struct {
    TetherRangeFunction *fn;
    void *user_data;
} range_call_t;

static int call_part(void *arg, size_t begin, size_t end)
{
    const range_call_t *call = arg;
    return call->fn((intptr_t)begin, (intptr_t)end, call->user_data);
}

static TetherStatus api_parallel_for(const TetherAPI *api, TetherRangeFunction *fn, intptr_t n, void *user_data,
                                     const TetherSchedule *schedule, TetherFailure *failure)
{
    static const TetherSchedule plain = {0, 0, 0};
    if (schedule == NULL)
        schedule = &plain;
    if (n < 0 || schedule->grain < 0)
        return Tether_INVALID;
    caller_t c = come(api);
    if (c.thread == NULL)
        return Tether_NO_MEMORY;
    range_call_t call = {fn, user_data};
    tether_loop_t loop = {.n = (size_t)n, .grain = (size_t)schedule->grain, .threads = schedule->threads,
                          .guided = !schedule->is_static, .body = call_part, .arg = &call};
    tether_wait_enter(c.thread);
    tether_status_t status = tether_loop_run(c.thread, &loop);
    tether_wait_leave(c.thread);
    if (status == TETHER_FAILED && failure != NULL)
        *failure = (TetherFailure){loop.code, (intptr_t)loop.begin, (intptr_t)loop.end};
    go(&c);
    return told(status);
}

/* ---- regions and borrows ------------------------------------------------------------------------------------------------- */

struct TetherRegion {
    region_t *region; /* a reference */
};

struct TetherBorrow {
    tether_loan_t loan;
    tether_runtime_t *rt;
    tether_lane_t *lane; /* where it is counted */
};

static TetherRegion *api_pin(const TetherAPI *api, PyObject *object)
{
    state_t *st = api->state;
    if (Py_TYPE(object) != st->region_type) {
        PyErr_Format(PyExc_TypeError, "expected a tether.Region, not %.100s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    TetherRegion *region = PyMem_Malloc(sizeof *region);
    if (region == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    region->region = (region_t *)Py_NewRef(object);
    return region;
}

static void api_unpin(const TetherAPI *api, TetherRegion *region)
{
    (void)api;
    Py_DECREF(region->region);
    PyMem_Free(region);
}

static TetherStatus usable(const region_t *r, bool exclusive)
{
    if (tether_runtime_foreign(r->core.rt))
        return Tether_FORKED;
    if (r->moved || r->closed)
        return Tether_CLOSED;
    return exclusive && r->core.access != TETHER_ACCESS_WRITE ? Tether_READ_ONLY : Tether_OK;
}

static tether_status_t lend(const caller_t *c, tether_book_t *book, tether_loan_t *loan, int64_t timeout)
{
    if (timeout == 0)
        return tether_borrow(c->thread, book, &loan, 1, NULL, NULL);
    if (tether_thread_cancelled(c->thread))
        return TETHER_CANCELLED;
    tether_claim_t claim;
    tether_status_t status = tether_borrow_queue(c->thread, book, &claim, loan);
    if (status != TETHER_CONFLICT)
        return status;
    tether_wait_t how = {.deadline = timeout < 0 ? TETHER_FOREVER : tether_now() + (uint64_t)timeout, .cancellable = true};
    status = await(c, wait_on_claim, &claim, &how);
    if (status == TETHER_OK)
        return status;
    tether_status_t left = tether_borrow_leave(&claim, NULL, NULL);
    /* Granted in the last instant; what is granted and unwanted the caller ends. */
    return (status == TETHER_TIMEOUT || status == TETHER_DEADLOCK) && left != TETHER_CONFLICT ? left : status;
}

static void end_borrow(const caller_t *c, TetherBorrow *borrow)
{
    if (borrow->loan.book != NULL)
        tether_loan_forget(c->thread, &borrow->loan);
    tether_lane_movable(borrow->lane, -1);
    tether_free(borrow);
}

static TetherStatus api_borrow(const TetherAPI *api, TetherRegion *region, size_t start, size_t stop, int exclusive,
                               int64_t timeout, TetherBorrow **borrow, void **data)
{
    region_t *r = region->region;
    TetherStatus state = usable(r, exclusive);
    if (state != Tether_OK)
        return state;
    if (stop == SIZE_MAX)
        stop = r->core.nbytes;
    if (start > stop || stop > r->core.nbytes)
        return Tether_INVALID;
    caller_t c = come(api);
    TetherBorrow *b = c.thread ? tether_alloc(sizeof *b) : NULL;
    if (b == NULL) {
        go(&c);
        return Tether_NO_MEMORY;
    }
    b->loan = (tether_loan_t){.start = start, .stop = stop, .exclusive = exclusive != 0, .bare = true};
    b->rt = c.st->rt;
    b->lane = &c.st->rt->lanes[c.thread->lane];
    tether_lane_movable(b->lane, 1);
    tether_status_t status = lend(&c, &r->core.book, &b->loan, timeout);
    state = usable(r, exclusive); /* it may have been closed or protected meanwhile; then it is not lent, or not for that */
    if (state == Tether_OK)
        state = told(status);
    if (state == Tether_OK) {
        *borrow = b;
        *data = r->core.data + start;
    } else {
        end_borrow(&c, b);
    }
    go(&c);
    return state;
}

static void api_release(const TetherAPI *api, TetherBorrow *borrow)
{
    caller_t c = come(api);
    if (!tether_runtime_foreign(borrow->rt))
        end_borrow(&c, borrow);
    go(&c);
}

/* ---- the table ----------------------------------------------------------------------------------------------------------- */

static int api_prepare(const TetherAPI *api) { return loop_prepare(api->state); }

int capi_make(state_t *st)
{
    TetherAPI *api = PyMem_Calloc(1, sizeof *api);
    if (api == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *api = (TetherAPI){
        .version = TETHER_API_VERSION,
        .size = sizeof *api,
        .state = st,
        .prepare = api_prepare,
        .scope_open = api_scope_open,
        .scope_cancel = api_scope_cancel,
        .scope_close = api_scope_close,
        .spawn = api_spawn,
        .join = api_join,
        .drop = api_drop,
        .cancelled = api_cancelled,
        .parallel_for = api_parallel_for,
        .pin = api_pin,
        .unpin = api_unpin,
        .borrow = api_borrow,
        .release = api_release,
    };
    st->api = api;
    PyObject *capsule = PyCapsule_New(api, TETHER_API_CAPSULE, NULL);
    int r = capsule ? PyModule_AddObjectRef(st->module, "_C_API", capsule) : -1;
    Py_XDECREF(capsule);
    return r;
}
