/* The task word: claimed once, ended once, reaped once; who lets go second releases. */
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

TEST(join_delivers_success_and_failure)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic int calls = 0;
        host_start(&host, (host_options_t){.serial = serial});
        CHECK(host_join(&host, host_spawn(&host, succeed, &calls)));
        CHECK(!host_join(&host, host_spawn(&host, fail, &calls)));
        CHECK(atomic_load(&calls) == 2);
        host_finish(&host);
    }
}

TEST(a_lone_task_is_joined_in_place)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    for (int i = 0; i < 100; i++)
        CHECK(host_join(&host, host_spawn(&host, succeed, NULL)));
    /* The fake GIL was never let go, so no thread of the crew can have begun. */
    CHECK(atomic_load(&host.in_place) == 100);
    host_finish(&host);
}

TEST(the_word_goes_through_its_states)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    job_t *job = host_spawn(&host, succeed, NULL);
    tether_task_t *task = &job->task;
    CHECK(tether_state(tether_task_word(task)) == TETHER_QUEUED);
    CHECK(!tether_task_reap(task));
    CHECK(tether_task_claim(thread, task));
    CHECK(!tether_task_claim(thread, task));
    CHECK(tether_state(tether_task_word(task)) == TETHER_RUNNING);
    CHECK(!tether_task_ended(task));
    CHECK(!tether_task_reap(task));
    host_run(&host, job);
    CHECK(tether_state(tether_task_word(task)) == TETHER_EXITED);
    CHECK(tether_task_ended(task));
    CHECK(!tether_task_claim(thread, task));
    CHECK(!tether_task_cancel(task, 0));
    CHECK(host_reap(&host, job));
    CHECK(tether_state(tether_task_word(task)) == TETHER_REAPED);
    CHECK(!tether_task_reap(task));
    host_drop(&host, job);
    host_finish(&host);
}

TEST(blocks_are_recycled)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    host_join(&host, host_spawn(&host, succeed, NULL));
    long blocks = atomic_load(&harness_blocks);
    for (int i = 0; i < 1000; i++)
        host_join(&host, host_spawn(&host, succeed, NULL));
    /* A busy machine may have brought a few threads, with blocks of their own. */
    CHECK(atomic_load(&harness_blocks) < blocks + 100);
    host_finish(&host);
}

TEST(loose_before_the_end_is_released_by_the_end)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        host_loosen(&host, host_spawn(&host, succeed, NULL), TETHER_F_DETACHED);
        host_loosen(&host, host_spawn(&host, fail, NULL), TETHER_F_ADOPTED);
        host_finish(&host);
        CHECK(atomic_load(&host.released) == 2);
        CHECK(atomic_load(&host.reported) == 1);
    }
}

TEST(loose_after_the_end_is_released_by_the_guard)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    job_t *job = host_spawn(&host, fail, NULL);
    CHECK(tether_task_claim(host_thread(&host), &job->task));
    host_run(&host, job);
    CHECK(atomic_load(&host.released) == 0);
    host_loosen(&host, job, TETHER_F_ADOPTED);
    CHECK(atomic_load(&host.released) == 1);
    CHECK(atomic_load(&host.reported) == 1);
    host_finish(&host);
}

TEST(cancelled_before_the_start_never_runs)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic int calls = 0;
        host_start(&host, (host_options_t){.serial = serial});
        job_t *job = host_spawn(&host, succeed, &calls);
        CHECK(host_cancel(&host, job) || atomic_load(&calls) == 1);
        host_wait(&host, job, 0, TETHER_FOREVER);
        CHECK(host_reap(&host, job) == (atomic_load(&calls) == 1));
        CHECK(!host_cancel(&host, job));
        host_drop(&host, job);
        host_finish(&host);
    }
}

static bool sleep_for_ever(host_t *host, void *started)
{
    sem_post(started);
    return !host_sleep(host, TETHER_FOREVER);
}

