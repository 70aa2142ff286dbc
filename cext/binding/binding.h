/* The Python side of the runtime: what the files of this folder share.
 *
 *   module.c   the module tether._core, its functions, its state
 *   host.c     crew threads as Python threads: thread states, the GIL, exit
 *   anchor.c   thread states in sub-interpreters
 *   names.c    what a crew thread is called while it runs a task
 *   pystate.c  what a task sees: its own context, thread-locals, exception state, recursion budget
 *   job.c      a task's Python part: function, arguments, exit value; running it
 *   spawn.c    from a call to a queued task; options
 *   walk.c     the capture walk: guards in what a task is given
 *   pywait.c   waiting with the GIL let go and signals looked at
 *   guard.c    JoinGuard
 *   taskref.c  TaskRef
 *   pyscope.c  Scope
 *   site.c     where a task was spawned
 *   kill.c     raising in a running task, and only there
 *   pyborrow.c Shared and Exclusive: what is lent of a region or a value
 *   pyregion.c Region
 *   pyowned.c  Owned
 *   pyheld.c   the base of guards written in Python
 *   native.h   parts of tether.native and the C API
 *   restart.c  running a task again after a failure
 *   fork.c     what a forked child does with what its parent left
 *   forkgate.c no fork while a thread comes or goes
 *
 * State is per module object, hence per interpreter; there is no static PyObject. */
#ifndef TETHER_BINDING_H
#define TETHER_BINDING_H

#define PY_SSIZE_T_CLEAN
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wundef" /* a header of 3.15 tests a macro that gcc does not define */
#include <Python.h>
#include <structmember.h>
#pragma GCC diagnostic pop

#include "borrow.h"
#include "crew.h"
#include "lane.h"
#include "owner.h"
#include "region.h"
#include "runtime.h"
#include "scope.h"
#include "task.h"
#include "thread.h"
#include "ticker.h"
#include "wait.h"

typedef enum { PLACE_AUTO, PLACE_INLINE, PLACE_THREAD, PLACE_RANDOM } place_t;

/* Python objects that C needs by name. The first lists are resolved when the module is made; what is in _exit (behind it
 * is enum, which is dear to import) by the first spawn: need_exit_names. */
#define ERROR_OBJECTS(X)                                                                             \
    X(OwnershipError) X(TaskKilled) X(ReapedError) X(ScopeClosedError) X(ShutdownError) X(DeadlockError) X(Cancelled) \
    X(KilledTask) X(ForkedError) X(BorrowError) X(MovedError)
#define SETTLE_OBJECTS(X) X(settle) X(nothing)
#define EXIT_OBJECTS(X) X(Completed) X(Killed) X(KillReason) X(TaskState)
#define STATE_OBJECTS(X) ERROR_OBJECTS(X) SETTLE_OBJECTS(X) EXIT_OBJECTS(X)

typedef struct {
    tether_runtime_t *rt;
    PyInterpreterState *interp;
    bool sub;                  /* not the main interpreter */
    tether_lock_t anchor_lock; /* guards `anchor` (anchor.c) */
    _Atomic uint64_t helds;    /* how many were made (pyheld.c) */
    PyThreadState *anchor;
    _Atomic uint32_t spawning;              /* sub-interpreters: spawns under way */
    _Atomic uint32_t crew_at_work;          /* sub-interpreters: crew threads inside, except for those about to leave */
    _Atomic uint32_t crew_inside;           /* sub-interpreters: crew thread states that exist */
    PyTypeObject *guard_type, *ref_type, *scope_type, *options_type, *region_type, *owned_type, *shared_type, *exclusive_type,
        *held_type, *function_type, *turnstile_type;
#define X(name) PyObject *name;
    STATE_OBJECTS(X)
#undef X
    PyObject *states[5];       /* TaskState members, by the number of the state */
    PyObject *state_blocked;
    PyObject *reasons[2];      /* KillReason members: REQUESTED, EXCEPTION */
    PyObject *threading;       /* module dict: trace and profile hooks */
    PyObject *modules;         /* sys.modules */
    PyObject *_Atomic running_loop; /* _asyncio._get_running_loop once asyncio is there */
    PyObject *crew_enter, *crew_leave, *tell_abandoned, *give_back; /* of tether._crew, from the first spawn on */
    PyObject *renamed;         /* names_renamed as a function */
    PyObject *module;          /* borrowed: this state is its */
    PyObject *name_asyncio, *name_trace, *name_profile, *name_name, *name_own_name, *name_add_note, *name_clear;
    unsigned long main_thread;
    place_t place;
    _Atomic uint32_t dice;     /* PLACE_RANDOM */
    _Atomic bool exit_names;   /* what is in tether._exit has been resolved */
    _Atomic bool started;      /* the first spawn has prepared what needs preparing */
    _Atomic bool exit_hooked, gc_hooked; /* which parts of that are done: a failure half way is tried again */
    _Atomic bool draining;     /* the interpreter exits: its tasks are being waited for */
    bool stopped;              /* the crew is gone for good */
    void *api;                 /* the table of the C API */
    _Atomic(unsigned long) collecting; /* ident of the thread inside the cyclic collector, 0: none */
    _Atomic uint32_t collections_begun, collections_ended;
    tether_lock_t kill_lock;   /* kill.c */
    tether_lock_t graves_lock; /* guards writing `graves` */
    tether_task_t *_Atomic graves; /* blocks that wait for someone with the GIL (job_dispose) */
} state_t;

