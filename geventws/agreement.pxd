cdef class Agreement:
    cdef readonly object deflate
    cdef readonly object key
    cdef readonly object subprotocol
