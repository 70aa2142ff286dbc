/* The nouns of the runtime. Functions on them are in the header of the same noun.
 *
 * Glossary
 *   runtime   everything of one Python interpreter: lanes, crew, ticker, scopes, counters
 *   host      what the runtime needs from whoever embeds it (the binding; a stub in the C tests)
 *   task      a unit of work; the host keeps its own data right behind it, in the same block
 *   guard     the right to a task's exit value and the duty to wait for it; a Python object of the host, one task each
 *   node      what can own guards: a task or a scope; NULL is the root, all threads that the runtime did not make
 *   scope     a node whose body does not end before its tasks have
 *   lane      a run queue with its own lock
 *   thread    the record of one native thread in one runtime
 *   crew      the native threads that the runtime made; idle ones are kept for a while
 *   loop      a C function called for every part of a range, by its caller and by crew threads that help
 *   seat      where a loop stands while it takes helpers
 *   ticker    the thread that sees to it that queued tasks start (progress guarantee)
 *   loose     of a task: nobody will join it; whoever comes second, the end or the letting go, releases it
 */
#ifndef TETHER_TYPES_H
#define TETHER_TYPES_H

#include "lock.h"
#include "park.h"
#include "platform.h"

typedef struct tether_runtime tether_runtime_t;
typedef struct tether_thread tether_thread_t;
typedef struct tether_task tether_task_t;
typedef struct tether_scope tether_scope_t;
typedef struct tether_lane tether_lane_t;
typedef struct tether_loan tether_loan_t;
typedef struct tether_claim tether_claim_t;
typedef struct tether_loop tether_loop_t;

/* ---- nodes ---------------------------------------------------------------------------------------------------- */

typedef enum { TETHER_NODE_TASK, TETHER_NODE_SCOPE } tether_node_kind_t;

/* First member of tasks and scopes. Whoever keeps a pointer to a node keeps one of its `refs`; a node keeps one on its
 * own owner, so the way up to the root always exists. */
typedef struct tether_node {
    _Atomic uint32_t refs;
    uint32_t kind;
    tether_runtime_t *rt;
    /* Who owns this node's guard (task), or in whose body this scope was opened (scope). NULL: the root.
     * Guarded by rt->graph for writing once the node is published. */
    struct tether_node *_Atomic owner;
} tether_node_t;

/* ---- tasks ---------------------------------------------------------------------------------------------------- */

/* The task word: three bits of state and a set of flags.
 *
 *   state     from      to        by whom
 *   NEW       -         QUEUED    spawner, before anyone else knows the task
 *   QUEUED    NEW       RUNNING   whoever wins the compare-exchange (tether_task_claim): a crew thread, a joiner in place,
 *                                 or a canceller, who then ends it without having run it
 *   RUNNING   QUEUED    EXITED    the thread that claimed it (tether_task_end)
 *   EXITED    RUNNING   REAPED    whoever takes the exit value (tether_task_reap), once
 *   REAPED    EXITED    EXITED    the same, if the value could not be handed over (tether_task_put_back)
 *
 *   flag      set by                          means
 *   BLOCKED   its thread, while RUNNING       it sleeps in a wait of tether
 *   CANCEL    anyone                          a request; seen at the next checkpoint
 *   KILL      anyone                          the host raises in its running code
 *   WAITED    a joiner, before it sleeps      the end must wake the lot at the task's address
 *   LOOSE     whoever lets the guard go       nobody will join
 *   FAILED    its thread, before EXITED       the exit value is a failure
 *   SCOPED    spawn, send                     it belongs to a scope: its handle is unarmed
 *   DEDICATED spawn                           it waits for a thread of its own, not in a lane's queue
 *   ADOPTED   destructor                      loose, and its failure is reported as unraisable
 *   DETACHED  detach                          loose, and its failure goes to threading.excepthook
 *   RAISED    the host                        what KILL asks for has been raised, or will never be
 *   ENDING    its thread, before EXITED       too late for KILL; taken away if the host runs the task again
 *   AGAIN     anyone, with CANCEL             only what it does now is to end, then the host runs it again; a real cancel
 *                                             takes it away
 */
enum {
    TETHER_NEW = 0,
    TETHER_QUEUED = 1,
    TETHER_RUNNING = 2,
    TETHER_EXITED = 3,
    TETHER_REAPED = 4,
    TETHER_STATE = 7,

