/* The C API of tether, for other extensions: spawn, join, loops and borrows in C, without the GIL.
 *
 *     static const TetherAPI *tether;                              // or in the module's state
 *     if ((tether = Tether_Import()) == NULL) return -1;           // in the module's exec function, attached
 *
 *     Py_BEGIN_ALLOW_THREADS
 *     TetherScope *scope;
 *     if (Tether_Open(tether, 0, &scope) == Tether_OK) {
 *         Tether_Spawn(tether, scope, work, &one, "work", NULL);   // int work(void *arg), on whatever thread
 *         work(&two);
 *         status = Tether_Close(tether, scope, &code);             // both have ended
 *     }
 *     Py_END_ALLOW_THREADS
 *
 * Rules
 *   The GIL. "Attached" functions need an attached thread state (the GIL, on builds that have one), and raise as CPython's
 *     do. All others neither need nor touch one, and answer a code. Those marked "waits" must be called detached: what they
 *     wait for may need the GIL. C functions that tether calls are called detached on other threads; on the caller's, as
 *     the caller is. One that needs Python attaches itself (PyGILState_Ensure, in the main interpreter), and detaches before it
 *     returns.
 *   Threads. Any native thread may call; the first call from a thread makes tether's record of it (or Tether_NO_MEMORY).
 *   Tasks. A spawned function runs once, at the latest in Tether_Close, which waits for all that was spawned into its scope
 *     (G2): arguments may lie on the stack of who opened it. It is a task in every respect: tether.tasks() shows it, a scope's
 *     cancellation reaches it, waiting tasks get threads (G8).
 *   The end of the interpreter. It waits for tasks. Then Tether_Spawn answers Tether_SHUTDOWN: call the function yourself. When
 *     the interpreter has gone nothing of this may be called.
 *   Fork. In the child, scopes, tasks, regions and borrows of the parent answer Tether_FORKED, or do nothing if they answer
 *     nothing; what is opened there works.
 *   Interpreters. The table is one interpreter's own. Keep it in your module's state. */
#ifndef TETHER_H
#define TETHER_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when something that is here changes; what is added is behind the rest, and `size` tells. */
#define TETHER_API_VERSION 1
#define TETHER_API_CAPSULE "tether._core._C_API"

typedef enum {
    Tether_OK = 0,
    Tether_FAILED = 1,     /* a function answered other than 0 */
    Tether_CANCELLED = 2,  /* the caller's task, or a scope whose body this is, was cancelled */
    Tether_KILLED = 3,     /* the task was cancelled before it started, and never ran */
    Tether_CONFLICT = 4,   /* lent to somebody else */
    Tether_TIMEOUT = 5,
    Tether_DEADLOCK = 6,   /* this wait could never end: what is waited for waits for the caller */
    Tether_CLOSED = 7,     /* the scope takes no more tasks; the region is closed, or was consumed */
    Tether_READ_ONLY = 8,
    Tether_INVALID = 9,    /* an argument out of range */
    Tether_NO_MEMORY = 10,
    Tether_NO_THREAD = 11, /* the system gives no more threads */
    Tether_SHUTDOWN = 12,  /* the interpreter is going away */
    Tether_FORKED = 13,    /* a parent process's */
} TetherStatus;

typedef struct TetherAPI TetherAPI;
typedef struct TetherScope TetherScope;   /* tasks that end before it does */
typedef struct TetherTask TetherTask;     /* a handle of one of them */
typedef struct TetherRegion TetherRegion; /* a tether.Region that is kept alive */
typedef struct TetherBorrow TetherBorrow; /* a lent range of it */

/* A task. 0, or anything else: it failed. */
typedef int TetherFunction(void *arg);

/* A part of a loop, as for tether.native.parallel_for. */
typedef int TetherRangeFunction(intptr_t begin, intptr_t end, void *user_data);

enum { Tether_WAIT_ALL = 1 }; /* for scope_open: a failed task does not cancel the others */

typedef struct {
    intptr_t grain;     /* least numbers in a part; parts begin at multiples of it. 0: chosen */
    unsigned threads;   /* most threads, the caller's among them. 0: as many as there are cores */
    unsigned is_static; /* parts of one grain, instead of ones that become smaller */
} TetherSchedule;

typedef struct {
    int code;           /* what the function answered, */
    intptr_t begin, end; /* and for which part */
} TetherFailure;

/* The table behind the capsule. Call by the macros below. */
struct TetherAPI {
    uint32_t version, size;
    void *state;

    /* Attached. Once, before the first use; Tether_Import does it. 0, or -1 with an exception. */
    int (*prepare)(const TetherAPI *api);

    /* Opens a scope in what runs on the calling thread; closed there, innermost first. OK, NO_MEMORY. */
    TetherStatus (*scope_open)(const TetherAPI *api, unsigned flags, TetherScope **scope);

    /* Asks its tasks to end, and the body, if that looks (cancelled). Any thread, while it is open. */
    void (*scope_cancel)(const TetherAPI *api, TetherScope *scope);

