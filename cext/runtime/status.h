/* What a runtime call may answer. One list makes the enum and the names, so that neither can lag behind. */
#ifndef TETHER_STATUS_H
#define TETHER_STATUS_H

#define TETHER_STATUS_LIST(X)                                                                       \
    X(OK, "done")                                                                                   \
    X(TIMEOUT, "the deadline passed")                                                               \
    X(INTERRUPTED, "a signal arrived, or the time slice for looking at signals is over")            \
    X(CANCELLED, "the waiting task, or a scope whose body waits, was cancelled")                    \
    X(HELP, "a task that may be run meanwhile was claimed for the caller")                          \
    X(CLOSED, "the scope takes no more tasks")                                                      \
    X(NOT_OWNER, "the guard belongs to somebody else")                                              \
    X(CYCLE, "the guard would come to own itself")                                                  \
    X(DEADLOCK, "this wait can never end")                                                          \
    X(CONFLICT, "it is lent, or waited for by an earlier borrow")                                 \
    X(FAILED, "the body of a loop answered other than 0")                                           \
    X(NO_MEMORY, "out of memory")                                                                   \
    X(NO_THREAD, "the system gives no more threads")                                                \
    X(SHUTDOWN, "the interpreter is going away")

typedef enum {
#define X(name, text) TETHER_##name,
    TETHER_STATUS_LIST(X)
#undef X
} tether_status_t;

/* The sentence for a status. Static storage. */
const char *tether_status_text(tether_status_t status);

#endif
