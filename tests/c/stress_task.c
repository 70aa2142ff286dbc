/* Joiners and the crew race for each task. */
#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

enum { TASKS = SCALE(100000, 10000), BATCH = 50, SPAWNERS = 4 };

static bool add_one(host_t *host, void *sum)
{
    (void)host;
    atomic_fetch_add_explicit((_Atomic long *)sum, 1, memory_order_relaxed);
    return true;
}

static void spawn_and_join(host_t *host, int tasks, _Atomic long *sum, bool backwards)
{
    job_t *jobs[BATCH];
    for (int done = 0; done < tasks; done += BATCH) {
        for (int i = 0; i < BATCH; i++)
            jobs[i] = host_spawn(host, add_one, sum);
        if (done % (BATCH * 16) == 0)
            host_yield(host);
        for (int i = 0; i < BATCH; i++)
            CHECK(host_join(host, jobs[backwards ? BATCH - 1 - i : i]));
    }
}

TEST(joiner_against_crew)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic long sum = 0;
        host_start(&host, (host_options_t){.serial = serial});
        spawn_and_join(&host, TASKS / 2, &sum, false);
        spawn_and_join(&host, TASKS / 2, &sum, true);
        CHECK(atomic_load(&sum) == TASKS);
        host_finish(&host);
    }
}

typedef struct {
    host_t *host;
    _Atomic long *sum;
    int tasks;
} spawner_t;

static void *program_thread(void *arg)
{
    spawner_t *spawner = arg;
    host_attach(spawner->host);
    spawn_and_join(spawner->host, spawner->tasks, spawner->sum, spawner->tasks & 1);
    host_detach(spawner->host);
    return NULL;
}

TEST(many_program_threads_spawn_and_join)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic long sum = 0;
        host_start(&host, (host_options_t){.serial = serial, .lanes = serial ? 0 : 3});
        for (int round = 0; round < 3; round++) { /* records of ended threads serve the next */
            pthread_t threads[SPAWNERS];
            spawner_t spawner = {&host, &sum, TASKS / 3 / SPAWNERS / BATCH * BATCH};
            for (int i = 0; i < SPAWNERS; i++)
                pthread_create(&threads[i], NULL, program_thread, &spawner);
            host_detach(&host);
            for (int i = 0; i < SPAWNERS; i++)
                pthread_join(threads[i], NULL);
            host_attach(&host);
        }
        CHECK(atomic_load(&sum) == 3l * SPAWNERS * (TASKS / 3 / SPAWNERS / BATCH * BATCH));
        host_finish(&host);
    }
}

static bool tree(host_t *host, void *depth)
{
    uintptr_t left = (uintptr_t)depth;
    if (left == 0)
        return true;
    job_t *a = host_spawn(host, tree, (void *)(left - 1)), *b = host_spawn(host, tree, (void *)(left - 1));
    bool ok = host_join(host, a);
    return host_join(host, b) && ok;
}

TEST(trees_of_joins)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < 4; i++)
            CHECK(host_join(&host, host_spawn(&host, tree, (void *)(uintptr_t)SCALE(11, 8))));
        host_finish(&host);
    }
}

/* A cancel against the claim: a task that sleeps for ever must be woken, whenever the cancel comes. */
static bool sleep_for_ever(host_t *host, void *unused)
{
    (void)unused;
    return !host_sleep(host, TETHER_FOREVER);
}

TEST(cancel_against_claim)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = false});
    for (int i = 0; i < SCALE(20000, 2000); i++) {
        job_t *job = host_spawn(&host, sleep_for_ever, NULL);
        tether_crew_nudge(host.rt);
        for (volatile int spin = 0; spin < i % 500; spin++)
            ;
        CHECK(tether_task_cancel(&job->task, 0));
        if (i % 2)
            host_cancel(&host, job);
        CHECK(host_wait(&host, job, HOST_ELSEWHERE, TETHER_FOREVER) == TETHER_OK);
        CHECK(!host_reap(&host, job));
        host_drop(&host, job);
    }
    host_finish(&host);
}

