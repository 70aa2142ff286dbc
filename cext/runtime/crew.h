/* The crew: native threads that the runtime made. A thread with nothing to do looks around for a moment, then sleeps in
 * the idle list (the one that worked last is taken first, its caches are warm) and retires after a while.
 *
 * Work reaches a crew thread in two ways: a dedicated task is assigned to it, and everything else it takes from the lanes.
 * On builds with a GIL it takes the GIL first and the task afterwards, so that whoever holds the GIL can still run the
 * task in place meanwhile.
 *
 * A thread that has nothing to do also helps with loops (loop.h), without attaching. */
#ifndef TETHER_CREW_H
#define TETHER_CREW_H

#include "types.h"

/* Gives a dedicated task to an idle thread or to a new one. stack_size 0: the default. returns OK, NO_THREAD, NO_MEMORY. */
tether_status_t tether_crew_give(tether_runtime_t *rt, tether_task_t *task, size_t stack_size);

/* Something is queued and a thread could take it: wakes a sleeping one, unless one is on its way already. */
void tether_crew_nudge(tether_runtime_t *rt);

/* The same, and starts a thread where none is idle; ignores those on their way. returns OK or NO_THREAD, NO_MEMORY. */
tether_status_t tether_crew_grow(tether_runtime_t *rt);

/* Sees to it that up to `wanted` threads come to help with loops, as long as no more than `most` help in all: those that spin
 * see the loop by themselves, others are woken or started. What cannot be had is done without. */
void tether_crew_call(tether_runtime_t *rt, unsigned wanted, unsigned most);

/* On crew threads: attach and detach through the host, once. attach cannot fail once it has succeeded. */
bool tether_crew_attach(tether_thread_t *me);
void tether_crew_detach(tether_thread_t *me);

/* A crew thread is about to announce the end of what it ran, and will be free in a moment. */
void tether_crew_turning(tether_thread_t *me);

/* Threads that are not idle. */
uint32_t tether_crew_busy(tether_runtime_t *rt);

/* While rt->resting: wakes the idle threads, which then leave. */
void tether_crew_send_away(tether_runtime_t *rt);

/* Has a thread retired that may still be there? Waits until none is, or until a point of time. */
bool tether_crew_unjoined(tether_runtime_t *rt);
void tether_crew_join_gone(tether_runtime_t *rt, uint64_t until);

/* Makes every idle thread leave, and waits until no thread is alive. pre: rt->stopping; nothing queued or running. */
void tether_crew_stop(tether_runtime_t *rt);

#endif
