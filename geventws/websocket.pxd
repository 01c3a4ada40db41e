cimport cython

from geventws.channel cimport Channel
from geventws.protocol.connection cimport Connection
from geventws.protocol.shared cimport SharedMessage
from geventws.wire cimport current_greenlet, monotonic


cdef class WebSocket(Channel):
    cdef long long _after_size
    cdef readonly object extensions
    cdef readonly double opened_at
    cdef readonly object request
    cdef readonly object response
    cdef readonly object subprotocol
    cdef readonly long long times_slow

    @cython.locals(core=Connection)
    cpdef put_shared(self, SharedMessage shared, object compress)
    cdef _wait_for_turn(self)
    cdef _release_fragments(self)
    cpdef bint is_slow(self)


@cython.locals(ws=WebSocket, slow=list, ready=list)
cpdef list send_to_all(list receivers, SharedMessage shared, object compress)
