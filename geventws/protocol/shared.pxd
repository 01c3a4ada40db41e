cdef class SharedMessage:
    cdef dict _deflated
    cdef bytes _plain
    cdef bytes _raw
    cdef readonly object data
    cdef readonly Py_ssize_t size

    cpdef bytes frame(self)
    cpdef bytes deflated_frame(self, object settings)
