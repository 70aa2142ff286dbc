/* Borrows between threads: what is lent is exclusive (ThreadSanitizer watches plain accesses), every wait ends, and ends race
 * with whoever forgets, moves and blames. G13, G14, faults 19, 21, 22. */
#include "harness.h"

#include "borrowing.h"

#define BOTH_HOSTS(serial) for (int serial = 0; serial < 2; serial++)

enum { BYTES = 64, TASKS = 6 };

static uint32_t next_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    return *seed ^= *seed << 5;
}

typedef struct {
    host_t *host;
    tether_book_t book;
    uint8_t bytes[BYTES]; /* not atomic: the book is what protects them */
    _Atomic uint32_t seed;
    _Atomic long reads, writes, refused, timed_out, cancelled, deadlocks;
    _Atomic bool over;
    pthread_barrier_t *begin;
    long rounds;
} field_t;

static uint32_t new_seed(field_t *f) { return atomic_fetch_add(&f->seed, 1) * 2654435761u | 1; }

static tether_loan_t random_range(uint32_t *seed)
{
    size_t start = next_random(seed) % BYTES, stop = start + 1 + next_random(seed) % 16;
    return (tether_loan_t){.start = start, .stop = stop < BYTES ? stop : BYTES, .exclusive = next_random(seed) % 3 == 0};
}

/* Everything that the loan allows, twice, with a pause between. */
static void use(field_t *f, const tether_loan_t *loan, uint32_t *seed)
{
    uint8_t mark = (uint8_t)next_random(seed), seen[BYTES];
    for (size_t i = loan->start; i < loan->stop; i++) {
        if (loan->exclusive)
            f->bytes[i] = mark;
        seen[i] = f->bytes[i];
    }
    if (*seed % 8 == 0)
        host_yield(f->host);
    for (size_t i = loan->start; i < loan->stop; i++)
        CHECK(f->bytes[i] == seen[i]);
    atomic_fetch_add(loan->exclusive ? &f->writes : &f->reads, 1);
}

/* Splits the loan, gives the parts to a task of its own each, and takes them back. */
typedef struct {
    field_t *field;
    tether_loan_t *part;
} errand_t;

static bool use_part(host_t *host, void *arg)
{
    (void)host;
    errand_t *errand = arg;
    uint32_t seed = new_seed(errand->field);
    use(errand->field, errand->part, &seed);
    return true; /* its end gives the part back */
}

static void lend_out(field_t *f, tether_loan_t *loan, uint32_t *seed)
{
    enum { PARTS = 3 };
    host_t *host = f->host;
    tether_loan_t parts[PARTS], *list[PARTS];
    errand_t errands[PARTS];
    job_t *jobs[PARTS];
    size_t at = loan->start;
    for (int i = 0; i < PARTS; i++) {
        size_t stop = i == PARTS - 1 ? loan->stop : at + (loan->stop - at) / 2;
        parts[i] = (tether_loan_t){.start = at, .stop = stop, .exclusive = loan->exclusive && next_random(seed) % 2};
        list[i] = &parts[i];
        errands[i] = (errand_t){f, &parts[i]};
        at = stop;
    }
    CHECK(tether_loan_lend(host_thread(host), loan, list, PARTS) == TETHER_OK);
    CHECK(tether_loan_view(loan) == TETHER_CONFLICT);
    tether_scope_t *scope = tether_scope_open(host_thread(host), TETHER_FOREVER);
    for (int i = 0; i < PARTS; i++) {
        jobs[i] = (job_t *)tether_task_new(host_thread(host), &scope->node);
        jobs[i]->host = host;
        jobs[i]->work = use_part;
        jobs[i]->arg = &errands[i];
        jobs[i]->failed = jobs[i]->killed = jobs[i]->has_value = false;
        CHECK(tether_scope_admit(scope, &jobs[i]->task) == TETHER_OK);
        tether_loan_move(host_thread(host), &parts[i], &jobs[i]->task);
        CHECK(tether_task_queue(&jobs[i]->task) == TETHER_OK);
        atomic_fetch_add(&host->spawned, 1);
    }
    host_leave(host, scope);
    for (int i = 0; i < PARTS; i++) {
        if (tether_task_reap(&jobs[i]->task)) {
            jobs[i]->has_value = false;
            atomic_fetch_add(&host->values_gone, 1);
        }
        CHECK(parts[i].state == TETHER_LOAN_ENDED);
        host_drop(host, jobs[i]);
        forget(host, &parts[i]);
    }
    CHECK(tether_loan_view(loan) == TETHER_OK); /* ours again */
    tether_loan_unview(loan);
}

