# The C API of tether for Cython: `from tether cimport Tether_Import, Tether_Spawn, ...`. What each of these needs and answers
# is said in include/tether.h; an extension that uses them is compiled with tether.get_include() among its include_dirs.
from libc.stdint cimport int64_t, intptr_t, uint32_t

cdef extern from "tether.h":
    ctypedef struct TetherAPI:
        uint32_t version
        uint32_t size

    ctypedef struct TetherRegion:
        pass

    const TetherAPI *Tether_Import() except NULL
    TetherRegion *Tether_Pin(const TetherAPI *api, object region) except NULL
    void Tether_Unpin(const TetherAPI *api, TetherRegion *region)

cdef extern from "tether.h" nogil:
    int TETHER_API_VERSION

    ctypedef enum TetherStatus:
        Tether_OK
        Tether_FAILED
        Tether_CANCELLED
        Tether_KILLED
        Tether_CONFLICT
        Tether_TIMEOUT
        Tether_DEADLOCK
        Tether_CLOSED
        Tether_READ_ONLY
        Tether_INVALID
        Tether_NO_MEMORY
        Tether_NO_THREAD
        Tether_SHUTDOWN
        Tether_FORKED

    unsigned Tether_WAIT_ALL

    ctypedef struct TetherScope:
        pass

    ctypedef struct TetherTask:
        pass

    ctypedef struct TetherBorrow:
        pass

    ctypedef int TetherFunction(void *arg) noexcept nogil
    ctypedef int TetherRangeFunction(intptr_t begin, intptr_t end, void *user_data) noexcept nogil

    ctypedef struct TetherSchedule:
        intptr_t grain
        unsigned threads
        unsigned is_static

    ctypedef struct TetherFailure:
        int code
        intptr_t begin
        intptr_t end

    TetherStatus Tether_Open(const TetherAPI *api, unsigned flags, TetherScope **scope)
    void Tether_Cancel(const TetherAPI *api, TetherScope *scope)
    TetherStatus Tether_Close(const TetherAPI *api, TetherScope *scope, int *code)
    TetherStatus Tether_Spawn(const TetherAPI *api, TetherScope *scope, TetherFunction *fn, void *arg, const char *name,
                              TetherTask **task)
    TetherStatus Tether_Join(const TetherAPI *api, TetherTask *task, int *code)
    void Tether_Drop(const TetherAPI *api, TetherTask *task)
    int Tether_Cancelled(const TetherAPI *api)
    TetherStatus Tether_ParallelFor(const TetherAPI *api, TetherRangeFunction *fn, intptr_t n, void *user_data,
                                    const TetherSchedule *schedule, TetherFailure *failure)
    TetherStatus Tether_Share(const TetherAPI *api, TetherRegion *region, size_t start, size_t stop, int64_t timeout,
                              TetherBorrow **borrow, void **data)
    TetherStatus Tether_BorrowMut(const TetherAPI *api, TetherRegion *region, size_t start, size_t stop, int64_t timeout,
                                  TetherBorrow **borrow, void **data)
    void Tether_Release(const TetherAPI *api, TetherBorrow *borrow)