    TETHER_F_BLOCKED = 1 << 3,
    TETHER_F_CANCEL = 1 << 4,
    TETHER_F_KILL = 1 << 5,
    TETHER_F_WAITED = 1 << 6,
    TETHER_F_LOOSE = 1 << 7,
    TETHER_F_FAILED = 1 << 8,
    TETHER_F_SCOPED = 1 << 9,
    TETHER_F_DEDICATED = 1 << 10,
    TETHER_F_ADOPTED = 1 << 11,
    TETHER_F_DETACHED = 1 << 12,
    TETHER_F_RAISED = 1 << 13,
    TETHER_F_ENDING = 1 << 14,
    TETHER_F_AGAIN = 1 << 15,
};

struct tether_task {
    tether_node_t node;
    uint64_t id;
    tether_task_t *next, *prev;             /* in the lane's queue or in its list of started tasks; lane->lock */
    tether_task_t *scope_next, *scope_prev; /* in the scope's list; scope->lock */
    tether_task_t *below;                   /* the task that this one runs in place above; its thread only */
    tether_thread_t *_Atomic thread;        /* set when claimed; thread records outlive every task */
    tether_scope_t *scopes;                 /* open scopes of its body, innermost first; its thread only */
    tether_loan_t *_Atomic loans;           /* what is lent to it; written under lane->lock */
    _Atomic uint32_t word;
    uint16_t lane;                          /* index in rt->lanes */
    bool scope_kept;                        /* it has failed, and the scope's list holds its "alive" reference; scope->lock */
    bool native;                            /* runs detached (host.run_native); fixed before it is published */
    bool apart;                             /* never runs in place above a task that waits; fixed before it is published */
};

static inline unsigned tether_state(uint32_t word) { return word & TETHER_STATE; }

/* ---- scopes --------------------------------------------------------------------------------------------------- */

/*   flag        set by                        means
 *   CANCELLED   a failed child, cancel()      bodies and children see a cancellation at their next checkpoint
 *   LEFT        the body's end                no new child unless one is still alive
 *   CLOSED      the leaver, when none is left no new child at all
 *   WAITED      the leaver, before it sleeps  the last child's end must wake the lot at the scope's address
 *   WAIT_ALL    scope(on_error="wait")        a failed child does not cancel its siblings
 *   TIMED_OUT   whoever noticed the deadline  it was cancelled because of the time
 *   ABANDONED   who will not wait any longer nobody collects the failures of children that are alive yet
 *   DONE        whoever leaves the block      not open any more, but still in the chain of a thread that is not the leaver's
 */
enum {
    TETHER_SCOPE_CANCELLED = 1 << 0,
    TETHER_SCOPE_LEFT = 1 << 1,
    TETHER_SCOPE_CLOSED = 1 << 2,
    TETHER_SCOPE_WAITED = 1 << 3,
    TETHER_SCOPE_WAIT_ALL = 1 << 4,
    TETHER_SCOPE_DONE = 1 << 5,
    TETHER_SCOPE_TIMED_OUT = 1 << 6,
    TETHER_SCOPE_ABANDONED = 1 << 7,
};

struct tether_scope {
    tether_node_t node;
    tether_lock_t lock;             /* guards the list, the cursor and `alive` against CLOSED */
    _Atomic uint32_t flags;
    _Atomic uint32_t alive;         /* children that have not ended */
    tether_task_t *first, *last;    /* children: alive ones, and failed ones that nobody collected */
    tether_task_t *cursor;          /* no queued child stands before it */
    void *host;                     /* the host's own; lock */
    bool host_closed;               /* the same: takes no more of it */
    tether_scope_t *outer;          /* next open scope of the same body (the chain holds a reference); the body's thread only */
    tether_thread_t *thread;        /* where the body runs */
    uint64_t deadline;              /* when it is cancelled; TETHER_FOREVER: never. Fixed at birth */
};

/* ---- lanes ---------------------------------------------------------------------------------------------------- */

typedef struct {
    tether_task_t *head, *tail;
} tether_tasklist_t;

