cimport cython

from geventws.deadlines cimport Deadlines
from geventws.protocol.connection cimport Connection
from geventws.receiver cimport Receiver
from geventws.turn cimport Turn
from geventws.wire cimport has_unread, monotonic, receive_block, receive_into, send_chunks


cdef class Transport(Deadlines):
    cdef object _broken
    cdef bytearray _buffer
    cdef Connection _core
    cdef int _descriptor
    cdef bint _finishing
    cdef object _hub
    cdef long long _lingered
    cdef bint _lingering
    cdef Py_ssize_t _offset
    cdef bint _peer_ended
    cdef object _read_watcher
    cdef Receiver _receiver
    cdef object _socket
    cdef Turn _turn
    cdef object _write_watcher
    cdef readonly bint blocked
    cdef readonly long long bytes_received
    cdef readonly long long bytes_sent
    cdef readonly bint corked
    cdef public double last_received
    cdef readonly bint paused

    cpdef start(self, bytes data)
    @cython.locals(core=Connection, behind=Py_ssize_t, count=Py_ssize_t, wanted=Py_ssize_t)
    cdef _read(self)
    @cython.locals(count=Py_ssize_t)
    cdef Py_ssize_t _receive_some(self, Py_ssize_t wanted) except -2
    cdef Py_ssize_t _receive_block(self, Py_ssize_t wanted) except -2
    cdef Py_ssize_t _receive(self) except -2
    @cython.locals(receiver=Receiver)
    cdef _take(self, bint lent)
    @cython.locals(receiver=Receiver)
    cdef _tell_drained(self)
    cdef _receive_end(self)
    @cython.locals(count=Py_ssize_t)
    cdef _read_away(self)
    cdef bint _is_too_much(self, long long count)
    cpdef pause(self)
    cpdef resume(self)
    cpdef take(self)
    cpdef flush_unless_corked(self)
    cpdef flush(self)
    @cython.locals(count=Py_ssize_t, end="long long")
    cdef _write(self)
    cdef _break(self, object detail)
    @cython.locals(chunks=list, count=Py_ssize_t, last=bint)
    cdef Py_ssize_t _send(self) except -2
    @cython.locals(chunks=list, whole=Py_ssize_t)
    cdef _remove(self, Py_ssize_t count)
    cdef _block(self)
    cdef _wait_writable(self)
    cdef _unblock(self)
    cpdef finish(self, object timeout)
    cdef _linger(self)
    cdef bint _end_output(self) except -1
    @cython.locals(receiver=Receiver)
    cpdef end(self, object detail)
    @cython.locals(receiver=Receiver)
    cpdef crash(self, object error)


cdef int _LARGE_READS, _MOST_WRITTEN
