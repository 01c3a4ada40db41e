# cython: language_level=3
"""Masking (RFC 6455 section 5.3) and the loops over octets: the compiled twin of masking.py.

The two have the same functions and the same results. Here are only the things that Python cannot
say: words instead of octets, and a bytes object that is filled after it was made.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

__all__ = ["build_frame", "build_header", "read_key", "unmask", "unmask_text"]

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    str PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors)
    bytes PyUnicode_AsUTF8String(object text)
    bint PyUnicode_IS_ASCII "PyUnicode_IS_COMPACT_ASCII" (object text)
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)
    void *PyUnicode_DATA(object text) noexcept


cdef void xor(char *target, const char *source, Py_ssize_t length, const char *key, int phase) noexcept nogil:
    """Copy octets from `source` to `target` (which may be the same), exclusive-or the key."""
    cdef char turned[8]
    cdef uint64_t mask, word
    cdef Py_ssize_t i
    for i in range(8):
        turned[i] = key[(phase + i) & 3]
    memcpy(&mask, turned, 8)
    i = 0
    # memcpy of eight octets is one load or store at any alignment; compilers make vectors of it.
    while i + 8 <= length:
        memcpy(&word, source + i, 8)
        word ^= mask
        memcpy(target + i, &word, 8)
        i += 8
    while i < length:
        target[i] = source[i] ^ turned[i & 7]
        i += 1


cdef bint xor_ascii(char *target, const char *source, Py_ssize_t length, const char *key) noexcept nogil:
    """As `xor` from phase 0, to another place; False as soon as something is not ASCII."""
    cdef char turned[8]
    cdef uint64_t mask, word, seen
    cdef Py_ssize_t i, end
    for i in range(8):
        turned[i] = key[i & 3]
    memcpy(&mask, turned, 8)
    i = 0
    while i < length:
        seen = 0
        end = min(i + 4096, length)
        while i + 8 <= end:
            memcpy(&word, source + i, 8)
            word ^= mask
            seen |= word
            memcpy(target + i, &word, 8)
            i += 8
        while i < end:
            target[i] = source[i] ^ turned[i & 7]
            seen |= <unsigned char>target[i]
            i += 1
        if seen & <uint64_t>0x8080808080808080:
            return False
    return True


cdef int check_octets(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key) except -1:
    """Raise unless the octets lie in the buffer and the key is one."""
    if buffer is None:
        # To Cython None is a bytearray too.
        raise TypeError("a buffer is a bytearray")
    if not 0 <= start <= end <= PyByteArray_GET_SIZE(buffer):
        raise IndexError("octets outside of the buffer")
    if key is not None and PyBytes_GET_SIZE(key) != 4:
        raise IndexError("a masking key has four octets")
    return 0


cpdef bytes read_key(bytearray buffer, Py_ssize_t position):
    if buffer is None:
        # To Cython None is a bytearray too.
        raise TypeError("a buffer is a bytearray")
    if not 0 <= position <= PyByteArray_GET_SIZE(buffer) - 4:
        raise IndexError("octets outside of the buffer")
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer) + position, 4)


cpdef bytes unmask(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key, int phase):
    check_octets(buffer, start, end, key)
    cdef char *source = PyByteArray_AS_STRING(buffer) + start
    if key is None:
        return PyBytes_FromStringAndSize(source, end - start)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, end - start)
    xor(PyBytes_AS_STRING(result), source, end - start, PyBytes_AS_STRING(key), phase & 3)
    return result


cpdef str unmask_text(bytearray buffer, Py_ssize_t start, Py_ssize_t end, bytes key):
    check_octets(buffer, start, end, key)
    cdef char *source = PyByteArray_AS_STRING(buffer) + start
    cdef str text
    if key is not None:
        if end > start:
            # Text is ASCII mostly: its octets and its characters are the same, and one pass does both.
            text = PyUnicode_New(end - start, 127)
            if xor_ascii(<char *>PyUnicode_DATA(text), source, end - start, PyBytes_AS_STRING(key)):
                return text
        xor(source, source, end - start, PyBytes_AS_STRING(key), 0)
    return PyUnicode_DecodeUTF8(source, end - start, NULL)


cdef int header_size(Py_ssize_t length) noexcept:
    return 2 + (0 if length < 126 else 2 if length < 65536 else 8)


cdef void write_header(char *target, int first, int masked, Py_ssize_t length) noexcept:
    """Write the octets of a header before the masking key."""
    cdef int i
    target[0] = <char>first
    # RFC 6455 section 5.2: the shortest of three forms of the length.
    if length < 126:
        target[1] = <char>(masked | length)
    elif length < 65536:
        target[1] = <char>(masked | 126)
        target[2] = <char>(length >> 8)
        target[3] = <char>length
    else:
        target[1] = <char>(masked | 127)
        for i in range(8):
            target[2 + i] = <char>(<uint64_t>length >> (56 - 8 * i))


cpdef bytes build_header(int first, long long length):
    if not 0 <= first < 256 or length < 0:
        raise ValueError("a header has an octet and a length")
    cdef bytes result = PyBytes_FromStringAndSize(NULL, header_size(length))
    write_header(PyBytes_AS_STRING(result), first, 0, length)
    return result


cpdef bytes build_frame(int first, object payload, bytes key):
    cdef Py_ssize_t length
    cdef const char *data
    cdef object held = payload
    if isinstance(payload, str):
        if not PyUnicode_IS_ASCII(payload):
            # PyUnicode_AsUTF8AndSize would leave the encoded copy in the application's string.
            held = PyUnicode_AsUTF8String(payload)
            data = PyBytes_AS_STRING(held)
            length = PyBytes_GET_SIZE(held)
        else:
            data = PyUnicode_AsUTF8AndSize(payload, &length)
    elif isinstance(payload, bytes):
        data = PyBytes_AS_STRING(payload)
        length = PyBytes_GET_SIZE(payload)
    else:
        raise TypeError("a payload is bytes or str")
    if key is not None and PyBytes_GET_SIZE(key) != 4:
        raise IndexError("a masking key has four octets")
    cdef int masked = 0 if key is None else 0x80
    cdef int start = header_size(length) + (0 if key is None else 4)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, start + length)
    cdef char *target = PyBytes_AS_STRING(result)
    write_header(target, first, masked, length)
    if key is None:
        memcpy(target + start, data, length)
    else:
        memcpy(target + start - 4, PyBytes_AS_STRING(key), 4)
        xor(target + start, data, length, PyBytes_AS_STRING(key), 0)
    return result
