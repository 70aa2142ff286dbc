/* Parallel loops over 0..n in C, by the calling thread and whatever crew threads are free (loop.md).
 *
 *     static int twice(void *numbers, size_t begin, size_t end)
 *     { for (size_t i = begin; i < end; i++) ((double *)numbers)[i] *= 2; return 0; }
 *
 *     tether_loop_t loop = {.n = n, .guided = true, .body = twice, .arg = numbers};
 *     tether_status_t status = tether_loop_run(thread, &loop);
 *
 * Bodies run detached from the host, several at once, each with a part of its own; together the parts are the range. */
#ifndef TETHER_LOOP_H
#define TETHER_LOOP_H

#include "types.h"

/* 0, or anything else: it failed, and no more is begun. */
typedef int tether_loop_body_t(void *arg, size_t begin, size_t end);

enum { TETHER_LOOP_LINE = 64 }; /* bytes of a cache line */

typedef struct tether_loop {
    /* The caller's. At most SIZE_MAX / 2. */
    size_t n;
    size_t grain;         /* parts begin at multiples of it; 0: chosen */
    unsigned threads;     /* most threads, the caller among them; 0: as many as there are cores */
    bool guided;          /* else static */
    tether_loop_body_t *body;
    void *arg;
    bool (*look)(void *look_arg); /* called by the caller's thread every 50 ms or so, detached; false: give up. May be NULL */
    void *look_arg;

    /* FAILED: the answer of the body, and which part it was. */
    int code;
    size_t begin, end;

    /* The runtime's. */
    size_t units;         /* grains, the last one maybe shorter */
    unsigned limit;       /* helpers */
    _Atomic uint32_t failed;
    _Atomic uint32_t stop;
    char apart[TETHER_LOOP_LINE]; /* what follows is written by everybody, what is before it is read by everybody */
    _Atomic size_t next;  /* units that have been taken */
} tether_loop_t;

/* Runs a loop. Call detached, between tether_wait_enter and tether_wait_leave. No body runs when it returns.
 * returns OK (all of it was done), FAILED, CANCELLED (the caller was: some of it was not begun), INTERRUPTED (look said so;
 * in the child of a fork made there, at once). */
tether_status_t tether_loop_run(tether_thread_t *thread, tether_loop_t *loop);

/* Helps with loops while there are some. On crew threads, detached, without a task. */
void tether_loop_help(tether_thread_t *me);

/* Is there a loop that takes helpers? */
static inline bool tether_loop_wanted(tether_runtime_t *rt) { return atomic_load(&rt->loops.wanted) != 0; }

/* Are there loops at all, with helpers or open to them? */
static inline bool tether_loop_open(tether_runtime_t *rt) { return atomic_load(&rt->loops.taken) != 0; }

#endif
