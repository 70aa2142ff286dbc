/* What a crew thread is called while it runs a task: by threading, hence by logging, debuggers and py-spy, and by the system.
 *
 * threading's name is the task's, as in tether.dump(). It is stored in the entry's own dict, since samplers read it there,
 * out of another process. The system's name is the part that the tasks of one function have in common: renaming a thread is
 * a system call that costs as much as a short task, so it is done when the name differs from the last one, and undone when
 * the thread goes to sleep.
 *
 * A task in place leaves the name alone: it is a call on its joiner's thread, which has a name. So a crew thread has the
 * name of its outermost task.
 *
 * A hop to another thread takes less than a microsecond, so the usual case, the next task of the same function, reads
 * nothing of the name but its address, and writes the new number into the string that it used the last time, if nobody
 * else has kept that. */
#include "binding.h"

#include <string.h>

enum { NUMBER = 21 }; /* a dash and the digits of 64 bits */

/* Writes "-id" to the end of text; returns where it begins. */
static char *spell_number(char text[NUMBER], uint64_t id)
{
    char *at = text + NUMBER;
    do
        *--at = (char)('0' + id % 10);
    while ((id /= 10) != 0);
    *--at = '-';
    return at;
}

/* What the system can show of it: whole characters of UTF-8. returns false when there is nothing to show. */
static bool os_name_of(PyObject *name, char os_name[OS_NAME])
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(name, &size);
    if (text == NULL) {
        PyErr_Clear(); /* surrogates */
        return false;
    }
    if (size >= OS_NAME)
        for (size = OS_NAME - 1; (text[size] & 0xC0) == 0x80;)
            size--;
    memset(os_name, 0, OS_NAME);
    memcpy(os_name, text, (size_t)size);
    return size != 0;
}

static void show(face_t *face, const char os_name[OS_NAME])
{
    if (memcmp(face->shown, os_name, OS_NAME) == 0)
        return;
    memcpy(face->shown, os_name, OS_NAME);
    tether_native_name(os_name);
}

/* A failure costs the name, not the task. */
static void set_name(state_t *st, face_t *face, PyObject *name)
{
    if (name == NULL || PyDict_SetItem(face->facts, st->name_own_name, name) < 0)
        PyErr_Clear();
}

/* Has nobody but us a reference? Then nobody has read it, and it may be written, as PyUnicode_WriteChar may. pre: it is in no
 * dict, where others could just be reading it. */
static bool is_ours_alone(PyObject *text)
{
#ifdef Py_GIL_DISABLED
    return _Py_IsOwnedByCurrentThread(text) && load_relaxed((_Atomic uint32_t *)&text->ob_ref_local) == 1 &&
           load_acquire((_Atomic Py_ssize_t *)&text->ob_ref_shared) == 0;
#else
    return Py_REFCNT(text) == 1 && !PyUnicode_CHECK_INTERNED(text);
#endif
}

/* "label-id" in face->name. */
static PyObject *numbered(face_t *face, uint64_t id)
{
    Py_ssize_t length = face->label_length;
    if (face->name == NULL || !is_ours_alone(face->name)) {
        Py_XSETREF(face->name, PyUnicode_New(length + NUMBER, 127));
        if (face->name == NULL)
            return NULL;
        memcpy(PyUnicode_1BYTE_DATA(face->name), PyUnicode_1BYTE_DATA(face->label), (size_t)length);
    }
    char text[NUMBER], *at = spell_number(text, id);
    size_t size = (size_t)(text + NUMBER - at);
    char *to = (char *)PyUnicode_1BYTE_DATA(face->name) + length;
    memcpy(to, at, size);
    to[size] = 0;
    PyASCIIObject *head = (PyASCIIObject *)face->name;
    head->length = length + (Py_ssize_t)size;
    head->hash = -1;
    return face->name;
}

/* The first task of another function. */
static void change_label(face_t *face, PyObject *label)
{
    Py_CLEAR(face->name);
    Py_XSETREF(face->label, Py_NewRef(label));
    face->label_length = PyUnicode_IS_ASCII(label) ? PyUnicode_GET_LENGTH(label) : -1;
    if (!os_name_of(label, face->os_label))
        memcpy(face->os_label, face->os_own, OS_NAME);
}

void names_begin(state_t *st, face_t *face, PyObject *entry)
{
    PyObject *facts = PyObject_GenericGetDict(entry, NULL);
    PyObject *own = facts ? dict_get(facts, st->name_own_name) : NULL;
    if (own != NULL && PyUnicode_Check(own) && os_name_of(own, face->os_own)) {
        face->own = Py_NewRef(own);
        face->facts = Py_NewRef(facts);
    }
    Py_XDECREF(own);
    Py_XDECREF(facts);
    PyErr_Clear();
}

void names_end(face_t *face)
{
    Py_CLEAR(face->facts);
    Py_CLEAR(face->own);
    Py_CLEAR(face->label);
    Py_CLEAR(face->name);
}

void names_enter(state_t *st, tether_thread_t *thread, job_t *job)
{
    face_t *face = thread->host_face;
    PyObject *label = job->label;
    if (face->facts == NULL || label == NULL)
        return;
    if (label != face->label)
        change_label(face, label);
    show(face, face->os_label);
    if (job->named) {
        set_name(st, face, label);
    } else if (face->label_length >= 0) {
        set_name(st, face, numbered(face, job->task.id));
    } else {
        PyObject *name = job_name(job);
        set_name(st, face, name);
        Py_XDECREF(name);
    }
}

void names_leave(state_t *st, tether_thread_t *thread)
{
    face_t *face = thread->host_face;
    if (face->facts != NULL)
        set_name(st, face, face->own);
}

void names_sleep(tether_thread_t *thread)
{
    face_t *face = thread->host_face;
    if (face != NULL && face->facts != NULL)
        show(face, face->os_own);
}

void names_renamed(tether_thread_t *thread)
{
    if (thread != NULL && thread->crew && thread->host_face != NULL)
        memset(((face_t *)thread->host_face)->shown, 0, OS_NAME);
}
