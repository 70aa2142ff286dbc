/* What the parts of tether.native share: C functions to call, memory to work on, loops with the GIL let go.
 *
 *   callee.c   NativeFunction: a C function with its signature, from whatever describes one
 *   bytes.c    memory for the time of a call: a region, a borrow, a buffer
 *   pyloop.c   parallel_for, and running a loop
 *   pykernel.c fill, copy, sum, min, max
 *   capi.c     the C API for other extensions (tether.h) */
#ifndef TETHER_NATIVE_H
#define TETHER_NATIVE_H

#include "binding.h"
#include "loop.h"

/* ---- callee.c ------------------------------------------------------------------------------------------------------------ */

/* int f(intptr_t begin, intptr_t end, void *user_data), or
 * int f(void *data, size_t bytes, size_t offset, void *user_data); void, or a long integer, instead of int. */
typedef enum { CALLEE_RANGE, CALLEE_BYTES } callee_kind_t;
typedef enum { ANSWERS_INT, ANSWERS_LONG, ANSWERS_NOTHING } callee_answer_t;

typedef struct {
    void *address;
    void *user_data;         /* that came with the function, or NULL */
    callee_kind_t kind;
    callee_answer_t answer;
    bool only_reads;         /* its data are const */
    PyObject *keeps;         /* a reference: what must live while it is called */
} callee_t;

/* func: anything that describes a C function. signature: a str, or NULL or None. 0, or -1 with an exception. */
int callee_from(state_t *st, PyObject *func, PyObject *signature, callee_t *callee);
void callee_clear(callee_t *callee);
extern PyType_Spec function_spec;

/* ---- bytes.c ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    char *data;
    size_t size;
    Py_buffer view;
    PyObject *lent;          /* a borrow that was made for this call, or NULL */
} bytes_t;

/* object: a Region (borrowed for this call), a Shared, an Exclusive, or any contiguous buffer. alone: an Exclusive is lent
 * further, so that nobody uses it meanwhile. 0, or -1 with an exception. */
int bytes_take(state_t *st, PyObject *object, bool write, bool alone, bytes_t *bytes);
void bytes_give_back(bytes_t *bytes);

/* ---- pyloop.c ------------------------------------------------------------------------------------------------------------ */

/* Runs it with the GIL let go, looking at signals. OK, FAILED (nothing is raised), or INTERRUPTED with an exception. */
tether_status_t loop_run(state_t *st, tether_thread_t *thread, tether_loop_t *loop);

/* Loops may have helpers from now on, since the exit knows of them; not at the very end, where the caller works alone.
 * 0, or -1 with an exception. */
int loop_prepare(state_t *st);

PyObject *loop_parallel_for(state_t *st, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* ---- pykernel.c ---------------------------------------------------------------------------------------------------------- */

PyObject *kernel_fill(state_t *st, PyObject *args);
PyObject *kernel_copy(state_t *st, PyObject *args);
PyObject *kernel_reduce(state_t *st, PyObject *args);

/* ---- capi.c -------------------------------------------------------------------------------------------------------------- */

/* Adds the capsule to the module: 0, or -1 with an exception. */
int capi_make(state_t *st);

#endif
