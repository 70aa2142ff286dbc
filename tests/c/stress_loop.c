/* Loops of many threads at once, nested and not, with bodies that fail, among tasks that come and go. */
#include "harness.h"

#include <sched.h>

#include "host.h"

enum { THREADS = 4, ROUNDS = SCALE(6000, 500), RANGE = 300 };

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    return *seed ^= *seed << 5;
}

/* What a loop works on is plain memory on its caller's stack: a helper that stays too long writes into the next loop's. */
typedef struct {
    host_t *host;
    uint32_t secret;
    int depth;
    size_t bad;
    uint32_t cells[RANGE];
} plot_t;

static tether_status_t till(host_t *host, uint32_t *seed, int depth);

static int dig(void *arg, size_t begin, size_t end)
{
    plot_t *plot = arg;
    for (size_t i = begin; i < end; i++) {
        plot->cells[i] += plot->secret;
        if (i == plot->bad)
            return (int)plot->secret | 1;
        if (plot->depth > 0 && i % 97 == 0) {
            uint32_t seed = (uint32_t)i * 2654435761u + plot->secret;
            seed |= 1;
            till(plot->host, &seed, plot->depth - 1);
        }
    }
    return 0;
}

/* Detached. */
static tether_status_t till(host_t *host, uint32_t *seed, int depth)
{
    plot_t plot = {.host = host, .secret = next_random(seed) | 1, .depth = depth, .bad = next_random(seed) % (2 * RANGE)};
    size_t n = next_random(seed) % (RANGE + 1);
    tether_loop_t loop = {.n = n, .grain = next_random(seed) % 9, .threads = next_random(seed) % 5,
                          .guided = next_random(seed) % 2, .body = dig, .arg = &plot};
    tether_status_t status = tether_loop_run(host_thread(host), &loop);
    if (plot.bad < n)
        CHECK(status == TETHER_FAILED && loop.code == (int)(plot.secret | 1) && loop.begin <= plot.bad && plot.bad < loop.end);
    else
        CHECK(status == TETHER_OK);
    bool sound = true;
    for (size_t i = 0; i < RANGE; i++) {
        uint32_t want = i < n ? plot.secret : 0;
        sound = sound && (plot.cells[i] == want || (status == TETHER_FAILED && plot.cells[i] == 0));
    }
    CHECK(sound);
    return status;
}

static bool looping_task(host_t *host, void *arg)
{
    uint32_t seed = (uint32_t)(uintptr_t)arg | 1;
    tether_thread_t *thread = host_thread(host);
    host_detach(host);
    tether_wait_enter(thread);
    till(host, &seed, 1);
    tether_wait_leave(thread);
    host_attach(host);
    return true;
}

typedef struct {
    host_t *host;
    uint32_t seed;
} farmer_t;

static void *farm(void *arg)
{
    farmer_t *farmer = arg;
    host_t *host = farmer->host;
    host_attach(host);
    for (int round = 0; round < ROUNDS; round++) {
        if (next_random(&farmer->seed) % 8 != 0) {
            looping_task(host, (void *)(uintptr_t)next_random(&farmer->seed));
            continue;
        }
        job_t *jobs[3];
        for (int i = 0; i < 3; i++)
            jobs[i] = host_spawn(host, looping_task, (void *)(uintptr_t)next_random(&farmer->seed));
        for (int i = 0; i < 3; i++)
            CHECK(host_join(host, jobs[i]));
    }
    host_detach(host);
    return NULL;
}

static void farms(bool serial)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = serial});
    host_detach(&host);
    pthread_t threads[THREADS];
    farmer_t farmers[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        farmers[i] = (farmer_t){&host, i * 7919 + 17};
        pthread_create(&threads[i], NULL, farm, &farmers[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    host_attach(&host);
    host_finish(&host);
}

TEST(loops_among_tasks_with_a_gil) { farms(true); }
TEST(loops_among_tasks_without) { farms(false); }

/* One tiny loop after another: helpers come and go while the seat changes hands. */
static int one(void *arg, size_t begin, size_t end)
{
    *(size_t *)arg += end - begin;
    return 0;
}

typedef struct {
    size_t halves[2][16]; /* apart */
} two_t;

static int half(void *arg, size_t begin, size_t end)
{
    two_t *two = arg;
    return one(two->halves[begin], begin, end);
}

TEST(tiny_loops_in_a_row)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    two_t two = {0};
    enum { N = SCALE(300000, 20000) };
    for (int i = 0; i < N; i++) {
        tether_loop_t loop = {.n = 2, .threads = 2, .body = half, .arg = &two};
        CHECK(host_loop(&host, &loop) == TETHER_OK);
    }
    CHECK(two.halves[0][0] == N && two.halves[1][0] == N);
    host_finish(&host);
}

/* An exit while a loop is open that no exit waits for: the runtime stops, the caller finishes alone. */
typedef struct {
    host_t *host;
    _Atomic int at_work, stopped;
} leftover_t;

static int last_long(void *arg, size_t begin, size_t end)
{
    (void)begin, (void)end;
    leftover_t *leftover = arg;
    atomic_fetch_add(&leftover->at_work, 1);
    while (atomic_load(&leftover->stopped) == 0 && !host_thread(leftover->host)->crew)
        sched_yield();
    return 0;
}

static void *go_on(void *arg)
{
    leftover_t *leftover = arg;
    tether_thread_t *me = host_thread(leftover->host);
    tether_loop_t loop = {.n = 1000, .grain = 1, .threads = 3, .body = last_long, .arg = leftover};
    tether_wait_enter(me);
    CHECK(tether_loop_run(me, &loop) == TETHER_OK);
    tether_wait_leave(me);
    return NULL;
}

TEST(the_runtime_stops_beside_a_loop)
{
    for (int round = 0; round < SCALE(100, 20); round++) {
        host_t host;
        pthread_t thread;
        host_start(&host, (host_options_t){.serial = false});
        leftover_t leftover = {.host = &host};
        pthread_create(&thread, NULL, go_on, &leftover);
        while (atomic_load(&leftover.at_work) < round % 3)
            sched_yield();
        tether_runtime_stop(host.rt);
        CHECK(load_relaxed(&host.rt->crew.alive) == 0);
        atomic_store(&leftover.stopped, 1);
        pthread_join(thread, NULL);
        host_finish(&host);
    }
}
