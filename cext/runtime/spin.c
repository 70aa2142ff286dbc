#include "spin.h"

tether_spin_t tether_spin_start(tether_thread_t *thread)
{
    tether_spin_t spin = {.thread = thread};
    if (load_relaxed(&thread->rt)->cores < 2)
        spin.round = UINT32_MAX; /* whoever we wait for needs this core */
    return spin;
}

bool tether_spin_more(tether_spin_t *spin)
{
    if (spin->round == UINT32_MAX)
        return false;
    /* The clock is read now and then only: a look costs about 10 ns, a clock 25. */
    if (spin->round % 16 == 15) {
        uint64_t now = tether_now();
        if (spin->started == 0) {
            spin->started = now;
            spin->until = now + spin->thread->spin;
        } else if (now >= spin->until) {
            return false;
        } else if (now - spin->started > TETHER_SPIN_ALONE) {
            tether_native_yield();
        }
    }
    spin->round++;
    tether_pause();
    return true;
}

void tether_spin_learn(tether_spin_t *spin)
{
    if (spin->started == 0)
        return; /* it came at once, which says nothing about the bound */
    uint64_t took = tether_now() - spin->started;
    uint32_t bound = took < TETHER_SPIN_MOST ? (uint32_t)took * 2 : spin->thread->spin / 2;
    spin->thread->spin = bound < TETHER_SPIN_LEAST ? TETHER_SPIN_LEAST : bound > TETHER_SPIN_MOST ? TETHER_SPIN_MOST : bound;
}
