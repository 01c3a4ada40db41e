# cython: language_level=3
"""Masking keys for a client, unpredictable and fresh for every frame: the compiled twin of keys.py.

The two have the same functions and the same results. Here the octets stand in one array, and a key is an
object only from when it is drawn (`benchmarks/`, row "client-small"). The interpreter's lock is held
throughout, but for the call of the system.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

__all__ = ["count_keys", "drop_keys", "next_key"]

cdef enum:
    SIZE = 4096

BATCH = SIZE

cdef char octets[SIZE]
# Behind those that were drawn.
cdef int position = SIZE


cpdef bytes next_key():
    global position
    if position == SIZE:
        refill()
    position += 4
    return PyBytes_FromStringAndSize(octets + position - 4, 4)


cdef int refill() except -1:
    global position
    cdef bytes drawn = os.urandom(SIZE)
    if PyBytes_GET_SIZE(drawn) != SIZE:
        raise OSError("the system gave fewer octets of its entropy than it was asked for")
    memcpy(octets, PyBytes_AS_STRING(drawn), SIZE)
    position = 0
    return 0


cpdef Py_ssize_t count_keys():
    return (SIZE - position) // 4


cpdef drop_keys():
    global position
    position = SIZE


# Two processes must never draw from the same batch.
os.register_at_fork(after_in_child=drop_keys)
