from cpython.object cimport PyObject


cdef class Block:
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _checked
    cdef PyObject *_data
    cdef readonly Py_ssize_t size

    cpdef Py_ssize_t reserve(self, Py_ssize_t count, Py_ssize_t here=*) except -1
    cpdef object room(self, Py_ssize_t count)
    cdef char *place(self, Py_ssize_t count) except NULL
    cdef char *end(self) noexcept
    cdef int _grow(self, Py_ssize_t capacity) except -1
    cdef int _make_room(self, Py_ssize_t count) except -1
    cpdef append(self, bytes data)
    cpdef append_masked(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key, int phase)
    cpdef commit(self, Py_ssize_t count, bytes key, int phase)
    cpdef check_text(self)
    cpdef bytes take(self)
    cpdef str take_text(self)
    cdef void _clear(self) noexcept


cpdef give_back()