static bool nothing(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

TEST(dedicated_tasks_come_and_go)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < SCALE(3000, 500); i++) {
            job_t *job = host_spawn_in(&host, NULL, nothing, NULL, HOST_DEDICATED, NULL);
            if (i % 3 == 0)
                host_cancel(&host, job);
            host_wait(&host, job, 0, TETHER_FOREVER);
            host_reap(&host, job);
            host_drop(&host, job);
        }
        host_finish(&host);
    }
}

TEST(runtimes_come_and_go)
{
    for (int i = 0; i < SCALE(200, 40); i++) {
        host_t host;
        _Atomic long sum = 0;
        host_start(&host, (host_options_t){.serial = i % 2});
        for (int n = 0; n < i % 7; n++)
            host_loosen(&host, host_spawn(&host, add_one, &sum), TETHER_F_DETACHED);
        host_finish(&host);
        CHECK(atomic_load(&sum) == i % 7);
    }
}

/* Renewals against cancels and against the end. Each renewal that was accepted is taken back once or comes to a cancel; a
 * cancel is never lost. */
typedef struct {
    _Atomic long spared;   /* renewals that the task took back */
    _Atomic long accepted;
    _Atomic bool begun;    /* before that, a host would not run it */
    _Atomic bool stop;     /* ends by itself instead of going on */
} renewed_t;

static bool begin_again_and_again(host_t *host, void *arg)
{
    renewed_t *renewed = arg;
    tether_task_t *self = load_relaxed(&host_thread(host)->top);
    atomic_store(&renewed->begun, true);
    while (!atomic_load(&renewed->stop)) {
        if (!host_sleep(host, tether_now() + 20000))
            continue;
        if (!tether_task_spare(self)) {
            CHECK(tether_task_cancelled(self));
            return false;
        }
        atomic_fetch_add(&renewed->spared, 1);
    }
    return true;
}

typedef struct {
    job_t *job;
    renewed_t *renewed;
    _Atomic bool stop;
} renewer_t;

static void *renewer(void *arg)
{
    renewer_t *r = arg;
    while (!atomic_load(&r->stop))
        if (tether_task_renew(&r->job->task))
            atomic_fetch_add(&r->renewed->accepted, 1);
    return NULL;
}

TEST(renewals_against_cancel_and_end)
{
    enum { RENEWERS = 2 };
    host_t host;
    host_start(&host, (host_options_t){.serial = false});
    for (int i = 0; i < SCALE(200, 50); i++) {
        renewed_t renewed = {0};
        job_t *job = host_spawn_in(&host, NULL, begin_again_and_again, &renewed, HOST_DEDICATED, NULL);
        while (!atomic_load(&renewed.begun))
            sched_yield();
        renewer_t renewers[RENEWERS];
        pthread_t threads[RENEWERS];
        for (int n = 0; n < RENEWERS; n++) {
            renewers[n] = (renewer_t){job, &renewed, false};
            pthread_create(&threads[n], NULL, renewer, &renewers[n]);
        }
        while (atomic_load(&renewed.spared) < i % 5)
            sched_yield();
        if (i % 2)
            CHECK(tether_task_cancel(&job->task, 0));
        else
            atomic_store(&renewed.stop, true);
        CHECK(host_wait(&host, job, HOST_ELSEWHERE, TETHER_FOREVER) == TETHER_OK);
        for (int n = 0; n < RENEWERS; n++) {
            atomic_store(&renewers[n].stop, true);
            pthread_join(threads[n], NULL);
        }
        CHECK(host_reap(&host, job) == (i % 2 == 0));
        long pending = atomic_load(&renewed.accepted) - atomic_load(&renewed.spared);
        CHECK(pending == 0 || pending == 1); /* the last may have met the cancel or the end */
        host_drop(&host, job);
    }
    host_finish(&host);
}
