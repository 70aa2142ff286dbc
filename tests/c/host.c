#include "host.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The runtime's allocations, counted (linked with --wrap). */
extern _Atomic long harness_blocks;
_Atomic long harness_blocks;

void *__real_tether_alloc(size_t size);
void __real_tether_free(void *memory);
void *__wrap_tether_alloc(size_t size);
void __wrap_tether_free(void *memory);

void *__wrap_tether_alloc(size_t size)
{
    void *memory = __real_tether_alloc(size);
    if (memory != NULL)
        atomic_fetch_add_explicit(&harness_blocks, 1, memory_order_relaxed);
    return memory;
}

void __wrap_tether_free(void *memory)
{
    if (memory != NULL)
        atomic_fetch_sub_explicit(&harness_blocks, 1, memory_order_relaxed);
    __real_tether_free(memory);
}

#define EXPECT(condition)                                                                        \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: host: %s is not so\n", __FILE__, __LINE__, #condition);      \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

#define count(counter) atomic_fetch_add_explicit(&(counter), 1, memory_order_relaxed)

/* ---- callbacks -------------------------------------------------------------------------------------------------- */

static host_t *host_of(tether_thread_t *thread) { return load_relaxed(&thread->rt)->host_data; }

static void on_begin(tether_thread_t *thread) { count(host_of(thread)->begun); }
static void on_end(tether_thread_t *thread)
{
    count(host_of(thread)->ended);
    tether_crew_detach(thread);
}
static bool on_attach(tether_thread_t *thread)
{
    host_attach(host_of(thread));
    return true;
}
static void on_detach(tether_thread_t *thread) { host_detach(host_of(thread)); }
static void on_run(tether_thread_t *thread, tether_task_t *task) { host_run(host_of(thread), (job_t *)task); }
static void on_run_native(tether_thread_t *thread, tether_task_t *task) { host_run(host_of(thread), (job_t *)task); }

static void value_gone(job_t *job)
{
    EXPECT(job->has_value);
    job->has_value = false;
    count(job->host->values_gone);
}

/* Whoever lets go second, the end or the guard. Drops one reference. */
static void on_release(tether_task_t *task)
{
    job_t *job = (job_t *)task;
    host_t *host = job->host;
    EXPECT(load_relaxed(&task->node.refs) >= 1);
    EXPECT(tether_task_reap(task));
    count(host->released);
    if (job->failed)
        count(host->reported);
    value_gone(job);
    tether_task_unref(host_thread(host), task);
}

/* ---- a runtime -------------------------------------------------------------------------------------------------- */

void host_start(host_t *host, host_options_t options)
{
    memset(host, 0, sizeof *host);
    host->serial = options.serial;
    pthread_mutex_init(&host->gil, NULL);
    tether_host_t calls = {
        .task_size = sizeof(job_t),
        .serial = options.serial,
        .lanes = options.lanes,
        .max_threads = options.max_threads,
        .begin = on_begin,
        .end = on_end,
        .attach = on_attach,
        .detach = on_detach,
        .run = on_run,
        .run_native = on_run_native,
    };
    host->rt = tether_runtime_new(&calls, host);
    EXPECT(host->rt != NULL);
    host_attach(host);
}

void host_finish(host_t *host)
{
    tether_runtime_t *rt = host->rt;
    tether_thread_t *thread = host_thread(host);
    tether_runtime_close(rt);
    host_detach(host);
    tether_status_t status;
    while ((status = tether_runtime_drain(thread)) != TETHER_OK)
        EXPECT(status == TETHER_INTERRUPTED);
    EXPECT(tether_runtime_live(rt) == 0);
    tether_runtime_stop(rt);
    EXPECT(load_relaxed(&rt->crew.alive) == 0);
    EXPECT(load_relaxed(&rt->crew.idle) == 0);
    EXPECT(load_relaxed(&rt->crew.beginning) == 0);
    EXPECT(load_relaxed(&rt->crew.spinning) == 0);
    EXPECT(load_relaxed(&rt->crew.turning) == 0);
    EXPECT(load_relaxed(&rt->waiters) == 0);
    EXPECT(load_relaxed(&rt->loops.taken) == 0 && load_relaxed(&rt->loops.wanted) == 0);
    EXPECT(load_relaxed(&rt->loops.called) == 0 && load_relaxed(&rt->loops.helping) == 0);
    EXPECT(load_relaxed(&rt->scopes_open) == 0);
    EXPECT(tether_lane_queued(rt, true) == 0 && tether_lane_running(rt) == 0 && tether_lane_waiting(rt) == 0);
    EXPECT(tether_lane_armed(rt) == 0);
    EXPECT(atomic_load(&host->begun) == atomic_load(&host->ended));
    EXPECT(atomic_load(&host->ran) == atomic_load(&host->spawned));
    EXPECT(atomic_load(&host->values_made) == atomic_load(&host->values_gone));
    tether_runtime_free(rt);
    pthread_mutex_destroy(&host->gil);
}