static void use_somehow(field_t *f, tether_loan_t *loan, uint32_t *seed, bool may_spawn)
{
    use(f, loan, seed);
    tether_loan_t other = {.start = loan->start, .stop = loan->stop};
    switch (next_random(seed) % 6) {
    case 0:
        if (may_spawn)
            lend_out(f, loan, seed);
        break;
    case 1:
        CHECK(tether_loan_clone(host_thread(f->host), loan, &other) == (loan->exclusive ? TETHER_CONFLICT : TETHER_OK));
        tether_loan_end(loan, true);
        if (!loan->exclusive)
            use(f, &other, seed);
        forget(f->host, &other);
        break;
    case 2:
        CHECK(tether_loan_downgrade(host_thread(f->host), loan, &other) == (loan->exclusive ? TETHER_OK : TETHER_CONFLICT));
        if (loan->exclusive)
            use(f, &other, seed);
        forget(f->host, &other);
        break;
    case 3: /* a view that lives longer than the loan */
        CHECK(tether_loan_view(loan) == TETHER_OK);
        CHECK(tether_loan_end(loan, true) == TETHER_OK);
        use(f, loan, seed);
        tether_loan_unview(loan);
        break;
    default:
        break;
    }
    forget(f->host, loan);
}

static bool get(field_t *f, tether_loan_t *loan, uint32_t *seed)
{
    uint32_t how = next_random(seed) % 4;
    tether_status_t status;
    if (how == 0) {
        status = borrow(f->host, &f->book, loan);
    } else {
        tether_wait_t wait = {
            .deadline = how == 1 ? tether_now() + next_random(seed) % 50000 : TETHER_FOREVER,
            .cancellable = true,
        };
        status = borrow_or_wait(f->host, &f->book, loan, &wait);
    }
    if (status == TETHER_CONFLICT)
        atomic_fetch_add(&f->refused, 1);
    else if (status == TETHER_TIMEOUT)
        atomic_fetch_add(&f->timed_out, 1);
    else if (status == TETHER_CANCELLED)
        atomic_fetch_add(&f->cancelled, 1);
    else
        CHECK(status == TETHER_OK); /* one loan at a time: no deadlock, ever */
    return status == TETHER_OK;
}

static bool graze(host_t *host, void *arg)
{
    field_t *f = arg;
    uint32_t seed = new_seed(f);
    for (long i = 0; i < f->rounds && !tether_thread_cancelled(host_thread(host)); i++) {
        tether_loan_t loan = random_range(&seed);
        if (get(f, &loan, &seed))
            use_somehow(f, &loan, &seed, true);
        if (seed % 16 == 0)
            host_yield(host);
    }
    return true;
}

static void *graze_outside(void *arg)
{
    field_t *f = arg;
    uint32_t seed = new_seed(f);
    host_attach(f->host);
    for (long i = 0; i < f->rounds; i++) {
        tether_loan_t loan = random_range(&seed);
        if (get(f, &loan, &seed))
            use_somehow(f, &loan, &seed, false);
        if (seed % 16 == 0)
            host_yield(f->host);
    }
    host_detach(f->host);
    return NULL;
}

static void check_empty(field_t *f)
{
    CHECK(tether__book_is_sound(&f->book));
    CHECK(f->book.lent.root.n == 0 && f->book.first == NULL && f->book.last == NULL);
}

