/* Lost wake-ups: ping-pong over parkers, and crowds that sleep in the lot while others make it happen. */
#include "harness.h"

#include "park.h"

enum { ROUNDS = SCALE(20000, 3000) };

typedef struct {
    tether_parker_t parkers[2];
    _Atomic int turn;
} table_t;

static void play(table_t *table, int me)
{
    for (int i = 0; i < ROUNDS; i++) {
        while (load_acquire(&table->turn) != me)
            tether_park(&table->parkers[me], TETHER_FOREVER);
        store_release(&table->turn, !me);
        tether_unpark(&table->parkers[!me]);
    }
}

static void *second_player(void *table)
{
    play(table, 1);
    return NULL;
}

TEST(ping_pong_over_parkers)
{
    table_t table = {0};
    pthread_t thread;
    pthread_create(&thread, NULL, second_player, &table);
    play(&table, 0);
    pthread_join(thread, NULL);
}

TEST(ping_pong_beside_time_outs)
{
    /* The same, with deadlines that nearly always have just passed: the race of a time-out with a wake-up. */
    table_t table = {0};
    pthread_t thread;
    pthread_create(&thread, NULL, second_player, &table);
    for (int i = 0; i < ROUNDS; i++) {
        while (load_acquire(&table.turn) != 0)
            tether_park(&table.parkers[0], tether_now() + (unsigned)i % 3000);
        store_release(&table.turn, 1);
        tether_unpark(&table.parkers[1]);
    }
    pthread_join(thread, NULL);
}

/* A barrier made of the lot: the last to come starts the next generation and wakes the others at its address. */
enum { CROWD = SCALE(24, 12), GENERATIONS = SCALE(600, 150) };

typedef struct {
    _Atomic uint32_t word[GENERATIONS]; /* 1: somebody waits, 2: open */
    _Atomic int arrived[GENERATIONS];
    _Atomic int timed_out;
} gates_t;

static bool gate_still(void *gate) { return !(or_acq_rel((_Atomic uint32_t *)gate, 1) & 2); }

typedef struct {
    gates_t *gates;
    int me;
    tether_parker_t parker; /* outlives its thread, as thread records do: a wake-up may come after a time-out */
} visitor_t;

static void *visit(void *arg)
{
    visitor_t *visitor = arg;
    gates_t *gates = visitor->gates;
    for (int g = 0; g < GENERATIONS; g++) {
        if (atomic_fetch_add(&gates->arrived[g], 1) == CROWD - 1) {
            if (or_acq_rel(&gates->word[g], 2) & 1)
                tether_lot_wake_all(&gates->word[g]);
            continue;
        }
        while (!(load_acquire(&gates->word[g]) & 2)) {
            /* Every third visitor is impatient. */
            uint64_t deadline = visitor->me % 3 == 0 ? tether_now() + 20000 : TETHER_FOREVER;
            void *gate = &gates->word[g];
            if (tether_lot_wait(gate, &visitor->parker, gate_still, gate, deadline) == TETHER_TIMEOUT)
                atomic_fetch_add(&gates->timed_out, 1);
        }
    }
    return NULL;
}

TEST(crowds_pass_gate_after_gate)
{
    static gates_t gates;
    memset(&gates, 0, sizeof gates);
    pthread_t threads[CROWD];
    static visitor_t visitors[CROWD];
    for (int i = 0; i < CROWD; i++) {
        visitors[i] = (visitor_t){.gates = &gates, .me = i};
        pthread_create(&threads[i], NULL, visit, &visitors[i]);
    }
    for (int i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
    for (int g = 0; g < GENERATIONS; g++)
        CHECK(atomic_load(&gates.arrived[g]) == CROWD);
}
