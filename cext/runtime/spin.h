/* Adaptive spinning: a wait looks for a bounded time before it sleeps in the kernel, since a kernel wake-up costs 25-50 us
 * and what is waited for is often nearly there. Each thread keeps its own bound: a wait that was over soon, spinning or asleep,
 * moves it to about twice that time; a long one halves it (as adaptive mutexes do). On a single core nobody spins. */
#ifndef TETHER_SPIN_H
#define TETHER_SPIN_H

#include "types.h"

/* The kernel likes to put a thread that was just woken onto the waker's processor. If the waker spins there, the two wait
 * for each other until the spinning ends; so after a moment a spin yields between its looks. */
enum { TETHER_SPIN_ALONE = 1500 }; /* nanoseconds */

enum { TETHER_SPIN_LEAST = 2000, TETHER_SPIN_MOST = 120000 }; /* nanoseconds */

typedef struct {
    uint64_t started, until;
    unsigned round;
    tether_thread_t *thread;
} tether_spin_t;

tether_spin_t tether_spin_start(tether_thread_t *thread);

/* One more look? Pauses a moment; false when the time is over. */
bool tether_spin_more(tether_spin_t *spin);

/* What was waited for has come, now: learn from how long it took. */
void tether_spin_learn(tether_spin_t *spin);

#endif
