cpdef bytes next_key()
