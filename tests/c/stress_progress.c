/* G8: tasks that wait for one another end, however few threads there are at the start and whoever joins. */
#include "harness.h"

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

enum { N = SCALE(200, 80) };

typedef struct {
    sem_t *wait, *post, *over;
} link_t;

/* Blocks in foreign code: the runtime sees only that nothing moves. */
static bool pass_on(host_t *host, void *arg)
{
    link_t *link = arg;
    if (link->wait != NULL)
        host_sem_wait(host, link->wait);
    if (link->post != NULL)
        sem_post(link->post);
    sem_post(link->over);
    return true;
}

static void chain(bool serial, bool forward, bool join)
{
    host_t host;
    sem_t sems[N], over;
    link_t links[N];
    job_t *jobs[N];
    sem_init(&over, 0, 0);
    for (int i = 0; i < N; i++)
        sem_init(&sems[i], 0, 0);
    host_start(&host, (host_options_t){.serial = serial});
    for (int i = 0; i < N; i++) {
        int before = forward ? i - 1 : i + 1;
        links[i] = (link_t){before < 0 || before == N ? NULL : &sems[before], &sems[i], &over};
        jobs[i] = host_spawn(&host, pass_on, &links[i]);
    }
    if (!join) /* not through the runtime: it must start them by itself */
        for (int i = 0; i < N; i++)
            host_sem_wait(&host, &over);
    for (int i = 0; i < N; i++)
        CHECK(host_join(&host, jobs[i]));
    host_finish(&host);
    for (int i = 0; i < N; i++)
        sem_destroy(&sems[i]);
    sem_destroy(&over);
}

TEST(each_waits_for_the_one_before_joined) { BOTH_HOSTS(serial) chain(serial, true, true); }
TEST(each_waits_for_the_one_before_unjoined) { BOTH_HOSTS(serial) chain(serial, true, false); }
TEST(each_waits_for_the_one_after_joined) { BOTH_HOSTS(serial) chain(serial, false, true); }
TEST(each_waits_for_the_one_after_unjoined) { BOTH_HOSTS(serial) chain(serial, false, false); }

/* The same in a scope whose leaver sleeps in the runtime. */
TEST(each_waits_for_the_one_after_in_a_scope)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t sems[N], over;
        link_t links[N];
        sem_init(&over, 0, 0);
        for (int i = 0; i < N; i++)
            sem_init(&sems[i], 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
        for (int i = 0; i < N; i++) {
            links[i] = (link_t){i + 1 == N ? NULL : &sems[i + 1], &sems[i], &over};
            host_loosen(&host, host_spawn_in(&host, scope, pass_on, &links[i], 0, NULL), 0);
        }
        CHECK(host_leave(&host, scope) == 0);
        host_finish(&host);
        for (int i = 0; i < N; i++)
            sem_destroy(&sems[i]);
        sem_destroy(&over);
    }
}

/* A task that computes without a wait does not hold up the others for ever. */
static bool compute_until(host_t *host, void *flag)
{
    while (!atomic_load((_Atomic int *)flag))
        host_yield(host);
    return true;
}

static bool set_flag(host_t *host, void *flag)
{
    (void)host;
    atomic_store((_Atomic int *)flag, 1);
    return true;
}

TEST(busy_tasks_do_not_starve_the_one_they_wait_for)
{
    BOTH_HOSTS(serial) {
        host_t host;
        _Atomic int flag = 0;
        job_t *jobs[5];
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < 4; i++)
            jobs[i] = host_spawn(&host, compute_until, &flag);
        jobs[4] = host_spawn(&host, set_flag, &flag);
        for (int i = 0; i < 5; i++)
            CHECK(host_join(&host, jobs[i]));
        host_finish(&host);
    }
}

TEST(progress_after_the_ticker_and_the_crew_have_retired)
{
    BOTH_HOSTS(serial) {
        host_t host;
        sem_t over;
        link_t link = {NULL, NULL, &over};
        sem_init(&over, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        for (int round = 0; round < 2; round++) {
            job_t *job = host_spawn(&host, pass_on, &link);
            host_sem_wait(&host, &over);
            CHECK(host_join(&host, job));
            host_detach(&host);
            while (load_relaxed(&host.rt->ticker.state) != TETHER_TICKER_GONE ||
                   load_acquire(&host.rt->crew.alive) != 0)
                usleep(1000); /* each retires by itself; seen by state, not by time */
            host_attach(&host);
        }
        host_finish(&host);
        sem_destroy(&over);
    }
}
