/* Loops: who does what, and what is promised if nobody helps, something fails, or somebody has had enough. */
#include "harness.h"

#include <sched.h>

#include "host.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

enum { MOST = 5000 };

/* Counts how often each number was visited, and looks at the parts. */
typedef struct {
    _Atomic int visits[MOST];
    _Atomic long parts, odd;
    size_t grain, n;
} tally_t;

static int visit(void *arg, size_t begin, size_t end)
{
    tally_t *tally = arg;
    atomic_fetch_add(&tally->parts, 1);
    if (begin >= end || begin % tally->grain != 0 || (end % tally->grain != 0 && end != tally->n))
        atomic_fetch_add(&tally->odd, 1);
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&tally->visits[i], 1);
    return 0;
}

static void check_once(const tally_t *tally)
{
    bool once = true;
    for (size_t i = 0; i < MOST; i++)
        once = once && atomic_load(&tally->visits[i]) == (i < tally->n);
    CHECK(once);
    CHECK(atomic_load(&tally->odd) == 0);
}

TEST(every_number_is_in_one_part)
{
    static const size_t sizes[] = {0, 1, 2, 3, 7, 64, 1000, MOST}, grains[] = {0, 1, 3, 64, 4999, MOST + 7};
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                for (unsigned how = 0; how < 8; how++) {
                    tally_t *tally = calloc(1, sizeof *tally);
                    tether_loop_t loop = {.n = sizes[s], .grain = grains[g], .threads = how / 2, .guided = how % 2,
                                          .body = visit, .arg = tally};
                    tally->n = sizes[s];
                    tally->grain = grains[g] ? grains[g] : 1;
                    CHECK(host_loop(&host, &loop) == TETHER_OK);
                    check_once(tally);
                    free(tally);
                }
            }
        }
        host_finish(&host);
    }
}

typedef struct {
    _Atomic size_t covered;
    size_t n;
} vast_t;

static int cover(void *arg, size_t begin, size_t end)
{
    vast_t *vast = arg;
    CHECK(begin < end && end <= vast->n);
    atomic_fetch_add(&vast->covered, end - begin);
    return 0;
}

TEST(a_vast_range_is_cut_without_overflow)
{
    static const size_t grains[] = {0, (size_t)1 << 50, SIZE_MAX / 4, SIZE_MAX / 2 - 1, SIZE_MAX / 2, SIZE_MAX};
    host_t host;
    host_start(&host, (host_options_t){.serial = false});
    for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
        for (int guided = 0; guided < 2; guided++) {
            vast_t vast = {.n = SIZE_MAX / 2};
            tether_loop_t loop = {.n = vast.n, .grain = grains[g], .threads = 4, .guided = guided, .body = cover, .arg = &vast};
            CHECK(host_loop(&host, &loop) == TETHER_OK);
            CHECK(atomic_load(&vast.covered) == vast.n);
        }
    }
    host_finish(&host);
}

/* ---- helpers ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    _Atomic int inside, most;
    _Atomic bool missed; /* somebody has given up waiting for the others */
    int wanted;
    sem_t *holder; /* posted when `wanted` threads are inside */
} meeting_t;

static const uint64_t PATIENCE = 5000000000; /* 5 s */

/* Goes on when `wanted` bodies are at work at the same time. */
static int meet(void *arg, size_t begin, size_t end)
{
    (void)begin, (void)end;
    meeting_t *meeting = arg;
    int now = atomic_fetch_add(&meeting->inside, 1) + 1;
    uint64_t until = tether_now() + PATIENCE;
    while (now < meeting->wanted && (now = atomic_load(&meeting->inside)) < meeting->wanted && !atomic_load(&meeting->missed)) {
        if (tether_now() > until)
            atomic_store(&meeting->missed, true);
        sched_yield();
    }
    return 0;
}

TEST(bodies_run_at_the_same_time)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (int threads = 2; threads <= 5; threads++) {
            bool met = false;
            for (int attempt = 0; !met && attempt < 5; attempt++) { /* that helpers come in time is no promise */
                meeting_t meeting = {.wanted = threads};
                tether_loop_t loop = {.n = (size_t)threads, .threads = (unsigned)threads, .body = meet, .arg = &meeting};
                CHECK(host_loop(&host, &loop) == TETHER_OK);
                CHECK(atomic_load(&meeting.inside) == threads);
                met = !atomic_load(&meeting.missed);
            }
            CHECK(met);
        }
        host_finish(&host);
    }
}