    /* Waits: runs and awaits its tasks. The scope is gone afterwards. OK; FAILED (*code: what the first of those answered whose
     * failure nobody joined; code may be NULL); CANCELLED (all have ended). Not to be interrupted: a signal is for the caller
     * to look at, afterwards. */
    TetherStatus (*scope_close)(const TetherAPI *api, TetherScope *scope, int *code);

    /* Spawns fn(arg), lazily: it starts when a thread is free, or in the hands of who waits for it. Any thread, while the scope
     * is open. name: for people, kept as it is; may be NULL. task: NULL, or a handle that must be joined or dropped.
     * OK, CLOSED, NO_MEMORY, NO_THREAD, SHUTDOWN, FORKED: nothing was spawned. */
    TetherStatus (*spawn)(const TetherAPI *api, TetherScope *scope, TetherFunction *fn, void *arg, const char *name,
                          TetherTask **task);

    /* Waits until it has ended; runs it here if nobody has begun. Any thread. OK, FAILED (*code; may be NULL), KILLED: the
     * handle is gone. CANCELLED, DEADLOCK: it is not; join again, or drop it. */
    TetherStatus (*join)(const TetherAPI *api, TetherTask *task, int *code);

    /* Lets go of a handle; the scope still waits. */
    void (*drop)(const TetherAPI *api, TetherTask *task);

    /* Has what runs on the calling thread been cancelled? Cheap: for long loops. */
    int (*cancelled)(const TetherAPI *api);

    /* Waits: calls fn for every part of 0..n, here and on helpers. schedule, failure: may be NULL. OK; FAILED (*failure);
     * CANCELLED: some of it was not begun; INVALID. */
    TetherStatus (*parallel_for)(const TetherAPI *api, TetherRangeFunction *fn, intptr_t n, void *user_data,
                                 const TetherSchedule *schedule, TetherFailure *failure);

    /* Attached. Keeps a tether.Region alive, for borrowing without the GIL; lets go of it, when nothing is lent by it any more.
     * NULL with an exception: not a Region. */
    TetherRegion *(*pin)(const TetherAPI *api, PyObject *region);
    void (*unpin)(const TetherAPI *api, TetherRegion *region);

    /* Borrows the bytes start..stop (SIZE_MAX: to the end), exclusively or shared, for what runs here; a task's borrows end
     * with it at the latest. timeout: nanoseconds; 0 at once, negative: for ever; then it waits. *data: the first of the bytes.
     * OK, CONFLICT, TIMEOUT, CANCELLED, DEADLOCK, READ_ONLY, CLOSED, INVALID, NO_MEMORY, FORKED. */
    TetherStatus (*borrow)(const TetherAPI *api, TetherRegion *region, size_t start, size_t stop, int exclusive,
                           int64_t timeout, TetherBorrow **borrow, void **data);

    /* Ends it and frees the handle; by any thread, once. */
    void (*release)(const TetherAPI *api, TetherBorrow *borrow);
};

#define Tether_Open(api, flags, scope) ((api)->scope_open((api), (flags), (scope)))
#define Tether_Cancel(api, scope) ((api)->scope_cancel((api), (scope)))
#define Tether_Close(api, scope, code) ((api)->scope_close((api), (scope), (code)))
#define Tether_Spawn(api, scope, fn, arg, name, task) ((api)->spawn((api), (scope), (fn), (arg), (name), (task)))
#define Tether_Join(api, task, code) ((api)->join((api), (task), (code)))
#define Tether_Drop(api, task) ((api)->drop((api), (task)))
#define Tether_Cancelled(api) ((api)->cancelled((api)))
#define Tether_ParallelFor(api, fn, n, user_data, schedule, failure) \
    ((api)->parallel_for((api), (fn), (n), (user_data), (schedule), (failure)))
#define Tether_Pin(api, region) ((api)->pin((api), (region)))
#define Tether_Unpin(api, region) ((api)->unpin((api), (region)))
#define Tether_Share(api, region, start, stop, timeout, borrowed, data) \
    ((api)->borrow((api), (region), (start), (stop), 0, (timeout), (borrowed), (data)))
#define Tether_BorrowMut(api, region, start, stop, timeout, borrowed, data) \
    ((api)->borrow((api), (region), (start), (stop), 1, (timeout), (borrowed), (data)))
#define Tether_Release(api, borrowed) ((api)->release((api), (borrowed)))

/* Attached. The table of the calling interpreter, checked; NULL with an exception. */
static inline const TetherAPI *Tether_Import(void)
{
    const TetherAPI *api = (const TetherAPI *)PyCapsule_Import(TETHER_API_CAPSULE, 0);
    if (api == NULL)
        return NULL;
    if (api->version != TETHER_API_VERSION || api->size < sizeof(TetherAPI)) {
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled for version %d of tether's C API, with %zu bytes; the tether that is installed "
                     "has version %u, with %u bytes: compile it again, or install the tether that it was compiled for",
                     TETHER_API_VERSION, sizeof(TetherAPI), (unsigned)api->version, (unsigned)api->size);
        return NULL;
    }
    return api->prepare(api) < 0 ? NULL : api;
}

#ifdef __cplusplus
}
#endif

#endif
