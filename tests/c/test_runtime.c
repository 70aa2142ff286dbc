#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

static bool nothing(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

TEST(a_runtime_without_tasks_ends)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        CHECK(tether_runtime_live(host.rt) == 0);
        host_finish(&host);
    }
}

TEST(two_runtimes_share_a_thread)
{
    host_t one, two;
    host_start(&one, (host_options_t){.serial = true});
    host_start(&two, (host_options_t){.serial = true});
    for (int i = 0; i < 10; i++) {
        CHECK(host_join(&one, host_spawn(&one, nothing, NULL)));
        CHECK(host_join(&two, host_spawn(&two, nothing, NULL)));
    }
    CHECK(host_thread(&one) != host_thread(&two));
    host_finish(&one);
    CHECK(host_join(&two, host_spawn(&two, nothing, NULL)));
    host_finish(&two);
}

TEST(closed_means_refused)
{
    host_t host;
    tether_status_t status;
    host_start(&host, (host_options_t){.serial = true});
    job_t *job = host_spawn(&host, nothing, NULL);
    tether_runtime_close(host.rt);
    CHECK(host_spawn_in(&host, NULL, nothing, NULL, 0, &status) == NULL && status == TETHER_SHUTDOWN);
    CHECK(host_spawn_in(&host, NULL, nothing, NULL, HOST_DEDICATED, &status) == NULL && status == TETHER_SHUTDOWN);
    CHECK(host_join(&host, job)); /* what was queued may still be run */
    host_finish(&host);
}

typedef struct {
    _Atomic int left;
    int lanes;
} relay_t;

static bool relay(host_t *host, void *arg)
{
    relay_t *race = arg;
    if (atomic_fetch_sub(&race->left, 1) > 1) {
        tether_thread_t *thread = host_thread(host);
        thread->lane = (thread->lane + 1) % host->rt->lanes_used; /* the next runner stands in another lane */
        host_loosen(host, host_spawn(host, relay, race), TETHER_F_DETACHED);
    }
    return true;
}

/* At any moment of a relay one task is alive: drain must not fall between two. */
TEST(drain_waits_for_the_last_of_a_relay)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial, .lanes = 8});
        tether_thread_t *thread = host_thread(&host);
        for (int round = 0; round < 20; round++) {
            relay_t race = {.left = SCALE(2000, 200)};
            host_loosen(&host, host_spawn(&host, relay, &race), TETHER_F_DETACHED);
            host_detach(&host);
            while (tether_runtime_drain(thread) != TETHER_OK)
                ;
            CHECK(atomic_load(&race.left) == 0);
            while (atomic_load(&race.left) > 0) /* it is on our stack */
                sched_yield();
            host_attach(&host);
        }
        host_finish(&host);
    }
}

static void *use_and_end(void *arg)
{
    host_t *host = arg;
    host_attach(host);
    CHECK(host_join(host, host_spawn(host, nothing, NULL)));
    host_detach(host);
    return NULL;
}

TEST(records_of_ended_threads_serve_others)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    host_detach(&host);
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, use_and_end, &host);
        pthread_join(thread, NULL);
    }
    host_attach(&host);
    int records = 0;
    for (tether_thread_t *t = host.rt->threads; t; t = t->next)
        records++;
    CHECK(records < 10); /* ours, theirs, the crew's */
    host_finish(&host);
}

/* The runtime goes first, the thread that used it afterwards. */
static void *outlive(void *arg)
{
    void **args = arg;
    use_and_end(args[0]);
    sem_post(args[1]);
    while (sem_wait(args[2]) != 0)
        ;
    return NULL;
}

TEST(a_thread_may_outlive_the_runtime)
{
    host_t host;
    sem_t used, gone;
    sem_init(&used, 0, 0), sem_init(&gone, 0, 0);
    host_start(&host, (host_options_t){.serial = true});
    void *args[] = {&host, &used, &gone};
    pthread_t thread;
    pthread_create(&thread, NULL, outlive, args);
    host_sem_wait(&host, &used);
    host_finish(&host);
    sem_post(&gone);
    pthread_join(thread, NULL);
    sem_destroy(&used), sem_destroy(&gone);
}

TEST(no_memory_leaves_nothing)
{
    host_t host;
    tether_status_t status;
    tether_fail_nth(TETHER_FAIL_ALLOC, 1);
    tether_host_t none = {.task_size = sizeof(job_t)};
    CHECK(tether_runtime_new(&none, NULL) == NULL);
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    tether_fail_nth(TETHER_FAIL_ALLOC, 1);
    CHECK(host_spawn_in(&host, NULL, nothing, NULL, 0, &status) == NULL && status == TETHER_NO_MEMORY);
    tether_fail_nth(TETHER_FAIL_ALLOC, 1);
    CHECK(tether_scope_open(thread, TETHER_FOREVER) == NULL);
    tether_fail_nth(TETHER_FAIL_ALLOC, 2); /* the block, then the thread's record */
    CHECK(host_spawn_in(&host, NULL, nothing, NULL, HOST_DEDICATED, &status) == NULL && status == TETHER_NO_MEMORY);
    tether_fail_nth(TETHER_FAIL_ALLOC, 0);
    CHECK(tether_runtime_live(host.rt) == 0);
    CHECK(load_relaxed(&host.rt->scopes_open) == 0);
    host_finish(&host);
}

/* Every kind of failure at every place, until a round goes through without meeting it. */
TEST(each_failure_in_turn_leaves_nothing)
{
    BOTH_HOSTS(serial) {
        for (int kind = 0; kind < TETHER_FAIL_KINDS; kind++) {
            for (int nth = 1; nth <= 12; nth++) {
                host_t host;
                host_start(&host, (host_options_t){.serial = serial});
                host_thread(&host);
                tether_fail_nth((tether_fail_t)kind, nth);
                tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
                for (int i = 0; i < 6; i++) {
                    tether_status_t status;
                    tether_scope_t *in = i % 2 ? scope : NULL;
                    job_t *job = host_spawn_in(&host, in, nothing, NULL, i % 3 == 2 ? HOST_DEDICATED : 0, &status);
                    CHECK((job != NULL) == (status == TETHER_OK));
                    if (job != NULL)
                        host_loosen(&host, job, TETHER_F_DETACHED);
                }
                if (scope != NULL)
                    CHECK(host_leave(&host, scope) == 0);
                tether_fail_nth((tether_fail_t)kind, 0);
                host_finish(&host);
            }
        }
    }
}

TEST(every_status_has_a_sentence)
{
    for (int status = TETHER_OK; status <= TETHER_SHUTDOWN; status++)
        CHECK(strcmp(tether_status_text((tether_status_t)status), "unknown status") != 0);
}