struct tether_lane {
    tether_lock_t lock;            /* guards the lists; the counters are written under it and read anywhere */
    _Atomic uint32_t queued;       /* tasks in `queue` and `natives` */
    _Atomic uint32_t native;       /* of these, in `natives` */
    _Atomic uint32_t running;      /* tasks that were claimed and have not ended */
    _Atomic uint32_t waiting;      /* dedicated tasks that no thread has claimed yet */
    _Atomic int64_t armed;         /* guards spawned here less guards let go here: only the sum over lanes means something */
    _Atomic int64_t movable;       /* the same for handles of borrows and owned values */
    _Atomic int64_t lent;          /* the same for ranges and values that are lent */
    _Atomic uint64_t oldest;       /* least id in the queues, 0 when both are empty */
    _Atomic uint64_t started;      /* claims so far */
    tether_tasklist_t queue;       /* QUEUED, oldest first */
    tether_tasklist_t natives;     /* the same, of those that run detached */
    tether_tasklist_t active;      /* RUNNING, and dedicated ones from their spawn on */
    char pad[64];
};

enum { TETHER_LANES_MAX = 16 };

/* ---- threads --------------------------------------------------------------------------------------------------- */

struct tether_thread {
    tether_parker_t parker;
    tether_runtime_t *_Atomic rt;       /* NULL once the runtime is gone */
    unsigned lane;                      /* these two stay when the record serves another thread: loans count by them */
    tether_task_t *_Atomic top;         /* what runs here, innermost; NULL: the root; written by its thread only */
    tether_scope_t *scopes;             /* open scopes of the root's body on this thread */
    tether_node_t *waits_for;           /* rt->graph: what this thread sleeps for, for finding deadlocks */
    tether_claim_t *waits_claim;        /* the same, when it sleeps for a borrow */
    uint32_t cancels_seen;              /* rt->cancels when this thread last found itself not cancelled */
    uint32_t spin;                      /* nanoseconds that a wait spins here before it sleeps (spin.h) */
    bool crew;
    bool away;                          /* detached from the host: in a wait, or between tasks; its thread only */
    bool turning;                       /* crew: counted in crew->turning; its thread only */
    _Atomic bool exited;                /* a program's thread that has ended: the record may serve another */
    char *stack_low;
    size_t stack_size;
    _Atomic unsigned long native_id;    /* the kernel's number; 0: no thread yet */
    unsigned long ident;                /* the C library's, as an integer */
    void *host, *host_face;             /* the host's own, for this thread */
    tether_task_t *spare;               /* free list of task blocks */
    unsigned spares;
    tether_thread_t *next;              /* in rt->threads */
    tether_thread_t *next_of_native;    /* records of the same native thread in other runtimes */

    /* crew only; crew->lock */
    tether_thread_t *idle_next, *idle_prev;
    tether_task_t *assigned;
    uint32_t handoff;                   /* rt->releases when work was last handed over */
    _Atomic bool idle; /* in the idle list; read by its thread without the lock */
    bool spins;
    bool helps;                         /* its work is, or was last, to help with loops; written by its thread when not idle */
    bool called;                        /* counted in loops.called */
    bool sent;                          /* somebody chose it; else it has found its work by itself */
    pthread_t handle;
    size_t asked_stack;
};

/* ---- the host --------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t task_size;      /* bytes of a task block, the runtime's part included */
    bool serial;           /* one thread at a time may run host code (the GIL) */
    unsigned lanes;        /* 0: chosen from the number of cores */
    unsigned max_threads;  /* most crew threads; 0: no bound of ours */

    /* On crew threads. begin: before the first attach. end: the thread is about to exit; attached or `away`,
     * afterwards away. */
    void (*begin)(tether_thread_t *thread);
    void (*end)(tether_thread_t *thread);
    /* attach may block (for the GIL). Between the two, host code may run. A thread's first attach may fail for want of memory:
     * false, and it may be tried again. */
    bool (*attach)(tether_thread_t *thread);
    void (*detach)(tether_thread_t *thread);
    /* On crew threads, detached, with nothing to do for now. May be NULL. */
    void (*rest)(tether_thread_t *thread);
    /* On crew threads, detached, before an idle one sleeps. May be NULL. */
    void (*sleeps)(tether_thread_t *thread);
    /* Runs a claimed task on a crew thread, attached, and ends in tether_task_end. Like whoever claims a task, it first
     * looks at tether_task_cancelled and ends without running what was cancelled: a thread that has found its stack not
     * cancelled looks again only when somebody cancels (tether_thread_cancelled). May return detached, after
     * tether_crew_detach: whoever waits for the task then finds the host free. */
    void (*run)(tether_thread_t *thread, tether_task_t *task);
    /* The same of a native task: called and returning detached. NULL: there are none. */
    void (*run_native)(tether_thread_t *thread, tether_task_t *task);
    /* The last reference to a block is gone, on a thread that may be away. Clears the host's part and answers true, or keeps
     * the block until it can, and then calls tether__task_recycle. May be NULL. */
    bool (*dispose)(tether_thread_t *thread, tether_task_t *task);
} tether_host_t;

