#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

static bool nothing(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

typedef struct {
    sem_t started, go;
} pair_t;

static bool start_and_wait(host_t *host, void *arg)
{
    pair_t *pair = arg;
    sem_post(&pair->started);
    host_sem_wait(host, &pair->go);
    return true;
}

TEST(no_thread_before_it_is_needed)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    for (int i = 0; i < 3; i++)
        CHECK(host_join(&host, host_spawn(&host, nothing, NULL)));
    CHECK(atomic_load(&host.in_place) == 3);
    host_finish(&host);
}

TEST(an_idle_thread_is_used_again)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < 20; i++) {
            job_t *job = host_spawn_in(&host, NULL, nothing, NULL, HOST_DEDICATED, NULL);
            CHECK(host_wait(&host, job, 0, TETHER_FOREVER) == TETHER_OK);
            host_reap(&host, job);
            host_drop(&host, job);
            host_detach(&host);
            while (load_relaxed(&host.rt->crew.idle) == 0)
                sched_yield(); /* it goes to the idle list or retires: both count as idle */
            host_attach(&host);
        }
        CHECK(atomic_load(&host.begun) <= 20);
        host_finish(&host);
    }
}

TEST(every_dedicated_task_has_its_thread)
{
    enum { N = 12 };
    BOTH_HOSTS(serial) {
        host_t host;
        pair_t pair;
        job_t *jobs[N];
        sem_init(&pair.started, 0, 0), sem_init(&pair.go, 0, 0);
        host_start(&host, (host_options_t){.serial = serial, .max_threads = 2}); /* does not hold for them */
        for (int i = 0; i < N; i++)
            jobs[i] = host_spawn_in(&host, NULL, start_and_wait, &pair, HOST_DEDICATED, NULL);
        for (int i = 0; i < N; i++)
            host_sem_wait(&host, &pair.started);
        CHECK(tether_crew_busy(host.rt) == N);
        for (int i = 0; i < N; i++)
            sem_post(&pair.go);
        for (int i = 0; i < N; i++)
            CHECK(host_join(&host, jobs[i]));
        host_finish(&host);
        sem_destroy(&pair.started), sem_destroy(&pair.go);
    }
}

TEST(a_stack_size_is_obeyed_and_the_thread_not_kept)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    job_t *job = (job_t *)tether_task_new(thread, NULL);
    job->host = &host, job->work = nothing, job->arg = NULL, job->failed = job->has_value = false;
    tether_lane_arm(tether_task_lane(&job->task), 1);
    CHECK(tether_task_dedicate(&job->task, (size_t)1 << 20) == TETHER_OK);
    atomic_fetch_add(&host.spawned, 1);
    CHECK(host_wait(&host, job, 0, TETHER_FOREVER) == TETHER_OK);
    tether_thread_t *ran = load_acquire(&job->task.thread);
    CHECK(ran->stack_size >= 900000 && ran->stack_size <= ((size_t)1 << 20));
    host_reap(&host, job);
    host_drop(&host, job);
    host_detach(&host);
    while (load_acquire(&host.rt->crew.alive) != 0)
        sched_yield();
    host_attach(&host);
    host_finish(&host);
}

TEST(max_threads_bounds_the_crew)
{
    enum { N = 8 };
    host_t host;
    pair_t pair;
    job_t *jobs[N];
    sem_init(&pair.started, 0, 0), sem_init(&pair.go, 0, 0);
    host_start(&host, (host_options_t){.serial = false, .max_threads = 2});
    for (int i = 0; i < N; i++)
        jobs[i] = host_spawn(&host, start_and_wait, &pair);
    sem_wait(&pair.started), sem_wait(&pair.started);
    CHECK(tether_crew_grow(host.rt) == TETHER_NO_THREAD);
    CHECK(load_relaxed(&host.rt->crew.alive) == 2);
    for (int i = 0; i < N; i++)
        sem_post(&pair.go);
    for (int i = 0; i < N; i++)
        CHECK(host_join(&host, jobs[i]));
    host_finish(&host);
    sem_destroy(&pair.started), sem_destroy(&pair.go);
}

TEST(a_dedicated_task_without_a_thread_leaves_nothing)
{
    BOTH_HOSTS(serial) {
        host_t host;
        tether_status_t status;
        host_start(&host, (host_options_t){.serial = serial});
        tether_fail_nth(TETHER_FAIL_THREAD, 1);
        CHECK(host_spawn_in(&host, NULL, nothing, NULL, HOST_DEDICATED, &status) == NULL);
        CHECK(status == TETHER_NO_THREAD);
        tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
        tether_fail_nth(TETHER_FAIL_THREAD, 1);
        CHECK(host_spawn_in(&host, scope, nothing, NULL, HOST_DEDICATED, &status) == NULL);
        CHECK(status == TETHER_NO_THREAD);
        CHECK(host_leave(&host, scope) == 0);
        CHECK(tether_runtime_live(host.rt) == 0);
        CHECK(load_relaxed(&host.rt->crew.alive) == 0 && load_relaxed(&host.rt->crew.beginning) == 0);
        tether_fail_nth(TETHER_FAIL_THREAD, 0);
        host_finish(&host);
    }
}

TEST(a_cancelled_dedicated_task_frees_its_thread)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < 50; i++) {
            job_t *job = host_spawn_in(&host, NULL, nothing, NULL, HOST_DEDICATED, NULL);
            host_cancel(&host, job);
            CHECK(host_wait(&host, job, 0, TETHER_FOREVER) == TETHER_OK);
            host_reap(&host, job);
            host_drop(&host, job);
        }
        host_finish(&host);
    }
}
