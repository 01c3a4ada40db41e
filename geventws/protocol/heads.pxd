cimport cython

from geventws.protocol.headers cimport Headers, make_headers


cdef class Fields:
    cdef bint _common
    cdef readonly bytearray body
    cdef readonly bint complete
    cdef readonly bint headers_complete
    cdef readonly list keys
    cdef readonly list names
    cdef readonly list values

    @cython.locals(known=tuple)
    cpdef on_header(self, bytes name, bytes value)
    @cython.locals(names=tuple, shape=tuple)
    cpdef Headers headers(self)


cdef class HeadReader:
    cdef bytearray _buffer
    cdef Py_ssize_t _consumed
    cdef Py_ssize_t _empty_lines
    cdef Py_ssize_t _line_start
    cdef Py_ssize_t _lines
    cdef object _max_head
    cdef object _max_headers
    cdef object _max_line
    cdef bint _over
    cdef Py_ssize_t _scanned
    cdef Py_ssize_t _start
    cdef readonly bytes leftover

    cdef _reset(self)
    @cython.locals(end=Py_ssize_t)
    cdef bytes _whole_head(self, bytes data)
    cdef bytes _collect(self, bytes data)
    cdef _check_line(self, object length)
    cdef _begin(self)


cdef dict _NAMES, _SHAPES, _VALUES
