cpdef bytes next_key()
cpdef Py_ssize_t count_keys()
cpdef drop_keys()
