from geventws.protocol.block cimport Block

cpdef Py_ssize_t receive_block(int descriptor, Block block, Py_ssize_t count, bytearray buffer) except -2
cpdef Py_ssize_t receive_into(int descriptor, bytearray buffer) except -2
cpdef bint has_unread(int descriptor) except -1
cpdef Py_ssize_t send_chunks(int descriptor, list chunks, Py_ssize_t offset, bint last=*) except -2
cpdef double monotonic() noexcept
cpdef object current_greenlet()
cpdef object parent_of(object thing)
cpdef int switch(object target) except -1
