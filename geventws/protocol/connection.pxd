cimport cython

from geventws.protocol.block cimport Block
from geventws.protocol.contexts cimport Deflater
from geventws.protocol.frames cimport FrameReader
from geventws.protocol.keys cimport next_key
from geventws.protocol.masking cimport build_frame, build_header
from geventws.protocol.messages cimport MessageReader
from geventws.protocol.shared cimport SharedMessage


cdef class Connection:
    cdef bint _client
    cdef object _deferred
    cdef Deflater _deflater
    cdef FrameReader _frames
    cdef bytes _held_ping
    cdef bint _inert
    cdef MessageReader _messages
    cdef Py_ssize_t _threshold
    cdef readonly object close_received
    cdef readonly object close_sent
    cdef public bint direct
    cdef readonly object error
    cdef public long long budget
    cdef public bint hold_pongs
    cdef public object message
    cdef readonly long long message_size
    cdef public list out
    cdef public Py_ssize_t out_size
    cdef readonly int phase
    cdef public int readable
    cdef readonly bytes pong
    cdef readonly object received_first
    cdef readonly long long wanted

    cpdef feed(self, bytearray buffer, Py_ssize_t end)
    cpdef feed_block(self, Py_ssize_t count)
    cpdef keep(self)
    cpdef int next_event(self) except -1
    @cython.locals(frames=FrameReader, messages=MessageReader, event=int, message=object)
    cdef int _advance(self) except -1
    cdef _act(self)
    cdef int _control(self, int opcode, bytes payload) except -1
    cdef _go_inert(self)
    cpdef release_pongs(self)
    cpdef receive_end(self)
    @cython.locals(header=bytes)
    cdef _put(self, int first, object payload)
    @cython.locals(last=object, out=list)
    cdef _append(self, bytes frame)
    @cython.locals(text=bint)
    cpdef send(self, object data, object compress=*)
    cpdef send_shared(self, SharedMessage shared, object compress=*)
    @cython.locals(first=int)
    cpdef send_fragment(self, object data, int opcode, bint fin)
    cpdef send_ping(self, bytes payload)
    cpdef fail(self, object error)
    cdef _move(self, object step)
    cpdef close_deflater(self)
    cpdef bint awaits_end(self)
    cpdef bint close_ok(self)
    cpdef object closed_error(self, object detail=*)


cdef Py_ssize_t _LARGE, _MANY
cdef int _OPEN, _CLOSE_DONE, _ENDED
