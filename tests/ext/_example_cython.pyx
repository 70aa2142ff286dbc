# cython: language_level=3, freethreading_compatible=True
# The same in Cython: a parallel sum of squares over a borrowed range of a region, and two tasks in a scope.
from libc.stdint cimport intptr_t

from tether cimport (
    Tether_BorrowMut, Tether_Close, Tether_FAILED, Tether_Import, Tether_Join, Tether_OK, Tether_Open, Tether_ParallelFor,
    Tether_Pin, Tether_Release, Tether_Share, Tether_Spawn, Tether_Unpin, TetherAPI, TetherBorrow, TetherFailure, TetherRegion,
    TetherScope, TetherStatus, TetherTask,
)

cdef const TetherAPI *tether = Tether_Import()


cdef int square(intptr_t begin, intptr_t end, void *user_data) noexcept nogil:
    cdef double *numbers = <double *>user_data
    cdef intptr_t i
    for i in range(begin, end):
        numbers[i] = numbers[i] * numbers[i]
    return 0


def square_all(region):
    """Square the doubles of a region in place; return the status."""
    cdef TetherRegion *pinned = Tether_Pin(tether, region)
    cdef TetherBorrow *borrow
    cdef TetherStatus status
    cdef void *data
    cdef intptr_t n = len(region) // sizeof(double)
    with nogil:
        status = Tether_BorrowMut(tether, pinned, 0, <size_t>-1, 0, &borrow, &data)
        if status == Tether_OK:
            status = Tether_ParallelFor(tether, square, n, data, NULL, NULL)
            Tether_Release(tether, borrow)
    Tether_Unpin(tether, pinned)
    return <int>status


cdef struct Half:
    const double *numbers
    intptr_t n
    double sum


cdef int add_up(void *arg) noexcept nogil:
    cdef Half *half = <Half *>arg
    cdef intptr_t i
    half.sum = 0
    for i in range(half.n):
        half.sum += half.numbers[i]
    return 0


def sum_of(region):
    """Sum the doubles of a region with two tasks."""
    cdef TetherRegion *pinned = Tether_Pin(tether, region)
    cdef TetherBorrow *borrow
    cdef TetherScope *scope
    cdef TetherTask *task
    cdef TetherStatus status
    cdef Half halves[2]
    cdef void *data
    cdef intptr_t n = len(region) // sizeof(double)
    with nogil:
        status = Tether_Share(tether, pinned, 0, <size_t>-1, 0, &borrow, &data)
        if status == Tether_OK:
            halves[0] = Half(<double *>data, n // 2, 0)
            halves[1] = Half(<double *>data + n // 2, n - n // 2, 0)
            status = Tether_Open(tether, 0, &scope)
            if status == Tether_OK:
                status = Tether_Spawn(tether, scope, add_up, &halves[0], "half", &task)
                add_up(&halves[1])
                if status == Tether_OK:
                    status = Tether_Join(tether, task, NULL)
                Tether_Close(tether, scope, NULL)
            Tether_Release(tether, borrow)
    Tether_Unpin(tether, pinned)
    if status != Tether_OK:
        raise RuntimeError(f"status {<int>status}")
    return halves[0].sum + halves[1].sum


cdef int refuse(intptr_t begin, intptr_t end, void *user_data) noexcept nogil:
    return -9 if begin <= 3 < end else 0


def failing(intptr_t n):
    """Return what is told of a loop that fails."""
    cdef TetherFailure failure
    cdef TetherStatus status
    with nogil:
        status = Tether_ParallelFor(tether, refuse, n, NULL, NULL, &failure)
    return status == Tether_FAILED, failure.code, failure.begin, failure.end


# What tether.native.parallel_for takes from a Cython module: __pyx_capi__ has capsules named by signatures.
cdef public api int visit(Py_ssize_t begin, Py_ssize_t end, void *user_data) noexcept nogil:
    cdef long *counts = <long *>user_data
    for i in range(begin, end):
        counts[i] += 1
    return 0
