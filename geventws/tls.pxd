cimport cython

from geventws.protocol.block cimport Block
from geventws.transport cimport Transport


cdef class TLSTransport(Transport):
    cdef bytes _held
    cdef bint _read_wants_write
    cdef bint _scheduled
    cdef bint _write_wants_read

    cdef Py_ssize_t _receive(self) except -2
    @cython.locals(block=Block)
    cdef Py_ssize_t _receive_block(self, Py_ssize_t wanted) except -2
    cdef _schedule(self)
    @cython.locals(filled=Py_ssize_t, count=Py_ssize_t, start=Py_ssize_t)
    cdef Py_ssize_t _receive_views(self, tuple views) except -2
    @cython.locals(held=bytes, chunks=list, size=Py_ssize_t, parts=list, count=Py_ssize_t)
    cdef Py_ssize_t _send(self) except -2
    cdef _wait_writable(self)
    cdef _receive_end(self)
    cdef bint _end_output(self) except -1


cdef bytes _octets(object chunk)
