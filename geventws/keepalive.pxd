cimport cython


cdef class Keepalive:
    cdef object __weakref__
    cdef object _hub
    cdef double _interval
    cdef object _timeout
    cdef double _tick
    cdef dict _slots
    cdef long long _next
    cdef object _timer
    cdef double _started
    cdef bint _held_up
    cdef readonly long long timeouts

    cpdef add(self, object ws)
    @cython.locals(slot=dict)
    cpdef remove(self, object ws)
    @cython.locals(number="long long", slot=dict)
    cdef _put(self, object ws, double due, double pinged_at)
    cdef _start(self)
    cdef _stop(self)
    @cython.locals(pinged_at=double, heard=double)
    cdef _check(self, object ws, double pinged_at, double now)


cdef long long _ceiling(double number)
