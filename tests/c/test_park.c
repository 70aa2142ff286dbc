/* Parkers and the lot, without a runtime. */
#include "harness.h"

#include <sched.h>

#include "park.h"

typedef struct {
    tether_parker_t parker;
    _Atomic uint32_t word; /* 1: somebody waits, 2: done */
    _Atomic int waiters, woken;
    tether_parker_t own[80]; /* outlive their threads, as the contract says */
} place_t;

static bool place_still(void *arg)
{
    place_t *place = arg;
    return !(or_acq_rel(&place->word, 1) & 2);
}

static bool yes(void *unused)
{
    (void)unused;
    return true;
}

static bool no(void *unused)
{
    (void)unused;
    return false;
}

TEST(a_wake_before_the_park_is_kept)
{
    tether_parker_t parker = {0};
    tether_unpark(&parker);
    CHECK(load_relaxed(&parker.word) == TETHER_PARKER_NOTIFIED);
    CHECK(tether_park(&parker, TETHER_FOREVER) == TETHER_OK);
    CHECK(load_relaxed(&parker.word) == TETHER_PARKER_EMPTY);
}

TEST(two_wakes_count_as_one)
{
    tether_parker_t parker = {0};
    tether_unpark(&parker);
    tether_unpark(&parker);
    CHECK(tether_park(&parker, TETHER_FOREVER) == TETHER_OK);
    CHECK(tether_park(&parker, tether_now()) == TETHER_TIMEOUT);
}

TEST(a_deadline_that_has_passed_times_out)
{
    tether_parker_t parker = {0};
    CHECK(tether_park(&parker, 0) == TETHER_TIMEOUT);
    CHECK(load_relaxed(&parker.word) == TETHER_PARKER_EMPTY);
    CHECK(tether_park(&parker, tether_now() + 1000000) == TETHER_TIMEOUT);
}

static void *unpark_it(void *parker)
{
    tether_unpark(parker);
    return NULL;
}

TEST(a_wake_ends_a_park)
{
    tether_parker_t parker = {0};
    pthread_t thread;
    pthread_create(&thread, NULL, unpark_it, &parker);
    CHECK(tether_park(&parker, TETHER_FOREVER) == TETHER_OK);
    pthread_join(thread, NULL);
}

TEST(lot_does_not_sleep_when_it_is_done)
{
    tether_parker_t parker = {0};
    int key = 0;
    CHECK(tether_lot_wait(&key, &parker, no, NULL, TETHER_FOREVER) == TETHER_OK);
}

TEST(lot_times_out_and_leaves_no_waiter)
{
    tether_parker_t parker = {0};
    int key = 0;
    CHECK(tether_lot_wait(&key, &parker, yes, NULL, tether_now() + 100000) == TETHER_TIMEOUT);
    tether_lot_wake_all(&key);
    CHECK(load_relaxed(&parker.word) == TETHER_PARKER_EMPTY);
}

static void *wait_there(void *arg)
{
    place_t *place = arg;
    tether_parker_t *own = &place->own[atomic_fetch_add(&place->waiters, 1)];
    while (!(load_acquire(&place->word) & 2))
        CHECK(tether_lot_wait(place, own, place_still, place, TETHER_FOREVER) == TETHER_OK);
    atomic_fetch_add(&place->woken, 1);
    return NULL;
}

TEST(wake_all_wakes_more_waiters_than_a_batch)
{
    enum { N = 80 };
    place_t place = {0};
    pthread_t threads[N];
    for (int i = 0; i < N; i++)
        pthread_create(&threads[i], NULL, wait_there, &place);
    while (load_acquire(&place.word) == 0)
        sched_yield();
    or_acq_rel(&place.word, 2);
    tether_lot_wake_all(&place);
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&place.woken) == N);
}

/* Bucket neighbours: addresses that the hash cannot tell apart must not wake one another's waiters for good. */
TEST(wake_of_another_key_in_the_bucket_leaves_the_waiter)
{
    tether_parker_t parker = {0};
    static char keys[4096];
    for (int i = 1; i < 4096; i++)
        tether_lot_wake_all(&keys[i]);
    CHECK(tether_lot_wait(&keys[0], &parker, yes, NULL, tether_now() + 100000) == TETHER_TIMEOUT);
}

static void on_signal(int sig) { (void)sig; }

static void *interrupt_it(void *arg)
{
    void **args = arg;
    while (load_acquire((_Atomic int *)args[1]) == 0) {
        pthread_kill(*(pthread_t *)args[0], SIGUSR1);
        sched_yield();
    }
    return NULL;
}

TEST(a_signal_handler_interrupts_a_park)
{
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART */
    sigaction(SIGUSR1, &action, NULL);
    tether_parker_t parker = {0};
    _Atomic int over = 0;
    pthread_t self = pthread_self(), thread;
    void *args[] = {&self, &over};
    pthread_create(&thread, NULL, interrupt_it, args);
    CHECK(tether_park(&parker, TETHER_FOREVER) == TETHER_INTERRUPTED);
    CHECK(load_relaxed(&parker.word) == TETHER_PARKER_EMPTY);
    atomic_store(&over, 1);
    pthread_join(thread, NULL);
}