TEST(readers_and_writers_of_random_ranges)
{
    BOTH_HOSTS(serial) {
        host_t host;
        field_t f = {.host = &host, .seed = 1, .rounds = SCALE(600, 120)};
        host_start(&host, (host_options_t){.serial = serial});
        pthread_t outside[2];
        for (int i = 0; i < 2; i++)
            pthread_create(&outside[i], NULL, graze_outside, &f);
        for (int round = 0; round < SCALE(6, 3); round++) {
            job_t *jobs[TASKS];
            for (int i = 0; i < TASKS; i++)
                jobs[i] = host_spawn(&host, graze, &f);
            for (int i = 0; i < 50; i++) {
                CHECK(tether__book_is_sound(&f.book));
                host_yield(&host);
            }
            host_cancel(&host, jobs[0]); /* races with grants */
            host_cancel(&host, jobs[TASKS - 1]);
            for (int i = 0; i < TASKS; i++)
                host_join(&host, jobs[i]);
        }
        host_detach(&host);
        for (int i = 0; i < 2; i++)
            pthread_join(outside[i], NULL);
        host_attach(&host);
        CHECK(atomic_load(&f.reads) > 0 && atomic_load(&f.writes) > 0);
        check_empty(&f);
        host_finish(&host);
    }
}

/* Each holds some and waits for more, without order: deadlocks there are, but no hang. */
static bool grab(host_t *host, void *arg)
{
    field_t *f = arg;
    uint32_t seed = new_seed(f);
    for (long i = 0; i < f->rounds; i++) {
        tether_loan_t loans[3];
        int n = 0;
        while (n < 3) {
            loans[n] = random_range(&seed);
            tether_wait_t how = {.deadline = TETHER_FOREVER};
            tether_status_t status = borrow_or_wait(host, &f->book, &loans[n], &how);
            if (status != TETHER_OK) {
                CHECK(status == TETHER_DEADLOCK); /* also with none: one of those in the way may wait behind us */
                CHECK(how.cycle_len > 0);
                atomic_fetch_add(&f->deadlocks, 1);
                break;
            }
            use(f, &loans[n++], &seed);
        }
        for (int k = 0; k < n; k++)
            forget(host, &loans[k]);
        if (seed % 16 == 0)
            host_yield(host);
    }
    return true;
}

TEST(whoever_closes_a_ring_is_told_and_nobody_hangs)
{
    BOTH_HOSTS(serial) {
        host_t host;
        field_t f = {.host = &host, .seed = 7, .rounds = SCALE(1500, 200)};
        host_start(&host, (host_options_t){.serial = serial});
        job_t *jobs[TASKS];
        for (int i = 0; i < TASKS; i++)
            jobs[i] = host_spawn(&host, grab, &f);
        for (int i = 0; i < TASKS; i++)
            CHECK(host_join(&host, jobs[i]));
        check_empty(&f);
        host_finish(&host);
    }
}

/* Tasks end while another thread forgets their loans: when a task has been joined its loans are back, whoever ended them. */
enum { LEFT = 4 };

typedef struct {
    field_t field;
    _Atomic(tether_loan_t *) shelf[LEFT];
} legacy_t;

static bool leave_loans(host_t *host, void *arg)
{
    legacy_t *legacy = arg;
    for (size_t i = 0; i < LEFT; i++) {
        tether_loan_t *loan = malloc(sizeof *loan);
        *loan = writing(16 * i, 16 * i + 16);
        CHECK(borrow(host, &legacy->field.book, loan) == TETHER_OK);
        atomic_store(&legacy->shelf[i], loan);
    }
    /* The end comes while the last of them is being forgotten. */
    for (int i = 0; !host->serial && i < 3000 && atomic_load(&legacy->shelf[LEFT - 1]) != NULL; i++)
        tether_pause();
    return true;
}

static void clear_shelf(legacy_t *legacy)
{
    for (int i = 0; i < LEFT; i++) {
        tether_loan_t *loan = atomic_exchange(&legacy->shelf[i], NULL);
        if (loan != NULL) {
            forget(legacy->field.host, loan);
            free(loan);
        }
    }
}

