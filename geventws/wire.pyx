# cython: language_level=3
"""System calls on a descriptor, and the switch between greenlets: the compiled twin of wire.py.

The two have the same functions and the same results. Greenlets are switched through greenlet's C
interface; the receiving and sending calls keep the interpreter's lock, for they never wait.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyBytes_Check
from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EINTR, errno

from geventws.protocol.block cimport Block

__all__ = [
    "current_greenlet", "has_unread", "monotonic", "parent_of", "receive_block", "receive_into",
    "send_chunks", "switch",
]

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int descriptor, void *buffer, size_t length, int flags)
    ssize_t send(int descriptor, const void *data, size_t length, int flags)
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int descriptor, const msghdr *message, int flags)
    ssize_t recvmsg(int descriptor, msghdr *message, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int MSG_PEEK

cdef extern from * nogil:
    """
    #ifndef MSG_MORE
    #define MSG_MORE 0
    #endif
    """
    int MSG_MORE

cdef extern from "<string.h>" nogil:
    void *memcpy(void *target, const void *source, size_t length)
    void *memset(void *target, int value, size_t length)

cdef extern from "greenlet.h":
    ctypedef struct PyGreenlet:
        pass
    PyGreenlet *PyGreenlet_GetCurrent() except NULL
    bint PyGreenlet_Check(object greenlet)
    PyGreenlet *PyGreenlet_GetParent(PyGreenlet *greenlet)
    PyObject *PyGreenlet_Switch(PyGreenlet *target, PyObject *args, PyObject *kwargs)
    void PyGreenlet_Import() except *

cdef extern from "<time.h>" nogil:
    int CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)

PyGreenlet_Import()

cdef enum:
    MAX_CHUNKS = 64
    JOINED = 16 * 1024

# Used within one call, which keeps the interpreter's lock.
cdef char joined[JOINED]


cpdef Py_ssize_t receive_into(int descriptor, bytearray buffer) except -2:
    cdef ssize_t count = recv(descriptor, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer), MSG_DONTWAIT)
    if count < 0:
        if errno == EAGAIN or errno == EINTR:
            return -1
        PyErr_SetFromErrno(OSError)
    return count


cpdef Py_ssize_t receive_block(int descriptor, Block block, Py_ssize_t count, bytearray buffer) except -2:
    if block is None or buffer is None:
        # To Cython None is one of each too.
        raise TypeError("bytes are received into a block and a bytearray")
    cdef iovec vector[2]
    cdef msghdr message
    cdef ssize_t received
    vector[0].iov_base = block.place(count)
    vector[0].iov_len = count
    vector[1].iov_base = PyByteArray_AS_STRING(buffer)
    vector[1].iov_len = PyByteArray_GET_SIZE(buffer)
    memset(&message, 0, sizeof(message))
    message.msg_iov = vector
    message.msg_iovlen = 2
    received = recvmsg(descriptor, &message, MSG_DONTWAIT)
    if received < 0:
        if errno == EAGAIN or errno == EINTR:
            return -1
        PyErr_SetFromErrno(OSError)
    return received


cpdef bint has_unread(int descriptor) except -1:
    cdef char octet
    cdef ssize_t count = recv(descriptor, &octet, 1, MSG_DONTWAIT | MSG_PEEK)
    if count < 0 and errno != EAGAIN and errno != EINTR:
        PyErr_SetFromErrno(OSError)
    return count > 0


cpdef Py_ssize_t send_chunks(int descriptor, list chunks, Py_ssize_t offset, bint last=False) except -2:
    cdef iovec vector[MAX_CHUNKS]
    cdef msghdr message
    cdef ssize_t count
    cdef Py_ssize_t used = 0
    cdef object chunk
    cdef Py_ssize_t length
    if len(chunks) == 0:
        return 0
    for chunk in chunks:
        if PyBytes_Check(chunk):
            vector[used].iov_base = PyBytes_AS_STRING(chunk)
            vector[used].iov_len = PyBytes_GET_SIZE(chunk)
        elif isinstance(chunk, str) and chunk.isascii():
            vector[used].iov_base = <void *>PyUnicode_AsUTF8AndSize(chunk, &length)
            vector[used].iov_len = length
        else:
            raise TypeError("a chunk is bytes, or str of ASCII")
        used += 1
        if used == MAX_CHUNKS:
            break
    if not 0 <= offset <= <Py_ssize_t>vector[0].iov_len:
        raise IndexError("the offset lies outside of the first chunk")
    vector[0].iov_base = <char *>vector[0].iov_base + offset
    vector[0].iov_len -= offset
    # MSG_NOSIGNAL: a peer that is gone is an error here, never a SIGPIPE. MSG_MORE: the end of the stream,
    # which comes next, takes these bytes along in one segment.
    cdef int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (MSG_MORE if last else 0)
    cdef Py_ssize_t index, total = 0
    for index in range(used):
        total += vector[index].iov_len
    if used > 1 and total <= JOINED:
        # Copying is cheaper than having the system look at each of them (`benchmarks/`, row "window").
        total = 0
        for index in range(used):
            memcpy(joined + total, vector[index].iov_base, vector[index].iov_len)
            total += vector[index].iov_len
        count = send(descriptor, joined, total, flags)
    elif used == 1:
        count = send(descriptor, vector[0].iov_base, vector[0].iov_len, flags)
    else:
        memset(&message, 0, sizeof(message))
        message.msg_iov = vector
        message.msg_iovlen = used
        count = sendmsg(descriptor, &message, flags)
    if count < 0:
        if errno == EAGAIN or errno == EINTR:
            return -1
        PyErr_SetFromErrno(OSError)
    return count


cpdef double monotonic() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cpdef object current_greenlet():
    """Return the greenlet that runs."""
    # A reference of our own, which the first cast does not count.
    cdef object current = <object><PyObject *>PyGreenlet_GetCurrent()
    Py_DECREF(current)
    return current


cpdef object parent_of(object thing):
    """Return the greenlet that is switched to when this one ends, or None."""
    if not PyGreenlet_Check(thing):
        raise TypeError(f"only greenlets have a parent, not {type(thing).__name__}")
    cdef PyGreenlet *parent = PyGreenlet_GetParent(<PyGreenlet *>thing)
    if parent is NULL:
        return None
    # A reference of our own, as above.
    cdef object found = <object><PyObject *>parent
    Py_DECREF(found)
    return found


cpdef int switch(object target) except -1:
    cdef PyObject *result = PyGreenlet_Switch(<PyGreenlet *>target, NULL, NULL)
    if result is NULL:
        return -1
    Py_DECREF(<object>result)
    return 0
