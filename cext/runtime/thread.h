/* The record of a native thread in a runtime.
 *
 * A record lives as long as its runtime: waking a record whose thread has gone, or has become another's, is harmless.
 * Program threads get theirs at first use, crew threads at birth; the record of a thread that has ended serves the next. */
#ifndef TETHER_THREAD_H
#define TETHER_THREAD_H

#include "types.h"

/* The calling thread's newest record; look at its rt before use. */
extern _Thread_local tether_thread_t *tether__thread __attribute__((tls_model("initial-exec")));

tether_thread_t *tether__thread_find(tether_runtime_t *rt);

/* The calling thread's record in rt; made when there is none. NULL: out of memory. */
static inline tether_thread_t *tether_thread(tether_runtime_t *rt)
{
    tether_thread_t *t = tether__thread;
    if (t != NULL && load_relaxed(&t->rt) == rt)
        return t;
    return tether__thread_find(rt);
}

/* A fresh record in rt->threads, of the crew or of the program, bound to no native thread yet. NULL: out of memory. */
tether_thread_t *tether_thread_new(tether_runtime_t *rt, bool crew);

/* Binds a record to the calling native thread. */
void tether_thread_bind(tether_thread_t *thread);

/* Takes the record off the calling native thread, a crew thread at its end. Whoever joins that thread marks it exited. */
void tether_thread_unbind(tether_thread_t *thread);

/* Bytes of stack left below the caller. */
static inline size_t tether_thread_room(const tether_thread_t *thread)
{
    char *here = (char *)__builtin_frame_address(0);
    return here > thread->stack_low ? (size_t)(here - thread->stack_low) : 0;
}

/* Is the calling thread, that is a task on its stack or a scope whose body it is in, cancelled? Cheap when nobody
 * cancelled anything since the last call. */
bool tether_thread_cancelled(tether_thread_t *thread);

/* The earliest deadline of a scope that the calling thread's stack stands in; cancels scopes whose time is over. */
uint64_t tether_thread_limit(tether_thread_t *thread);

/* In the child of a fork: this native thread's records of the old runtimes are forgotten. */
void tether__thread_after_fork(void);

/* Frees all records of a runtime that is going away; the others' pointers to them turn harmless. */
void tether_thread_forget_all(tether_runtime_t *rt);

#endif
