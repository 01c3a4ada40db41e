cimport cython

from geventws.protocol.connection cimport Connection
from geventws.transport cimport Receiver, Transport
from geventws.wire cimport switch


cdef class WebSocket(Receiver):
    cdef dict __dict__
    cdef object __weakref__
    cdef int _budget
    cdef list _closers
    cdef Connection _core
    cdef bint _decode_scheduled
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
    cdef object _senders
    cdef list _sizes
    cdef bint _terminal
    cdef Transport _transport
    cdef long long _write_limit
    cdef readonly object extensions
    cdef readonly object id
    cdef public object keepalive_slot
    cdef public object latency
    cdef readonly long long messages_discarded
    cdef readonly long long messages_received
    cdef readonly long long messages_sent
    cdef public object on_end
    cdef readonly object request
    cdef readonly object subprotocol
    cdef readonly long long times_slow

    @cython.locals(head=Py_ssize_t, queue=list)
    cdef _take(self)
    cdef _resume(self)
    cdef _wait_for_message(self, object timeout)
    cdef _wait_in_hub(self)
    cdef bint _full(self)
    @cython.locals(core=Connection, event=int)
    cdef _decode(self)
    cpdef handle_input(self)
    cdef _schedule(self)
    cdef _act(self)
    cdef _closed(self)
    cdef bint _blocked(self, object current)
    cdef _wait_writable(self)
    cpdef handle_drained(self)
    cpdef send_shared(self, object shared, object compress)
    cpdef bint is_slow(self)
    cpdef begin_close(self, object code, object reason)
    cpdef handle_end(self, object detail)
    cpdef handle_error(self, object error)
    cdef _wake_all(self)


cdef long long _UNLIMITED
cdef int _NEED_DATA, _MESSAGE, _PONG
