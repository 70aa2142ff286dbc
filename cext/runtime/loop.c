/* Loops. The seat word and the proofs are in loop.md. */
#include "loop.h"

#include "crew.h"
#include "lane.h"
#include "runtime.h"
#include "spin.h"
#include "thread.h"

static const uint64_t CHUNK = 20000000;      /* ns that a chunk of a guided loop should not take much longer than */
static const uint64_t SLICE = 50000000;      /* ns between looks */
static const uint64_t CALL_AGAIN = 1000000;  /* ns after which helpers that did not come are called once more */
enum { FIRST_SHARE = 4096, HELPERS_MAX = 1023 };

#define OPEN (1u << 30)
#define WAITED (1u << 31)
#define INSIDE 0xffffu
#define LIMIT_SHIFT 16
#define LIMIT_MASK 0x3ffu

static unsigned limit_of(uint32_t word) { return word >> LIMIT_SHIFT & LIMIT_MASK; }

/* ---- chunks -------------------------------------------------------------------------------------------------------------- */

/* How large the next chunk of a thread may be. */
typedef struct {
    size_t most;    /* units */
    uint64_t since; /* when the last one began */
} pace_t;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static pace_t pace_start(const tether_loop_t *loop)
{
    size_t first = loop->units / FIRST_SHARE;
    return (pace_t){first > 1 ? first : 1, tether_now()};
}

/* After a chunk of so many units. A chunk that was cut short says only when it was slow. */
static void pace_learn(pace_t *pace, size_t units, uint64_t now)
{
    uint64_t took = now - pace->since;
    pace->since = now;
    if (took > CHUNK) {
        size_t fitting = (size_t)((double)units * ((double)CHUNK / (double)took));
        pace->most = fitting > 1 ? fitting : 1;
    } else if (took * 2 <= CHUNK && units >= pace->most && units < SIZE_MAX / 4) {
        pace->most = units * 2;
    }
}

/* Takes the next chunk, in units. false: nothing is left, or nothing is to be begun any more. */
static bool take(tether_loop_t *loop, const pace_t *pace, size_t *at, size_t *units)
{
    if (load_relaxed(&loop->stop) != 0)
        return false;
    if (!loop->guided) {
        *at = add_relaxed(&loop->next, 1); /* goes beyond by one for each thread at most */
        *units = 1;
        return *at < loop->units;
    }
    size_t next = load_relaxed(&loop->next), size;
    do {
        if (next >= loop->units)
            return false;
        size_t left = loop->units - next;
        size = least(left / (2 * ((size_t)loop->limit + 1)), pace->most);
        if (size == 0)
            size = 1;
    } while (!atomic_compare_exchange_weak_explicit(&loop->next, &next, next + size, memory_order_relaxed,
                                                    memory_order_relaxed));
    *at = next;
    *units = size;
    return true;
}

static bool exhausted(tether_loop_t *loop)
{
    return load_relaxed(&loop->stop) != 0 || load_relaxed(&loop->next) >= loop->units;
}

static void call(tether_thread_t *thread, tether_loop_t *loop, size_t at, size_t units)
{
    size_t begin = at * loop->grain;
    size_t rest = loop->n - begin; /* the last unit may be shorter */
    size_t end = units > rest / loop->grain ? loop->n : begin + units * loop->grain;
    int code = loop->body(loop->arg, begin, end);
    thread->away = true; /* it may have been attached meanwhile, and have waited */
    if (code == 0)
        return;
    store_relaxed(&loop->stop, 1);
    if (atomic_exchange(&loop->failed, 1) == 0) {
        loop->code = code;
        loop->begin = begin;
        loop->end = end;
    }
}

/* Wakes or starts threads for the places that nobody has taken yet. */
static void call_crew(tether_runtime_t *rt, unsigned inside, const tether_loop_t *loop)
{
    if (inside < loop->limit)
        tether_crew_call(rt, loop->limit - inside, loop->limit > rt->cores - 1 ? loop->limit : rt->cores - 1);
}

/* ---- helpers ------------------------------------------------------------------------------------------------------------- */

static void unwant(tether_runtime_t *rt, unsigned seat) { atomic_fetch_and(&rt->loops.wanted, ~(1u << seat)); }

