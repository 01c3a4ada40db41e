cimport cython

from geventws.protocol.headers cimport Headers
from geventws.protocol.heads cimport Fields, HeadReader


cdef class Request:
    cdef public object environ
    cdef public object headers
    cdef public object method
    cdef public object path
    cdef public object query
    cdef public object remote_address
    cdef public object target


cdef class RequestParser(HeadReader):
    @cython.locals(head=bytes)
    cpdef receive_data(self, bytes data)


cdef class ResponseParser(HeadReader):
    cdef Fields _fields
    cdef object _max_body
    cdef object _parser
    cdef object _response

    cdef _parse(self, bytes head)
    cdef _receive_body(self, bytes data)
    cdef bint _is_full(self) except -1
    cdef _finish(self)


@cython.locals(line=bytes, parts=list, target=bytes, version=bytes, fields=Fields, request=Request)
cdef Request _parse_request(bytes head)
cdef _check_routing(Request request)
@cython.locals(codings=list)
cdef _check_framing(Headers headers)
