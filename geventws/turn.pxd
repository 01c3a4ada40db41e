cimport cython


cdef class Member:
    cpdef serve(self)
    cpdef flush(self)


cdef class Turn:
    cdef bint _alone
    cdef long long _iteration
    cdef bint _large
    cdef object _loop
    cdef list _ready
    cdef bint _serving
    cdef object _timer
    cdef list _writers
    cdef readonly bytearray buffer
    cdef readonly bint libuv

    @cython.locals(iteration="long long")
    cpdef add(self, Member member)
    cpdef write(self, Member member)
    cpdef note_large(self)
    cpdef _on_timer(self)
    @cython.locals(ready=list, member=Member, portion=Py_ssize_t, left=Py_ssize_t)
    cpdef _serve_all(self)
    @cython.locals(writers=list, member=Member, done=Py_ssize_t)
    cdef _write_all(self)


cdef Py_ssize_t PORTION