TEST(cancel_wakes_a_sleeping_task)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t started;
        sem_init(&started, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        job_t *job = host_spawn(&host, sleep_for_ever, &started);
        host_sem_wait(&host, &started);
        CHECK(host_cancel(&host, job));
        CHECK(!host_join(&host, job));
        host_finish(&host);
        sem_destroy(&started);
    }
}

static bool look_for_cancel(host_t *host, void *saw)
{
    atomic_store((_Atomic int *)saw, tether_thread_cancelled(host_thread(host)) ? 1 : 2);
    return true;
}

/* The thread looked for cancellation after the cancel and before it took the task: its short cut must not hide it. */
TEST(a_thread_that_looked_before_does_not_run_the_cancelled_task_it_takes)
{
    host_t host;
    _Atomic int saw = 0;
    host_start(&host, (host_options_t){.serial = true});
    job_t *job = host_spawn(&host, look_for_cancel, &saw);
    CHECK(tether_task_cancel(&job->task, 0));
    CHECK(!tether_thread_cancelled(host_thread(&host)));
    CHECK(!host_join(&host, job));
    CHECK(atomic_load(&saw) == 0);
    CHECK(!tether_thread_cancelled(host_thread(&host)));
    host_finish(&host);
}

static bool look_above_below(host_t *host, void *saw)
{
    /* Below us stands a task that is cancelled now; what runs above it is cancelled with it. */
    job_t *inner = host_spawn(host, look_for_cancel, saw);
    CHECK(!tether_thread_cancelled(host_thread(host)));
    CHECK(tether_task_cancel((tether_task_t *)tether_owner_current(host_thread(host)), 0));
    CHECK(host_join(host, inner));
    CHECK(tether_thread_cancelled(host_thread(host)));
    return true;
}

TEST(what_runs_in_place_is_cancelled_with_what_stands_below)
{
    host_t host;
    _Atomic int saw = 0;
    host_start(&host, (host_options_t){.serial = true});
    CHECK(host_join(&host, host_spawn(&host, look_above_below, &saw)));
    CHECK(atomic_load(&saw) == 1);
    host_finish(&host);
}

TEST(a_join_with_a_deadline_times_out_and_leaves_the_guard)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t started;
        sem_init(&started, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        job_t *job = host_spawn(&host, sleep_for_ever, &started);
        CHECK(host_wait(&host, job, 0, tether_now() + 2000000) == TETHER_TIMEOUT);
        CHECK(!tether_task_ended(&job->task));
        host_sem_wait(&host, &started);
        host_cancel(&host, job);
        CHECK(!host_join(&host, job));
        host_finish(&host);
        sem_destroy(&started);
    }
}

static bool join_arg(host_t *host, void *job)
{
    return host_wait(host, job, HOST_ELSEWHERE, TETHER_FOREVER) == TETHER_OK;
}

TEST(joining_oneself_is_a_deadlock)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    job_t *job = host_spawn(&host, join_arg, NULL);
    job->arg = job;
    CHECK(!host_join(&host, job));
    CHECK(atomic_load(&host.refused) == 1);
    host_finish(&host);
}

TEST(a_host_attaches_before_it_claims)
{
    /* While this thread keeps the fake GIL nobody begins, however long: tasks stay ours to run in place. */
    host_t host;
    _Atomic int calls = 0;
    host_start(&host, (host_options_t){.serial = true});
    enum { N = 20 };
    job_t *jobs[N];
    for (int i = 0; i < N; i++)
        jobs[i] = host_spawn(&host, succeed, &calls);
    tether_crew_grow(host.rt);
    CHECK(atomic_load(&calls) == 0);
    for (int i = 0; i < N; i++)
        CHECK(host_join(&host, jobs[i]));
    CHECK(atomic_load(&host.in_place) == N);
    host_finish(&host);
}

/* Sleeps until asked to end; says whether it may begin again, as a host that restarts does. */
static bool sleep_until_asked(host_t *host, void *spared)
{
    CHECK(host_sleep(host, TETHER_FOREVER));
    tether_task_t *self = load_relaxed(&host_thread(host)->top);
    bool spare = tether_task_spare(self);
    CHECK(!tether_task_spare(self));
    CHECK(tether_task_cancelled(self) != spare);
    CHECK(tether_thread_cancelled(host_thread(host)) != spare);
    atomic_store((_Atomic int *)spared, spare ? 1 : 2);
    return true;
}

