/* Letting go races with the end: whoever comes second releases, once. */
#include "harness.h"

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

enum { TASKS = SCALE(40000, 5000), BATCH = 8 };

static bool end_somehow(host_t *host, void *arg)
{
    if ((uintptr_t)arg % 7 == 0)
        host_yield(host);
    return (uintptr_t)arg % 3 != 0;
}

static void let_go(bool serial, uint32_t flag)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = serial});
    for (uintptr_t done = 0; done < TASKS; done += BATCH) {
        job_t *jobs[BATCH];
        for (uintptr_t i = 0; i < BATCH; i++)
            jobs[i] = host_spawn(&host, end_somehow, (void *)(done + i));
        if (done % (BATCH * 8) == 0)
            host_yield(&host);
        for (volatile uintptr_t spin = 0; spin < done % 1000; spin++)
            ;
        for (int i = 0; i < BATCH; i++)
            host_loosen(&host, jobs[i], flag);
    }
    host_finish(&host);
    CHECK(atomic_load(&host.released) == TASKS);
    CHECK(atomic_load(&host.reported) == (TASKS + 2) / 3);
}

TEST(adopt_against_end) { BOTH_HOSTS(serial) let_go(serial, TETHER_F_ADOPTED); }
TEST(detach_against_end) { BOTH_HOSTS(serial) let_go(serial, TETHER_F_DETACHED); }

/* Half of the handles of a scope go while the children end; the scope collects every failure. */
TEST(handles_of_a_scope_against_end)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        tether_thread_t *thread = host_thread(&host);
        for (uintptr_t done = 0; done < TASKS / 4; done += BATCH) {
            job_t *jobs[BATCH];
            long failed = 0;
            tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
            or_acq_rel(&scope->flags, TETHER_SCOPE_WAIT_ALL);
            for (uintptr_t i = 0; i < BATCH; i++) {
                jobs[i] = host_spawn_in(&host, scope, end_somehow, (void *)(done + i), 0, NULL);
                failed += (done + i) % 3 == 0;
            }
            if (done % (BATCH * 8) == 0)
                host_yield(&host);
            for (int i = 0; i < BATCH; i++)
                host_loosen(&host, jobs[i], 0);
            CHECK(host_leave(&host, scope) == failed);
        }
        host_finish(&host);
    }
}

/* The leaver gives up: whatever the moment, each child is released or collected, once. */
TEST(abandon_against_end)
{
    BOTH_HOSTS(serial) {
        host_t host;
        long collected = 0;
        host_start(&host, (host_options_t){.serial = serial});
        tether_thread_t *thread = host_thread(&host);
        for (uintptr_t done = 0; done < TASKS / 8; done += BATCH) {
            tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
            or_acq_rel(&scope->flags, TETHER_SCOPE_WAIT_ALL);
            for (uintptr_t i = 0; i < BATCH; i++)
                host_loosen(&host, host_spawn_in(&host, scope, end_somehow, (void *)(done + i), 0, NULL), 0);
            if (done % (BATCH * 8) == 0)
                host_yield(&host);
            for (volatile uintptr_t spin = 0; spin < done % 3000; spin++)
                ;
            tether_scope_leave(scope);
            tether_scope_abandon(scope);
            for (tether_task_t *task; (task = tether_scope_collect(scope)) != NULL; collected++) {
                CHECK(tether_task_reap(task));
                ((job_t *)task)->has_value = false;
                atomic_fetch_add(&host.values_gone, 1);
                tether_task_unref(thread, task);
            }
            tether_scope_done(thread, scope);
        }
        host_finish(&host);
        CHECK(atomic_load(&host.released) + collected == (TASKS / 8 + BATCH - 1) / BATCH * BATCH);
    }
}
