#include "harness.h"

#include <sched.h>

#include "lock.h"

TEST(a_lock_is_free_after_unlock)
{
    tether_lock_t lock = {0};
    tether_lock(&lock);
    CHECK(load_relaxed(&lock.word) == 1);
    tether_unlock(&lock);
    CHECK(load_relaxed(&lock.word) == 0);
}

typedef struct {
    tether_lock_t lock;
    long counter; /* deliberately not atomic */
    int rounds;
} shared_t;

static void *count_up(void *arg)
{
    shared_t *shared = arg;
    for (int i = 0; i < shared->rounds; i++) {
        tether_lock(&shared->lock);
        shared->counter++;
        if (i % 64 == 0)
            sched_yield(); /* so that others find it held for long, and sleep */
        tether_unlock(&shared->lock);
    }
    return NULL;
}

TEST(many_threads_exclude_one_another)
{
    enum { N = 8 };
    shared_t shared = {.rounds = SCALE(20000, 4000)};
    pthread_t threads[N];
    for (int i = 0; i < N; i++)
        pthread_create(&threads[i], NULL, count_up, &shared);
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    CHECK(shared.counter == (long)N * shared.rounds);
    CHECK(load_relaxed(&shared.lock.word) == 0);
}

static void *lock_once(void *arg)
{
    shared_t *shared = arg;
    tether_lock(&shared->lock);
    shared->counter++;
    tether_unlock(&shared->lock);
    return NULL;
}

TEST(a_sleeper_is_woken_by_unlock)
{
    shared_t shared = {0};
    pthread_t thread;
    tether_lock(&shared.lock);
    pthread_create(&thread, NULL, lock_once, &shared);
    while (load_relaxed(&shared.lock.word) != 2)
        sched_yield();
    tether_unlock(&shared.lock);
    pthread_join(thread, NULL);
    CHECK(shared.counter == 1);
}