static void *tidy(void *arg)
{
    legacy_t *legacy = arg;
    while (!atomic_load(&legacy->field.over)) {
        host_attach(legacy->field.host);
        clear_shelf(legacy);
        host_detach(legacy->field.host);
    }
    return NULL;
}

TEST(ends_race_with_forgets)
{
    BOTH_HOSTS(serial) {
        host_t host;
        legacy_t legacy = {.field = {.host = &host}};
        host_start(&host, (host_options_t){.serial = serial});
        pthread_t tidier;
        pthread_create(&tidier, NULL, tidy, &legacy);
        for (int i = 0; i < SCALE(6000, 800); i++) {
            CHECK(host_join(&host, host_spawn(&host, leave_loans, &legacy)));
            tether_loan_t all = writing(0, BYTES);
            CHECK(borrow(&host, &legacy.field.book, &all) == TETHER_OK);
            forget(&host, &all);
            clear_shelf(&legacy);
            if (i % 64 == 0)
                host_yield(&host);
        }
        atomic_store(&legacy.field.over, true);
        host_detach(&host);
        pthread_join(tidier, NULL);
        host_attach(&host);
        check_empty(&legacy.field);
        host_finish(&host);
    }
}

/* A conflict names the holder while the loan moves from one to the next, and those that it left are freed. */
static void keep_holder(tether_loan_t *loan, void *arg)
{
    tether_task_t *holder = load_relaxed(&loan->holder);
    if (holder != NULL)
        tether_task_ref(holder);
    *(tether_task_t **)arg = holder;
}

static void *bump_into(void *arg)
{
    field_t *f = arg;
    host_attach(f->host);
    tether_thread_t *thread = host_thread(f->host);
    while (!atomic_load(&f->over)) {
        tether_loan_t loan = reading(3, 4), *list[] = {&loan};
        tether_task_t *holder = NULL;
        if (tether_borrow(thread, &f->book, list, 1, keep_holder, &holder) == TETHER_OK) {
            forget(f->host, &loan);
        } else if (holder != NULL) {
            CHECK(((job_t *)holder)->host == f->host && holder->id != 0);
            tether_task_unref(thread, holder);
            atomic_fetch_add(&f->refused, 1);
        }
        host_yield(f->host);
    }
    host_detach(f->host);
    return NULL;
}

TEST(blame_races_with_moves)
{
    BOTH_HOSTS(serial) {
        host_t host;
        field_t f = {.host = &host};
        host_start(&host, (host_options_t){.serial = serial});
        tether_thread_t *thread = host_thread(&host);
        pthread_t other;
        pthread_create(&other, NULL, bump_into, &f);
        tether_loan_t loan = writing(0, 10);
        for (int i = 0; i < SCALE(40000, 4000) || atomic_load(&f.refused) == 0; i++) {
            if (i % 64 == 0) {
                if (i != 0)
                    forget(&host, &loan);
                while (borrow(&host, &f.book, &loan) != TETHER_OK)
                    host_yield(&host);
            }
            tether_task_t *task = tether_task_new(thread, NULL);
            ((job_t *)task)->host = &host;
            tether_loan_move(thread, &loan, task);
            tether_task_discard(thread, task); /* the loan alone keeps it */
            if (i % 32 == 0)
                host_yield(&host);
        }
        atomic_store(&f.over, true);
        host_detach(&host);
        pthread_join(other, NULL);
        host_attach(&host);
        forget(&host, &loan);
        check_empty(&f);
        host_finish(&host);
    }
}

/* Rings broken from outside: a thread ends other's loans at any moment, so a wait may be granted in the instant in which it is
 * found to be a deadlock. Nothing may leak and nobody may hang. */
typedef struct {
    field_t field;
    _Atomic(tether_loan_t *) held[TASKS];
    _Atomic int users[TASKS]; /* of the slot: who forgets waits for those who look */
    _Atomic int next;
} market_t;