/* ---- the runtime ------------------------------------------------------------------------------------------------- */

typedef struct {
    tether_lock_t lock;              /* guards the idle list, `assigned`, `idle`, `gone_*` */
    tether_thread_t *idle_first, *idle_last;
    tether_thread_t *gone_first, *gone_last; /* who has retired, oldest first: the system may not be done with them */
    _Atomic uint32_t alive;          /* crew threads that exist */
    _Atomic uint32_t idle;           /* of these, in the idle list */
    _Atomic uint32_t spinning;       /* of the idle ones, looking for work without sleeping */
    _Atomic uint32_t beginning;      /* woken or started for work, and not attached yet */
    _Atomic uint32_t turning;        /* about to end a task, and not idle or at work again yet */
    _Atomic uint64_t start_cost;     /* CPU nanoseconds that threads used to come up */
} tether_crew_t;

typedef enum { TETHER_TICKER_GONE, TETHER_TICKER_DOZING, TETHER_TICKER_AWAKE } tether_ticker_state_t;

typedef struct {
    tether_lock_t lock;              /* guards starting and ending the thread */
    _Atomic uint32_t state;
    tether_parker_t parker;
    pthread_t handle;
    _Atomic unsigned long native_id; /* the thread's; written by it, before it first takes the lock */
    bool joinable;
    _Atomic bool stop;
} tether_ticker_t;

enum { TETHER_SEATS = 16 };

typedef struct {
    _Atomic uint32_t word;           /* loop.md */
    tether_loop_t *loop;             /* read by those who are inside */
    char pad[64 - sizeof(uint64_t) - sizeof(void *)]; /* seats do not share cache lines */
} tether_seat_t;

typedef struct {
    _Atomic uint32_t taken;          /* seats in use, a bit each */
    _Atomic uint32_t wanted;         /* seats whose loop takes helpers, likewise */
    _Atomic uint32_t called;         /* threads woken or started to help, that have not come yet */
    _Atomic uint32_t helping;        /* threads that help */
    tether_seat_t seats[TETHER_SEATS];
} tether_loops_t;

struct tether_runtime {
    tether_host_t host;
    void *host_data;
    unsigned cores;
    unsigned lanes_used;
    _Atomic uint32_t next_lane;
    _Atomic uint64_t next_id;
    _Atomic uint32_t cancels;        /* cancellations so far (wraps) */
    _Atomic uint32_t releases;       /* times a waiting thread let the host go (wraps) */
    _Atomic uint32_t waiters;        /* threads inside a wait, detached */
    _Atomic uint32_t scopes_open;
    _Atomic uint32_t scopes_timed;   /* of these, with a deadline */
    _Atomic uint32_t regions;        /* that are mapped */
    _Atomic uint64_t bytes_mapped;   /* by them */
    _Atomic uint64_t mappings;       /* made so far */
    _Atomic uint32_t max_threads;
    _Atomic bool closing;            /* no new tasks */
    _Atomic bool stopping;           /* crew threads leave */
    _Atomic uint32_t resting;        /* threads inside tether_runtime_rest: what is idle leaves at once */
    _Atomic uint32_t crew_resting;   /* those of them that are crew threads */
    uint32_t forks;                  /* tether__forks at its birth */
    _Atomic uint32_t drain_waited;
    tether_lock_t graph;             /* owners, waits_for, waits_claim (owner_graph.md); keeps `threads` as it is */
    uint64_t walks;                  /* rt->graph: walks for deadlocks so far */
    tether_lock_t threads_lock;      /* guards `threads`, under rt->graph */
    tether_thread_t *threads;
    tether_crew_t crew;
    tether_ticker_t ticker;
    tether_loops_t loops;
    tether_lane_t lanes[TETHER_LANES_MAX];
};

static inline tether_lane_t *tether_task_lane(const tether_task_t *task) { return &task->node.rt->lanes[task->lane]; }

#endif
