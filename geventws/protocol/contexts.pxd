cimport cython


cdef class Inflater:
    cdef bint _no_context_takeover
    cdef bytearray _recent
    cdef Py_ssize_t _size
    cdef object _stream
    cdef bytes _window
    cdef int _window_bits
    cdef readonly bytes partial
    cdef readonly int streams

    @cython.locals(limit=Py_ssize_t, position=Py_ssize_t, output=bytes, piece=bytes, pieces=list)
    cpdef bytes inflate(self, bytes data, object max_length)
    @cython.locals(ask=Py_ssize_t, output=bytes)
    cdef bytes _inflate_slice(self, bytes data, Py_ssize_t limit)
    cdef Py_ssize_t _behind(self, bytes data) except -1
    cpdef finish(self)
    cpdef close(self)
    @cython.locals(final_blocks=int)
    cdef object _begin(self)
    @cython.locals(size=Py_ssize_t, recent=bytearray)
    cdef _slide_window(self, bytes output)
    cdef _cut_window(self)


cdef class Deflater:
    cdef bint _keep_stream
    cdef int _level
    cdef int _mem_level
    cdef bint _no_context_takeover
    cdef object _stream
    cdef bytes _window
    cdef int _window_bits

    cpdef bytes deflate(self, object payload)
    @cython.locals(compressed=bytes, flushed=bytes)
    cpdef bytes deflate_fragment(self, object payload, bint fin)
    @cython.locals(level=int, mem_level=int)
    cdef object _begin(self)
    cpdef close(self)


cpdef bytes slide(bytes window, object data, Py_ssize_t size)

cdef Py_ssize_t _SLICE
cdef Py_ssize_t _UNLIMITED
cdef int _MAX_FINAL_BLOCKS
cdef int _MOST_REFILLED_BITS
cdef int _SMALLEST_WINDOW_BITS
cdef bytes _FLUSH_TAIL
cdef bytes _END_OF_STREAM
cdef bytes _TAIL_AND_END
cdef bytes _EMPTY_MESSAGE
