/* Deadlocks over borrows: told to one of those who wait, and to nobody else. fault 21. */
#include "harness.h"

#include "borrowing.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

typedef struct actor actor_t;

typedef struct {
    host_t host;
    tether_book_t book;
} stage_t;

/* Takes `held` if it is not empty, then waits for `wanted`, for the end of `joins`, or for nothing. */
struct actor {
    stage_t *stage;
    tether_loan_t held, wanted;
    actor_t *joins;
    bool wants, started;
    uint64_t deadline;
    job_t *job;
    sem_t holds, go;
    tether_status_t answer;
    size_t cycle_len;
};

static tether_status_t want(actor_t *a)
{
    tether_wait_t how = {.deadline = a->deadline};
    tether_status_t status = borrow_or_wait(&a->stage->host, &a->stage->book, &a->wanted, &how);
    a->cycle_len = status == TETHER_DEADLOCK ? how.cycle_len : 0;
    forget(&a->stage->host, &a->wanted);
    return status;
}

static bool play(host_t *host, void *arg)
{
    actor_t *a = arg;
    if (a->held.stop != 0 && a->held.book == NULL) /* else it was given one */
        CHECK(borrow(host, &a->stage->book, &a->held) == TETHER_OK);
    sem_post(&a->holds);
    host_sem_wait(host, &a->go);
    if (a->wants)
        a->answer = want(a);
    else if (a->joins != NULL)
        a->answer = host_wait(host, a->joins->job, HOST_ELSEWHERE, TETHER_FOREVER);
    return true;
}

static void set_stage(stage_t *stage, bool serial)
{
    memset(stage, 0, sizeof *stage);
    host_start(&stage->host, (host_options_t){.serial = serial});
}

static void cast(stage_t *stage, actor_t *a)
{
    a->stage = stage;
    if (a->deadline == 0)
        a->deadline = TETHER_FOREVER;
    sem_init(&a->holds, 0, 0);
    sem_init(&a->go, 0, 0);
}

static void enter(stage_t *stage, actor_t *a)
{
    cast(stage, a);
    a->job = host_spawn(&stage->host, play, a);
    host_sem_wait(&stage->host, &a->holds);
}

/* Lets it go to sleep, or find that it must not. */
static void go(actor_t *a)
{
    sem_post(&a->go);
    while (!is_asleep(&a->stage->host, a->job) && !tether_task_ended(&a->job->task))
        host_yield(&a->stage->host);
}

static void leave(actor_t *a)
{
    host_join(&a->stage->host, a->job);
    if (a->held.book != NULL)
        forget(&a->stage->host, &a->held);
    sem_destroy(&a->holds);
    sem_destroy(&a->go);
}

static void clear_stage(stage_t *stage)
{
    CHECK(tether__book_is_sound(&stage->book));
    CHECK(stage->book.lent.root.n == 0 && stage->book.first == NULL);
    host_finish(&stage->host);
}

TEST(two_tasks_wait_for_each_others_borrow)
{
    BOTH_HOSTS(serial) {
        stage_t stage;
        set_stage(&stage, serial);
        actor_t a = {.held = writing(0, 10), .wants = true, .wanted = reading(15, 16)};
        actor_t b = {.held = writing(10, 20), .wants = true, .wanted = writing(0, 5)};
        enter(&stage, &a);
        enter(&stage, &b);
        go(&a);
        go(&b);
        leave(&a);
        leave(&b);
        CHECK(a.answer == TETHER_OK && b.answer == TETHER_DEADLOCK); /* whoever closes it is told */
        CHECK(b.cycle_len == 2);
        clear_stage(&stage);
    }
}

