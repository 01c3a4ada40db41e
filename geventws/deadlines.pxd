from geventws.turn cimport Member


cdef class Deadlines(Member):
    cdef object _close_timer
    cdef object _loop
    cdef bint _overdue
    cdef double _progress_at
    cdef double _write_timeout
    cdef object _write_timer
    cdef readonly bint ended
    cdef readonly bint write_timed_out

    cpdef end(self, object detail)
    cpdef crash(self, object error)
    cdef _watch_write(self)
    cdef _start_write_timer(self, double seconds)
    cdef _stop_write_timer(self)
    cpdef set_close_deadline(self, object timeout, object periods=*)
    cpdef cancel_deadline(self)
