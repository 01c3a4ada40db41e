cpdef bytes unmask(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key, int phase)
cpdef str unmask_text(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key)
cpdef bytes build_frame(int first, object payload, bytes key)
