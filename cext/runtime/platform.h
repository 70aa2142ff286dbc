/* The contract with the operating system. Everything that is not C11 goes through here; a port writes one file,
 * platform_<system>.c. Nothing here knows tasks.
 *
 * Times are nanoseconds on a monotonic clock. A deadline is a point in time, TETHER_FOREVER for none. */
#ifndef TETHER_PLATFORM_H
#define TETHER_PLATFORM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atomic.h"
#include "status.h"

#define TETHER_FOREVER UINT64_MAX

uint64_t tether_now(void);

/* CPU time used so far by the process, and by the calling thread. */
uint64_t tether_cpu_of_process(void);
uint64_t tether_cpu_of_thread(void);

/* Processors that this process may use now; at least 1. */
unsigned tether_cores(void);

/* Sleeps while *word == expected, until a wake, the deadline or a signal handler.
 * pre: word is not freed while anyone waits on it.
 * returns OK (woken, or the value differed: look again), TIMEOUT or INTERRUPTED. */
tether_status_t tether_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline);

/* Wakes at most one waiter. The word may already be freed memory of the process: only its address is used. */
void tether_futex_wake(_Atomic uint32_t *word);

/* Starts a joinable native thread, with the signal mask of the caller (as any thread of Python's has it).
 * stack_size 0 means the system's default. returns OK or NO_THREAD. */
tether_status_t tether_native_start(pthread_t *handle, void *(*entry)(void *), void *arg, size_t stack_size);

/* Does the system count this thread among those of the process? By its tether_native_id. */
bool tether_native_exists(unsigned long native_id);

/* Waits until it does not, or until a point of time. The number may belong to another thread by now. */
void tether_native_await_end(unsigned long native_id, uint64_t until);

/* Waits for the end of a thread that tether_native_start made, and that has noted its tether_native_id; for that one, too. */
void tether_native_join(pthread_t handle, const _Atomic unsigned long *native_id);

/* child() is called in the child of every fork, before anything else runs there. */
void tether_native_at_fork(void (*child)(void));

/* Lets another runnable thread have this processor. */
void tether_native_yield(void);

/* Names the calling thread for the system's tools (truncated to what the system shows). */
void tether_native_name(const char *name);

/* Lets timed waits of the calling thread end close to their deadline. */
void tether_native_precise_timers(void);

/* The kernel's number of the calling thread. */
unsigned long tether_native_id(void);

/* Does that thread of this process run, or wait for a processor? false: it sleeps, is gone, or the system does not say. */
bool tether_native_runs(unsigned long native_id);

/* Lowest usable address of the calling thread's stack, and its size in bytes. */
void tether_native_stack(char **lowest, size_t *size);

/* Allocation. Memory is zeroed. NULL when there is none. */
void *tether_alloc(size_t size);
void tether_free(void *memory);

/* Pages. These answer 0, or the system's error number: people look those up. Sizes and addresses are whole pages. */
/* zeroed; of a file, written: private; shared */
typedef enum { TETHER_PAGES_OWN, TETHER_PAGES_COPY, TETHER_PAGES_SHARED } tether_pages_t;
typedef enum { TETHER_ACCESS_NONE, TETHER_ACCESS_READ, TETHER_ACCESS_WRITE } tether_access_t;
typedef enum {
    TETHER_ADVICE_NORMAL,
    TETHER_ADVICE_SEQUENTIAL,
    TETHER_ADVICE_RANDOM,
    TETHER_ADVICE_WILLNEED,
    TETHER_ADVICE_DONTNEED,
    TETHER_ADVICE_HUGE,
} tether_advice_t;

size_t tether_page_size(void);
size_t tether_huge_page_size(void);

/* Maps `size` bytes: of fd from `offset` on, or (OWN) of nothing. align: a multiple of the page size for where it begins. */
int tether_pages_map(tether_pages_t kind, size_t size, size_t align, int fd, uint64_t offset, tether_access_t access,
                     char **base);
int tether_pages_unmap(char *base, size_t size); /* a part of a mapping may fail to go: the system counts mappings */
int tether_pages_protect(char *base, size_t size, tether_access_t access);
int tether_pages_flush(char *base, size_t size); /* writes a file's changed pages back, and waits */
int tether_pages_advise(char *base, size_t size, tether_advice_t advice);

/* A file that lives in memory only and can neither grow nor shrink any more. */
int tether_memory_file(const char *name, size_t size, int *fd);

/* Failure injection, for tests: lets the nth (1 = next) thread creation, allocation or change of pages
 * of the runtime fail, once; a negative
 * nth: the -nth and all that follow. 0 switches it off. Returns what was left of the count, 0 if it has struck. */
typedef enum { TETHER_FAIL_THREAD, TETHER_FAIL_ALLOC, TETHER_FAIL_PAGES, TETHER_FAIL_KINDS } tether_fail_t;
long tether_fail_nth(tether_fail_t kind, long nth);

_Noreturn void tether_fatal(const char *what);

#endif