static void ring(int n)
{
    stage_t stage;
    set_stage(&stage, false);
    actor_t *actors = calloc((size_t)n, sizeof *actors);
    for (int i = 0; i < n; i++) {
        actors[i].held = writing((size_t)i, (size_t)i + 1);
        actors[i].wanted = writing((size_t)((i + 1) % n), (size_t)((i + 1) % n) + 1);
        actors[i].wants = true;
        enter(&stage, &actors[i]);
    }
    for (int i = 0; i < n; i++)
        go(&actors[i]);
    for (int i = 0; i < n; i++)
        leave(&actors[i]);
    for (int i = 0; i < n; i++)
        CHECK(actors[i].answer == (i == n - 1 ? TETHER_DEADLOCK : TETHER_OK));
    CHECK(actors[n - 1].cycle_len == (size_t)(n < TETHER_CYCLE_MAX ? n : TETHER_CYCLE_MAX));
    free(actors);
    clear_stage(&stage);
}

TEST(three_tasks_in_a_ring_of_borrows) { ring(3); }
TEST(a_ring_longer_than_the_report) { ring(SCALE(300, 40)); }

TEST(a_task_waits_for_its_own_borrow)
{
    stage_t stage;
    set_stage(&stage, false);
    actor_t a = {.held = reading(0, 10), .wants = true, .wanted = writing(3, 4)};
    enter(&stage, &a);
    go(&a);
    leave(&a);
    CHECK(a.answer == TETHER_DEADLOCK && a.cycle_len == 1);
    clear_stage(&stage);
}

TEST(a_borrow_and_a_join_close_a_ring)
{
    for (int join_last = 0; join_last < 2; join_last++) {
        stage_t stage;
        set_stage(&stage, false);
        actor_t a = {.held = writing(0, 10)}, b = {.wants = true, .wanted = reading(9, 10)};
        a.joins = &b;
        enter(&stage, &a);
        enter(&stage, &b);
        go(join_last ? &b : &a);
        go(join_last ? &a : &b);
        leave(&a);
        leave(&b);
        CHECK((join_last ? a : b).answer == TETHER_DEADLOCK);
        CHECK((join_last ? b : a).answer == TETHER_OK);
        clear_stage(&stage);
    }
}

/* a holds, and joins in place b, which wants. */
static bool want_in_place(host_t *host, void *arg)
{
    (void)host;
    actor_t *a = arg;
    a->answer = want(a);
    return true;
}

static bool hold_and_join(host_t *host, void *arg)
{
    actor_t *a = arg;
    tether_loan_t held = writing(0, 10);
    CHECK(borrow(host, &a->stage->book, &held) == TETHER_OK);
    CHECK(host_join(host, host_spawn(host, want_in_place, a)));
    forget(host, &held);
    return true;
}

TEST(the_task_below_on_the_same_stack_holds_it)
{
    stage_t stage;
    set_stage(&stage, true);
    actor_t a = {.wanted = reading(0, 1)};
    cast(&stage, &a);
    CHECK(host_join(&stage.host, host_spawn(&stage.host, hold_and_join, &a)));
    CHECK(a.answer == TETHER_DEADLOCK && a.cycle_len == 1);
    clear_stage(&stage);
}

/* The reader waits behind a writer that waits for the reader. */
TEST(an_older_claim_in_the_ring)
{
    stage_t stage;
    set_stage(&stage, false);
    actor_t a = {.held = reading(0, 10), .wants = true, .wanted = reading(0, 5)}, b = {.wants = true, .wanted = writing(0, 10)};
    enter(&stage, &a);
    enter(&stage, &b);
    go(&b);
    go(&a);
    leave(&a);
    leave(&b);
    CHECK(a.answer == TETHER_DEADLOCK && b.answer == TETHER_OK);
    CHECK(a.cycle_len == 2);
    clear_stage(&stage);
}