static void await_blocked(job_t *job)
{
    while (!(tether_task_word(&job->task) & TETHER_F_BLOCKED))
        sched_yield();
}

TEST(a_renewed_task_wakes_and_takes_the_request_back)
{
    host_t host;
    _Atomic int spared = 0;
    host_start(&host, (host_options_t){.serial = false});
    job_t *job = host_spawn_in(&host, NULL, sleep_until_asked, &spared, HOST_DEDICATED, NULL);
    await_blocked(job);
    CHECK(tether_task_renew(&job->task));
    CHECK(host_join(&host, job));
    CHECK(atomic_load(&spared) == 1);
    host_finish(&host);
}

TEST(a_cancel_takes_a_renewal_away)
{
    host_t host;
    _Atomic int spared = 0;
    host_start(&host, (host_options_t){.serial = true}); /* it cannot go on before we wait */
    job_t *job = host_spawn_in(&host, NULL, sleep_until_asked, &spared, HOST_DEDICATED, NULL);
    while (!(tether_task_word(&job->task) & TETHER_F_BLOCKED))
        host_yield(&host);
    CHECK(tether_task_renew(&job->task));
    CHECK(!tether_task_renew(&job->task)); /* asked already */
    CHECK(tether_task_cancel(&job->task, 0));
    CHECK(!tether_task_renew(&job->task)); /* cancelled anyway */
    CHECK(host_join(&host, job));
    CHECK(atomic_load(&spared) == 2);
    host_finish(&host);
}

TEST(only_a_running_task_is_renewed)
{
    host_t host;
    _Atomic int calls = 0;
    host_start(&host, (host_options_t){.serial = true});
    job_t *job = host_spawn(&host, succeed, &calls);
    CHECK(!tether_task_renew(&job->task));
    CHECK(!tether_task_cancelled(&job->task));
    CHECK(host_wait(&host, job, 0, TETHER_FOREVER) == TETHER_OK);
    CHECK(!tether_task_renew(&job->task));
    CHECK(host_reap(&host, job));
    CHECK(!tether_task_renew(&job->task));
    host_drop(&host, job);
    CHECK(atomic_load(&calls) == 1);
    host_finish(&host);
}

/* A task whose scope has a child that is queued, and which then waits. */
static bool own_a_child(host_t *host, void *both)
{
    _Atomic int *saw = both;
    tether_thread_t *thread = host_thread(host);
    tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
    add_relaxed(&scope->node.refs, 1);
    job_t *child = host_spawn_in(host, scope, succeed, saw, 0, NULL);
    tether_node_t *self = tether_owner_current(thread);
    child->task.apart = true;
    CHECK(tether_lane_take_below(thread, self, false) == NULL); /* whoever waits for this task leaves it alone */
    child->task.apart = false;
    tether_task_t *taken = tether_lane_take_below(thread, self, false);
    CHECK(taken == &child->task);
    child->task.apart = true;
    host_run(host, child);
    job_t *other = host_spawn_in(host, scope, succeed, saw, 0, NULL);
    other->task.apart = true;
    taken = tether_lane_take_below(thread, &scope->node, false); /* whoever leaves the block may take it */
    CHECK(taken == &other->task);
    host_run(host, other);
    CHECK(host_reap(host, child) && host_reap(host, other));
    host_drop(host, child);
    host_drop(host, other);
    host_leave(host, scope);
    tether_node_unref(thread, &scope->node);
    return true;
}

TEST(a_task_that_stands_apart_is_taken_by_the_leaver_of_its_scope_alone)
{
    host_t host;
    _Atomic int calls = 0;
    host_start(&host, (host_options_t){.serial = true}); /* nobody else may take them while we keep the fake GIL */
    CHECK(host_join(&host, host_spawn(&host, own_a_child, &calls)));
    CHECK(atomic_load(&calls) == 2);
    host_finish(&host);
}
