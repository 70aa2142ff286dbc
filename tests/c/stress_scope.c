/* Nested scopes with children that fail, cancel, spawn siblings, and handles that are joined, dropped or kept. */
#include "harness.h"

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    return *seed ^= *seed << 5;
}

typedef struct actor {
    tether_scope_t *scope; /* whose child it is */
    uint32_t seed;
    int depth;
    struct actor *next;
} actor_t;

static _Atomic(actor_t *) actors; /* all of a test, freed after it: those that are cancelled never run */

static bool act(host_t *host, void *arg);

static job_t *spawn_actor(host_t *host, tether_scope_t *scope, uint32_t seed, int depth)
{
    actor_t *actor = malloc(sizeof *actor);
    *actor = (actor_t){scope, seed | 1, depth, atomic_load(&actors)};
    while (!atomic_compare_exchange_weak(&actors, &actor->next, actor))
        ;
    return host_spawn_in(host, scope, act, actor, 0, NULL);
}

/* Opens a scope with a few children and leaves it; returns the failures that came out. */
static long block(host_t *host, const actor_t *self, uint32_t *seed)
{
    enum { N = 4 };
    job_t *jobs[N];
    bool reaped[N] = {false};
    tether_scope_t *scope = tether_scope_open(host_thread(host), TETHER_FOREVER);
    if (next_random(seed) % 4 == 0)
        or_acq_rel(&scope->flags, TETHER_SCOPE_WAIT_ALL);
    for (int i = 0; i < N; i++)
        jobs[i] = spawn_actor(host, scope, next_random(seed), self->depth - 1);
    for (int i = 0; i < N; i++) {
        switch (next_random(seed) % 8) {
        case 0:
        case 1: /* join; a failure is collected then */
            if (host_wait(host, jobs[i], next_random(seed) % 2 ? HOST_HELP : 0, TETHER_FOREVER) == TETHER_OK) {
                host_reap(host, jobs[i]);
                reaped[i] = true;
            }
            break;
        case 2:
            host_cancel(host, jobs[i]);
            break;
        case 3:
            tether_scope_cancel(scope);
            break;
        case 4:
        case 5: /* the handle goes */
            host_loosen(host, jobs[i], 0);
            jobs[i] = NULL;
            break;
        default:
            break;
        }
    }
    long failures = host_leave(host, scope);
    for (int i = 0; i < N; i++) {
        if (jobs[i] == NULL)
            continue;
        CHECK(tether_task_ended(&jobs[i]->task));
        if (!reaped[i] && !jobs[i]->failed)
            host_reap(host, jobs[i]);
        host_drop(host, jobs[i]);
    }
    return failures;
}

static bool act(host_t *host, void *arg)
{
    actor_t self = *(actor_t *)arg;
    uint32_t seed = self.seed;
    bool ok = next_random(&seed) % 5 != 0;
    if (self.depth > 0)
        block(host, &self, &seed);
    else if (next_random(&seed) % 16 == 0)
        host_sleep(host, tether_now() + 100000);
    if (self.depth == 1 && next_random(&seed) % 2 == 0) /* we live, so the scope takes more */
        host_loosen(host, spawn_actor(host, self.scope, next_random(&seed), 0), 0);
    return ok;
}

static void *run_blocks(void *arg)
{
    host_t *host = arg;
    host_attach(host);
    uint32_t seed = (uint32_t)load_relaxed(&host_thread(host)->native_id) * 2654435761u | 1;
    actor_t root = {.seed = seed, .depth = 3};
    for (int i = 0; i < SCALE(60, 8); i++) {
        block(host, &root, &seed);
        CHECK(!tether_thread_cancelled(host_thread(host)));
    }
    host_detach(host);
    return NULL;
}

TEST(random_nested_scopes)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        pthread_t threads[2];
        host_detach(&host);
        for (int i = 0; i < 2; i++)
            pthread_create(&threads[i], NULL, run_blocks, &host);
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        host_attach(&host);
        CHECK(atomic_load(&host.refused) == 0); /* nobody waits in a circle here */
        host_finish(&host);
        for (actor_t *actor = atomic_exchange(&actors, NULL), *next; actor; actor = next) {
            next = actor->next;
            free(actor);
        }
    }
}

/* The leaver claims as fast as it can while its children spawn siblings: the moment between admitted and queued. */
typedef struct {
    tether_scope_t *scope;
    _Atomic int left;
} breeder_t;

