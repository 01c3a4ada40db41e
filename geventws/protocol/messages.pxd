cimport cython

from geventws.protocol.contexts cimport Inflater
from geventws.protocol.frames cimport FrameReader


cdef class MessageReader:
    cdef bytearray _binary
    cdef bint _compressed
    cdef object _decoder
    cdef long long _fragments
    cdef Inflater _inflater
    cdef long long _max_fragments
    cdef long long _max_size
    cdef long long _max_wire_size
    cdef object _text
    cdef long long _wire_size
    cdef readonly bint expect_continuation
    cdef readonly long long size

    @cython.locals(limit="long long", size=object)
    cpdef begin(self, FrameReader frame)
    cdef _expect(self, bint text)
    cdef _too_big(self, object size)
    cpdef object read(self, FrameReader frame)
    @cython.locals(inflater=Inflater)
    cdef _add(self, bytes data, bint last)
    cdef _append(self, bytes data)
    cdef _decode(self, bytes data, bint last)
    cdef _finish(self)
    cpdef close(self)
