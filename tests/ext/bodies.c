/* C functions for the tests of tether.native; a plain library, which ctypes loads. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

static void nap(long us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&t, NULL);
}

/* user_data: a counter for each number. */
int visit(intptr_t begin, intptr_t end, void *user_data)
{
    for (intptr_t i = begin; i < end; i++)
        atomic_fetch_add((_Atomic long *)user_data + i, 1);
    return 0;
}

void visit_quietly(intptr_t begin, intptr_t end, void *user_data) { visit(begin, end, user_data); }

long visit_long(long begin, long end, long *user_data)
{
    visit(begin, end, user_data);
    return 0;
}

/* user_data: begin and end of each part, behind their number. */
int note_parts(intptr_t begin, intptr_t end, void *user_data)
{
    long *notes = user_data, n = atomic_fetch_add((_Atomic long *)notes, 1);
    notes[1 + 2 * n] = begin;
    notes[2 + 2 * n] = end;
    return 0;
}

typedef struct {
    long bad, code;
    _Atomic long begun, inside;
} fault_t;

int fail_at(intptr_t begin, intptr_t end, void *user_data)
{
    fault_t *fault = user_data;
    atomic_fetch_add(&fault->begun, 1);
    return begin <= fault->bad && fault->bad < end ? (int)fault->code : 0;
}

long fail_beyond_int(intptr_t begin, intptr_t end, void *user_data)
{
    (void)begin, (void)end, (void)user_data;
    return 1l << 40;
}

/* A millisecond for each number. */
int dawdle(intptr_t begin, intptr_t end, void *user_data)
{
    fault_t *fault = user_data;
    atomic_fetch_add(&fault->inside, 1);
    atomic_fetch_add(&fault->begun, 1);
    for (intptr_t i = begin; i < end; i++)
        nap(1000);
    atomic_fetch_sub(&fault->inside, 1);
    return 0;
}

/* Goes on when as many calls are inside as user_data says at its start; a call that waits for more than 60 s answers 1. */
int meet(intptr_t begin, intptr_t end, void *user_data)
{
    _Atomic long *wanted = user_data, *inside = wanted + 1;
    (void)begin, (void)end;
    atomic_fetch_add(inside, 1);
    for (int i = 0; i < 600000 && atomic_load(inside) < atomic_load(wanted); i++)
        nap(100);
    return atomic_load(inside) < atomic_load(wanted);
}

/* Adds one to each byte; the offset is where in the region they are, and is noted. */
int raise_bytes(void *data, size_t bytes, size_t offset, void *user_data)
{
    unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)(at[i] + 1);
    if (user_data != NULL)
        for (size_t i = 0; i < bytes; i++)
            atomic_fetch_add((_Atomic long *)user_data + offset + i, 1);
    return 0;
}

int sum_bytes(const void *data, size_t bytes, size_t offset, void *user_data)
{
    const unsigned char *at = data;
    long sum = 0;
    (void)offset;
    for (size_t i = 0; i < bytes; i++)
        sum += at[i];
    atomic_fetch_add((_Atomic long *)user_data, sum);
    return 0;
}

int fail_bytes(void *data, size_t bytes, size_t offset, void *user_data)
{
    (void)data, (void)user_data;
    return offset <= 5000 && 5000 < offset + bytes ? -3 : 0;
}
