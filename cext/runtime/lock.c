/* The slow path of the lock: spin a little, then sleep (the three-state futex mutex of Drepper, "Futexes Are Tricky"). */
#include "lock.h"

void tether__lock_slow(tether_lock_t *lock)
{
    for (int i = 0; i < 100; i++) {
        uint32_t free_word = 0;
        if (load_relaxed(&lock->word) == 0 && cas_acquire(&lock->word, &free_word, 1))
            return;
        tether_pause();
    }
    while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
        tether_futex_wait(&lock->word, 2, TETHER_FOREVER);
}
