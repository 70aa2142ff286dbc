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
 *   moving += 1; closed? -> moving -= 1, wait    closed += 1; wait until nobody moves
 *   ...                                          (fork)
 *   moving -= 1; closed? -> wake                 closed -= 1, wake; in the child: both afresh
 *
 * Both sides write before they read, in one order: one of the two sees the other. Nobody holds a lock or is attached in either
 * wait. Who forks while it is inside (in code of the program's that runs there: a thread-local's destructor, a trace function)
 * does not count as moving meanwhile, it stands in its hook. Who forks and waits for a task, in another hook, opens the gate for
 * that long. And whatever else it is, it ends: either side waits for a second at most, and a gate that nobody opened is open
 * after one. Then it is as it is for any other thread of the program. */
#include "binding.h"

static const uint64_t GIVE_UP = 1000000000; /* 1 s */
static const uint64_t SPIN = 20000;         /* 20 us */

/* Of the process: who forks in the main interpreter takes the threads of all of them along. */
static _Atomic uint32_t closed, moving;
static _Atomic uint64_t open_again; /* when `closed` says nothing any more */

static _Thread_local uint32_t mine;        /* of `moving` */
static _Thread_local uint32_t closed_here; /* of `closed`: a hook may import us between the two of ours */

static bool is_closed(void *unused)
{
    (void)unused;
    return atomic_load(&closed) != 0 && tether_now() < atomic_load(&open_again);
}

static bool somebody_moves(void *unused)
{
    (void)unused;
    return atomic_load(&moving) != 0;
}

static void move(uint32_t by) { atomic_fetch_add(&moving, by); }

static void stand(uint32_t by)
{
    atomic_fetch_sub(&moving, by);
    if (atomic_load(&closed) != 0)
        tether_lot_wake_all(&moving);
}

void forkgate_enter(tether_thread_t *thread)
{
    uint64_t until = tether_now() + GIVE_UP;
    move(1);
    while (mine == 0 && is_closed(NULL) && tether_now() < until) {
        stand(1);
        tether_lot_wait(&closed, &thread->parker, is_closed, NULL, until);
        move(1);
    }
    mine++;
}

void forkgate_leave(void)
{
    mine--;
    stand(1);
}

bool forkgate_close(void)
{
    if (closed_here++ == 0 && mine != 0)
        stand(mine);
    atomic_store(&open_again, tether_now() + GIVE_UP);
    atomic_fetch_add(&closed, 1);
    /* With a GIL they are inside for a microsecond. */
    for (uint64_t until = tether_now() + SPIN; somebody_moves(NULL); tether_pause())
        if (tether_now() >= until)
            return false;
    return true;
}

void forkgate_await(tether_thread_t *thread)
{
    for (uint64_t until = tether_now() + GIVE_UP; somebody_moves(NULL) && tether_now() < until;)
        tether_lot_wait(&moving, &thread->parker, somebody_moves, NULL, until);
}

void forkgate_open(void)
{
    if (closed_here == 0)
        return;
    if (--closed_here == 0)
        move(mine);
    if (atomic_fetch_sub(&closed, 1) == 1)
        tether_lot_wake_all(&closed);
}

uint32_t forkgate_pause(void)
{
    uint32_t times = closed_here;
    while (closed_here != 0)
        forkgate_open();
    return times;
}

void forkgate_resume(tether_thread_t *thread, uint32_t times)
{
    bool clear = true;
    for (; times != 0; times--)
        clear = forkgate_close();
    if (!clear)
        forkgate_await(thread);
}

/* Whoever forked inside does not go on to leave (end_child in host.c). */
static void after_fork(void)
{
    atomic_store(&closed, closed_here = 0);
    atomic_store(&moving, mine = 0);
}

static void watch_forks(void) { tether_native_at_fork(after_fork); }

void forkgate_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
}
