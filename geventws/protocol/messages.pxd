cimport cython

from geventws.protocol.block cimport Block
from geventws.protocol.contexts cimport Inflater
from geventws.protocol.frames cimport FrameReader


cdef class MessageReader:
    cdef readonly Block block
    cdef bint _compressed
    cdef long long _fragments
    cdef Inflater _inflater
    cdef long long _max_fragments
    cdef long long _max_size
    cdef long long _max_wire_size
    cdef bint _text
    cdef long long _wire_size
    cdef readonly bint expect_continuation
    cdef readonly int final_blocks
    cdef readonly long long size

    @cython.locals(limit="long long", size=object)
    cpdef begin(self, FrameReader frame)
    cdef _too_big(self, object size)
    @cython.locals(block=Block)
    cpdef object read(self, FrameReader frame)
    @cython.locals(inflater=Inflater)
    cdef _inflate(self, Block block, FrameReader frame)
    @cython.locals(block=Block)
    cpdef long long reserve(self, FrameReader frame) except -1
    cpdef close(self)


cdef long long _LEAST_DIRECT, _MOST_DIRECT, _MOST_UNMASKED
