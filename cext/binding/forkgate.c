/* No fork while a thread of the crew comes or goes: what CPython has half done then, the child cannot finish.
 *
 * - 3.11: a new thread state takes a lock of the interpreter's, detached. The child waits for it before it makes it free
 *   (gh-112275, mended in 3.11.10).
 * - Without a GIL: a new thread state stands in the interpreter's list before it is whole, and the child's clearing of it runs
 *   into that. And locks of objects, and of the memory to be freed, are handed to the next who waits for them; if the fork stops
 *   that one, nobody gives them back in the child. Threads that come and go meet at a few such locks: threading's dict, the
 *   list of what dead threads have left.
 *
 * So whoever comes or goes passes the gate, and counts as inside until it is through; whoever forks closes the gate, and waits
 * until nobody is inside.
 *
 *   thread                                       forker, in its hook before the fork
 *   moving += 1; closed? -> moving -= 1, wait    closed += 1; wait until moving is its own
 *   ...                                          (fork)
 *   moving -= 1; closed? -> wake                 closed -= 1, wake; in the child: both afresh
 *
 * Both sides write before they read, in one order: one of the two sees the other. Nobody holds a lock or is attached in either
 * wait. A thread that is inside may run code of the program's (a thread-local's destructor), and what waits at the gate may be
 * what another hook waits for; so both give up after a second, and then it is as it is for any other thread of the program. */
#include "binding.h"

static const uint64_t GIVE_UP = 1000000000; /* 1 s */
static const uint64_t SPIN = 20000;         /* 20 us */

/* Of the process: who forks in the main interpreter takes the threads of all of them along. */
static _Atomic uint32_t closed, moving;
static _Thread_local uint32_t mine;        /* of `moving`: it may fork inside */
static _Thread_local uint32_t closed_here; /* of `closed`: a hook may import us between the two of ours */

static bool is_closed(void *unused)
{
    (void)unused;
    return atomic_load(&closed) != 0;
}

static bool others_move(void *unused)
{
    (void)unused;
    return atomic_load(&moving) > mine;
}

void forkgate_enter(tether_thread_t *thread)
{
    uint64_t until = 0;
    for (;;) {
        atomic_fetch_add(&moving, 1);
        mine++;
        if (!is_closed(NULL) || mine > 1)
            return;
        uint64_t now = tether_now();
        if (until == 0)
            until = now + GIVE_UP;
        else if (now >= until)
            return;
        forkgate_leave();
        tether_lot_wait(&closed, &thread->parker, is_closed, NULL, until);
    }
}

void forkgate_leave(void)
{
    mine--;
    atomic_fetch_sub(&moving, 1);
    if (is_closed(NULL))
        tether_lot_wake_all(&moving);
}

bool forkgate_close(void)
{
    atomic_fetch_add(&closed, 1);
    closed_here++;
    /* With a GIL they are inside for a microsecond. */
    for (uint64_t until = tether_now() + SPIN; others_move(NULL); tether_pause())
        if (tether_now() >= until)
            return false;
    return true;
}

void forkgate_await(tether_thread_t *thread)
{
    for (uint64_t until = tether_now() + GIVE_UP; others_move(NULL) && tether_now() < until;)
        tether_lot_wait(&moving, &thread->parker, others_move, NULL, until);
}

void forkgate_open(void)
{
    if (closed_here == 0)
        return;
    closed_here--;
    if (atomic_fetch_sub(&closed, 1) == 1)
        tether_lot_wake_all(&closed);
}

void forkgate_after_fork(void)
{
    atomic_store(&closed, closed_here = 0);
    atomic_store(&moving, mine);
}