extern struct PyModuleDef tether_module;

static inline state_t *state_of(tether_runtime_t *rt) { return rt->host_data; }

/* Resolves what is in tether._exit. */
int need_exit_names(state_t *st);

/* The calling thread's record; raises MemoryError. */
tether_thread_t *need_thread(state_t *st);

/* The same for those who may not fail, since a task's end depends on them: memory is waited for. */
tether_thread_t *have_thread(state_t *st);

/* A millisecond without the GIL, for those who cannot be woken by what they wait for. */
void nap(void);

/* New references, since another thread may set the key at any moment; NULL without an exception: not there. */
PyObject *dict_get(PyObject *dict, PyObject *key);
PyObject *dict_item(PyObject *dict, const char *name);

#ifdef Py_GIL_DISABLED
enum { WITH_GIL = 0 };
#else
enum { WITH_GIL = 1 };
#endif

/* What lies between is done by one thread at a time, for this object: as with a GIL, as long as no Python code runs in it. */
#ifdef Py_GIL_DISABLED
#define BEGIN_ALONE(object) Py_BEGIN_CRITICAL_SECTION(object)
#define END_ALONE() Py_END_CRITICAL_SECTION()
#else
#define BEGIN_ALONE(object) {
#define END_ALONE() }
#endif

/* Without a GIL an object's count is kept by the thread that made it. When another one drops a reference that was taken
 * there, the destructor is put off until the maker's thread looks, and runs there: the owner's `del` would not wait, and
 * whatever that thread does then would. So guards, borrows, and the contexts that tasks run in, are nobody's from the start:
 * whoever drops them last destroys them (G1, G9, G14). pre: nobody else knows the object yet. */
static inline void count_for_all(PyObject *self)
{
#ifdef Py_GIL_DISABLED
    self->ob_tid = 0;
    self->ob_ref_local = 0;
    self->ob_ref_shared = _Py_REF_SHARED(1, _Py_REF_MERGED); /* as Py_SET_REFCNT does */
#else
    (void)self;
#endif
}

/* The same for what others know already, if the calling thread made it: what holds a guard must not outlive its last reference
 * either. As CPython merges the two counts. The caller has a reference. */
