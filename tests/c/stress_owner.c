/* Several threads move guards about at random, while their tasks end: the ownership graph stays a forest. */
#include "harness.h"

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

enum { NODES = 24, MOVERS = 3, MOVES = SCALE(8000, 1000) };

typedef struct {
    host_t *host;
    job_t *jobs[NODES]; /* all alive, each asleep until `over` */
    sem_t over;
    _Atomic long moved, cycles, refused;
} grove_t;

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    return *seed ^= *seed << 5;
}

static bool stand(host_t *host, void *grove)
{
    host_sem_wait(host, &((grove_t *)grove)->over);
    return true;
}

/* No way up is longer than there are nodes. */
static void check_forest(grove_t *grove)
{
    tether_lock(&grove->host->rt->graph);
    for (int i = 0; i < NODES; i++) {
        int steps = 0;
        for (tether_node_t *n = &grove->jobs[i]->task.node; n && steps <= NODES; n = load_relaxed(&n->owner))
            steps++;
        CHECK(steps <= NODES);
    }
    tether_unlock(&grove->host->rt->graph);
}

static void *move_about(void *arg)
{
    grove_t *grove = arg;
    host_t *host = grove->host;
    host_attach(host);
    tether_thread_t *thread = host_thread(host);
    uint32_t seed = (uint32_t)load_relaxed(&thread->native_id) * 2654435761u | 1;
    for (int i = 0; i < MOVES; i++) {
        tether_task_t *tasks[3];
        tether_node_t *scratch[3];
        size_t n = 1 + next_random(&seed) % 3, culprit = 0;
        for (size_t k = 0; k < n; k++)
            tasks[k] = &grove->jobs[next_random(&seed) % NODES]->task;
        uint32_t pick = next_random(&seed) % (NODES + 4);
        /* Acts as any of the tasks, or as the root; a stack frame is all that makes the difference. */
        uint32_t as = next_random(&seed) % (2 * NODES);
        tether_node_t *to = pick < NODES ? &grove->jobs[pick]->task.node : NULL;
        tether_task_t *before = load_relaxed(&thread->top);
        if (as < NODES)
            store_relaxed(&thread->top, &grove->jobs[as]->task);
        switch (tether_owner_move(thread, tasks, scratch, n, to, &culprit)) {
        case TETHER_OK:
            atomic_fetch_add(&grove->moved, 1);
            break;
        case TETHER_CYCLE:
            CHECK(culprit < n);
            atomic_fetch_add(&grove->cycles, 1);
            break;
        default:
            CHECK(culprit < n);
            atomic_fetch_add(&grove->refused, 1);
        }
        store_relaxed(&thread->top, before);
        if (i % 64 == 0)
            check_forest(grove);
        if (i % 16 == 0)
            host_yield(host);
    }
    host_detach(host);
    return NULL;
}

TEST(random_moves_keep_a_forest)
{
    BOTH_HOSTS(serial) {
        host_t host;
        grove_t grove = {.host = &host};
        sem_init(&grove.over, 0, 0);
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < NODES; i++)
            grove.jobs[i] = host_spawn(&host, stand, &grove);
        pthread_t threads[MOVERS];
        host_detach(&host);
        for (int i = 0; i < MOVERS; i++)
            pthread_create(&threads[i], NULL, move_about, &grove);
        for (int i = 0; i < MOVERS; i++)
            pthread_join(threads[i], NULL);
        host_attach(&host);
        CHECK(atomic_load(&grove.moved) > 0 && atomic_load(&grove.cycles) > 0 && atomic_load(&grove.refused) > 0);
        for (int i = 0; i < NODES; i++)
            sem_post(&grove.over);
        for (int i = 0; i < NODES; i++)
            CHECK(host_join(&host, grove.jobs[i]));
        host_finish(&host);
        sem_destroy(&grove.over);
    }
}

/* A task ends while its owner gives its guard away, ends and is freed: the end looks at its owner meanwhile. */
typedef struct {
    _Atomic(job_t *) child;
} cradle_t;

static bool be_short(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

static bool give_away(host_t *host, void *arg)
{
    cradle_t *cradle = arg;
    tether_node_t *scratch[1];
    size_t culprit;
    job_t *child = host_spawn(host, be_short, NULL);
    tether_task_t *task = &child->task;
    if (!host->serial) { /* if the crew is there to take it */
        tether_crew_nudge(host->rt);
        for (int i = 0; i < 2000 && tether_state(tether_task_word(task)) == TETHER_QUEUED; i++)
            tether_pause();
    }
    for (volatile int spin = 0; spin < (int)(task->id % 100); spin++)
        ;
    CHECK(tether_owner_move(host_thread(host), &task, scratch, 1, NULL, &culprit) == TETHER_OK);
    atomic_store(&cradle->child, child);
    return true;
}

TEST(an_end_races_with_a_move)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < SCALE(20000, 3000); i++) {
            cradle_t cradle = {NULL};
            CHECK(host_join(&host, host_spawn(&host, give_away, &cradle)));
            job_t *again = host_spawn(&host, be_short, NULL); /* in the block of the one that gave the guard away */
            job_t *child = atomic_load(&cradle.child);
            CHECK(tether_owner_is(&child->task, NULL));
            CHECK(host_join(&host, child));
            CHECK(host_join(&host, again));
        }
        host_finish(&host);
    }
}

/* Guards that ended tasks leave behind, joined by whoever inherits them. */
static bool leave_some(host_t *host, void *arg)
{
    _Atomic(job_t *) *left = arg;
    for (int i = 0; i < 3; i++)
        atomic_store(&left[i], host_spawn(host, be_short, NULL));
    return true;
}

TEST(heirs_join)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (int i = 0; i < SCALE(3000, 400); i++) {
            _Atomic(job_t *) left[3];
            CHECK(host_join(&host, host_spawn(&host, leave_some, left)));
            for (int k = 0; k < 3; k++) {
                job_t *job = atomic_load(&left[k]);
                CHECK(tether_owner_is(&job->task, NULL));
                CHECK(host_join(&host, job));
            }
        }
        host_finish(&host);
    }
}