typedef struct {
    host_t *host;
    sem_t held, release;
} holder_t;

static void *hold_host(void *arg)
{
    holder_t *holder = arg;
    host_attach(holder->host);
    sem_post(&holder->held);
    sem_wait(&holder->release);
    host_detach(holder->host);
    return NULL;
}

static int meet_while_held(void *arg, size_t begin, size_t end)
{
    meeting_t *meeting = arg;
    meet(meeting, begin, end);
    if (begin == 0)
        sem_post(meeting->holder);
    return 0;
}

TEST(helpers_need_no_host)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    holder_t holder = {.host = &host};
    pthread_t thread;
    sem_init(&holder.held, 0, 0), sem_init(&holder.release, 0, 0);
    pthread_create(&thread, NULL, hold_host, &holder);
    meeting_t meeting = {.wanted = 2, .holder = &holder.release};
    tether_loop_t loop = {.n = 2, .threads = 2, .body = meet_while_held, .arg = &meeting};
    tether_thread_t *me = host_thread(&host);
    host_detach(&host);
    sem_wait(&holder.held); /* somebody has the host until both bodies have met */
    tether_wait_enter(me);
    CHECK(tether_loop_run(me, &loop) == TETHER_OK);
    tether_wait_leave(me);
    host_attach(&host);
    host_detach(&host);
    pthread_join(thread, NULL);
    host_attach(&host);
    host_finish(&host);
    sem_destroy(&holder.held), sem_destroy(&holder.release);
}

TEST(without_helpers_the_caller_does_it_all)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = false});
    tether_fail_nth(TETHER_FAIL_THREAD, -1);
    tally_t *tally = calloc(1, sizeof *tally);
    tally->n = 100, tally->grain = 1;
    tether_loop_t loop = {.n = 100, .threads = 4, .guided = true, .body = visit, .arg = tally};
    CHECK(host_loop(&host, &loop) == TETHER_OK);
    check_once(tally);
    CHECK(load_relaxed(&host.rt->crew.alive) == 0);
    tether_fail_nth(TETHER_FAIL_THREAD, 0);
    free(tally);
    host_finish(&host);
}

TEST(one_thread_is_enough_for_one_part)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = false});
    tally_t *tally = calloc(1, sizeof *tally);
    tally->n = 100, tally->grain = 100;
    tether_loop_t loop = {.n = 100, .grain = 100, .threads = 4, .body = visit, .arg = tally};
    CHECK(host_loop(&host, &loop) == TETHER_OK);
    CHECK(load_relaxed(&host.rt->crew.alive) == 0);
    free(tally);
    host_finish(&host);
}

static bool nothing(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

/* A body that waits until a task has been run by the only thread that there may be. */
typedef struct {
    host_t *host;
    job_t *job;
} starved_t;

static int let_tasks_start(void *arg, size_t begin, size_t end)
{
    (void)end;
    starved_t *starved = arg;
    while (begin == 0 && !tether_task_ended(&starved->job->task))
        sched_yield();
    return 0;
}

TEST(a_helper_leaves_for_a_task_that_no_other_thread_may_start)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = false, .max_threads = 1});
    starved_t starved = {&host, host_spawn(&host, nothing, NULL)};
    tether_loop_t loop = {.n = 1000, .grain = 1, .threads = 2, .body = let_tasks_start, .arg = &starved};
    CHECK(host_loop(&host, &loop) == TETHER_OK);
    CHECK(host_join(&host, starved.job));
    host_finish(&host);
}

TEST(helpers_are_idle_when_the_loop_is_over)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    meeting_t meeting = {.wanted = 3};
    tether_loop_t loop = {.n = 3, .threads = 3, .body = meet, .arg = &meeting};
    CHECK(host_loop(&host, &loop) == TETHER_OK);
    host_detach(&host);
    while (tether_crew_busy(host.rt) != 0)
        sched_yield();
    while (load_acquire(&host.rt->crew.alive) != 0) /* and they retire */
        sched_yield();
    host_attach(&host);
    host_finish(&host);
}

