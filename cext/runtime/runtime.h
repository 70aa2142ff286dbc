/* A runtime: one per Python interpreter. */
#ifndef TETHER_RUNTIME_H
#define TETHER_RUNTIME_H

#include "types.h"

/* NULL: out of memory. host is copied. */
tether_runtime_t *tether_runtime_new(const tether_host_t *host, void *host_data);

/* No new tasks from now on (they are refused with SHUTDOWN). */
void tether_runtime_close(tether_runtime_t *rt);

/* Tasks that have not ended. */
uint64_t tether_runtime_live(tether_runtime_t *rt);

/* Waits until no task is alive. Call detached. returns OK, INTERRUPTED (a signal, or the slice is over: call again). */
tether_status_t tether_runtime_drain(tether_thread_t *thread);

/* A task has ended while somebody drains. */
void tether_runtime_check_drained(tether_runtime_t *rt);

/* Ends ticker and crew and waits for their threads. pre: no task is alive; detached. */
void tether_runtime_stop(tether_runtime_t *rt);

/* In the child of a fork, on its only thread: frees the process-wide locks from threads that do not exist any more. Old
 * runtimes stay as they are and must not be used. */
void tether_after_fork(void);

/* Frees a stopped runtime. */
void tether_runtime_free(tether_runtime_t *rt);

#endif
