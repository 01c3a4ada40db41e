cdef void xor(char *target, const char *source, Py_ssize_t length, const char *key, int phase) noexcept nogil
cdef int check_octets(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key) except -1
cpdef bytes read_key(bytearray buffer, Py_ssize_t position)
cpdef bytes unmask(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key, int phase)
cpdef str unmask_text(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key)
cpdef bytes build_header(int first, long long length)
cpdef bytes build_frame(int first, object payload, bytes key)
