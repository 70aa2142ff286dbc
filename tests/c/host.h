/* A host for tests: what the binding does, in small. Tasks are C functions; `serial` hosts have a fake GIL, a mutex
 * that every thread holds between attach and detach. */
#ifndef HOST_H
#define HOST_H

#include <semaphore.h>

#include "crew.h"
#include "lane.h"
#include "loop.h"
#include "owner.h"
#include "runtime.h"
#include "scope.h"
#include "spin.h"
#include "task.h"
#include "thread.h"
#include "ticker.h"
#include "wait.h"

typedef struct host host_t;

/* A task's work, attached. returns false: the task fails. */
typedef bool (*work_t)(host_t *host, void *arg);

/* A task block. The pointer that host_spawn gives is the guard (for a child of a scope: its handle). */
typedef struct {
    tether_task_t task; /* first */
    host_t *host;
    work_t work;
    void *arg;
    bool failed;
    bool killed; /* ended without having run: no failure */
    bool has_value;
} job_t;

struct host {
    tether_runtime_t *rt;
    bool serial;
    pthread_mutex_t gil;
    _Atomic long begun, ended;          /* crew threads, by the host's callbacks */
    _Atomic long spawned, ran;          /* jobs; jobs that have ended */
    _Atomic long values_made, values_gone;
    _Atomic long released;              /* loose jobs whose exit value has been let go */
    _Atomic long reported;              /* of these, failures */
    _Atomic long in_place;
    _Atomic long refused;               /* waits answered with DEADLOCK */
};

typedef struct {
    bool serial;
    unsigned lanes, max_threads;
} host_options_t;

/* Makes a runtime; the calling thread is attached. host_finish: drains, stops and frees it, and
 * checks that nothing is left. */
void host_start(host_t *host, host_options_t options);
void host_finish(host_t *host);

/* What a program thread does around its use of the host; the thread that called host_start is attached already. */
void host_attach(host_t *host);
void host_detach(host_t *host);

/* Lets the others in, as a program does sooner or later. */
void host_yield(host_t *host);

/* The calling thread's record. */
tether_thread_t *host_thread(host_t *host);

enum { HOST_DEDICATED = 1, HOST_NATIVE = 8 /* its work runs detached on crew threads; also for host_wait */ };

/* Attached. scope NULL: owned by the running task or the root. *status may be NULL, then success is checked.
 * returns NULL unless OK; then nothing is left behind. */
job_t *host_spawn_in(host_t *host, tether_scope_t *scope, work_t work, void *arg, int flags, tether_status_t *status);
job_t *host_spawn(host_t *host, work_t work, void *arg);

/* Runs a claimed job on this thread as its own task, attached, as the contracts of task.h and crew.h say. */
void host_run(host_t *host, job_t *job);

enum {
    HOST_ELSEWHERE = 1,   /* never in place */
    HOST_HELP = 2,        /* may run other tasks meanwhile */
    HOST_CANCELLABLE = 4,
};

/* Waits until the job has ended; runs it in place when nobody has claimed it. returns OK, TIMEOUT, CANCELLED or
 * DEADLOCK. */
tether_status_t host_wait(host_t *host, job_t *job, int flags, uint64_t deadline);

/* After a wait that was OK, once: takes the exit value. returns true if the job succeeded. */
bool host_reap(host_t *host, job_t *job);

/* The guard goes; do not use the job any more. pre: reaped, or a handle whose value is left to the scope. */
void host_drop(host_t *host, job_t *job);

/* wait + reap + drop. */
bool host_join(host_t *host, job_t *job);

/* The guard goes without a join: the runtime releases the job when it ends. flags: TETHER_F_ADOPTED or _DETACHED. */
void host_loosen(host_t *host, job_t *job, uint32_t flags);

/* Cancels; a job that nobody has started is ended unrun, failed. returns false if it had ended. */
bool host_cancel(host_t *host, job_t *job);

/* Sleeps in the runtime until cancelled. returns true when it was. */
bool host_sleep(host_t *host, uint64_t deadline);

/* Blocks in foreign code: lets the host go, but the runtime does not know. */
void host_sem_wait(host_t *host, sem_t *sem);

/* Runs a loop as the binding does: attached before and afterwards, detached meanwhile. */
tether_status_t host_loop(host_t *host, tether_loop_t *loop);

/* Leaves the scope's block: runs or awaits the children; returns how many failures nobody had collected. */
long host_leave(host_t *host, tether_scope_t *scope);

#endif
