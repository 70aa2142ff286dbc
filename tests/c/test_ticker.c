#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

static bool post(host_t *host, void *sem)
{
    (void)host;
    sem_post(sem);
    return true;
}

TEST(no_ticker_before_the_first_task)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    CHECK(load_relaxed(&host.rt->ticker.state) == TETHER_TICKER_GONE);
    CHECK(!host.rt->ticker.joinable);
    host_finish(&host);
}

TEST(a_task_that_nobody_joins_starts)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t ran;
        sem_init(&ran, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        job_t *job = host_spawn(&host, post, &ran);
        CHECK(load_relaxed(&host.rt->ticker.state) == TETHER_TICKER_AWAKE);
        host_sem_wait(&host, &ran);
        CHECK(host_join(&host, job));
        host_finish(&host);
        sem_destroy(&ran);
    }
}

static void until_state(host_t *host, uint32_t state)
{
    host_detach(host);
    while (load_relaxed(&host->rt->ticker.state) != state)
        usleep(1000);
    host_attach(host);
}

TEST(it_dozes_and_is_poked)
{
    host_t host;
    sem_t ran;
    sem_init(&ran, 0, 0);
    host_start(&host, (host_options_t){.serial = true});
    for (int i = 0; i < 2; i++) {
        job_t *job = host_spawn(&host, post, &ran);
        CHECK(load_relaxed(&host.rt->ticker.state) == TETHER_TICKER_AWAKE);
        host_sem_wait(&host, &ran);
        CHECK(host_join(&host, job));
        until_state(&host, TETHER_TICKER_DOZING);
    }
    host_finish(&host);
    sem_destroy(&ran);
}

TEST(it_retires_and_is_started_again)
{
    host_t host;
    sem_t ran;
    sem_init(&ran, 0, 0);
    host_start(&host, (host_options_t){.serial = false});
    for (int i = 0; i < 2; i++) {
        job_t *job = host_spawn(&host, post, &ran);
        host_sem_wait(&host, &ran);
        CHECK(host_join(&host, job));
        until_state(&host, TETHER_TICKER_GONE);
    }
    host_finish(&host);
    sem_destroy(&ran);
}

TEST(without_a_ticker_a_spawn_is_refused)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t ran;
        tether_status_t status;
        sem_init(&ran, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        tether_fail_nth(TETHER_FAIL_THREAD, 1);
        CHECK(host_spawn_in(&host, NULL, post, &ran, 0, &status) == NULL);
        CHECK(status == TETHER_NO_THREAD);
        CHECK(tether_runtime_live(host.rt) == 0);
        CHECK(host_join(&host, host_spawn(&host, post, &ran))); /* once only */
        host_finish(&host);
        sem_destroy(&ran);
    }
}

TEST(a_thread_that_cannot_be_made_is_asked_for_again)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t ran;
        sem_init(&ran, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        tether_fail_nth(TETHER_FAIL_THREAD, 2); /* the ticker comes first */
        job_t *job = host_spawn(&host, post, &ran);
        host_sem_wait(&host, &ran);
        CHECK(host_join(&host, job));
        tether_fail_nth(TETHER_FAIL_THREAD, 0);
        host_finish(&host);
        sem_destroy(&ran);
    }
}

typedef struct {
    _Atomic unsigned long id;
    _Atomic bool computes;
    tether_parker_t parker;
} worker_t;

static void *compute_then_sleep(void *arg)
{
    worker_t *worker = arg;
    store_release(&worker->id, tether_native_id());
    while (load_acquire(&worker->computes))
        ;
    while (tether_park(&worker->parker, TETHER_FOREVER) != TETHER_OK)
        ;
    return NULL;
}

TEST(a_thread_that_wants_a_processor_is_told_from_one_that_sleeps)
{
    worker_t worker = {.computes = true};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, compute_then_sleep, &worker) == 0);
    while (load_acquire(&worker.id) == 0)
        usleep(1000);
    CHECK(tether_native_runs(worker.id));
    store_release(&worker.computes, false);
    while (tether_native_runs(worker.id))
        usleep(1000);
    tether_unpark(&worker.parker);
    pthread_join(thread, NULL);
    while (tether_native_runs(worker.id))
        usleep(1000); /* it is gone in a moment */
    CHECK(!tether_native_runs(0));
}
