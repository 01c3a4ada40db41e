cimport cython

from geventws.protocol.connection cimport Connection


cdef class Bucket:
    cdef double _at
    cdef double _left
    cdef double _rate
    cdef double _size

    cpdef bint take(self, double count, double now) except -1


cdef class LimitedConnection(Connection):
    cdef Bucket _bytes
    cdef object _clock
    cdef Bucket _controls
    cdef bint _counts
    cdef object _limit
    cdef Bucket _messages_left
    cdef long long _pongs_due

    @cython.locals(event=int)
    cpdef int next_event(self) except -1
    @cython.locals(now=double)
    cdef _count_message(self)
    cpdef send_ping(self, bytes payload)
    @cython.locals(now=double)
    cdef int _control(self, int opcode, bytes payload) except -1