static bool hold_and_want(host_t *host, void *arg)
{
    market_t *m = arg;
    field_t *f = &m->field;
    int me = atomic_fetch_add(&m->next, 1) % TASKS;
    uint32_t seed = new_seed(f);
    for (long i = 0; i < f->rounds; i++) {
        tether_loan_t mine = writing((size_t)me, (size_t)me + 1), wanted = random_range(&seed);
        wanted.start %= TASKS;
        wanted.stop = wanted.start + 1;
        tether_wait_t how = {.deadline = TETHER_FOREVER};
        if (borrow_or_wait(host, &f->book, &mine, &how) == TETHER_OK) {
            atomic_store(&m->held[me], &mine);
            how = (tether_wait_t){.deadline = TETHER_FOREVER};
            tether_status_t status = borrow_or_wait(host, &f->book, &wanted, &how);
            CHECK(status == TETHER_OK || status == TETHER_DEADLOCK);
            forget(host, &wanted);
            atomic_store(&m->held[me], NULL);
            while (atomic_load(&m->users[me]) != 0)
                host_yield(host);
        }
        forget(host, &mine);
    }
    return true;
}

static void *end_others(void *arg)
{
    market_t *m = arg;
    uint32_t seed = 99;
    while (!atomic_load(&m->field.over)) {
        int i = (int)(next_random(&seed) % TASKS);
        host_attach(m->field.host);
        atomic_fetch_add(&m->users[i], 1);
        tether_loan_t *loan = atomic_load(&m->held[i]);
        if (loan != NULL)
            tether_loan_end(loan, true);
        atomic_fetch_sub(&m->users[i], 1);
        host_detach(m->field.host);
        if (seed % 4 == 0)
            sched_yield();
    }
    return NULL;
}

TEST(rings_are_broken_from_outside)
{
    BOTH_HOSTS(serial) {
        host_t host;
        market_t m = {.field = {.host = &host, .seed = 3, .rounds = SCALE(1500, 200)}};
        host_start(&host, (host_options_t){.serial = serial});
        pthread_t other;
        pthread_create(&other, NULL, end_others, &m);
        job_t *jobs[TASKS];
        for (int i = 0; i < TASKS; i++)
            jobs[i] = host_spawn_in(&host, NULL, hold_and_want, &m, HOST_DEDICATED, NULL);
        for (int i = 0; i < TASKS; i++)
            CHECK(host_join(&host, jobs[i]));
        atomic_store(&m.field.over, true);
        host_detach(&host);
        pthread_join(other, NULL);
        host_attach(&host);
        check_empty(&m.field);
        host_finish(&host);
    }
}

/* What a thread that has ended had borrowed is given back while its record is made another thread's. */
static void *borrow_and_end(void *arg)
{
    field_t *f = arg;
    tether_loan_t *loan = calloc(1, sizeof *loan);
    *loan = (tether_loan_t){.start = 1, .stop = 9, .host = loan};
    host_attach(f->host);
    CHECK(borrow(f->host, &f->book, loan) == TETHER_OK);
    host_detach(f->host);
    return loan;
}

static void *begin_and_end(void *arg)
{
    field_t *f = arg;
    pthread_barrier_wait(f->begin);
    host_attach(f->host);
    host_thread(f->host);
    host_detach(f->host);
    return NULL;
}

TEST(what_an_ended_thread_borrowed_is_counted_to_its_end)
{
    host_t host;
    pthread_barrier_t begin;
    field_t f = {.host = &host, .begin = &begin};
    pthread_barrier_init(&begin, NULL, 2);
    host_start(&host, (host_options_t){.serial = false});
    for (long i = 0; i < SCALE(2000, 400); i++) {
        pthread_t first, second;
        void *loan;
        pthread_create(&first, NULL, borrow_and_end, &f);
        pthread_join(first, &loan);
        pthread_create(&second, NULL, begin_and_end, &f);
        pthread_barrier_wait(&begin);
        forget(&host, loan);
        free(loan);
        pthread_join(second, NULL);
    }
    CHECK(tether_lane_lent(host.rt) == 0);
    pthread_barrier_destroy(&begin);
    check_empty(&f);
    host_finish(&host);
}
