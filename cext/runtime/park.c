/* Parkers and the lot. Why no wake-up is lost: protocol.md, "Waking". */
#include "park.h"

#include "lock.h"

tether_status_t tether_park(tether_parker_t *parker, uint64_t deadline)
{
    uint32_t seen = TETHER_PARKER_EMPTY;
    tether_status_t status = TETHER_OK;
    if (cas_acq_rel(&parker->word, &seen, TETHER_PARKER_PARKED)) {
        status = tether_futex_wait(&parker->word, TETHER_PARKER_PARKED, deadline);
    }
    /* Takes the wake-up if there is one; one that raced with the time-out counts as a wake. */
    if (swap_acq_rel(&parker->word, TETHER_PARKER_EMPTY) == TETHER_PARKER_NOTIFIED)
        return TETHER_OK;
    return status;
}

void tether_unpark(tether_parker_t *parker)
{
    if (swap_acq_rel(&parker->word, TETHER_PARKER_NOTIFIED) == TETHER_PARKER_PARKED)
        tether_futex_wake(&parker->word);
}

typedef struct waiter {
    struct waiter *next, *prev;
    const void *key;
    tether_parker_t *parker;
    bool queued; /* guarded by the bucket's lock */
} waiter_t;

typedef struct {
    tether_lock_t lock; /* guards the list and `queued` of every waiter in it */
    waiter_t *head, *tail;
    char pad[64 - sizeof(tether_lock_t) - 4 - 2 * sizeof(void *)];
} bucket_t;

enum { BUCKETS = 256, WAKE_BATCH = 32 };

/* One per process: keys of different interpreters do not clash, since they are addresses. */
static bucket_t lot[BUCKETS];

static bucket_t *bucket_of(const void *key)
{
    uintptr_t k = (uintptr_t)key;
    return &lot[((k >> 4) ^ (k >> 12) ^ (k >> 20)) % BUCKETS];
}

static void unlink_waiter(bucket_t *bucket, waiter_t *w)
{
    *(w->prev ? &w->prev->next : &bucket->head) = w->next;
    *(w->next ? &w->next->prev : &bucket->tail) = w->prev;
    w->queued = false;
}

tether_status_t tether_lot_wait(const void *key, tether_parker_t *parker, bool (*still)(void *), void *arg,
                                uint64_t deadline)
{
    bucket_t *bucket = bucket_of(key);
    waiter_t w = {.key = key, .parker = parker, .queued = true};
    tether_lock(&bucket->lock);
    if (!still(arg)) {
        tether_unlock(&bucket->lock);
        return TETHER_OK;
    }
    w.prev = bucket->tail;
    *(bucket->tail ? &bucket->tail->next : &bucket->head) = &w;
    bucket->tail = &w;
    tether_unlock(&bucket->lock);

    tether_status_t status = tether_park(parker, deadline);

    tether_lock(&bucket->lock);
    if (w.queued)
        unlink_waiter(bucket, &w);
    else
        status = TETHER_OK; /* wake_all chose us; a time-out at the same moment gives way */
    tether_unlock(&bucket->lock);
    return status;
}

void tether_lot_wake_all(const void *key)
{
    bucket_t *bucket = bucket_of(key);
    tether_parker_t *batch[WAKE_BATCH];
    int n;
    do {
        n = 0;
        tether_lock(&bucket->lock);
        for (waiter_t *w = bucket->head, *next; w && n < WAKE_BATCH; w = next) {
            next = w->next;
            if (w->key == key) {
                batch[n++] = w->parker; /* the waiter itself is on the sleeper's stack: not ours once unlocked */
                unlink_waiter(bucket, w);
            }
        }
        tether_unlock(&bucket->lock);
        for (int i = 0; i < n; i++)
            tether_unpark(batch[i]);
    } while (n == WAKE_BATCH);
}

void tether__lot_after_fork(void)
{
    for (int i = 0; i < BUCKETS; i++) {
        store_relaxed(&lot[i].lock.word, 0);
        lot[i].head = lot[i].tail = NULL;
    }
}