/* ... but if the writer will give up, the reader's wait ends. */
TEST(an_older_claim_with_a_deadline_is_no_deadlock)
{
    stage_t stage;
    set_stage(&stage, false);
    actor_t a = {.held = reading(0, 10), .wants = true, .wanted = reading(0, 5)};
    enter(&stage, &a);
    tether_loan_t wanted = writing(0, 10);
    tether_claim_t claim;
    tether_thread_t *thread = host_thread(&stage.host);
    CHECK(tether_borrow_queue(thread, &stage.book, &claim, &wanted) == TETHER_CONFLICT);
    go(&a);
    CHECK(!tether_task_ended(&a.job->task)); /* it sleeps, and was not told of a deadlock */
    tether_wait_t how = {.deadline = 1};
    CHECK(sleep_for(&stage.host, &claim, &how) == TETHER_TIMEOUT);
    CHECK(tether_borrow_leave(&claim, NULL, NULL) == TETHER_CONFLICT);
    leave(&a);
    CHECK(a.answer == TETHER_OK);
    clear_stage(&stage);
}

TEST(the_holder_has_moved_its_loan)
{
    for (int back = 0; back < 2; back++) { /* the new holder only ends; or it waits for the old one */
        stage_t stage;
        set_stage(&stage, false);
        actor_t b = {.held = writing(0, 10)}, a = {.wants = true, .wanted = reading(0, 1)};
        CHECK(borrow(&stage.host, &stage.book, &b.held) == TETHER_OK);
        cast(&stage, &b);
        tether_task_t *task = tether_task_new(host_thread(&stage.host), NULL);
        tether_loan_move(host_thread(&stage.host), &b.held, task);
        CHECK(load_relaxed(&b.held.holder) == task && tether_task_borrows(task));
        tether_loan_move(host_thread(&stage.host), &b.held, NULL); /* the spawn failed: back */
        tether_task_discard(host_thread(&stage.host), task);
        enter(&stage, &a);
        if (back)
            b.joins = &a;
        b.job = host_spawn(&stage.host, play, &b);
        host_sem_wait(&stage.host, &b.holds);
        tether_loan_move(host_thread(&stage.host), &b.held, &b.job->task); /* it has not looked at it yet */
        go(&a);
        CHECK(!tether_task_ended(&a.job->task));
        go(&b);
        leave(&a);
        leave(&b);
        CHECK(a.answer == TETHER_OK && (!back || b.answer == TETHER_DEADLOCK));
        clear_stage(&stage);
    }
}

/* A lender that has lent a part and waits: the rest is its to give back, too. */
TEST(a_lender_is_in_the_ring_beside_its_part)
{
    stage_t stage;
    set_stage(&stage, false);
    actor_t a = {.held = writing(0, 100)}, b = {.wants = true, .wanted = reading(50, 60)};
    a.joins = &b;
    enter(&stage, &a);
    tether_loan_t part = writing(0, 10), *list[] = {&part};
    CHECK(tether_loan_lend(host_thread(&stage.host), &a.held, list, 1) == TETHER_OK); /* the root's: it keeps nobody */
    enter(&stage, &b);
    go(&a);
    go(&b);
    leave(&b);
    host_join(&stage.host, a.job);
    CHECK(b.answer == TETHER_DEADLOCK && a.answer == TETHER_OK);
    forget(&stage.host, &part);
    forget(&stage.host, &a.held);
    clear_stage(&stage);
}

/* ---- scopes ---- */

typedef struct {
    stage_t stage;
    actor_t child, outside, between;
    sem_t runs, go;
    int chain;
} family_t;

static bool head(host_t *host, void *arg)
{
    family_t *f = arg;
    tether_loan_t held = writing(0, 10);
    if (!f->chain)
        CHECK(borrow(host, &f->stage.book, &held) == TETHER_OK);
    tether_scope_t *scope = tether_scope_open(host_thread(host), TETHER_FOREVER);
    f->child.job = host_spawn_in(host, scope, play, &f->child, 0, NULL);
    host_sem_wait(host, &f->child.holds);
    sem_post(&f->runs);
    host_sem_wait(host, &f->go);
    host_leave(host, scope);
    host_reap(host, f->child.job);
    host_drop(host, f->child.job);
    if (!f->chain)
        forget(host, &held);
    return true;
}

static void found(family_t *f, int chain)
{
    memset(f, 0, sizeof *f);
    f->chain = chain;
    set_stage(&f->stage, false);
    cast(&f->stage, &f->child);
    sem_init(&f->runs, 0, 0);
    sem_init(&f->go, 0, 0);
}

