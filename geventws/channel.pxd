cimport cython

from geventws.protocol.connection cimport Connection
from geventws.receiver cimport Receiver
from geventws.transport cimport Transport
from geventws.wire cimport current_greenlet, parent_of, switch


cdef class Channel(Receiver):
    cdef dict __dict__
    cdef object __weakref__
    cdef list _after_fragments
    cdef list _closers
    cdef Connection _core
    cdef object _detail
    cdef bint _discarding
    cdef object _fragment_sender
    cdef Py_ssize_t _head
    cdef object _hub
    cdef object _keepalive
    cdef long long _max_queue
    cdef long long _max_queue_bytes
    cdef bint _more
    cdef object _options
    cdef object _pongs
    cdef list _queue
    cdef long long _queue_bytes
    cdef object _receiving
    cdef bint _scheduled
    cdef object _senders
    cdef bint _terminal
    cdef Transport _transport
    cdef tuple _urgent
    cdef long long _write_limit
    cdef readonly object id
    cdef public object keepalive_slot
    cdef readonly object latency
    cdef readonly long long messages_discarded
    cdef readonly long long messages_received
    cdef readonly long long messages_sent
    cdef public object on_end

    cdef _start(self, bytes early_data)
    cpdef handle_input(self)
    @cython.locals(core=Connection, event=int)
    cdef _decode(self)
    cdef bint _full(self)
    cdef Py_ssize_t _waiting(self)
    @cython.locals(head=Py_ssize_t, queue=list)
    cdef _take(self)
    cdef _discard(self)
    cdef _resume(self)
    cdef _schedule(self)
    cdef bint _wait(self) except -1
    cdef _catch_up(self)
    cdef _park(self)
    cdef bint _wait_timed(self, object timeout) except -1
    cdef _current(self, object what)
    cdef bint _blocked(self, object current)
    @cython.locals(mine=bint)
    cdef _wait_writable(self)
    cdef _wait_for_room(self)
    cpdef handle_drained(self)
    cpdef begin_close(self, object code, object reason)
    cdef _act(self)
    cdef _closed_error(self)
    cdef _check_open(self)
    cpdef handle_end(self, object detail)
    cpdef handle_error(self, object error)
    cdef _wake_all(self)
    cdef bint _wait_ended(self, object timeout)


cdef int _NEED_DATA, _MESSAGE, _PONG, _MORE