/* ---- nesting ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    host_t *host;
    int depth;
    _Atomic long *leaves;
} nest_t;

static int nest(void *arg, size_t begin, size_t end)
{
    nest_t *at = arg;
    if (at->depth == 0) {
        atomic_fetch_add(at->leaves, (long)(end - begin));
        return 0;
    }
    for (size_t i = begin; i < end; i++) {
        nest_t below = {at->host, at->depth - 1, at->leaves};
        tether_loop_t loop = {.n = 6, .threads = 3, .guided = true, .body = nest, .arg = &below};
        if (tether_loop_run(host_thread(at->host), &loop) != TETHER_OK)
            return 1;
    }
    return 0;
}

TEST(loops_nest)
{
    host_t host;
    _Atomic long leaves = 0;
    host_start(&host, (host_options_t){.serial = true});
    nest_t top = {&host, 4, &leaves};
    tether_loop_t loop = {.n = 6, .threads = 3, .guided = true, .body = nest, .arg = &top};
    CHECK(host_loop(&host, &loop) == TETHER_OK);
    CHECK(atomic_load(&leaves) == 6 * 6 * 6 * 6 * 6);
    host_finish(&host);
}

typedef struct {
    host_t *host;
    _Atomic int *done;
} crowd_t;

static void *one_of_a_crowd(void *arg)
{
    crowd_t *crowd = arg;
    tally_t *tally = calloc(1, sizeof *tally);
    for (int round = 0; round < 20; round++) {
        memset((void *)tally, 0, sizeof *tally);
        tally->n = MOST, tally->grain = 1;
        tether_loop_t loop = {.n = MOST, .threads = 3, .guided = round % 2, .body = visit, .arg = tally};
        host_attach(crowd->host);
        CHECK(host_loop(crowd->host, &loop) == TETHER_OK);
        host_detach(crowd->host);
        check_once(tally);
    }
    free(tally);
    atomic_fetch_add(crowd->done, 1);
    return NULL;
}

TEST(there_may_be_more_loops_than_seats)
{
    enum { N = TETHER_SEATS + 8 };
    host_t host;
    _Atomic int done = 0;
    host_start(&host, (host_options_t){.serial = false});
    pthread_t threads[N];
    crowd_t crowd = {&host, &done};
    for (int i = 0; i < N; i++)
        pthread_create(&threads[i], NULL, one_of_a_crowd, &crowd);
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&done) == N);
    host_finish(&host);
}

/* ---- giving up ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t bad;
    _Atomic long begun;
    tether_task_t *cancel; /* by the body that has `bad` */
} fault_t;

static int fail_at(void *arg, size_t begin, size_t end)
{
    fault_t *fault = arg;
    atomic_fetch_add(&fault->begun, 1);
    return begin <= fault->bad && fault->bad < end ? 42 : 0;
}

TEST(what_a_body_answers_is_told_with_its_part)
{
    BOTH_HOSTS(serial) {
        host_t host;
        host_start(&host, (host_options_t){.serial = serial});
        for (unsigned threads = 1; threads <= 3; threads++) {
            for (int guided = 0; guided < 2; guided++) {
                fault_t fault = {.bad = 77};
                tether_loop_t loop = {.n = MOST, .grain = 5, .threads = threads, .guided = guided, .body = fail_at};
                loop.arg = &fault;
                CHECK(host_loop(&host, &loop) == TETHER_FAILED);
                CHECK(loop.code == 42 && loop.begin <= 77 && 77 < loop.end);
            }
        }
        host_finish(&host);
    }
}

TEST(after_a_failure_nothing_is_begun)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    fault_t fault = {.bad = 3};
    tether_loop_t loop = {.n = MOST, .grain = 1, .threads = 1, .body = fail_at, .arg = &fault};
    CHECK(host_loop(&host, &loop) == TETHER_FAILED);
    CHECK(atomic_load(&fault.begun) == 4);
    fault = (fault_t){.bad = 3};
    loop.threads = 2; /* and nobody comes */
    tether_fail_nth(TETHER_FAIL_THREAD, -1);
    CHECK(host_loop(&host, &loop) == TETHER_FAILED);
    tether_fail_nth(TETHER_FAIL_THREAD, 0);
    CHECK(atomic_load(&fault.begun) == 4);
    host_finish(&host);
}

