# cython: language_level=3
"""A message that comes in pieces, gathered in place: the compiled twin of block.py.

The two have the same functions and the same results. Here the bytes stand in the bytes object that
the message will be, which Python cannot fill after it was made: nothing is copied at the end, and
the system can receive into it.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcpy

from geventws.protocol.masking cimport check_octets, xor

__all__ = ["Block", "give_back"]

cdef extern from "Python.h":
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size) except NULL
    char *as_string "PyBytes_AS_STRING" (PyObject *data) noexcept
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1
    object PyMemoryView_FromMemory(char *data, Py_ssize_t size, int flags)
    int PyBUF_WRITE
    void Py_CLEAR(PyObject *data) noexcept
    str PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors)
    str PyUnicode_DecodeUTF8Stateful(const char *data, Py_ssize_t size, const char *errors, Py_ssize_t *used)

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    #endif
    static void keep_freed_memory(void)
    {
    #ifdef __GLIBC__
        if (!getenv("GLIBC_TUNABLES") && !getenv("MALLOC_MMAP_THRESHOLD_") && !getenv("MALLOC_TRIM_THRESHOLD_")) {
            mallopt(M_MMAP_THRESHOLD, 8 * 1024 * 1024);
            mallopt(M_TRIM_THRESHOLD, 32 * 1024 * 1024);
        }
    #endif
    }
    static void trim_memory(void)
    {
    #ifdef __GLIBC__
        malloc_trim(0);
    #endif
    }
    """
    void keep_freed_memory() noexcept
    void trim_memory() noexcept nogil

cdef enum:
    LEAST_ROOM = 4 * 1024
    GROWTH = 64
    LARGE = 128 * 1024

# Large messages were received: see `tune`.
cdef bint tuned = False


cdef void tune() noexcept:
    """Have freed memory kept for what comes next, from the first large message on until `give_back`.

    By default glibc gives a large block back to the system at once, and gets it page by page, filled
    with zeros, for the next message: a fifth of the server's time (`benchmarks/`, row "megabyte").
    Whoever has set malloc's thresholds from the environment has decided otherwise.
    """
    global tuned
    if not tuned:
        tuned = True
        keep_freed_memory()


cpdef give_back():
    with nogil:
        trim_memory()


cdef class Block:
    def __init__(self):
        self._clear()

    def __dealloc__(self):
        Py_CLEAR(self._data)

    cpdef Py_ssize_t reserve(self, Py_ssize_t count, Py_ssize_t here=0) except -1:
        if count < 0 or here < 0:
            raise ValueError("a count of bytes is not negative")
        cdef Py_ssize_t most = max(GROWTH * (self.size + here), <Py_ssize_t>LEAST_ROOM, self._capacity)
        # Compared without adding: the count is what a peer announced.
        if count > most - self.size:
            self._grow(most)
        else:
            self._grow(self.size + count)
        return min(count, self._capacity - self.size)

    cpdef object room(self, Py_ssize_t count):
        return PyMemoryView_FromMemory(self.place(count), count, PyBUF_WRITE)

    cdef char *place(self, Py_ssize_t count) except NULL:
        if not 0 < count <= self._capacity - self.size:
            raise IndexError("octets outside of the block")
        return self.end()

    cdef char *end(self) noexcept:
        return as_string(self._data) + self.size

    cdef int _grow(self, Py_ssize_t capacity) except -1:
        if capacity > self._capacity:
            if capacity >= LARGE:
                tune()
            if self._data is NULL:
                self._data = PyBytes_FromStringAndSize(NULL, capacity)
            else:
                try:
                    _PyBytes_Resize(&self._data, capacity)
                except:
                    # It has let go of the object.
                    self._clear()
                    raise
            self._capacity = capacity
        return 0

    cdef int _make_room(self, Py_ssize_t count) except -1:
        if self.size + count > self._capacity:
            # By half: what comes in many small pieces is not copied for each.
            self._grow(max(self.size + count, self.size + (self.size >> 1)))
        return 0

    cpdef append(self, bytes data):
        if data is None:
            # To Cython None is bytes too.
            raise TypeError("a block takes bytes")
        cdef Py_ssize_t count = PyBytes_GET_SIZE(data)
        if count:
            self._make_room(count)
            memcpy(self.end(), PyBytes_AS_STRING(data), count)
            self.size += count

    cpdef append_masked(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key, int phase):
        check_octets(buffer, start, end, key)
        cdef Py_ssize_t count = end - start
        if count:
            self._make_room(count)
            if key is None:
                memcpy(self.end(), PyByteArray_AS_STRING(buffer) + start, count)
            else:
                xor(self.end(), PyByteArray_AS_STRING(buffer) + start, count, PyBytes_AS_STRING(key), phase & 3)
            self.size += count

    cpdef commit(self, Py_ssize_t count, bytes key, int phase):
        if not 0 <= count <= self._capacity - self.size:
            raise IndexError("octets outside of the block")
        if key is not None:
            if PyBytes_GET_SIZE(key) != 4:
                raise IndexError("a masking key has four octets")
            if count:
                xor(self.end(), self.end(), count, PyBytes_AS_STRING(key), phase & 3)
        self.size += count

    cpdef check_text(self):
        cdef Py_ssize_t used = 0
        cdef const unsigned char *start
        if self._checked == self.size:
            return
        PyUnicode_DecodeUTF8Stateful(
            as_string(self._data) + self._checked, self.size - self._checked, NULL, &used)
        self._checked += used
        start = <const unsigned char *>as_string(self._data) + self._checked
        if self.size - self._checked == 2 and start[0] == 0xED and start[1] >= 0xA0:
            # The decoder waits for all three bytes of a surrogate (it can be told to let them
            # pass), although the second one decides.
            PyUnicode_DecodeUTF8(<const char *>start, 2, NULL)

    cpdef bytes take(self):
        cdef bytes data
        if self.size == 0:
            self._clear()
            return b""
        if self._capacity != self.size:
            try:
                _PyBytes_Resize(&self._data, self.size)
            except:
                self._clear()
                raise
        data = <bytes>self._data
        self._clear()
        return data

    cpdef str take_text(self):
        cdef str text = ""
        if self.size:
            text = PyUnicode_DecodeUTF8(as_string(self._data), self.size, NULL)
        self._clear()
        return text

    cdef void _clear(self) noexcept:
        Py_CLEAR(self._data)
        self._capacity = 0
        self._checked = 0
        self.size = 0
