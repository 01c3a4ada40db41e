cimport cython

from geventws.channel cimport Channel
from geventws.protocol.connection cimport Connection
from geventws.wire cimport current_greenlet


cdef class WebSocket(Channel):
    cdef long long _after_size
    cdef readonly object extensions
    cdef readonly object request
    cdef readonly object subprotocol
    cdef readonly long long times_slow

    @cython.locals(core=Connection)
    cpdef send_shared(self, object shared, object compress)
    cdef _wait_for_turn(self)
    cdef _release_fragments(self)
    cpdef bint is_slow(self)
