cpdef keep_stacks()
cpdef int count_kept()
