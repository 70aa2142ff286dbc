/* A runtime: one per Python interpreter. */
#ifndef TETHER_RUNTIME_H
#define TETHER_RUNTIME_H

#include "types.h"

/* NULL: out of memory. host is copied. */
tether_runtime_t *tether_runtime_new(const tether_host_t *host, void *host_data);

/* No new tasks from now on (they are refused with SHUTDOWN). returns whether no task is alive, for good. */
bool tether_runtime_close(tether_runtime_t *rt);

/* Tasks that have not ended. */
uint64_t tether_runtime_live(tether_runtime_t *rt);

/* Waits until no task is alive. Call detached. returns OK, INTERRUPTED (a signal, or the slice is over: call again). */
tether_status_t tether_runtime_drain(tether_thread_t *thread);

/* A task has ended while somebody drains. */
void tether_runtime_check_drained(tether_runtime_t *rt);

/* Ends ticker and crew and waits for their threads. pre: no task is alive; detached. */
void tether_runtime_stop(tether_runtime_t *rt);

/* Has the runtime threads that nothing needs: idle ones, the ticker, ones that are ending? No, as long as a task is alive that
 * does not run on the calling thread's stack. */
bool tether_runtime_lingers(tether_thread_t *thread);

/* Ends these threads, before a fork: a process whose tasks have all ended is then single-threaded. It is an attempt: if for
 * a second none of them ends (a thread that wants to end may need what the caller holds) it gives up. Call detached. */
void tether_runtime_rest(tether_thread_t *thread);

/* Forks that lie between the first process and this one, since the runtime is in use. */
extern _Atomic uint32_t tether__forks;

/* Is this what a parent process left? Its threads do not exist here, its locks may be held for ever, its lists may be torn:
 * nothing of it may be used, but for atomic words and what was fixed at birth. */
static inline bool tether_runtime_foreign(const tether_runtime_t *rt) { return rt->forks != load_relaxed(&tether__forks); }

/* In the child of a fork, on its only thread: makes what runtimes share fit for use, and the runtimes foreign. The system
 * calls it in every child of the C library's fork; whoever forks without that calls it. */
void tether_after_fork(void);

/* Frees a stopped runtime. */
void tether_runtime_free(tether_runtime_t *rt);

#endif