static void end_family(family_t *f)
{
    sem_destroy(&f->child.holds);
    sem_destroy(&f->child.go);
    sem_destroy(&f->runs);
    sem_destroy(&f->go);
    clear_stage(&f->stage);
}

TEST(leaving_a_scope_closes_the_ring)
{
    for (int leave_last = 0; leave_last < 2; leave_last++) {
        family_t f;
        found(&f, false);
        f.child.wants = true;
        f.child.wanted = writing(5, 6);
        job_t *job = host_spawn(&f.stage.host, head, &f);
        host_sem_wait(&f.stage.host, &f.runs);
        if (!leave_last) {
            sem_post(&f.go);
            await_sleep(&f.stage.host, job);
        }
        sem_post(&f.child.go);
        if (leave_last) {
            while (!is_asleep(&f.stage.host, f.child.job))
                host_yield(&f.stage.host);
            sem_post(&f.go);
        }
        CHECK(host_join(&f.stage.host, job));
        CHECK(f.child.answer == TETHER_DEADLOCK);
        end_family(&f);
    }
}

/* The child joins `between`, which waits for a borrow of `outside`, which joins the scope's leaver: the child must look
 * again, although its own wait is for no borrow. Any order. */
TEST(a_scope_is_in_the_ring_and_a_borrow_further_on)
{
    static const char *const orders[] = {"cbho", "cboh", "chbo", "chob", "cobh", "cohb", "bcho", "bcoh", "bhco", "bhoc", "boch",
                                         "bohc", "hcbo", "hcob", "hbco", "hboc", "hocb", "hobc", "ocbh", "ochb", "obch", "obhc",
                                         "ohcb", "ohbc"};
    for (int i = 0; i < 24; i++) {
        family_t f;
        found(&f, true);
        actor_t leaver = {.job = NULL};
        f.outside.held = writing(0, 10);
        f.between.wants = true;
        f.between.wanted = reading(1, 2);
        f.child.joins = &f.between;
        f.outside.joins = &leaver;
        enter(&f.stage, &f.outside);
        enter(&f.stage, &f.between);
        leaver.job = host_spawn(&f.stage.host, head, &f);
        host_sem_wait(&f.stage.host, &f.runs);
        for (const char *next = orders[i]; *next; next++) {
            job_t *job = *next == 'h' ? leaver.job : *next == 'c' ? f.child.job : *next == 'b' ? f.between.job : f.outside.job;
            sem_post(*next == 'h' ? &f.go : *next == 'c' ? &f.child.go : *next == 'b' ? &f.between.go : &f.outside.go);
            while (next[1] && !is_asleep(&f.stage.host, job))
                host_yield(&f.stage.host);
        }
        while (!tether_task_ended(&leaver.job->task))
            host_yield(&f.stage.host);
        leave(&f.between);
        int told = (f.child.answer == TETHER_DEADLOCK) + (f.between.answer == TETHER_DEADLOCK);
        CHECK(told + (f.outside.answer == TETHER_DEADLOCK) == 1);
        leave(&f.outside);
        CHECK(host_join(&f.stage.host, leaver.job));
        end_family(&f);
    }
}

/* ---- the root ---- */

TEST(the_root_waits_for_its_own_borrow)
{
    stage_t stage;
    set_stage(&stage, false);
    tether_loan_t held = reading(0, 10), wanted = writing(0, 1);
    CHECK(borrow(&stage.host, &stage.book, &held) == TETHER_OK);
    CHECK(borrow_in_the_end(&stage.host, &stage.book, &wanted) == TETHER_DEADLOCK);
    forget(&stage.host, &held);
    clear_stage(&stage);
}

