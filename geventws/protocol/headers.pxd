cimport cython


cdef class Headers:
    cdef readonly tuple _keys
    cdef readonly tuple _names
    cdef readonly tuple _values

    @cython.locals(found=str, index=Py_ssize_t, key=str, keys=tuple, size=Py_ssize_t, values=list)
    cpdef list get_all(self, str name)


@cython.locals(headers=Headers)
cpdef Headers make_headers(tuple keys, tuple names, tuple values)