static int cancel_at(void *arg, size_t begin, size_t end)
{
    fault_t *fault = arg;
    atomic_fetch_add(&fault->begun, 1);
    if (begin <= fault->bad && fault->bad < end)
        tether_task_cancel(fault->cancel, 0);
    return 0;
}

typedef struct {
    tether_status_t status;
    long begun;
} looper_t;

static bool loop_until_cancelled(host_t *host, void *arg)
{
    looper_t *looper = arg;
    fault_t fault = {.bad = 3, .cancel = load_relaxed(&host_thread(host)->top)};
    tether_loop_t loop = {.n = MOST, .grain = 1, .threads = 1, .body = cancel_at, .arg = &fault};
    looper->status = host_loop(host, &loop);
    looper->begun = atomic_load(&fault.begun);
    return true;
}

TEST(a_cancelled_caller_stops_between_parts)
{
    BOTH_HOSTS(serial) {
        host_t host;
        looper_t looper;
        host_start(&host, (host_options_t){.serial = serial});
        CHECK(host_join(&host, host_spawn(&host, loop_until_cancelled, &looper)));
        CHECK(looper.status == TETHER_CANCELLED);
        CHECK(looper.begun == 4);
        host_finish(&host);
    }
}

static bool never_begun(host_t *host, void *arg)
{
    looper_t *looper = arg;
    fault_t fault = {.bad = MOST, .cancel = load_relaxed(&host_thread(host)->top)};
    tether_task_cancel(fault.cancel, 0);
    tether_loop_t loop = {.n = MOST, .threads = 2, .body = cancel_at, .arg = &fault};
    looper->status = host_loop(host, &loop);
    looper->begun = atomic_load(&fault.begun);
    return true;
}

TEST(a_cancelled_task_begins_no_loop)
{
    host_t host;
    looper_t looper;
    host_start(&host, (host_options_t){.serial = true});
    CHECK(host_join(&host, host_spawn(&host, never_begun, &looper)));
    CHECK(looper.status == TETHER_CANCELLED && looper.begun == 0);
    host_finish(&host);
}

typedef struct {
    host_t *host;
    _Atomic int looks, inside, came;
} watched_t;

static bool had_enough(void *arg)
{
    atomic_fetch_add(&((watched_t *)arg)->looks, 1);
    return false;
}

static int take_a_moment(void *arg, size_t begin, size_t end)
{
    watched_t *watched = arg;
    (void)begin, (void)end;
    atomic_fetch_add(&watched->inside, 1);
    usleep(1000);
    atomic_fetch_sub(&watched->inside, 1);
    return 0;
}

TEST(a_look_may_end_the_loop_between_parts)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    watched_t watched = {.host = &host};
    tether_loop_t loop = {.n = 1000000, .grain = 1, .threads = 2, .body = take_a_moment, .arg = &watched,
                          .look = had_enough, .look_arg = &watched};
    CHECK(host_loop(&host, &loop) == TETHER_INTERRUPTED);
    CHECK(atomic_load(&watched.looks) == 1);
    CHECK(atomic_load(&watched.inside) == 0); /* all bodies have returned */
    host_finish(&host);
}

/* Both threads have a part; the helper's lasts until the caller, which waits for it, has looked. */
static int until_looked(void *arg, size_t begin, size_t end)
{
    watched_t *watched = arg;
    (void)begin, (void)end;
    atomic_fetch_add(&watched->came, 1);
    while (atomic_load(&watched->came) < 2)
        sched_yield();
    while (host_thread(watched->host)->crew && atomic_load(&watched->looks) == 0)
        sched_yield();
    return 0;
}

TEST(the_caller_looks_while_it_waits_for_helpers)
{
    host_t host;
    host_start(&host, (host_options_t){.serial = true});
    watched_t watched = {.host = &host};
    tether_loop_t loop = {.n = 2, .threads = 2, .body = until_looked, .arg = &watched,
                          .look = had_enough, .look_arg = &watched};
    CHECK(host_loop(&host, &loop) == TETHER_INTERRUPTED);
    CHECK(atomic_load(&watched.looks) == 1);
    host_finish(&host);
}
