"""Padding of any axes by a value or by elements of the tensor itself."""
from itertools import accumulate

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from . cimport runtime
from .c cimport *
from .elementwise cimport contiguous
from .tensor cimport TensorBase, empty, empty_channels_last, memory_order


cdef class Axis:
    """Where the elements along one axis come from."""
    cdef int64_t *source
    cdef int64_t *into_at
    cdef int64_t *into
    cdef int64_t *run
    cdef int64_t size, out, runs
    cdef bint same  # nothing changes along it

    def __cinit__(self, int64_t size, list source):
        """source: for each output the input, or -1."""
        cdef int64_t o, i
        made, runs = [[] for _ in range(size)], []
        for o, i in enumerate(source):
            if i >= 0:
                made[i].append(o)
            if o and (i == source[o - 1] + 1 and i > 0 or i < 0 and source[o - 1] < 0):
                runs[len(runs) - 1][2] += 1
            else:
                runs.append([o, i, 1])
        self.size, self.out, self.runs = size, len(source), len(runs)
        self.same = source == list(range(size))
        self.source = _table(source)
        self.into_at = _table([0, *accumulate(len(found) for found in made)])
        self.into = _table([o for found in made for o in found])
        self.run = _table([v for run in runs for v in run])

    cdef void keep(self):
        runtime.keep(self.source, <size_t>self.out * sizeof(int64_t), self)
        runtime.keep(self.into_at, <size_t>(self.size + 1) * sizeof(int64_t), self)
        runtime.keep(self.into, <size_t>self.into_at[self.size] * sizeof(int64_t), self)
        runtime.keep(self.run, <size_t>(3 * self.runs) * sizeof(int64_t), self)

    def __dealloc__(self):
        PyMem_Free(self.source)
        PyMem_Free(self.into_at)
        PyMem_Free(self.into)
        PyMem_Free(self.run)


cdef int64_t *_table(list values) except NULL:
    cdef int64_t i
    cdef int64_t *p = <int64_t *>PyMem_Malloc((len(values) + 1) * sizeof(int64_t))
    if p == NULL:
        raise MemoryError()
    for i in range(len(values)):
        p[i] = values[i]
    return p


cdef void _fill(nn_pad_args *a, tuple axes, bint channels_last):
    """The axes in memory order, those that stay as they are at the end taken together."""
    cdef int i, n = len(axes)
    cdef int64_t[8] order
    cdef Axis axis
    for i in range(n):
        order[i] = i
    if channels_last:
        memory_order(n, order)
    a.inner = 1
    while n > 1 and (<Axis>axes[order[n - 1]]).same:
        n -= 1
        a.inner *= (<Axis>axes[order[n]]).size
    a.ndim = n
    for i in range(n):
        axis = <Axis>axes[order[i]]
        a.extent[i], a.out[i] = axis.size, axis.out
        a.from_[i], a.into_at[i], a.into[i] = axis.source, axis.into_at, axis.into
        axis.keep()
    axis = <Axis>axes[order[n - 1]]
    a.runs, a.run = axis.runs, axis.run


cdef TensorBase _result(TensorBase x, tuple axes, bint back):
    cdef int64_t[8] dims
    cdef int i
    for i in range(x.ndim):
        dims[i] = (<Axis>axes[i]).size if back else (<Axis>axes[i]).out
    return empty_channels_last(x.code, x.ndim, dims) if x.channels_last else empty(x.code, x.ndim, dims)


def forward(TensorBase x, tuple axes, value):
    """x (float32, float64 or int64) padded, an Axis for each of its dimensions; channels-last if x is."""
    cdef nn_pad_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase y
    cdef float f
    cdef double d
    x = x if x.channels_last else contiguous(x)
    y = _result(x, axes, False)
    _fill(&a, axes, x.channels_last)
    if x.code == NN_FLOAT32:
        f = value
        memcpy(&a.value, &f, sizeof(f))
    elif x.code == NN_FLOAT64:
        d = value
        memcpy(&a.value, &d, sizeof(d))
    else:
        a.value = value
    a.x, a.y = x.data, y.data
    runtime.run(NN_K_pad, NN_FLOAT32 if x.code == NN_FLOAT32 else NN_FLOAT64, &a)
    return y


def backward(TensorBase dy, tuple axes):
    """dX from dY."""
    cdef nn_pad_args a
    memset(&a, 0, sizeof(a))
    cdef TensorBase dx
    dy = dy if dy.channels_last else contiguous(dy)
    dx = _result(dy, axes, True)
    _fill(&a, axes, dy.channels_last)
    a.x, a.y = dy.data, dx.data
    runtime.run(NN_K_pad_backward, dy.code, &a)
    return dx