/* What a task moved to the root is the root's, whoever moved it. */
TEST(the_root_holds_what_its_task_waits_for)
{
    for (int moved = 0; moved < 2; moved++) {
        stage_t stage;
        set_stage(&stage, false);
        tether_loan_t held = writing(0, 10);
        CHECK(borrow(&stage.host, &stage.book, &held) == TETHER_OK);
        if (moved)
            held.taker = NULL;
        actor_t a = {.wants = true, .wanted = reading(0, 1)};
        enter(&stage, &a);
        go(&a);
        CHECK(host_wait(&stage.host, a.job, HOST_ELSEWHERE, TETHER_FOREVER) == TETHER_DEADLOCK);
        forget(&stage.host, &held);
        leave(&a);
        CHECK(a.answer == TETHER_OK);
        clear_stage(&stage);
    }
}

typedef struct {
    stage_t *stage;
    tether_loan_t *held;
    sem_t met;
} helper_t;

static void *end_when_awaited(void *arg)
{
    helper_t *h = arg;
    host_t *host = &h->stage->host;
    host_attach(host);
    CHECK(host_thread(host) != NULL); /* the runtime meets it */
    sem_post(&h->met);
    while (!is_asleep(host, NULL))
        host_yield(host);
    CHECK(tether_loan_end(h->held, true) == TETHER_OK);
    host_detach(host);
    return NULL;
}

TEST(two_program_threads_may_help_each_other)
{
    BOTH_HOSTS(serial) {
        stage_t stage;
        set_stage(&stage, serial);
        tether_loan_t held = writing(0, 10), wanted = reading(0, 1);
        helper_t h = {.stage = &stage, .held = &held};
        sem_init(&h.met, 0, 0);
        CHECK(borrow(&stage.host, &stage.book, &held) == TETHER_OK);
        pthread_t thread;
        pthread_create(&thread, NULL, end_when_awaited, &h);
        host_sem_wait(&stage.host, &h.met);
        CHECK(borrow_in_the_end(&stage.host, &stage.book, &wanted) == TETHER_OK);
        host_detach(&stage.host);
        pthread_join(thread, NULL);
        host_attach(&stage.host);
        forget(&stage.host, &held);
        forget(&stage.host, &wanted);
        sem_destroy(&h.met);
        clear_stage(&stage);
    }
}

/* The other thread has had nothing to do with the runtime when the wait begins; the host knows of it. */
static void *end_later(void *arg)
{
    helper_t *h = arg;
    while (!is_asleep(&h->stage->host, NULL))
        sched_yield();
    host_attach(&h->stage->host);
    CHECK(tether_loan_end(h->held, true) == TETHER_OK);
    host_detach(&h->stage->host);
    return NULL;
}

TEST(a_thread_that_the_runtime_has_not_met_may_help)
{
    stage_t stage;
    set_stage(&stage, false);
    tether_loan_t held = writing(0, 10), wanted = reading(0, 1);
    helper_t h = {.stage = &stage, .held = &held};
    CHECK(borrow(&stage.host, &stage.book, &held) == TETHER_OK);
    pthread_t thread;
    pthread_create(&thread, NULL, end_later, &h);
    tether_wait_t how = {.deadline = TETHER_FOREVER, .strangers = true};
    CHECK(borrow_or_wait(&stage.host, &stage.book, &wanted, &how) == TETHER_OK);
    pthread_join(thread, NULL);
    forget(&stage.host, &held);
    forget(&stage.host, &wanted);
    clear_stage(&stage);
}

/* ---- no deadlock ---- */

TEST(a_holder_that_runs_gives_it_back)
{
    BOTH_HOSTS(serial) {
        stage_t stage;
        set_stage(&stage, serial);
        for (int kind = 0; kind < 2; kind++) {
            actor_t a = {.held = {.stop = 10, .exclusive = kind}}, b = {.wants = true, .wanted = writing(0, 10)};
            enter(&stage, &a);
            enter(&stage, &b);
            go(&b);
            CHECK(!tether_task_ended(&b.job->task));
            go(&a);
            leave(&a);
            leave(&b);
            CHECK(b.answer == TETHER_OK);
        }
        clear_stage(&stage);
    }
}

