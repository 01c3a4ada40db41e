cdef class Receiver:
    cpdef handle_input(self)
    cpdef handle_drained(self)
    cpdef handle_end(self, object detail)
    cpdef handle_error(self, object error)