static inline void count_for_all_from_now(PyObject *obj)
{
#ifdef Py_GIL_DISABLED
    uint32_t *own = &obj->ob_ref_local;
    uint32_t local = __atomic_load_n(own, __ATOMIC_RELAXED);
    if (!_Py_IsOwnedByCurrentThread(obj) || local == UINT32_MAX) /* immortal */
        return;
    Py_ssize_t shared = __atomic_load_n(&obj->ob_ref_shared, __ATOMIC_RELAXED), merged;
    do {
        merged = _Py_REF_SHARED((shared >> _Py_REF_SHARED_SHIFT) + (Py_ssize_t)local, _Py_REF_MERGED);
    } while (!__atomic_compare_exchange_n(&obj->ob_ref_shared, &shared, merged, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    __atomic_store_n(own, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&obj->ob_tid, 0, __ATOMIC_RELAXED);
#else
    (void)obj;
#endif
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

typedef enum { OUTCOME_NONE, OUTCOME_VALUE, OUTCOME_FAILED, OUTCOME_KILLED } outcome_t;

enum { JOB_INLINE_ARGS = 2 };

/* A task block: the runtime's part, then Python's. Owned by the task: everything but `value` and what names it is let go
 * at exit, by the thread that ran it; `value` when it is reaped; the name and the site with the block. */
typedef struct {
    tether_task_t task;
    PyObject *fn;
    union {
        PyObject *kwnames; /* until its end: or NULL */
        PyObject *notes;   /* from its end on: what earlier attempts of a task that completed came to, a tuple; or NULL */
    };
    union {
        PyObject *context; /* until it starts: to run in, or NULL: an empty one */
        PyObject *value;   /* from its end on: the exit value, result or exception */
    };
    PyObject *label;       /* the name, or (not named) the function's name; NULL while it can be had from fn */
    PyObject *code;        /* of the spawn site, or NULL */
    PyObject *detail;      /* text given to cancel, or NULL */
    union {
        int lasti;
        int answer;        /* of a native task */
    };
    uint32_t nargs;        /* positional */
    uint32_t nvalues;      /* positional and keyword */
    uint8_t outcome;
    /* restarts: fn is a run (_restart.py), asked after each attempt. */
    bool named : 1, enter_context : 1, must_join : 1, cancel_at_exit : 1, restarts : 1;
    /* One place before the arguments is spare, for PY_VECTORCALL_ARGUMENTS_OFFSET. */
    union {
        PyObject *inline_args[JOB_INLINE_ARGS + 1];
        PyObject **args;   /* more than JOB_INLINE_ARGS: a block, its first place spare */
        struct {
            int (*fn)(void *arg);
            void *arg;
            const char *name; /* or NULL */
        } native;          /* task.native: a C function (capi.c), and nothing of Python's but `detail` */
    };
} job_t;

static inline job_t *job_of(tether_task_t *task) { return (job_t *)task; }
static inline state_t *job_state(job_t *job) { return state_of(job->task.node.rt); }
static inline void job_ref(job_t *job) { tether_task_ref(&job->task); }
void job_unref(job_t *job);
bool job_dispose(tether_thread_t *thread, tether_task_t *task);
void job_clear_graves(state_t *st);

/* A new job with references: guard, alive. Takes no references on arguments yet. */
job_t *job_new(state_t *st, tether_thread_t *thread, tether_node_t *owner);
bool job_set_call(job_t *job, PyObject *fn, PyObject *const *args, size_t nargs, PyObject *kwnames);
void job_discard(tether_thread_t *thread, job_t *job);

/* Runs a claimed job on this thread, from push to tether_task_end. */
void job_run_here(state_t *st, tether_thread_t *thread, job_t *job);

/* The same for the crew's loop (host.run): may return detached. */
void job_run_on_crew(state_t *st, tether_thread_t *thread, job_t *job);

/* Runs a claimed native task on this thread, detached. */
void job_run_native(tether_thread_t *thread, tether_task_t *task);

/* Ends a claimed job that must not run. */
void job_end_unrun(state_t *st, tether_thread_t *thread, job_t *job);

/* Lets go of an ended loose job: reports a failure nobody will see. */
void job_release(job_t *job);

/* Reports job->value (a failure that nobody collects); the current exception is kept. */
void job_report(job_t *job);

/* New references. */
PyObject *job_name(job_t *job);
PyObject *job_site(job_t *job);
/* Both, or neither and an exception. */
bool job_describe(job_t *job, PyObject **name, PyObject **site);

/* Sets the outcome from the exception that is set; drops an outcome that will not be the last. */
void job_replace_outcome(state_t *st, job_t *job);
void job_forget_outcome(job_t *job);

/* Raises what join raises for this outcome, or returns the value. The job is reaped and ours. *taken stays false if there was
 * no memory for that: the value is still there. */
typedef PyObject *job_take_fn(job_t *job, bool *taken);
job_take_fn job_take, job_exit_value;

/* May this thread run a task in place now? This one, above what runs here? */
bool may_run_here(state_t *st, tether_thread_t *thread);
static inline bool may_run_job_here(state_t *st, tether_thread_t *thread, const job_t *job)
{
    return !job->task.apart && may_run_here(st, thread);
}

/* Is an asyncio event loop running on this thread? pre: no exception is set. */
bool loop_runs(state_t *st);

/* ---- pystate ----------------------------------------------------------------------------------------------------- */

typedef struct {
    PyThreadState *ts;
    _PyErr_StackItem exc;
    _PyErr_StackItem *exc_before;
    PyObject *dict, *context;
    PyObject *firstiter, *finalizer;
    PyObject *traceobj, *profileobj;
    Py_tracefunc tracefunc, profilefunc;
    int recursion, c_recursion, origin_depth;
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *local_key, *local_sentinel;
#endif
} pystate_t;

/* A new thread state of a crew thread: its recursion budget fits the thread's stack. */
void pystate_fit(PyThreadState *ts, tether_thread_t *thread);

/* Gives the thread state a fresh face (takes over the reference to `context`); puts the old one back. */
void pystate_enter(pystate_t *saved, PyThreadState *ts, PyObject *context, tether_thread_t *thread);
void pystate_leave(pystate_t *saved);

/* Sets and takes the exception in flight as one object (PyErr_GetRaisedException of 3.12). */
PyObject *take_exception(void);
void give_exception(PyObject *exc);

/* ---- names ------------------------------------------------------------------------------------------------------- */

enum { OS_NAME = 16 }; /* bytes of a thread's name that Linux keeps, with the 0 at the end */

/* A crew thread as others see it: what its thread->host_face points to, from its first attach on. */
typedef struct {
    PyObject *facts;       /* __dict__ of its entry in threading.enumerate(), or NULL */
    PyObject *own;         /* its name there between tasks */
    PyObject *label;       /* of its last task, or NULL */
    Py_ssize_t label_length; /* its bytes if it is ASCII, else -1 */
    PyObject *name;        /* label and number of a task, for one after the other; or NULL */
    /* For the system, filled up with 0: own, label, and what it was told last (empty: not known). */
    char os_own[OS_NAME], os_label[OS_NAME], shown[OS_NAME];
} face_t;

void names_begin(state_t *st, face_t *face, PyObject *entry);
void names_end(face_t *face);

/* Around an outermost task of a crew thread, attached. pre: job->label is there, if it can be had. */
void names_enter(state_t *st, tether_thread_t *thread, job_t *job);
void names_leave(state_t *st, tether_thread_t *thread);

/* The thread is about to sleep; needs no attaching. */
void names_sleep(tether_thread_t *thread);

/* Somebody else has told the system a name for the calling thread. */
void names_renamed(tether_thread_t *thread);

/* Rows of a method table: what has one owner is neither copied nor pickled. refuse raises. */
#define NO_COPY_METHODS(refuse)                                                                          \
    {"__copy__", refuse, METH_NOARGS, NULL}, {"__deepcopy__", refuse, METH_O, NULL},                      \
        {"__reduce__", refuse, METH_NOARGS, NULL}, {"__reduce_ex__", refuse, METH_O, NULL}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

/* site.c: the caller's code object (a reference, or NULL) and instruction offset. */
PyObject *site_here(PyThreadState *ts, int *lasti);
PyObject *site_text(PyObject *code, int lasti);

/* spawn.c */
typedef struct {
    PyObject *name, *context; /* borrowed, or NULL */
    PyObject *restart;        /* the same: a policy (_restart.py) */
    size_t stack_size;
    bool dedicated, must_join, cancel_at_exit, apart;
} spawn_options_t;

PyObject *spawn_call(state_t *st, const spawn_options_t *options, tether_scope_t *scope, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames);
extern PyType_Spec options_spec;
bool check_is_valid(PyObject *check); /* None, "warn", "strict", "off"; raises ValueError */
PyObject *options_new(state_t *st, PyObject *scope, PyObject *args, PyObject *kwargs);

/* walk.c: the armed guards, and borrows and Owneds, in what a task is given; each is in its list once, with a reference. */
typedef struct {
    tether_task_t **tasks;
    size_t n, room;
    PyObject **lent;
    size_t nlent, lent_room;
    size_t given; /* of these, to the new task */
} guards_t;

int walk_call(state_t *st, PyObject *fn, PyObject *const *args, size_t nargs, guards_t *found);
int walk_value(state_t *st, PyObject *value, guards_t *found);
void guards_clear(guards_t *found);
/* Moves them to `to`; raises OwnershipError. */
int guards_move(state_t *st, tether_thread_t *thread, guards_t *found, tether_node_t *to, const char *where);
/* Borrows and Owneds: all or none, to a task that nobody runs yet; and back to the calling task. */
int lent_move(state_t *st, tether_thread_t *thread, guards_t *found, job_t *to);
void lent_move_back(state_t *st, tether_thread_t *thread, guards_t *found);

/* pywait.c. What can be waited for: a task, a scope, a claim to a range. Without a thread state. */
typedef tether_status_t wait_fn(tether_thread_t *thread, void *what, tether_wait_t *how);
wait_fn wait_on_task, wait_on_scope, wait_on_claim;
/* Each returns 0, or -1 with an exception. Shielded: not cancellable. Quietly: raises nothing (destructors). */
int wait_job_shielded(state_t *st, tether_thread_t *thread, job_t *job);
int wait_job(state_t *st, tether_thread_t *thread, job_t *job, uint64_t deadline);
void wait_job_quietly(state_t *st, tether_thread_t *thread, job_t *job);
/* TETHER_OK: no child is alive. TETHER_CANCELLED: the caller was, and nothing is raised. Anything else: an exception is set. */
tether_status_t wait_scope(state_t *st, tether_thread_t *thread, tether_scope_t *scope, bool cancellable);
/* The status, after looking at signals: *raised if a handler raised. Raises for a status that is none of the caller's own. */
tether_status_t wait_claim(state_t *st, tether_thread_t *thread, tether_claim_t *claim, tether_wait_t *how, bool *raised);
void wait_raise(state_t *st, tether_thread_t *thread, tether_status_t status, tether_wait_t *how);
void wait_forget(tether_wait_t *how); /* instead of raising: the tasks of a deadlock */
int wait_sleep(state_t *st, tether_thread_t *thread, uint64_t deadline);
/* timeout in seconds (None: none) to a deadline. */
int deadline_from(PyObject *timeout, uint64_t *deadline, const char *what);
/* 0, or -1 with what a handler raised. */
int look_at_signals(void);

/* Raises Cancelled or KilledTask for the calling thread. */
void raise_cancelled(state_t *st, tether_thread_t *thread);
int checkpoint(state_t *st, tether_thread_t *thread);

/* guard.c, taskref.c, pyscope.c */
typedef struct {
    PyObject_HEAD
    job_t *job;
    PyObject *weakrefs;
} guard_t;

extern PyType_Spec guard_spec, ref_spec, scope_spec;
guard_t *guard_alloc(state_t *st);
bool guard_armed(const job_t *job);

PyObject *ref_new(state_t *st, job_t *job); /* NULL job: the root */
PyObject *refs_list(state_t *st, guards_t *tasks); /* TaskRefs of them all; takes over the list and its references */
job_t *ref_job(state_t *st, PyObject *ref, bool *is_ref);
int job_cancel(state_t *st, tether_thread_t *thread, job_t *job, PyObject *reason, uint32_t also);
PyObject *reason_text(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool *ok);

PyObject *scope_new(state_t *st, PyObject *args, PyObject *kwargs);
tether_scope_t *scope_core(state_t *st, PyObject *obj, bool *is_scope);
PyObject *scope_policy(PyObject *scope);          /* borrowed; NULL: its tasks are not restarted */
int scope_supervise(state_t *st, PyObject *scope, PyObject *policy);

/* kill.c */
void kill_deliver(state_t *st, job_t *job);
void kill_after_fork(state_t *st);
void kill_before_end(state_t *st, tether_thread_t *thread, job_t *job);
void kill_after_pop(state_t *st, tether_thread_t *thread);
void kill_after_push(state_t *st, tether_thread_t *thread, job_t *job);
void kill_raised_here(state_t *st, tether_thread_t *thread);

/* pyborrow.c */
typedef struct borrow {
    PyObject_HEAD
    tether_loan_t loan;
    state_t *st;
    PyObject *source;       /* a Region or an Owned */
    struct borrow *lender;  /* that it is a part of, or NULL; no reference: only its memory stays */
    _Atomic uint32_t kept;  /* by whom the memory is: 1 for the object, and the parts */
    PyObject *code;         /* where it was borrowed; or NULL */
    int lasti;
    _Atomic bool moved;     /* it was given away by whoever had it first */
    PyObject *weakrefs;
    PyObject *next_escaped; /* in a scope's list; a reference */
} borrow_t;

static inline bool is_borrow(state_t *st, PyObject *obj)
{
    return Py_TYPE(obj) == st->shared_type || Py_TYPE(obj) == st->exclusive_type;
}

/* pyregion.c, pyowned.c: what a borrow is of. */
typedef struct {
    PyObject_HEAD
    state_t *st;
    tether_region_t core;
    PyObject *name;        /* str, or NULL */
    const char *mode;      /* "rw", or as it was opened */
    _Atomic bool moved, closed; /* fixed while the book is seized */
    PyObject *weakrefs;
} region_t;

typedef struct {
    PyObject_HEAD
    state_t *st;
    tether_runtime_t *rt;
    tether_book_t book;    /* of the range 0 to 1 */
    tether_slot_t owner;
    PyObject *value;       /* NULL: taken. Guarded by the object's critical section */
    PyObject *weakrefs;
} owned_t;

/* What is borrowed from. */
typedef struct {
    state_t *st;
    PyObject *source;
    tether_book_t *book;
    const char *verb; /* for errors */
    bool exclusive;
} lending_t;

/* New handles, or NULL with an exception. timeout: an object, NULL for 0. many: n + 1 bounds of n ranges that touch. */
PyObject *borrow_one(const lending_t *from, size_t start, size_t stop, PyObject *timeout);
PyObject *borrow_many(const lending_t *from, const size_t *bounds, size_t n);

/* For the time of a call: an exclusive borrow lent further; its, or another's, end, whatever views of it exist. */
PyObject *borrow_lend(borrow_t *borrow);
void borrow_end(borrow_t *borrow);

/* What stands in the way of a borrow; filled under the book's lock. */
typedef struct {
    bool found, exclusive, viewed, waiting, runtime;
    size_t start, stop;
    tether_task_t *holder; /* a reference */
    PyObject *code;        /* a reference */
    int lasti;
} blame_t;
void blame_note(tether_loan_t *loan, void *blame);
/* tether_borrow. Without a GIL, when a raw view is in the way: once more after a collection (host_collect). */
tether_status_t borrow_now(state_t *st, tether_thread_t *thread, tether_book_t *book, tether_loan_t **loans, size_t n,
                           blame_t *blame);
/* Was what is in the way a raw view, and has there been a collection since? Then it is cleared, for a second try. */
bool blame_collected(state_t *st, tether_thread_t *thread, blame_t *blame);
/* Raises BorrowError with it, and clears it. */
void blame_raise(state_t *st, blame_t *blame, PyObject *source, const char *verb, const size_t *wanted);

/* Gives it from what runs here to a task that nobody runs yet: 0, or -1 with an exception. And undoes it. */
int borrow_give(tether_thread_t *thread, borrow_t *borrow, tether_task_t *to);
void borrow_take_back(tether_thread_t *thread, borrow_t *borrow);

/* Before a task's end: its borrows end. Views that stay are noted in its scope. */
void borrows_end(state_t *st, job_t *job);
bool borrows_are_viewed(job_t *job);
PyObject *borrow_escaped_error(state_t *st, borrow_t *b); /* or NULL: no raw view of it exists any more */
/* When a scope is left: BorrowErrors for the views that outlive their tasks, appended to `failures` (made when NULL). */
void escapes_collect(state_t *st, tether_scope_t *scope, PyObject **failures);
bool scope_note_escape(tether_scope_t *scope, PyObject *borrow); /* false: nobody will collect it */

PyObject *source_text(state_t *st, PyObject *source); /* "region 'x'", "the owned list" */
bool source_is_foreign(state_t *st, PyObject *source); /* a parent process's */
extern PyType_Spec region_spec, owned_spec, shared_spec, exclusive_spec;
PyObject *region_borrow(region_t *r, bool exclusive); /* all of it, at once or BorrowError */
size_t *region_bounds(region_t *r, size_t start, size_t stop, PyObject *args, PyObject *kwargs, size_t *count);
PyObject *owned_text(owned_t *o);
PyObject *owned_value(owned_t *o);                       /* a reference, or MovedError */
PyObject *owned_exchange(owned_t *o, PyObject *value);   /* takes over value; gives the former one, or NULL */
int owned_give(tether_thread_t *thread, owned_t *o, tether_node_t *to);
void owned_take_back(tether_thread_t *thread, owned_t *o);

/* pyheld.c: guards written in Python. */
extern PyType_Spec held_spec;
int held_need_owner(PyObject *held, const char *verb); /* OwnershipError, for anyone else, unless it was released */
int held_give(tether_thread_t *thread, PyObject *held, tether_node_t *to);
void held_take_back(tether_thread_t *thread, PyObject *held);

/* pyturnstile.c */
extern PyType_Spec turnstile_spec;

/* restart.c */
int restart_check(PyObject *policy); /* is it a tether.Restart? TypeError */
/* The run that stands in for fn(*args): a new reference, or NULL with SendError. guards: there are some in what it is given. */
PyObject *restart_prepare(PyObject *policy, PyObject *fn, PyObject *const *args, size_t nargs, PyObject *kwnames, bool guards);
/* Before an attempt of a restartable job: from here on it may be killed. false, with an exception: it may not begin. */
bool restart_begins(state_t *st, tether_thread_t *thread, job_t *job);
/* After an attempt of a restartable job: run it again? May wait. If not, the outcome stands, or is what ended the wait. */
bool restart_wanted(state_t *st, tether_thread_t *thread, job_t *job);
/* New references, or NULL without an exception. */
PyObject *restart_notes(job_t *job); /* of the attempts before the one that completed; by the task's thread */
PyObject *restart_run_of(state_t *st, job_t *job);

/* fork.c */
int fork_prepare(state_t *st);
/* Is this of the runtime that a parent process left us? */
static inline bool job_is_foreign(const job_t *job) { return tether_runtime_foreign(job->task.node.rt); }
int need_own(state_t *st, tether_runtime_t *rt); /* 0, or -1 with ForkedError */
int need_own_source(state_t *st, tether_runtime_t *rt); /* the same, of a Region or an Owned */
/* After a job has run here, on `thread`: 0 in the process that began it. In the child of a fork that it made, -1 with what it
 * raised there, or with ForkedError: a stack of the parent's is unwound, and nothing on it may go on. */
int fork_passed(state_t *st, tether_thread_t *thread, job_t *job);
void fork_silence(state_t *st); /* the same exception, where none may be raised: ForkedError goes, another is reported */

/* forkgate.c: around what no fork may cut in two, by threads that are not attached when they enter; they nest. */
void forkgate_enter(tether_thread_t *thread);
void forkgate_leave(void);
bool forkgate_close(void); /* before a fork. false: somebody is inside; await waits for them, detached */
void forkgate_await(tether_thread_t *thread);
void forkgate_open(void);  /* after it, in the parent */
/* Around a wait of the calling thread's: how often it has closed the gate, which is open meanwhile. resume: detached. */
uint32_t forkgate_pause(void);
void forkgate_resume(tether_thread_t *thread, uint32_t times);
void forkgate_prepare(void); /* before the first fork that counts: in the child the gate is as new */

/* host.c */
void host_fill(tether_host_t *host);
int host_prepare(state_t *st); /* at the first spawn */
int host_watch_collector(state_t *st); /* before the first guard of any kind: is a destructor called by the collector? (G5) */

/* Without a GIL an object that another thread lets go of is freed by its maker, when that one comes by. If it is a raw view
 * and its maker sleeps, none but the collector frees it (G14, G20). So who finds a raw view in the way calls this, which
 * collects; false: it did not (with a GIL what is let go of is gone). */
bool host_collect(state_t *st);

/* anchor.c: called attached, but for anchor_enter and anchor_left. They do nothing in the main interpreter, beyond anchor_enter's
 * thread state. */
int anchor_drop(state_t *st);     /* before a spawn: 0, or -1 with MemoryError */
void anchor_spawned(state_t *st); /* after it */
/* A crew thread's first attach: makes its thread state (not attached yet). false: no memory, or swept. */
bool anchor_enter(state_t *st, tether_thread_t *thread, PyThreadState *(*make)(PyInterpreterState *interp));
void anchor_leave(state_t *st);   /* is about to delete it */
void anchor_left(state_t *st);    /* has deleted it */
void anchor_weigh(state_t *st);   /* a task may have been the last */
/* Who calls has seen a task's end and may leave for good. Lets the GIL go. */
void anchor_settle(state_t *st, tether_thread_t *thread);
void anchor_sweep(state_t *st);   /* the interpreter goes, and no thread of the crew can attach any more */

#endif
