#include "harness.h"

#include "host.h"

static bool nothing(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

static void run(host_t *host, tether_task_t *task) { host_run(host, (job_t *)task); }

static void reap(host_t *host, job_t *job)
{
    CHECK(host_reap(host, job));
    host_drop(host, job);
}

TEST(take_gives_the_oldest_first)
{
    host_t host;
    enum { N = 10 };
    job_t *jobs[N];
    host_start(&host, (host_options_t){.serial = true});
    tether_thread_t *thread = host_thread(&host);
    for (int i = 0; i < N; i++)
        jobs[i] = host_spawn(&host, nothing, NULL);
    CHECK(tether_lane_queued(host.rt, true) == N);
    CHECK(tether_lane_oldest(host.rt) == jobs[0]->task.id);
    for (int i = 0; i < N; i++) {
        CHECK(tether_lane_oldest(host.rt) == jobs[i]->task.id);
        tether_task_t *task = tether_lane_take(thread);
        CHECK(task == &jobs[i]->task);
        CHECK(tether_lane_running(host.rt) == 1);
        run(&host, task);
        reap(&host, jobs[i]);
    }
    CHECK(tether_lane_take(thread) == NULL);
    CHECK(tether_lane_oldest(host.rt) == 0);
    CHECK(tether_lane_started(host.rt) == N);
    host_finish(&host);
}

TEST(a_joiner_takes_from_the_middle)
{
    host_t host;
    enum { N = 5 };
    job_t *jobs[N];
    host_start(&host, (host_options_t){.serial = true});
    for (int i = 0; i < N; i++)
        jobs[i] = host_spawn(&host, nothing, NULL);
    int order[N] = {2, 0, 4, 1, 3};
    for (int i = 0; i < N; i++) {
        CHECK(host_join(&host, jobs[order[i]]));
        CHECK(tether_lane_queued(host.rt, true) == (uint64_t)(N - 1 - i));
    }
    CHECK(tether_lane_oldest(host.rt) == 0);
    host_finish(&host);
}

TEST(take_looks_into_other_lanes)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true, .lanes = 4});
    tether_thread_t *thread = host_thread(&host);
    CHECK(host.rt->lanes_used == 4);
    for (unsigned lane = 0; lane < 4; lane++) {
        unsigned own = thread->lane;
        thread->lane = lane;
        job_t *job = host_spawn(&host, nothing, NULL);
        thread->lane = own;
        CHECK(tether_lane_oldest(host.rt) == job->task.id);
        tether_task_t *task = tether_lane_take(thread);
        CHECK(task == &job->task);
        run(&host, task);
        reap(&host, job);
    }
    host_finish(&host);
}

TEST(more_lanes_than_there_are_is_bounded)
{
    host_t host;
    host_start(&host, (host_options_t){.lanes = 1000});
    CHECK(host.rt->lanes_used == TETHER_LANES_MAX);
    CHECK(host_join(&host, host_spawn(&host, nothing, NULL)));
    host_finish(&host);
}

static bool look_below(host_t *host, void *arg)
{
    /* Runs as a task; has a scope with one child, and a plain task beside it. */
    tether_thread_t *thread = host_thread(host);
    tether_node_t *me = tether_owner_current(thread);
    job_t *other = arg;
    job_t *plain = host_spawn(host, nothing, NULL);
    CHECK(tether_lane_take_below(thread, me, false) == NULL); /* a guard may outlive its spawner's wait */
    tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
    job_t *child = host_spawn_in(host, scope, nothing, NULL, 0, NULL);
    CHECK(tether_lane_take_below(thread, &other->task.node, false) == NULL);
    tether_task_t *task = tether_lane_take_below(thread, me, false);
    CHECK(task == &child->task);
    run(host, task);
    CHECK(tether_lane_take_below(thread, me, false) == NULL);
    reap(host, child);
    CHECK(host_leave(host, scope) == 0);
    CHECK(host_join(host, plain));
    return true;
}

TEST(take_below_takes_only_what_must_end_before)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    job_t *other = host_spawn(&host, nothing, NULL);
    CHECK(host_join(&host, host_spawn(&host, look_below, other)));
    CHECK(host_join(&host, other));
    host_finish(&host);
}

static void count_one(tether_task_t *task, void *sum)
{
    (void)task;
    ++*(int *)sum;
}

static bool count_all(host_t *host, void *sum)
{
    tether_lane_each(host->rt, count_one, sum);
    return true;
}

TEST(each_shows_what_has_not_ended)
{
    host_t host;
    int sum = 0;
    host_start(&host, (host_options_t){.serial = true});
    job_t *queued = host_spawn(&host, nothing, NULL);
    CHECK(host_join(&host, host_spawn(&host, count_all, &sum)));
    CHECK(sum == 2); /* the queued one and the counter itself */
    CHECK(host_join(&host, queued));
    sum = 0;
    tether_lane_each(host.rt, count_one, &sum);
    CHECK(sum == 0);
    host_finish(&host);
}

TEST(dedicated_tasks_are_not_queued)
{
    for (int serial = 0; serial < 2; serial++) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        job_t *job = host_spawn_in(&host, NULL, nothing, NULL, HOST_DEDICATED, NULL);
        CHECK(tether_lane_queued(host.rt, true) == 0);
        CHECK(host_wait(&host, job, 0, TETHER_FOREVER) == TETHER_OK);
        CHECK(atomic_load(&host.in_place) == 0);
        reap(&host, job);
        CHECK(tether_lane_waiting(host.rt) == 0 && tether_lane_running(host.rt) == 0);
        host_finish(&host);
    }
}
