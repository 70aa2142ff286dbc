#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

static bool nothing(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

static tether_status_t move(host_t *host, job_t *job, tether_node_t *to)
{
    tether_node_t *scratch[1];
    tether_task_t *task = &job->task;
    size_t culprit = 0;
    return tether_owner_move(host_thread(host), &task, scratch, 1, to, &culprit);
}

static bool own_and_ask(host_t *host, void *rootly)
{
    tether_thread_t *thread = host_thread(host);
    tether_node_t *me = tether_owner_current(thread);
    job_t *mine = host_spawn(host, nothing, NULL), *other = rootly;
    CHECK(me != NULL);
    CHECK(tether_owner_is(&mine->task, me));
    CHECK(!tether_owner_is(&other->task, me));
    CHECK(move(host, other, me) == TETHER_NOT_OWNER);
    CHECK(move(host, mine, &mine->task.node) == TETHER_CYCLE);
    CHECK(tether_owner_is(&mine->task, me));
    tether_task_t *parent = tether_owner_parent(&mine->task);
    CHECK(parent == (tether_task_t *)me);
    tether_task_unref(thread, parent);
    CHECK(tether_owner_above((tether_task_t *)me, &mine->task.node));
    CHECK(!tether_owner_above(&mine->task, me));
    return host_join(host, mine);
}

TEST(only_the_owner_moves)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    job_t *other = host_spawn(&host, nothing, NULL);
    CHECK(tether_owner_is(&other->task, NULL));
    CHECK(tether_owner_parent(&other->task) == NULL);
    CHECK(host_join(&host, host_spawn(&host, own_and_ask, other)));
    CHECK(host_join(&host, other));
    host_finish(&host);
}

TEST(a_cycle_is_refused_at_any_depth)
{
    host_t host;
    enum { N = 20 };
    job_t *jobs[N];
    host_start(&host, (host_options_t){.serial = true});
    for (int i = 0; i < N; i++)
        jobs[i] = host_spawn(&host, nothing, NULL);
    /* Each goes to the one before it, last first: the mover must own what it moves. */
    for (int i = N - 1; i > 0; i--)
        CHECK(move(&host, jobs[i], &jobs[i - 1]->task.node) == TETHER_OK);
    CHECK(tether_owner_above(&jobs[0]->task, &jobs[N - 1]->task.node));
    CHECK(move(&host, jobs[0], &jobs[N - 1]->task.node) == TETHER_CYCLE);
    CHECK(move(&host, jobs[0], &jobs[0]->task.node) == TETHER_CYCLE);
    CHECK(move(&host, jobs[1], NULL) == TETHER_NOT_OWNER);
    CHECK(tether_owner_is(&jobs[0]->task, NULL));
    /* As they end, what they own comes up. */
    for (int i = 0; i < N; i++) {
        CHECK(tether_owner_is(&jobs[i]->task, NULL));
        CHECK(host_join(&host, jobs[i]));
    }
    host_finish(&host);
}

TEST(moves_are_all_or_nothing)
{
    host_t host;
    enum { N = 4 };
    job_t *jobs[N];
    tether_task_t *tasks[N];
    tether_node_t *scratch[N];
    size_t culprit = 0;
    host_start(&host, (host_options_t){.serial = true});
    for (int i = 0; i < N; i++)
        tasks[i] = &(jobs[i] = host_spawn(&host, nothing, NULL))->task;
    CHECK(tether_owner_move(host_thread(&host), tasks, scratch, N, &tasks[2]->node, &culprit) == TETHER_CYCLE);
    CHECK(culprit == 2);
    for (int i = 0; i < N; i++)
        CHECK(load_relaxed(&tasks[i]->node.owner) == NULL);
    CHECK(tether_owner_move(host_thread(&host), tasks, scratch, 2, &tasks[2]->node, &culprit) == TETHER_OK);
    CHECK(load_relaxed(&tasks[0]->node.owner) == &tasks[2]->node);
    CHECK(tether_owner_move(host_thread(&host), tasks, scratch, 0, NULL, &culprit) == TETHER_OK);
    CHECK(host_join(&host, jobs[2]));
    CHECK(host_join(&host, jobs[0]) && host_join(&host, jobs[1]) && host_join(&host, jobs[3]));
    host_finish(&host);
}

static bool leave_a_guard(host_t *host, void *left)
{
    *(job_t **)left = host_spawn(host, nothing, NULL);
    return true;
}

TEST(what_an_ended_task_owned_passes_to_its_owner)
{
    BOTH_HOSTS(serial) {
        host_t host;
        job_t *left = NULL;
        host_start(&host, (host_options_t){.serial = serial});
        CHECK(host_join(&host, host_spawn(&host, leave_a_guard, &left)));
        CHECK(tether_owner_is(&left->task, NULL));
        CHECK(tether_owner_parent(&left->task) == NULL);
        CHECK(host_join(&host, left));
        host_finish(&host);
    }
}

static bool chain(host_t *host, void *left)
{
    if (--*(int *)left == 0)
        return true;
    host_loosen(host, host_spawn(host, chain, left), TETHER_F_ADOPTED);
    return true;
}

TEST(chains_of_ended_owners_do_not_grow)
{
    host_t host;
    int left = SCALE(20000, 3000);
    host_start(&host, (host_options_t){.serial = true});
    host_loosen(&host, host_spawn(&host, chain, &left), TETHER_F_ADOPTED);
    host_detach(&host);
    while (tether_runtime_drain(host_thread(&host)) != TETHER_OK)
        ;
    host_attach(&host);
    CHECK(left == 0);
    CHECK(atomic_load(&harness_blocks) < 100);
    host_finish(&host);
}

/* ---- deadlocks -------------------------------------------------------------------------------------------------- */

