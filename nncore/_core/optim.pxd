cdef class Groups:
    cdef dict attributes
    cdef object state, groups
    cdef tuple params        # (group, its list of parameters, what is in that) of each group
    cdef tuple held          # (state of a parameter, the tensors in it, None for what is no tensor) of each parameter
    cdef bint same(self) except -1
