cimport cython

from geventws.protocol.block cimport Block
from geventws.protocol.masking cimport read_key, unmask, unmask_text


cdef class FrameReader:
    cdef bytearray _buffer
    cdef Py_ssize_t _end
    cdef bytes _key
    cdef readonly bint masked
    cdef Py_ssize_t _position
    cdef readonly bint fin
    cdef readonly bint in_frame
    cdef readonly long long length
    cdef readonly int opcode
    cdef readonly long long remaining
    cdef readonly bint rsv1

    cpdef feed(self, bytearray buffer, Py_ssize_t end)
    cpdef keep(self)
    cpdef drop(self)
    cpdef Py_ssize_t pending(self)
    @cython.locals(
        buffer=bytearray, position=Py_ssize_t, available=Py_ssize_t, first=int, second=int,
        opcode=int, length="long long", size=int)
    cpdef bint read_header(self) except? True
    @cython.locals(length="long long", offset=int)
    cdef long long _read_length(self, Py_ssize_t position) except? -1
    cpdef bint has_whole_payload(self)
    @cython.locals(start=Py_ssize_t, count="long long", data=bytes)
    cpdef bytes take(self)
    @cython.locals(start=Py_ssize_t, count="long long")
    cpdef take_into(self, Block block)
    cpdef commit(self, Block block, Py_ssize_t count)
    cdef int _phase(self)
    @cython.locals(start=Py_ssize_t, text=str)
    cpdef str take_text(self)


cdef bytearray _EMPTY