typedef struct {
    job_t *target; /* whom to join */
    sem_t *go;
    tether_status_t answer;
} joiner_t;

static bool join_target(host_t *host, void *arg)
{
    joiner_t *joiner = arg;
    host_sem_wait(host, joiner->go);
    joiner->answer = host_wait(host, joiner->target, HOST_ELSEWHERE, TETHER_FOREVER);
    return joiner->answer == TETHER_OK;
}

static void ring(int n, bool serial)
{
    host_t host;
    sem_t go;
    joiner_t *joiners = calloc((size_t)n, sizeof *joiners);
    job_t **jobs = calloc((size_t)n, sizeof *jobs);
    sem_init(&go, 0, 0);
    host_start(&host, (host_options_t){.serial = serial});
    tether_scope_t *scope = tether_scope_open(host_thread(&host), TETHER_FOREVER);
    or_acq_rel(&scope->flags, TETHER_SCOPE_WAIT_ALL);
    for (int i = 0; i < n; i++) {
        joiners[i].go = &go;
        jobs[i] = host_spawn_in(&host, scope, join_target, &joiners[i], 0, NULL);
    }
    for (int i = 0; i < n; i++)
        joiners[i].target = jobs[(i + 1) % n];
    for (int i = 0; i < n; i++)
        sem_post(&go);
    host_leave(&host, scope);
    int refused = 0;
    for (int i = 0; i < n; i++)
        refused += joiners[i].answer == TETHER_DEADLOCK;
    CHECK(refused >= 1); /* once one has given up, the others' waits end */
    CHECK(atomic_load(&host.refused) == refused);
    for (int i = 0; i < n; i++) {
        if (joiners[i].answer == TETHER_OK)
            host_reap(&host, jobs[i]);
        host_drop(&host, jobs[i]);
    }
    host_finish(&host);
    sem_destroy(&go);
    free(joiners);
    free(jobs);
}

TEST(a_ring_of_joins_is_a_deadlock)
{
    BOTH_HOSTS(serial) {
        ring(2, serial);
        ring(5, serial);
    }
}

TEST(a_ring_longer_than_the_report_is_a_deadlock_too)
{
    ring(TETHER_CYCLE_MAX + 8, false);
}

/* X joins A; A leaves a scope; its child C joins X. Whichever of the three comes last, somebody is told. */
typedef struct {
    job_t *a, *x;
    sem_t go_a, go_c, go_x;
    sem_t a_runs, c_runs;
    tether_status_t c_answer, x_answer;
    tether_thread_t *thread;
} triangle_t;

static bool corner_c(host_t *host, void *arg)
{
    triangle_t *t = arg;
    sem_post(&t->c_runs);
    host_sem_wait(host, &t->go_c);
    t->c_answer = host_wait(host, t->x, HOST_ELSEWHERE, TETHER_FOREVER);
    return true;
}

static bool corner_a(host_t *host, void *arg)
{
    triangle_t *t = arg;
    tether_scope_t *scope = tether_scope_open(host_thread(host), TETHER_FOREVER);
    job_t *c = host_spawn_in(host, scope, corner_c, t, 0, NULL);
    host_sem_wait(host, &t->c_runs);
    sem_post(&t->a_runs);
    host_sem_wait(host, &t->go_a);
    host_leave(host, scope);
    host_reap(host, c);
    host_drop(host, c);
    return true;
}

static bool corner_x(host_t *host, void *arg)
{
    triangle_t *t = arg;
    host_sem_wait(host, &t->go_x);
    t->x_answer = host_wait(host, t->a, HOST_ELSEWHERE, TETHER_FOREVER);
    return true;
}

/* Is somebody asleep for this node? */
static bool is_awaited(host_t *host, const tether_node_t *node)
{
    bool found = false;
    tether_lock(&host->rt->graph);
    tether_lock(&host->rt->threads_lock);
    for (tether_thread_t *t = host->rt->threads; t; t = t->next)
        found |= t->waits_for == node || (node == NULL && t->waits_for && t->waits_for->kind == TETHER_NODE_SCOPE);
    tether_unlock(&host->rt->threads_lock);
    tether_unlock(&host->rt->graph);
    return found;
}

static void triangle(const char *order)
{
    host_t host;
    triangle_t t = {0};
    sem_t *all[] = {&t.go_a, &t.go_c, &t.go_x, &t.a_runs, &t.c_runs};
    for (int i = 0; i < 5; i++)
        sem_init(all[i], 0, 0);
    host_start(&host, (host_options_t){.serial = false});
    t.a = host_spawn(&host, corner_a, &t);
    t.x = host_spawn(&host, corner_x, &t);
    host_sem_wait(&host, &t.a_runs);
    for (const char *next = order; *next; next++) {
        const tether_node_t *awaited = *next == 'a' ? NULL : *next == 'c' ? &t.x->task.node : &t.a->task.node;
        sem_post(*next == 'a' ? &t.go_a : *next == 'c' ? &t.go_c : &t.go_x);
        while (next[1] && !is_awaited(&host, awaited))
            sched_yield();
    }
    CHECK(host_join(&host, t.a));
    CHECK(host_join(&host, t.x));
    CHECK((t.c_answer == TETHER_DEADLOCK) + (t.x_answer == TETHER_DEADLOCK) >= 1);
    host_finish(&host);
    for (int i = 0; i < 5; i++)
        sem_destroy(all[i]);
}

TEST(a_deadlock_through_a_scope_closed_by_the_child) { triangle("axc"); }
TEST(a_deadlock_through_a_scope_closed_by_the_leaver) { triangle("cxa"); }
TEST(a_deadlock_through_a_scope_closed_by_the_one_outside)
{
    triangle("acx");
    triangle("cax");
}
