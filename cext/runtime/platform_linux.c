/* The platform contract on Linux. glibc's condition variables can lose wake-ups (BZ 25847), so parking is futexes. */
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t tether_now(void) { return clock_ns(CLOCK_MONOTONIC); }
uint64_t tether_cpu_of_process(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }
uint64_t tether_cpu_of_thread(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

unsigned tether_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0)
            return (unsigned)n;
    }
    return 1;
}

tether_status_t tether_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline)
{
    struct timespec when, *until = NULL;
    if (deadline != TETHER_FOREVER) {
        when.tv_sec = (time_t)(deadline / 1000000000u);
        when.tv_nsec = (long)(deadline % 1000000000u);
        until = &when;
    }
    /* WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, so an early return does not stretch the wait. */
    long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, until, NULL, FUTEX_BITSET_MATCH_ANY);
    if (r == 0 || errno == EAGAIN)
        return TETHER_OK;
    if (errno == ETIMEDOUT)
        return TETHER_TIMEOUT;
    if (errno == EINTR)
        return TETHER_INTERRUPTED;
    tether_fatal("futex wait failed");
}

void tether_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static _Atomic long fail_countdown[TETHER_FAIL_KINDS];

long tether_fail_nth(tether_fail_t kind, long nth) { return swap_acq_rel(&fail_countdown[kind], nth); }

static bool must_fail(tether_fail_t kind)
{
    long left = load_relaxed(&fail_countdown[kind]);
    while (left != 0 && left != -1)
        if (cas_acq_rel(&fail_countdown[kind], &left, left > 0 ? left - 1 : left + 1))
            return left == 1;
    return left == -1;
}

tether_status_t tether_native_start(pthread_t *handle, void *(*entry)(void *), void *arg, size_t stack_size)
{
    if (must_fail(TETHER_FAIL_THREAD))
        return TETHER_NO_THREAD;
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0)
        return TETHER_NO_THREAD;
    bool ok = stack_size == 0 || pthread_attr_setstacksize(&attr, stack_size) == 0;
    /* The signal mask is inherited, as for any thread of Python's: processes that a task starts inherit it in turn, and one
     * that blocks SIGTERM could not be ended. */
    ok = ok && pthread_create(handle, &attr, entry, arg) == 0;
    pthread_attr_destroy(&attr);
    return ok ? TETHER_OK : TETHER_NO_THREAD;
}

bool tether_native_exists(unsigned long native_id) { return syscall(SYS_tgkill, getpid(), native_id, 0) == 0; }

void tether_native_await_end(unsigned long native_id, uint64_t until)
{
    for (int look = 0; tether_native_exists(native_id); look++) {
        if (tether_now() >= until)
            return;
        if (look < 20)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
}

void tether_native_join(pthread_t handle, const _Atomic unsigned long *native_id)
{
    pthread_join(handle, NULL);
    /* The kernel wakes the joiner a moment before it takes the thread out of the process. */
    tether_native_await_end(load_relaxed(native_id), tether_now() + 1000000000);
}

void tether_native_at_fork(void (*child)(void)) { pthread_atfork(NULL, NULL, child); }

void tether_native_yield(void) { sched_yield(); }

void tether_native_name(const char *name)
{
    char shown[16]; /* the kernel keeps 15 characters */
    snprintf(shown, sizeof shown, "%s", name);
    pthread_setname_np(pthread_self(), shown);
}

void tether_native_precise_timers(void) { prctl(PR_SET_TIMERSLACK, 1000ul, 0, 0, 0); }

unsigned long tether_native_id(void) { return (unsigned long)syscall(SYS_gettid); }

bool tether_native_runs(unsigned long native_id)
{
    char text[128]; /* "number (name) state ...": a name has 15 characters at most, any of them */
    snprintf(text, sizeof text, "/proc/self/task/%lu/stat", native_id);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && strncmp(name_end, ") R", 3) == 0;
}

void tether_native_stack(char **lowest, size_t *size)
{
    pthread_attr_t attr;
    void *low = NULL;
    size_t all = 0, guard = 0;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &low, &all);
        pthread_attr_getguardsize(&attr, &guard);
        pthread_attr_destroy(&attr);
    }
    /* The main thread's stack grows on demand up to its limit; what was asked of an unlimited one is not a fact. */
    const size_t most = (size_t)64 << 20;
    if (all > most) {
        low = (char *)low + (all - most);
        all = most;
    }
    *lowest = (char *)low + guard;
    *size = all > guard ? all - guard : 0;
}