void host_attach(host_t *host)
{
    if (host->serial)
        pthread_mutex_lock(&host->gil);
}

void host_detach(host_t *host)
{
    if (host->serial)
        pthread_mutex_unlock(&host->gil);
}

void host_yield(host_t *host)
{
    host_detach(host);
    sched_yield();
    host_attach(host);
}

tether_thread_t *host_thread(host_t *host)
{
    tether_thread_t *thread = tether_thread(host->rt);
    EXPECT(thread != NULL);
    return thread;
}

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

job_t *host_spawn_in(host_t *host, tether_scope_t *scope, work_t work, void *arg, int flags, tether_status_t *status)
{
    tether_status_t sink;
    tether_thread_t *thread = host_thread(host);
    job_t *job = (job_t *)tether_task_new(thread, scope ? &scope->node : tether_owner_current(thread));
    if (job == NULL) {
        EXPECT(status != NULL);
        *status = TETHER_NO_MEMORY;
        return NULL;
    }
    job->host = host;
    job->work = work;
    job->arg = arg;
    job->failed = job->killed = job->has_value = false;
    job->task.native = (flags & HOST_NATIVE) != 0;
    sink = scope ? tether_scope_admit(scope, &job->task) : TETHER_OK;
    if (sink == TETHER_OK) {
        tether_lane_t *lane = tether_task_lane(&job->task);
        if (scope == NULL)
            tether_lane_arm(lane, 1);
        sink = flags & HOST_DEDICATED ? tether_task_dedicate(&job->task, 0) : tether_task_queue(&job->task);
        if (sink != TETHER_OK) {
            if (scope != NULL)
                tether_scope_dismiss(scope, &job->task);
            else
                tether_lane_arm(lane, -1);
        }
    }
    if (status != NULL)
        *status = sink;
    else
        EXPECT(sink == TETHER_OK);
    if (sink != TETHER_OK) {
        tether_task_discard(thread, &job->task);
        return NULL;
    }
    count(host->spawned);
    return job;
}

job_t *host_spawn(host_t *host, work_t work, void *arg) { return host_spawn_in(host, NULL, work, arg, 0, NULL); }

static void finish(host_t *host, job_t *job, bool failed)
{
    job->failed = failed;
    job->has_value = true;
    count(host->ran);
    count(host->values_made);
    if (tether_task_end(host_thread(host), &job->task, failed))
        on_release(&job->task);
}

void host_run(host_t *host, job_t *job)
{
    tether_thread_t *thread = host_thread(host);
    if (tether_task_cancelled(&job->task)) { /* as every host must (types.h, run) */
        job->killed = true;
        finish(host, job, false);
        return;
    }
    tether_task_push(thread, &job->task);
    bool failed = !job->work(host, job->arg);
    tether_task_pop(thread, &job->task);
    finish(host, job, failed);
}

bool host_cancel(host_t *host, job_t *job)
{
    if (!tether_task_cancel(&job->task, 0))
        return false;
    if (tether_task_claim(host_thread(host), &job->task))
        finish(host, job, true);
    return true;
}

static void run_in_place(host_t *host, tether_task_t *task)
{
    count(host->in_place);
    host_run(host, (job_t *)task);
}

static void forget_cycle(tether_thread_t *thread, tether_wait_t *how)
{
    for (size_t i = 0; i < how->cycle_len; i++)
        tether_task_unref(thread, how->cycle[i]);
}

