cimport cython

from geventws.protocol.connection cimport Connection
from geventws.websocket cimport WebSocket


@cython.locals(core=Connection)
cpdef close_cause(WebSocket ws)
@cython.locals(core=Connection)
cpdef count_end(object stats, WebSocket ws, object cause)
@cython.locals(core=Connection)
cpdef log_end(WebSocket ws, object cause)