static bool breed(host_t *host, void *arg)
{
    breeder_t *breeder = arg;
    for (int i = 0; i < 3; i++)
        if (atomic_fetch_sub(&breeder->left, 1) > 0)
            host_loosen(host, host_spawn_in(host, breeder->scope, breed, breeder, 0, NULL), 0);
    return true;
}

TEST(leaver_claims_while_children_breed)
{
    for (int round = 0; round < SCALE(60, 20); round++) {
        host_t host;
        breeder_t breeder;
        host_start(&host, (host_options_t){.serial = false, .lanes = 1 + round % 2});
        tether_thread_t *thread = host_thread(&host);
        breeder.scope = tether_scope_open(thread, TETHER_FOREVER);
        atomic_store(&breeder.left, SCALE(3000, 500));
        for (int i = 0; i < 4; i++)
            host_loosen(&host, host_spawn_in(&host, breeder.scope, breed, &breeder, 0, NULL), 0);
        tether_scope_leave(breeder.scope);
        while (!tether_scope_close(breeder.scope)) {
            tether_task_t *task = tether_scope_claim(thread, breeder.scope);
            if (task != NULL)
                host_run(&host, (job_t *)task);
        }
        CHECK(tether_lane_queued(host.rt, true) == 0);
        tether_scope_done(thread, breeder.scope);
        host_finish(&host);
    }
}

/* Sends race with the ends of what is sent. */
static bool end_somehow(host_t *host, void *arg)
{
    (void)host;
    return (uintptr_t)arg % 3 != 0;
}

TEST(send_against_end)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        tether_thread_t *thread = host_thread(&host);
        enum { N = 16 };
        for (int round = 0; round < SCALE(1500, 200); round++) {
            job_t *jobs[N];
            long failed = 0;
            for (uintptr_t i = 0; i < N; i++) {
                jobs[i] = host_spawn(&host, end_somehow, (void *)i);
                failed += i % 3 == 0;
            }
            host_yield(&host);
            tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
            or_acq_rel(&scope->flags, TETHER_SCOPE_WAIT_ALL); /* else the first failure would end the others unrun */
            for (int i = 0; i < N; i++) {
                tether_lane_arm(tether_task_lane(&jobs[i]->task), -1);
                CHECK(tether_owner_send(thread, &jobs[i]->task, scope) == TETHER_OK);
            }
            CHECK(host_leave(&host, scope) == failed);
            for (int i = 0; i < N; i++) {
                if (!jobs[i]->failed)
                    host_reap(&host, jobs[i]);
                host_drop(&host, jobs[i]);
            }
        }
        host_finish(&host);
    }
}

/* A join of a child races with the scope's collecting: each failure is delivered exactly once. */
typedef struct {
    job_t *job;
    _Atomic long *delivered;
} rival_t;

static bool take_failure(host_t *host, void *arg)
{
    rival_t *rival = arg;
    tether_status_t status = host_wait(host, rival->job, HOST_ELSEWHERE, TETHER_FOREVER);
    CHECK(status == TETHER_OK);
    tether_task_t *task = &rival->job->task;
    if (tether_task_reap(task)) {
        atomic_fetch_add(rival->delivered, 1);
        rival->job->has_value = false;
        atomic_fetch_add(&host->values_gone, 1);
        if (tether_scope_forget(tether_task_scope(task), task))
            tether_task_unref(host_thread(host), task);
    }
    host_drop(host, rival->job);
    return true;
}

static bool just_fail(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return false;
}

TEST(join_against_collect)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        tether_thread_t *thread = host_thread(&host);
        enum { N = 8 };
        for (int round = 0; round < SCALE(800, 120); round++) {
            _Atomic long delivered = 0;
            rival_t rivals[N];
            job_t *takers[N];
            tether_scope_t *scope = tether_scope_open(thread, TETHER_FOREVER);
            for (int i = 0; i < N; i++) {
                rivals[i] = (rival_t){host_spawn_in(&host, scope, just_fail, NULL, 0, NULL), &delivered};
                takers[i] = host_spawn(&host, take_failure, &rivals[i]);
            }
            long collected = host_leave(&host, scope);
            for (int i = 0; i < N; i++)
                CHECK(host_join(&host, takers[i]));
            CHECK(collected + atomic_load(&delivered) == N);
        }
        host_finish(&host);
    }
}