/* Is a helper wanted elsewhere, for good or for tasks that no thread may be made for? */
static bool called_away(tether_runtime_t *rt)
{
    if (load_relaxed(&rt->stopping) || load_relaxed(&rt->resting) != 0)
        return true;
    uint32_t most = load_relaxed(&rt->max_threads);
    return most != 0 && load_relaxed(&rt->crew.alive) >= most && tether_lane_queued(rt, false) != 0;
}

static bool come_in(tether_runtime_t *rt, unsigned number)
{
    tether_seat_t *seat = &rt->loops.seats[number];
    uint32_t word = load_relaxed(&seat->word);
    do {
        if (!(word & OPEN) || (word & INSIDE) >= limit_of(word))
            return false;
    } while (!atomic_compare_exchange_strong(&seat->word, &word, word + 1));
    if ((word & INSIDE) + 1 >= limit_of(word))
        unwant(rt, number);
    return true;
}

static void go_out(tether_seat_t *seat)
{
    uint32_t before = sub_acq_rel(&seat->word, 1);
    if ((before & INSIDE) == 1 && (before & WAITED))
        tether_lot_wake_all(seat);
}

static void help_with(tether_runtime_t *rt, tether_thread_t *me, unsigned number)
{
    tether_seat_t *seat = &rt->loops.seats[number];
    tether_loop_t *loop = seat->loop;
    pace_t pace = loop->guided ? pace_start(loop) : (pace_t){1, 0};
    size_t at, units;
    bool away = false;
    /* Who called may have counted a thread twice, on its way from spinning to sleep, and be in a long chunk by now. */
    if (!load_relaxed(&rt->closing) && !exhausted(loop))
        call_crew(rt, load_relaxed(&seat->word) & INSIDE, loop);
    while (!away && take(loop, &pace, &at, &units)) {
        call(me, loop, at, units);
        if (loop->guided)
            pace_learn(&pace, units, tether_now());
        away = called_away(rt);
    }
    if (!away)
        unwant(rt, number);
    go_out(seat);
}

void tether_loop_help(tether_thread_t *me)
{
    tether_runtime_t *rt = load_relaxed(&me->rt);
    add_relaxed(&rt->loops.helping, 1);
    for (uint32_t wanted; !called_away(rt) && (wanted = atomic_load(&rt->loops.wanted)) != 0; tether_pause()) {
        unsigned number = (unsigned)__builtin_ctz(wanted);
        if (come_in(rt, number)) /* else its bit is about to be cleared */
            help_with(rt, me, number);
    }
    sub_relaxed(&rt->loops.helping, 1);
}

/* ---- the caller ---------------------------------------------------------------------------------------------------------- */

/* Takes a free seat: its number, or -1. */
static int sit_down(tether_runtime_t *rt)
{
    uint32_t taken = load_relaxed(&rt->loops.taken);
    for (;;) {
        uint32_t free_seats = ~taken & ((1u << TETHER_SEATS) - 1);
        if (free_seats == 0)
            return -1;
        unsigned seat = (unsigned)__builtin_ctz(free_seats);
        if (cas_acq_rel(&rt->loops.taken, &taken, taken | 1u << seat))
            return (int)seat;
    }
}

static void call_helpers(tether_runtime_t *rt, unsigned number, const tether_loop_t *loop)
{
    if (load_relaxed(&rt->closing))
        return;
    atomic_fetch_or(&rt->loops.wanted, 1u << number);
    /* Whoever fills the last place from here on clears the bit himself. */
    unsigned inside = atomic_load(&rt->loops.seats[number].word) & INSIDE;
    if (inside >= loop->limit)
        unwant(rt, number);
    call_crew(rt, inside, loop);
}

typedef struct {
    uint64_t next_look, next_call;
} agenda_t;

