#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

static bool succeed(host_t *host, void *arg)
{
    (void)host;
    if (arg != NULL)
        atomic_fetch_add((_Atomic int *)arg, 1);
    return true;
}

static bool fail(host_t *host, void *arg)
{
    succeed(host, arg);
    return false;
}

static bool sleep_for_ever(host_t *host, void *started)
{
    if (started != NULL)
        sem_post(started);
    return !host_sleep(host, TETHER_FOREVER);
}

TEST(a_scope_without_children_closes_at_once)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
    CHECK(load_relaxed(&host.rt->scopes_open) == 1);
    CHECK(host_leave(&host, scope) == 0);
    host_finish(&host);
}

TEST(leaving_waits_for_every_child)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic int calls = 0;
        host_start(&host, (host_options_t){.serial = serial});
        tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
        for (int i = 0; i < 50; i++)
            host_loosen(&host, host_spawn_in(&host, scope, succeed, &calls, 0, NULL), 0);
        CHECK(host_leave(&host, scope) == 0);
        CHECK(atomic_load(&calls) == 50);
        host_finish(&host);
    }
}

TEST(uncollected_failures_come_out_in_spawn_order)
{
    host_t host;
    enum { N = 4 };
    job_t *jobs[N];
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
    or_acq_rel(&scope->flags, TETHER_SCOPE_WAIT_ALL);
    for (int i = 0; i < N; i++)
        jobs[i] = host_spawn_in(&host, scope, fail, NULL, 0, NULL);
    for (int i = N - 1; i >= 0; i--) /* ended in the other order */
        CHECK(host_wait(&host, jobs[i], 0, TETHER_FOREVER) == TETHER_OK);
    CHECK(!host_reap(&host, jobs[1])); /* collected by a join */
    tether_scope_leave(scope);
    CHECK(tether_scope_close(scope));
    int order[] = {0, 2, 3};
    for (int i = 0; i < 3; i++) {
        tether_task_t *task = tether_scope_collect(scope);
        CHECK(task == &jobs[order[i]]->task);
        tether_task_unref(thread, task);
        CHECK(!host_reap(&host, jobs[order[i]]));
    }
    CHECK(tether_scope_collect(scope) == NULL);
    CHECK(!(load_relaxed(&scope->flags) & TETHER_SCOPE_CANCELLED));
    tether_scope_done(thread, scope);
    for (int i = 0; i < N; i++)
        host_drop(&host, jobs[i]);
    host_finish(&host);
}

TEST(a_failure_cancels_the_siblings)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t started;
        sem_init(&started, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
        enum { N = 4 };
        for (int i = 0; i < N; i++)
            host_loosen(&host, host_spawn_in(&host, scope, sleep_for_ever, &started, 0, NULL), 0);
        for (int i = 0; i < N; i++)
            host_sem_wait(&host, &started);
        CHECK(!tether_thread_cancelled(host_thread(&host)));
        host_loosen(&host, host_spawn_in(&host, scope, fail, NULL, 0, NULL), 0);
        CHECK(host_leave(&host, scope) == N + 1);
        CHECK(!tether_thread_cancelled(host_thread(&host)));
        host_finish(&host);
        sem_destroy(&started);
    }
}

TEST(the_body_sees_its_scope_cancelled)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_scope_t *outer = tether_scope_open(thread, TETHER_FOREVER);
    tether_scope_t *inner = tether_scope_open(thread, TETHER_FOREVER);
    CHECK(inner->outer == outer);
    tether_scope_cancel(outer);
    tether_scope_cancel(outer);
    CHECK(tether_thread_cancelled(thread));
    CHECK(host_sleep(&host, TETHER_FOREVER));
    CHECK(host_leave(&host, inner) == 0);
    CHECK(tether_thread_cancelled(thread));
    CHECK(host_leave(&host, outer) == 0);
    CHECK(!tether_thread_cancelled(thread));
    host_finish(&host);
}

static bool look_for_cancel(host_t *host, void *saw)
{
    atomic_store((_Atomic int *)saw, tether_thread_cancelled(host_thread(host)) ? 1 : 2);
    return true;
}

