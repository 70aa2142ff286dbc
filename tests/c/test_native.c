/* Native tasks: they run detached, beside whoever has the host, and are tasks like others in everything else. */
#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

static bool count_up(host_t *host, void *arg)
{
    (void)host;
    atomic_fetch_add((_Atomic int *)arg, 1);
    return true;
}

static bool fail(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return false;
}

TEST(they_run_while_somebody_has_the_host)
{
    enum { N = 50 };
    host_t host;
    _Atomic int ran = 0;
    host_start(&host, (host_options_t){.serial = true});
    tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
    for (int i = 0; i < N; i++)
        host_loosen(&host, host_spawn_in(&host, scope, count_up, &ran, HOST_NATIVE, NULL), 0);
    while (atomic_load(&ran) < N) /* attached: no thread of the crew can attach */
        sched_yield();
    CHECK(host_leave(&host, scope) == 0);
    host_finish(&host);
}

TEST(they_are_run_in_place_by_who_waits)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic int ran = 0;
        host_start(&host, (host_options_t){.serial = serial});
        job_t *job = host_spawn_in(&host, NULL, count_up, &ran, HOST_NATIVE, NULL);
        CHECK(tether_lane_native(host.rt, true) <= 1);
        CHECK(host_join(&host, job));
        CHECK(atomic_load(&ran) == 1);
        CHECK(tether_lane_native(host.rt, true) == 0);
        host_finish(&host);
    }
}

typedef struct {
    _Atomic int inside;
    int wanted;
} crowd_t;

static bool wait_for_all(host_t *host, void *arg)
{
    (void)host;
    crowd_t *crowd = arg;
    atomic_fetch_add(&crowd->inside, 1);
    while (atomic_load(&crowd->inside) < crowd->wanted)
        usleep(100);
    return true;
}

TEST(tasks_that_wait_for_one_another_all_start)
{
    enum { N = 12 }; /* G8: half of them native, half of them not, and they block in what the runtime does not know */
    BOTH_HOSTS(serial) {
        host_t host;
        crowd_t crowd = {.wanted = serial ? N / 2 : N}; /* those that hold a fake GIL cannot meet */
        job_t *jobs[N];
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < N; i++)
            jobs[i] = i % 2 || !serial ? host_spawn_in(&host, NULL, wait_for_all, &crowd, i % 2 ? HOST_NATIVE : 0, NULL)
                                       : host_spawn(&host, fail, NULL);
        for (int i = 0; i < N; i++) {
            CHECK(host_wait(&host, jobs[i], HOST_ELSEWHERE, TETHER_FOREVER) == TETHER_OK);
            host_reap(&host, jobs[i]);
            host_drop(&host, jobs[i]);
        }
        host_finish(&host);
    }
}

TEST(others_do_not_starve_behind_them)
{
    enum { N = 200 };
    host_t host;
    _Atomic int natives = 0, others = 0;
    host_start(&host, (host_options_t){.serial = true, .max_threads = 1});
    job_t *jobs[N];
    for (int i = 0; i < N; i++)
        jobs[i] = host_spawn_in(&host, NULL, count_up, i % 2 ? &natives : &others, i % 2 ? HOST_NATIVE : 0, NULL);
    CHECK(tether_lane_oldest(host.rt) <= jobs[N - 1]->task.id);
    while (atomic_load(&others) + atomic_load(&natives) < N)
        host_yield(&host);
    for (int i = 0; i < N; i++)
        CHECK(host_join(&host, jobs[i]));
    host_finish(&host);
}

TEST(failures_are_collected_and_cancel_the_others)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic int ran = 0;
        host_start(&host, (host_options_t){.serial = serial});
        tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
        host_loosen(&host, host_spawn_in(&host, scope, fail, NULL, HOST_NATIVE, NULL), 0);
        while (!(load_relaxed(&scope->flags) & TETHER_SCOPE_CANCELLED)) {
            tether_task_t *task = tether_scope_claim(host_thread(&host), scope);
            if (task != NULL)
                host_run(&host, (job_t *)task);
        }
        host_loosen(&host, host_spawn_in(&host, scope, count_up, &ran, HOST_NATIVE, NULL), 0);
        CHECK(host_leave(&host, scope) == 1);
        CHECK(atomic_load(&ran) == 0);
        host_finish(&host);
    }
}

typedef struct {
    int n;
    long value;
} fib_t;

static bool fib(host_t *host, void *arg)
{
    fib_t *f = arg;
    if (f->n < 2) {
        f->value = f->n;
        return true;
    }
    fib_t one = {.n = f->n - 1}, two = {.n = f->n - 2};
    tether_scope_t *scope = tether_scope_open(host_thread(host), TETHER_FOREVER);
    host_loosen(host, host_spawn_in(host, scope, fib, &one, HOST_NATIVE, NULL), 0);
    fib(host, &two);
    tether_scope_leave(scope);
    tether_thread_t *thread = host_thread(host);
    while (!tether_scope_close(scope)) { /* detached, unlike host_leave */
        tether_task_t *task = tether_scope_claim(thread, scope);
        tether_wait_t how = {.deadline = TETHER_FOREVER, .help = true, .native = true};
        if (task == NULL) {
            tether_wait_enter(thread);
            if (tether_wait_scope(thread, scope, &how) == TETHER_HELP)
                task = how.helped;
            tether_wait_leave(thread);
        }
        if (task != NULL)
            host_run(host, (job_t *)task);
    }
    CHECK(tether_scope_collect(scope) == NULL);
    tether_scope_done(thread, scope);
    f->value = one.value + two.value;
    return true;
}

TEST(they_nest)
{
    BOTH_HOSTS(serial) {
        host_t host;
        fib_t f = {.n = SCALE(20, 14)};
        host_start(&host, (host_options_t){.serial = serial});
        host_detach(&host);
        fib(&host, &f);
        host_attach(&host);
        CHECK(f.value == SCALE(6765, 377));
        host_finish(&host);
    }
}