tether_status_t host_wait(host_t *host, job_t *job, int flags, uint64_t deadline)
{
    tether_thread_t *thread = host_thread(host);
    bool elsewhere = (flags & HOST_ELSEWHERE) || deadline != TETHER_FOREVER ||
                     (tether_task_word(&job->task) & TETHER_F_DEDICATED);
    for (;;) {
        if (tether_task_ended(&job->task))
            return TETHER_OK;
        if (!elsewhere && tether_task_claim(thread, &job->task)) {
            run_in_place(host, &job->task);
            return TETHER_OK;
        }
        tether_wait_t how = {
            .deadline = deadline,
            .help = (flags & HOST_HELP) != 0,
            .native = (flags & HOST_NATIVE) != 0,
            .cancellable = (flags & HOST_CANCELLABLE) != 0,
        };
        host_detach(host);
        tether_wait_enter(thread);
        tether_status_t status = tether_wait_task(thread, &job->task, &how);
        tether_wait_leave(thread);
        host_attach(host);
        if (status == TETHER_HELP) {
            run_in_place(host, how.helped);
        } else if (status == TETHER_DEADLOCK) {
            EXPECT(how.cycle_len > 0);
            forget_cycle(thread, &how);
            count(host->refused);
            return status;
        } else if (status != TETHER_INTERRUPTED) {
            return status;
        }
    }
}

bool host_reap(host_t *host, job_t *job)
{
    tether_thread_t *thread = host_thread(host);
    tether_scope_t *scope = tether_task_scope(&job->task);
    EXPECT(tether_task_reap(&job->task));
    bool ok = !job->failed && !job->killed;
    value_gone(job);
    if (scope == NULL)
        tether_lane_arm(tether_task_lane(&job->task), -1);
    else if (!ok && tether_scope_forget(scope, &job->task))
        tether_task_unref(thread, &job->task);
    return ok;
}

void host_drop(host_t *host, job_t *job) { tether_task_unref(host_thread(host), &job->task); }

bool host_join(host_t *host, job_t *job)
{
    tether_status_t status = host_wait(host, job, 0, TETHER_FOREVER);
    EXPECT(status == TETHER_OK);
    bool ok = host_reap(host, job);
    host_drop(host, job);
    return ok;
}

void host_loosen(host_t *host, job_t *job, uint32_t flags)
{
    tether_task_t *task = &job->task;
    bool scoped = tether_task_scope(task) != NULL;
    if (!scoped)
        tether_lane_arm(tether_task_lane(task), -1);
    bool ended = tether_task_loosen(task, flags);
    if (!ended || (scoped && job->failed))
        host_drop(host, job); /* released at its end; a failed child is the scope's to collect */
    else
        on_release(task);
}

bool host_sleep(host_t *host, uint64_t deadline)
{
    tether_thread_t *thread = host_thread(host);
    tether_wait_t how = {.deadline = deadline, .cancellable = true};
    tether_status_t status;
    host_detach(host);
    tether_wait_enter(thread);
    do
        status = tether_wait_until(thread, &how);
    while (status == TETHER_INTERRUPTED);
    tether_wait_leave(thread);
    host_attach(host);
    return status == TETHER_CANCELLED;
}

void host_sem_wait(host_t *host, sem_t *sem)
{
    host_detach(host);
    while (sem_wait(sem) != 0)
        EXPECT(errno == EINTR);
    host_attach(host);
}

tether_status_t host_loop(host_t *host, tether_loop_t *loop)
{
    tether_thread_t *thread = host_thread(host);
    host_detach(host);
    tether_wait_enter(thread);
    tether_status_t status = tether_loop_run(thread, loop);
    tether_wait_leave(thread);
    host_attach(host);
    return status;
}

long host_leave(host_t *host, tether_scope_t *scope)
{
    tether_thread_t *thread = host_thread(host);
    tether_scope_leave(scope);
    while (!tether_scope_close(scope)) {
        tether_task_t *task = tether_scope_claim(thread, scope);
        if (task != NULL) {
            run_in_place(host, task);
            continue;
        }
        tether_wait_t how = {.deadline = TETHER_FOREVER, .help = true};
        host_detach(host);
        tether_wait_enter(thread);
        tether_status_t status = tether_wait_scope(thread, scope, &how);
        tether_wait_leave(thread);
        host_attach(host);
        if (status == TETHER_HELP)
            run_in_place(host, how.helped);
        else
            EXPECT(status == TETHER_OK || status == TETHER_INTERRUPTED);
    }
    long failures = 0;
    for (tether_task_t *task; (task = tether_scope_collect(scope)) != NULL; failures++) {
        /* A joiner may hold it reaped already; then it has counted the failure. */
        if (tether_task_reap(task))
            value_gone((job_t *)task);
        else
            failures--;
        tether_task_unref(thread, task);
    }
    tether_scope_done(thread, scope);
    return failures;
}