size_t tether_page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

size_t tether_huge_page_size(void) { return (size_t)2 << 20; }

static int access_bits(tether_access_t access)
{
    return access == TETHER_ACCESS_NONE ? PROT_NONE : access == TETHER_ACCESS_READ ? PROT_READ : PROT_READ | PROT_WRITE;
}

int tether_pages_map(tether_pages_t kind, size_t size, size_t align, int fd, uint64_t offset, tether_access_t access,
                     char **base)
{
    if (must_fail(TETHER_FAIL_PAGES))
        return ENOMEM;
    int flags = kind == TETHER_PAGES_OWN    ? MAP_PRIVATE | MAP_ANONYMOUS
                : kind == TETHER_PAGES_COPY ? MAP_PRIVATE
                                            : MAP_SHARED;
    size_t page = tether_page_size(), extra = align > page ? align - page : 0;
    if (size > SIZE_MAX - extra)
        return ENOMEM;
    char *at = mmap(NULL, size + extra, access_bits(access), flags, fd, (off_t)offset);
    if (at == MAP_FAILED)
        return errno;
    if (extra != 0) { /* what lies before and behind the aligned part goes back */
        char *begin = (char *)(((uintptr_t)at + align - 1) & ~(uintptr_t)(align - 1));
        if (begin != at)
            munmap(at, (size_t)(begin - at));
        if (begin + size != at + size + extra)
            munmap(begin + size, (size_t)(at + extra - begin));
        at = begin;
    }
    *base = at;
    return 0;
}

int tether_pages_unmap(char *base, size_t size) { return munmap(base, size) == 0 ? 0 : errno; }

int tether_pages_protect(char *base, size_t size, tether_access_t access)
{
    if (must_fail(TETHER_FAIL_PAGES))
        return ENOMEM;
    return mprotect(base, size, access_bits(access)) == 0 ? 0 : errno;
}

int tether_pages_flush(char *base, size_t size) { return msync(base, size, MS_SYNC) == 0 ? 0 : errno; }

int tether_pages_advise(char *base, size_t size, tether_advice_t advice)
{
    static const int names[] = {[TETHER_ADVICE_NORMAL] = MADV_NORMAL,     [TETHER_ADVICE_SEQUENTIAL] = MADV_SEQUENTIAL,
                                [TETHER_ADVICE_RANDOM] = MADV_RANDOM,     [TETHER_ADVICE_WILLNEED] = MADV_WILLNEED,
                                [TETHER_ADVICE_DONTNEED] = MADV_DONTNEED, [TETHER_ADVICE_HUGE] = MADV_HUGEPAGE};
    return madvise(base, size, names[advice]) == 0 ? 0 : errno;
}

int tether_memory_file(const char *name, size_t size, int *fd)
{
    int made = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (made < 0)
        return errno;
    if (ftruncate(made, (off_t)size) != 0 || fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int error = errno;
        close(made);
        return error;
    }
    *fd = made;
    return 0;
}

void *tether_alloc(size_t size) { return must_fail(TETHER_FAIL_ALLOC) ? NULL : calloc(1, size); }

void tether_free(void *memory) { free(memory); }

_Noreturn void tether_fatal(const char *what)
{
    fprintf(stderr, "tether: broken invariant: %s\n", what);
    abort();
}
