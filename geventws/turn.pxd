cimport cython


cdef class Writer:
    cpdef flush(self)


cdef class Turn:
    cdef bint _alone
    cdef long long _iteration
    cdef object _loop
    cdef list _writers
    cdef readonly bytearray buffer
    cdef readonly bint libuv

    @cython.locals(iteration="long long")
    cpdef add(self, Writer writer)
    @cython.locals(writers=list, writer=Writer, done=Py_ssize_t)
    cpdef _end(self)
