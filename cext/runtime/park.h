/* Sleeping and waking.
 *
 * A parker belongs to one thread and holds at most one wake-up. A waiter that finds the wake-up already there does not
 * sleep, so a wake before the sleep is never lost. Wake-ups may be spurious: every caller looks again at what it waits for.
 *
 *   word      meaning                          legal next
 *   EMPTY     no wake-up, awake                PARKED (owner), NOTIFIED (anyone)
 *   PARKED    the owner sleeps or is about to  NOTIFIED (anyone, who then wakes the kernel waiter), EMPTY (owner, on time-out)
 *   NOTIFIED  a wake-up waits                  EMPTY (owner takes it)
 *
 * The lot lets a thread sleep until something *at an address* happens. Whoever makes it happen needs one flag bit beside
 * the data ("somebody waits") and calls wake_all with the address; the object may be freed by then, since the address is
 * only compared. After WebKit's ParkingLot and CPython's parking_lot.c.
 *
 *     // waiting for bit DONE of word                  // making it happen
 *     static bool still(void *w)                       old = or_acq_rel(word, DONE);
 *     { return !(or_acq_rel(w, WAITED) & DONE); }      if (old & WAITED)
 *     while (!(load_acquire(word) & DONE))                 tether_lot_wake_all(word);
 *         tether_lot_wait(word, parker, still, word, deadline);
 */
#ifndef TETHER_PARK_H
#define TETHER_PARK_H

#include "platform.h"

enum { TETHER_PARKER_EMPTY, TETHER_PARKER_NOTIFIED, TETHER_PARKER_PARKED };

typedef struct {
    _Atomic uint32_t word;
} tether_parker_t;

/* Called by the owner only. returns OK, TIMEOUT or INTERRUPTED; after each of them the word is EMPTY. */
tether_status_t tether_park(tether_parker_t *parker, uint64_t deadline);

/* Called by anyone, with or without locks held. pre: the parker's memory lives (thread records do, thread.h). */
void tether_unpark(tether_parker_t *parker);

/* Sleeps on `key` if still(arg) is true under the key's bucket lock; still() must not block.
 * returns OK (woken by wake_all, by a bare unpark, or still() was false), TIMEOUT or INTERRUPTED. */
tether_status_t tether_lot_wait(const void *key, tether_parker_t *parker, bool (*still)(void *), void *arg,
                                uint64_t deadline);

/* Wakes everyone who sleeps on `key`. */
void tether_lot_wake_all(const void *key);

/* In the child of a fork: nobody sleeps here. */
void tether__lot_after_fork(void);

#endif