/* As in test_task, with the cancellation on the scope. */
TEST(a_child_of_a_cancelled_scope_never_runs)
{
    host_t host;
    _Atomic int saw = 0;
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
    job_t *job = host_spawn_in(&host, scope, look_for_cancel, &saw, 0, NULL);
    tether_scope_cancel(scope);
    tether_scope_leave(scope);
    or_acq_rel(&scope->flags, TETHER_SCOPE_DONE); /* as for a body that has gone elsewhere */
    CHECK(!tether_thread_cancelled(thread));
    CHECK(host_wait(&host, job, 0, TETHER_FOREVER) == TETHER_OK);
    CHECK(atomic_load(&saw) == 0);
    host_reap(&host, job);
    host_drop(&host, job);
    and_acq_rel(&scope->flags, ~(uint32_t)TETHER_SCOPE_DONE);
    CHECK(host_leave(&host, scope) == 0);
    host_finish(&host);
}

TEST(a_closed_scope_takes_no_child)
{
    host_t host;
    tether_status_t status;
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
    tether_scope_leave(scope);
    CHECK(host_spawn_in(&host, scope, succeed, NULL, 0, &status) == NULL && status == TETHER_CLOSED);
    CHECK(tether_scope_close(scope));
    CHECK(host_spawn_in(&host, scope, succeed, NULL, 0, &status) == NULL && status == TETHER_CLOSED);
    job_t *job = host_spawn(&host, succeed, NULL);
    CHECK(tether_owner_send(thread, &job->task, scope) == TETHER_CLOSED);
    CHECK(tether_owner_is(&job->task, NULL));
    CHECK(host_join(&host, job));
    tether_scope_done(thread, scope);
    host_finish(&host);
}

typedef struct {
    tether_scope_t *scope;
    _Atomic int calls;
} nest_t;

static bool spawn_sibling(host_t *host, void *arg)
{
    nest_t *nest = arg;
    host_loosen(host, host_spawn_in(host, nest->scope, succeed, &nest->calls, 0, NULL), 0);
    return true;
}

TEST(a_living_child_may_add_siblings_after_the_body)
{
    BOTH_HOSTS(serial) {
        host_t host;
        nest_t nest = {0};
        host_start(&host, (host_options_t){.serial = serial});
        nest.scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
        for (int i = 0; i < 20; i++)
            host_loosen(&host, host_spawn_in(&host, nest.scope, spawn_sibling, &nest, 0, NULL), 0);
        CHECK(host_leave(&host, nest.scope) == 0);
        CHECK(atomic_load(&nest.calls) == 20);
        host_finish(&host);
    }
}

/* Admitted and not queued yet: a look at that moment must not lose it. */
TEST(claim_passes_a_new_child_and_finds_it_later)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
    tether_task_t *task = tether_task_new(thread, &scope->node);
    CHECK(tether_scope_admit(scope, task) == TETHER_OK);
    CHECK(tether_scope_claim(thread, scope) == NULL);
    tether_scope_dismiss(scope, task);
    CHECK(tether_scope_admit(scope, task) == TETHER_OK);
    CHECK(tether_scope_claim(thread, scope) == NULL);
    job_t *job = (job_t *)task;
    job->host = &host, job->work = succeed, job->arg = NULL, job->failed = job->has_value = false;
    CHECK(tether_task_queue(task) == TETHER_OK);
    atomic_fetch_add(&host.spawned, 1);
    tether_task_t *claimed = tether_scope_claim(thread, scope);
    CHECK(claimed == task);
    if (claimed != NULL)
        host_run(&host, job);
    host_wait(&host, job, 0, TETHER_FOREVER);
    host_reap(&host, job);
    host_drop(&host, job);
    CHECK(host_leave(&host, scope) == 0);
    host_finish(&host);
}

TEST(a_handle_let_go_before_the_end_is_released_once)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
        job_t *before = host_spawn_in(&host, scope, succeed, NULL, 0, NULL);
        job_t *after = host_spawn_in(&host, scope, succeed, NULL, 0, NULL);
        host_loosen(&host, before, 0);
        CHECK(host_leave(&host, scope) == 0);
        CHECK(atomic_load(&host.released) == 1);
        host_loosen(&host, after, 0);
        CHECK(atomic_load(&host.released) == 2);
        host_finish(&host);
    }
}