/* What a caller does between chunks. OK: go on. */
static tether_status_t between(tether_thread_t *thread, tether_loop_t *loop, int seat, agenda_t *when, uint64_t now)
{
    if (tether_thread_cancelled(thread))
        return TETHER_CANCELLED;
    if (now >= when->next_look) {
        when->next_look = now + SLICE;
        if (loop->look != NULL && !loop->look(loop->look_arg))
            return TETHER_INTERRUPTED;
    }
    if (now >= when->next_call) {
        when->next_call = now + CALL_AGAIN;
        if (seat >= 0)
            call_helpers(load_relaxed(&thread->rt), (unsigned)seat, loop);
    }
    return TETHER_OK;
}

static tether_status_t work(tether_thread_t *thread, tether_loop_t *loop, int seat)
{
    pace_t pace = pace_start(loop);
    agenda_t when = {pace.since + SLICE, pace.since + CALL_AGAIN};
    tether_status_t status = TETHER_OK;
    size_t at, units;
    while (take(loop, &pace, &at, &units)) {
        call(thread, loop, at, units);
        pace_learn(&pace, units, tether_now());
        if (exhausted(loop)) /* all of it was begun: what comes now is for the next checkpoint */
            break;
        status = between(thread, loop, seat, &when, pace.since);
        if (status != TETHER_OK) {
            store_relaxed(&loop->stop, 1);
            break;
        }
    }
    return status;
}

static bool somebody_inside(void *seat) { return (or_acq_rel(&((tether_seat_t *)seat)->word, WAITED) & INSIDE) != 0; }

/* No helper comes in any more, and those that are inside go out. */
static tether_status_t see_off(tether_thread_t *thread, tether_loop_t *loop, unsigned number, tether_status_t status)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    tether_seat_t *seat = &rt->loops.seats[number];
    unwant(rt, number);
    and_acq_rel(&seat->word, ~OPEN);
    tether_spin_t spin = tether_spin_start(thread);
    while ((load_acquire(&seat->word) & INSIDE) != 0) {
        if (tether_spin_more(&spin))
            continue;
        uint64_t until = loop->look != NULL ? tether_now() + SLICE : TETHER_FOREVER;
        tether_status_t woken = tether_lot_wait(seat, &thread->parker, somebody_inside, seat, until);
        if (woken == TETHER_OK || loop->look == NULL || status == TETHER_INTERRUPTED)
            continue;
        if (!loop->look(loop->look_arg)) {
            status = TETHER_INTERRUPTED;
            store_relaxed(&loop->stop, 1);
            if (tether_runtime_foreign(rt))
                return status;
        }
    }
    tether_spin_learn(&spin);
    store_relaxed(&seat->word, 0);
    and_acq_rel(&rt->loops.taken, ~(1u << number));
    return status;
}

static void prepare(tether_loop_t *loop, const tether_runtime_t *rt)
{
    unsigned threads = loop->threads != 0 ? loop->threads : rt->cores;
    if (loop->grain == 0)
        loop->grain = loop->guided ? 1 : loop->n / threads + (loop->n % threads != 0);
    loop->units = loop->grain == 0 ? 0 : loop->n / loop->grain + (loop->n % loop->grain != 0);
    size_t helpers = least(threads, loop->units);
    loop->limit = helpers < 2 ? 0 : (unsigned)least(helpers - 1, HELPERS_MAX);
    store_relaxed(&loop->failed, 0);
    store_relaxed(&loop->stop, 0);
    store_relaxed(&loop->next, 0);
}

tether_status_t tether_loop_run(tether_thread_t *thread, tether_loop_t *loop)
{
    tether_runtime_t *rt = load_relaxed(&thread->rt);
    prepare(loop, rt);
    if (tether_thread_cancelled(thread))
        return TETHER_CANCELLED;
    int seat = loop->limit != 0 ? sit_down(rt) : -1;
    if (seat >= 0) {
        rt->loops.seats[seat].loop = loop;
        store_release(&rt->loops.seats[seat].word, OPEN | loop->limit << LIMIT_SHIFT);
        call_helpers(rt, (unsigned)seat, loop);
    }
    tether_status_t status = work(thread, loop, seat);
    if (status == TETHER_INTERRUPTED && tether_runtime_foreign(rt))
        return status;
    if (seat >= 0)
        status = see_off(thread, loop, (unsigned)seat, status);
    return load_relaxed(&loop->failed) != 0 && status != TETHER_INTERRUPTED ? TETHER_FAILED : status;
}