static bool be_short(host_t *host, void *arg)
{
    (void)host, (void)arg;
    return true;
}

/* Its end gives the range to the waiter: the host forgets the handle long after. */
TEST(a_holder_that_is_queued_is_waited_for)
{
    stage_t stage;
    set_stage(&stage, true);
    tether_loan_t held = writing(0, 10), wanted = writing(0, 10);
    CHECK(borrow(&stage.host, &stage.book, &held) == TETHER_OK);
    job_t *job = host_spawn(&stage.host, be_short, NULL); /* serial: nobody takes it while we are attached */
    tether_loan_move(host_thread(&stage.host), &held, &job->task);
    CHECK(borrow_in_the_end(&stage.host, &stage.book, &wanted) == TETHER_OK);
    CHECK(held.state == TETHER_LOAN_ENDED);
    CHECK(host_join(&stage.host, job));
    forget(&stage.host, &held);
    forget(&stage.host, &wanted);
    clear_stage(&stage);
}

/* An escaped view may be anybody's. */
typedef struct {
    actor_t *waiter;
    tether_loan_t *viewed;
} viewer_t;

static void *unview_when_both_sleep(void *arg)
{
    viewer_t *v = arg;
    host_t *host = &v->waiter->stage->host;
    while (!is_asleep(host, NULL) || !is_asleep(host, v->waiter->job))
        sched_yield();
    tether_loan_unview(v->viewed);
    return NULL;
}

TEST(a_view_of_an_ended_loan_is_no_deadlock)
{
    stage_t stage;
    set_stage(&stage, false);
    actor_t a = {.wants = true, .wanted = writing(0, 1)};
    tether_loan_t held = reading(0, 10);
    viewer_t viewer = {&a, &held};
    CHECK(borrow(&stage.host, &stage.book, &held) == TETHER_OK);
    CHECK(tether_loan_view(&held) == TETHER_OK && tether_loan_end(&held, true) == TETHER_OK);
    enter(&stage, &a);
    go(&a);
    pthread_t thread;
    pthread_create(&thread, NULL, unview_when_both_sleep, &viewer);
    CHECK(host_wait(&stage.host, a.job, HOST_ELSEWHERE, TETHER_FOREVER) == TETHER_OK);
    pthread_join(thread, NULL);
    leave(&a);
    CHECK(a.answer == TETHER_OK);
    forget(&stage.host, &held);
    clear_stage(&stage);
}

/* ---- cancellation ---- */

static bool want_or_be_cancelled(host_t *host, void *arg)
{
    actor_t *a = arg;
    tether_wait_t how = {.deadline = TETHER_FOREVER, .cancellable = true};
    a->answer = borrow_or_wait(host, &a->stage->book, &a->wanted, &how);
    forget(host, &a->wanted);
    return true;
}

TEST(a_cancelled_claim_leaves_the_queue)
{
    BOTH_HOSTS(serial) {
        stage_t stage;
        set_stage(&stage, serial);
        tether_loan_t held = reading(0, 10), behind = reading(0, 10);
        tether_claim_t claim;
        actor_t a = {.stage = &stage, .wanted = writing(0, 10)};
        CHECK(borrow(&stage.host, &stage.book, &held) == TETHER_OK);
        a.job = host_spawn(&stage.host, want_or_be_cancelled, &a);
        host_detach(&stage.host);
        while (!is_asleep(&stage.host, a.job))
            sched_yield();
        host_attach(&stage.host);
        CHECK(tether_borrow_queue(host_thread(&stage.host), &stage.book, &claim, &behind) == TETHER_CONFLICT);
        CHECK(host_cancel(&stage.host, a.job));
        tether_wait_t how = {.deadline = TETHER_FOREVER};
        CHECK(sleep_for(&stage.host, &claim, &how) == TETHER_OK);
        host_join(&stage.host, a.job);
        CHECK(a.answer == TETHER_CANCELLED);
        forget(&stage.host, &held);
        forget(&stage.host, &behind);
        clear_stage(&stage);
    }
}