TEST(send_makes_a_task_a_child)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        tether_thread_t *thread = host_thread(&host);
        job_t *ended_well = host_spawn(&host, succeed, NULL), *ended_badly = host_spawn(&host, fail, NULL);
        job_t *queued = host_spawn(&host, succeed, NULL);
        CHECK(host_wait(&host, ended_well, 0, TETHER_FOREVER) == TETHER_OK);
        CHECK(host_wait(&host, ended_badly, 0, TETHER_FOREVER) == TETHER_OK);
        tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
        job_t *jobs[] = {ended_well, ended_badly, queued};
        for (int i = 0; i < 3; i++) {
            tether_lane_arm(tether_task_lane(&jobs[i]->task), -1);
            CHECK(tether_owner_send(thread, &jobs[i]->task, scope) == TETHER_OK);
            CHECK(tether_task_scope(&jobs[i]->task) == scope);
        }
        CHECK(load_relaxed(&scope->flags) & TETHER_SCOPE_CANCELLED); /* by the one that had failed */
        CHECK(host_leave(&host, scope) == 1);
        CHECK(host_reap(&host, ended_well));
        CHECK(!host_reap(&host, queued)); /* the scope was cancelled before it could run */
        for (int i = 0; i < 3; i++)
            host_drop(&host, jobs[i]);
        host_finish(&host);
    }
}

TEST(send_to_a_cancelled_scope_wakes_the_sleeping_task)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t started;
        sem_init(&started, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        tether_thread_t *thread = host_thread(&host);
        job_t *job = host_spawn(&host, sleep_for_ever, &started);
        host_sem_wait(&host, &started);
        host_detach(&host);
        while (!(tether_task_word(&job->task) & TETHER_F_BLOCKED))
            sched_yield();
        tether_thread_t *sleeper = load_acquire(&job->task.thread);
        while (load_relaxed(&sleeper->parker.word) != TETHER_PARKER_PARKED)
            sched_yield();
        host_attach(&host);
        tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
        tether_scope_cancel(scope);
        tether_lane_arm(tether_task_lane(&job->task), -1);
        CHECK(tether_owner_send(thread, &job->task, scope) == TETHER_OK);
        CHECK(host_leave(&host, scope) == 1);
        host_drop(&host, job);
        host_finish(&host);
        sem_destroy(&started);
    }
}

TEST(a_childs_guard_cannot_be_moved_or_sent_on)
{
    host_t host;
    size_t culprit = 9;
    tether_node_t *scratch[1];
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_scope_t *one = tether_scope_open(thread, TETHER_FOREVER), *two = tether_scope_open(thread, TETHER_FOREVER);
    job_t *job = host_spawn_in(&host, one, succeed, NULL, 0, NULL);
    tether_task_t *task = &job->task;
    CHECK(tether_owner_send(thread, task, two) == TETHER_NOT_OWNER);
    CHECK(tether_owner_move(thread, &task, scratch, 1, NULL, &culprit) == TETHER_NOT_OWNER && culprit == 0);
    if (tether_task_scope(task) == one && two->first == NULL) {
        CHECK(host_leave(&host, two) == 0);
        CHECK(host_leave(&host, one) == 0);
        host_reap(&host, job);
        host_drop(&host, job);
        host_finish(&host);
    }
}

TEST(abandoned_children_go_on_and_are_released)
{
    host_t host;
    sem_t started;
    sem_init(&started, 0, 0);
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
    job_t *jobs[3];
    for (int i = 0; i < 3; i++)
        jobs[i] = host_spawn_in(&host, scope, sleep_for_ever, &started, 0, NULL);
    for (int i = 0; i < 3; i++)
        host_sem_wait(&host, &started);
    for (int i = 0; i < 3; i++)
        host_loosen(&host, jobs[i], TETHER_F_ADOPTED);
    tether_scope_leave(scope);
    CHECK(!tether_scope_close(scope));
    tether_scope_abandon(scope);
    tether_scope_cancel(scope);
    CHECK(tether_scope_collect(scope) == NULL);
    tether_scope_done(thread, scope);
    host_finish(&host);
    CHECK(atomic_load(&host.released) == 3);
    CHECK(atomic_load(&host.reported) == 3);
    sem_destroy(&started);
}

static bool nest(host_t *host, void *depth)
{
    uintptr_t left = (uintptr_t)depth;
    tether_scope_t *scope = tether_scope_open(host_thread(host), TETHER_FOREVER);
    if (left > 0) {
        host_loosen(host, host_spawn_in(host, scope, nest, (void *)(left - 1), 0, NULL), 0);
        host_loosen(host, host_spawn_in(host, scope, nest, (void *)(left - 1), 0, NULL), 0);
    }
    return host_leave(host, scope) == 0;
}

TEST(scopes_nest)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        CHECK(host_join(&host, host_spawn(&host, nest, (void *)(uintptr_t)SCALE(7, 4))));
        CHECK(atomic_load(&host.ran) == (1 << (SCALE(7, 4) + 1)) - 1);
        host_finish(&host);
    }
}
