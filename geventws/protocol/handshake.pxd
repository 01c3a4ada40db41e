cimport cython

from geventws.protocol.headers cimport Headers
from geventws.protocol.http cimport Request


cpdef accept_key(key)
@cython.locals(headers=Headers, upgrade=list, connection=list)
cpdef check_request(Request request)
cdef _check_no_body(Headers headers)
cdef _check_version(Headers headers)
cdef _single(Headers headers, name)
cdef bint _names_websocket(list upgrade) except -1
cdef bint _has_upgrade_token(list connection) except -1
cdef bint _is_key(key) except -1
