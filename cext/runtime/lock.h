/* A small mutual exclusion lock for short, leaf-like sections: one word, no allocation, no fairness.
 *
 * Contract: never held while Python code, a destructor or a wait runs; never taken recursively. The order in which
 * locks may nest is in protocol.md, "Lock order".
 *
 *   word   meaning                    legal next
 *   0      free                       1 (lock)
 *   1      held, nobody sleeps        0 (unlock), 2 (a second thread is about to sleep)
 *   2      held, somebody may sleep   0 (unlock, then one wake)
 */
#ifndef TETHER_LOCK_H
#define TETHER_LOCK_H

#include "platform.h"

typedef struct {
    _Atomic uint32_t word;
} tether_lock_t;

void tether__lock_slow(tether_lock_t *lock);

static inline void tether_lock(tether_lock_t *lock)
{
    uint32_t free_word = 0;
    if (!cas_acquire(&lock->word, &free_word, 1))
        tether__lock_slow(lock);
}

static inline void tether_unlock(tether_lock_t *lock)
{
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2)
        tether_futex_wake(&lock->word);
}

#endif
